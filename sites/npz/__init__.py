"""`npz`: images in one NumPy file with the keys of MedMNIST, and whatever it tells of patients."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from fedunlearn.core import IGNORED, InputError, Problem
from sites.collection import Collection
from sites.formats import sizes
from sites.formats.unreadable import Unreadable, blaming
from sites.identity import in_words, listed
from sites.labels import read_labels
from sites.npz import headers as npz_headers, values as npz_values
from sites.npz.headers import COLUMN, channels_in_front, splits_of, strays
from sites.npz.table import as_text, table_of
from sites.pixels import channels_first, ranges, resized
from sites.rows import Fault, grouped
from sites.watching import Watch, unwatched

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Npz:
    """A NumPy file with ``train_images``, ``train_labels`` and the same for val and test, as of MedMNIST.

    Present splits are pooled, since splits are made by patient here; which one an image came from is column ``split``.
    Every other ``<split>_<name>`` with one entry per image becomes a column: ``_patient_id`` (without it every image
    is a patient of its own), ``_names`` or ``_ids`` (image ids), ``_site``, ``_sex``, ``_age``, …. Labels are classes
    (N,) or (N, 1), whole numbers in the order of their value or names, or label maps shaped like the images, with 0
    for background and 255 for voxels to be ignored: then it is a segmentation, in 3D for volumes (N, D, H, W). Ids
    are no people: the left and the right of one person, say, may be two of them, and forgetting one leaves the other.

    Attributes:
        path: the file, relative to the data root.
        size: edge of the images after resizing, in pixels; None for as they are. Not for label maps.
    """

    name: Literal["npz"] = "npz"
    path: str
    size: Annotated[int, Ge(4)] | None = None

    def _problems(self, root: Path) -> list[Problem]:
        """A file that is missing, damaged or lacks keys; arrays that do not fit one another.

        Args:
            root: where ``path`` starts.
        """
        file = root / self.path
        if not file.is_file():
            return [
                Problem(
                    f"npz: found no file {file}, expected a NumPy file with train_images, train_labels, …: "
                    "put it there or give its folder as --data-root"
                )
            ]
        try:
            with _guarded():
                headers = sizes.npz(file)
            messages = npz_headers.wrong(headers) or self._wrong_size(headers)
            if not messages and (excess := sizes.excess(headers)):
                messages = [excess]
            messages = messages or _wrong_kinds(file, headers)
        except Unreadable as error:
            return [Problem(f"npz: {file} {error}")]
        return [Problem(f"npz: {file}: {message}") for message in messages]

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Read the file; see `Source.load`."""
        if problems := self._problems(root):
            raise InputError(problems)
        file, notes = root / self.path, list[str]()
        arrays, left = _read(file)
        if left:
            notes.append(f"the arrays {listed(left)} are left out, since they belong to no part")
        pixels, labels = _images(arrays.pop("images"), notes), arrays.pop("labels")
        if not len(pixels):
            raise InputError([Problem(f"npz: {file}: found no images, expected some")])
        table, problems = table_of(arrays, len(pixels), file, notes)
        images, patients = table["image"].tolist(), table["patient"].tolist()
        maps, names = labels.ndim > 2, list[str]()
        wrong = npz_values.wrong_pixels(pixels, images)
        if maps:
            targets, faults = _maps(labels, images, notes)
            wrong += faults
        else:
            targets, names, faulty = _classes(labels.reshape(-1), images, patients, file, notes)
            problems += faulty
        if problems := [*(Problem(f"npz: {file}: {message}") for message in wrong), *problems]:
            raise InputError(problems)
        synthetic = "patient" not in arrays
        told = labels.dtype.kind in "US" and not maps
        return Collection(
            pixels=pixels if self.size is None else resized(pixels, self.size),
            targets=targets,
            table=table,
            classes=int(targets[targets != IGNORED].max()) + 1 if maps else len(names),
            synthetic_patients=synthetic,
            kind="segmentation" if maps else "classification",
            note=f"{len(pixels)} {'volumes' if pixels.ndim == 5 else 'images'} in {self.path}; "
            + (
                "it tells no patients, so each image is taken for one."
                if synthetic
                else "patient ids are those in it."
            )
            + (f" Labels: {in_words(names)}." if told else ""),
            names=tuple(names),
            notes=tuple(notes),
            seen=ranges(pixels, "NPZ"),
        )

    def _wrong_size(self, headers: Mapping[str, sizes.Claim]) -> list[str]:
        maps = any(key.endswith("_labels") and len(header.shape) > 2 for key, header in headers.items())
        if maps and self.size is not None:
            return ["size is given, but the labels are maps and cannot be resized: leave it out"]
        return []


