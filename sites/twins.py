"""Twins: images of different patients that show the same picture, whether to the pixel or only to the eye.

Who is forgotten while a twin of theirs is retained is still known. Copies to the pixel are told by a hash of the
pixels. Copies that were compressed, resized, brightened or cropped by a pixel are told by a *fingerprint*, a
perceptual hash in numbers instead of bits, since bits of medical images of different people collide:

- the lowest coefficients of the image's cosine transform without its mean, each weighted by its frequency (in
  photographs amplitudes fall with it), scaled to length 1. What all images of a kind share then weighs little. Of
  colours, brightness counts, and the two differences of colour by a third of its frequencies: JPEG keeps few of them;
- an image's nearest others are candidates;
- a candidate is a twin if its fingerprint lies almost within the few dimensions which the image spans together with its
  first-order changes: moved, stretched, blurred or sharpened a little. Contrast is a length, brightness the mean.

A mirrored or inverted image is no twin. `benchmarks/twins.py` shows how much is found and how much is mistaken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sites.collection import Collection
from sites.copies import copies
from sites.watching import Watch, unwatched

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SMALLEST = 16
"""The shortest edge of an image that near twins are looked for of; below it, different images look alike."""
APART = 0.015
"""How far a near twin's fingerprint may be from what an image spans: 1 − cosine of the angle between them."""
_ALIKE, _NEAREST = 0.75, 8  # a candidate's least cosine with an image, and how many candidates an image has
_BACK = 0.1  # beyond, it need not be tried whether the second image spans the first
_FAINT = 2.0  # grey levels of 256: what differs by less within an image is nothing that could be told apart
_FEWEST = 12  # frequencies per axis at least: with fewer, small images of a kind look alike
_MOST = {2: 16, 3: 12}  # and at most, by dimensions
_BEYOND = {2: 8, 3: 4}  # frequencies that are kept beyond those which are compared, for the changes
_COLOURS = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32)
"""Brightness and the differences of blue and red from it, as in JPEG (ITU-T T.871)."""
_CHUNK = 2**24  # numbers that are worked on at once


@dataclass(frozen=True)
class Twins:
    """Images that show the same, of several patients.

    Attributes:
        kind: equal to the pixel, or to the eye.
        rows: their places in the collection, in order.
    """

    kind: Literal["exact", "near"]
    rows: tuple[int, ...]


def twins(collection: Collection, watch: Watch = unwatched) -> tuple[Twins, ...]:
    """All groups of images that show the same and belong to several patients, exact ones first.

    Exact groups are disjoint. A near group is a pair of pictures, each with its exact copies. Images of one single
    value show nothing, and are nobody's twins.

    Args:
        collection: the images.
        watch: is shown how far it is.
    """
    patients = np.unique(collection.table["patient"].astype(str), return_inverse=True)[1]
    groups = copies(collection.pixels)
    shared = [rows for rows in groups if len(set(patients[rows])) > 1]
    exact = [Twins("exact", tuple(rows)) for rows in shared]
    return (*exact, *_near(collection.pixels, groups, patients, watch))


def _near(pixels: Array, groups: list[list[int]], patients: Ints, watch: Watch) -> Iterator[Twins]:
    if min(pixels.shape[2:], default=0) < SMALLEST or len(groups) < 2:
        return
    marks = fingerprints(pixels, np.array([rows[0] for rows in groups]))
    owners = np.array([patients[rows[0]] for rows in groups])
    several = [len(set(patients[rows])) > 1 for rows in groups]
    owners[several] = -1 - np.arange(sum(several))  # whoever else's they are, they are somebody else's too
    for one, other, _ in marks.pairs(owners, watch=watch):
        yield Twins("near", tuple(sorted((*groups[one], *groups[other]))))