def _wrong_kinds(file: Path, headers: Mapping[str, sizes.Claim]) -> list[str]:
    """Of arrays of a wrong type or width, what to do about their values, which are read for that."""
    splits, messages = splits_of(headers), []
    for kind in npz_values.unfit(headers, splits):
        with _guarded(), np.load(file, allow_pickle=False) as opened:
            messages.append(
                npz_values.wrong_kind(kind, {f"{s}_{kind}": opened[f"{s}_{kind}"] for s in splits})
            )
    return messages


def _guarded() -> AbstractContextManager[None]:
    """Blames a file for whatever NumPy raises of damaged ones."""
    return blaming("an .npz file", zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError)


def _read(file: Path) -> tuple[dict[str, Array], list[str]]:
    """Its arrays, pooled over all parts, and the names of those that belong to none.

    Raises:
        InputError: it is damaged, or may not be opened.
    """
    try:
        with _guarded(), np.load(file, allow_pickle=False) as opened:
            return _pooled(opened), strays(opened)
    except Unreadable as error:
        raise InputError([Problem(f"npz: {file} {error}")]) from error


def _pooled(file: Mapping[str, Array]) -> dict[str, Array]:
    """Every array over all splits, by its column name; image ids are made where there are none."""
    splits = splits_of(file)
    names = [
        key.removeprefix(f"{splits[0]}_") for key in file if key.startswith(f"{splits[0]}_")
    ]  # in their order
    pooled = {COLUMN.get(n, n): np.concatenate([file[f"{s}_{n}"] for s in splits]) for n in names}
    counts = {s: len(file[f"{s}_labels"]) for s in splits}
    if "image" not in pooled:
        pooled["image"] = np.array([f"{s}-{i:06d}" for s, count in counts.items() for i in range(count)])
    if len(splits) > 1:
        if "split" in pooled:
            pooled["data_split"] = pooled["split"]
        pooled["split"] = np.repeat(list(counts), list(counts.values()))
    return pooled


def _images(images: Array, notes: list[str]) -> Array:
    """(N, C, *spatial) in this machine's order of bytes."""
    plain = np.ascontiguousarray(images, dtype=npz_values.native(images.dtype))
    if channels_in_front(plain.shape):
        notes.append(f"images of shape {plain.shape[1:]} are read as (channels, height, width)")
        return plain
    return channels_first(plain)


# ---------------------------------------------------------------------------------------------------- labels


def _classes(
    labels: Array, images: Sequence[str], patients: Sequence[str], file: Path, notes: list[str]
) -> tuple[Array, list[str], list[Problem]]:
    """(N,) classes, their names, and what is wrong with them."""
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
        notes.append("labels are false and true: classes 0 and 1")
    if labels.dtype.kind == "f" and (infinite := np.isinf(labels)).any():
        first = images[int(infinite.argmax())]
        message = (
            f"{int(infinite.sum()):,} labels are infinite, first that of {first!r}: correct or remove them"
        )
        return labels, [], [Problem(f"npz: {file}: {message}")]
    read = read_labels(as_text(labels), patients, lambda row: f"image {images[row]!r}")
    notes += read.notes
    faults = [
        Fault(
            Problem(f"npz: {file}: label of image {images[one.row]!r}: {one.message}"),
            f"npz: labels: {one.kind}",
        )
        for one in read.misread
    ]
    whole = [Problem(f"npz: {file}: labels: {message}") for message in read.wrong]
    return read.targets, list(read.names), [*grouped(faults), *whole]


def _maps(labels: Array, images: Sequence[str], notes: list[str]) -> tuple[Array, list[str]]:
    """Label maps in as few bytes as they need, and what is wrong with them."""
    if not npz_values.whole(labels):
        finite = bool(np.isfinite(labels).all())
        fault = "that are not whole" if finite else "that are not finite (NaN or infinite)"
        return labels, [
            f"label maps have numbers {fault}, expected 0, 1, …: "
            + ("round them" if finite else "correct them, or set 255 where voxels are to be ignored")
        ]
    if labels.dtype.kind in "bf":
        notes.append(f"label maps of type {labels.dtype} are read as whole numbers")
        labels = labels.astype(np.int64)
    if faults := npz_values.wrong_maps(labels, images):
        return labels, faults
    return labels.astype(np.min_scalar_type(labels.max())), []  # int64 is 8 times as large