# ------------------------------------------------------------------------------------------- fingerprints


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """What images look like, in few numbers.

    Attributes:
        coefficients: (N, C, *frequencies) of the orthonormal cosine transform, some more than are compared.
        limits: by channel, the frequency below which they are compared.
        faint: (N,) whether an image shows next to nothing.
    """

    coefficients: Floats
    limits: tuple[int, ...]
    faint: npt.NDArray[np.bool_]

    def pairs(
        self, owners: Ints, most: float = APART, watch: Watch = unwatched
    ) -> Iterator[tuple[int, int, float]]:
        """Images of different ``owners`` (N,) that are ``most`` apart, in order, and how far they are."""
        seen = np.flatnonzero(~self.faint)
        prints, owners = self._compared(self.coefficients)[seen], owners[seen]
        step = max(1, min(256, _CHUNK // max(1, len(seen))))
        for start in watch(range(0, len(seen), step), "looking for twins"):
            one, other = _candidates(prints, owners, start, start + step)
            if len(one):
                apart = self._apart(prints, seen, one, other)
                near = apart <= most
                found = seen[one[near]].tolist(), seen[other[near]].tolist(), apart[near].tolist()
                yield from sorted(zip(*found, strict=True))

    def _apart(self, prints: Floats, seen: Ints, one: Ints, other: Ints) -> Floats:
        """(pairs,) how far two images are from being one."""
        apart = self._beyond(prints, seen, one, other)
        back = apart <= _BACK
        if back.any():
            apart[back] = np.minimum(apart[back], self._beyond(prints, seen, other[back], one[back]))
        return apart

    def _beyond(self, prints: Floats, seen: Ints, one: Ints, other: Ints) -> Floats:
        """(pairs,) 1 − cosine between the ``other`` image's fingerprint and what ``one`` spans with its changes."""
        images, place = np.unique(one, return_inverse=True)
        changed = _changes(self.coefficients[seen[images]])
        spanning = np.stack([self._compared(each) for each in changed], axis=1)
        cosines = np.einsum("pkd,pd->pk", spanning[place], prints[other])
        found: Floats = 1 - np.linalg.norm(
            np.einsum("pkl,pl->pk", _unmixing(spanning)[place], cosines), axis=1
        )
        return found

    def _compared(self, coefficients: Floats) -> Floats:
        """(N, numbers) what is compared of coefficients, weighted, of length 1."""
        frequency = np.sqrt(_squares(coefficients.shape[2:]))
        kept = [(frequency > 0) & (frequency < limit) for limit in self.limits]
        parts = [coefficients[:, c, where] * frequency[where] for c, where in enumerate(kept)]
        return _scaled(np.concatenate(parts, axis=1))


def fingerprints(pixels: Array, rows: Ints) -> Fingerprints:
    """The fingerprints of some images (N, C, *spatial), a few at a time; edges are `SMALLEST` at least."""
    spatial = pixels.shape[2:]
    limit = min(_MOST[len(spatial)], max(_FEWEST, 3 * min(spatial) // 7))
    bases = [_cosines(min(limit + _BEYOND[len(spatial)], edge), edge) for edge in spatial]
    made = np.empty((len(rows), pixels.shape[1], *(len(basis) for basis in bases)), np.float32)
    coloured = pixels.shape[1] == 3 and len(spatial) == 2
    step = max(1, _CHUNK // max(1, pixels[:1].size))
    for start in range(0, len(rows), step):
        part = pixels[rows[start : start + step]].astype(np.float32)
        if coloured:
            part = np.moveaxis(np.tensordot(_COLOURS, part, (1, 1)), 0, 1)
        for basis in reversed(bases):
            part = np.moveaxis(part @ basis.T, -1, 2)
        made[start : start + step] = part
    if pixels.dtype != np.uint8:
        made *= 127.5  # from [-1, 1]
    inside = _squares(made.shape[2:]) > 0
    faint = np.sqrt((made[..., inside] ** 2).sum(axis=(1, 2)) / pixels[:1].size) < _FAINT
    limits = (limit, limit // 3, limit // 3) if coloured else (limit,) * pixels.shape[1]
    return Fingerprints(made, limits, faint)


def _candidates(prints: Floats, owners: Ints, start: int, stop: int) -> tuple[Ints, Ints]:
    """Pairs of an image in a block and one of its nearest after it, of another owner."""
    alike = prints[start:stop] @ prints[start:].T
    alike[owners[start:stop, None] == owners[start:]] = -1
    alike[np.tril_indices(len(alike), 0, alike.shape[1])] = -1
    rows, ones, others = np.arange(len(alike)), list[Ints](), list[Ints]()
    for _ in range(_NEAREST):
        best = alike[rows].argmax(axis=1) if len(rows) < len(alike) else alike.argmax(axis=1)
        good = alike[rows, best] >= _ALIKE
        rows, best = rows[good], best[good]
        alike[rows, best] = -1
        ones.append(start + rows)
        others.append(start + best)
    return np.concatenate(ones), np.concatenate(others)


# ------------------------------------------------------------------------------------------- first order


def _changes(coefficients: Floats) -> Iterator[Floats]:
    """Coefficients of images, and of what they change by if moved or stretched along each axis, and if blurred."""
    yield coefficients
    for axis, count in enumerate(coefficients.shape[2:], 2):
        for operator in _operators(count):
            yield np.moveaxis(np.moveaxis(coefficients, axis, -1) @ operator.T, -1, axis)
    yield coefficients * _squares(coefficients.shape[2:])


def _unmixing(vectors: Floats) -> Floats:
    """(N, k, k) matrices that make vectors (N, k, d) of length 1 orthonormal."""
    gram = vectors @ vectors.transpose(0, 2, 1) + 1e-6 * np.eye(vectors.shape[1], dtype=np.float32)
    found: Floats = np.linalg.inv(np.linalg.cholesky(gram))
    return found


def _scaled(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: Floats = vectors / np.maximum(lengths, np.float32(1e-9))
    return found


@cache
def _cosines(count: int, points: int) -> Floats:
    """(count, points) the first orthonormal cosines over so many points."""
    places = (np.arange(points) + 0.5) / points
    rows = np.cos(np.pi * np.outer(np.arange(count), places)) * np.sqrt(2 / points)
    rows[0] /= np.sqrt(2)
    found: Floats = rows.astype(np.float32)
    return found


@cache
def _operators(count: int) -> tuple[Floats, Floats]:
    """(count, count) matrices that turn coefficients along an axis into those of f′ and of x f′, for x from -1 to 1."""
    points = 16 * count
    places, frequencies = (np.arange(points) + 0.5) / points, np.pi * np.arange(count)[:, None]
    slopes = -frequencies * np.sin(frequencies * places) * np.sqrt(2 / points)
    cosines = _cosines(count, points)
    moved, stretched = (cosines @ (slopes * by).T for by in (np.ones(points), 2 * places - 1))
    return moved.astype(np.float32), stretched.astype(np.float32)


@cache
def _squares(counts: tuple[int, ...]) -> Floats:
    """(*counts) the squared frequency of every coefficient."""
    axes = np.meshgrid(*map(np.arange, counts), indexing="ij")
    found: Floats = np.sum(np.square(axes), axis=0).astype(np.float32)
    return found
