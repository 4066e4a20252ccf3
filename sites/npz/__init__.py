"""`npz`: images in one NumPy file with the keys of MedMNIST, and whatever it tells of patients."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from fedunlearn.core import InputError, Problem
from sites.collection import Collection
from sites.companions import NOTHING, Beside, joined
from sites.copies import contradicting
from sites.formats import sizes
from sites.formats.unreadable import Unreadable, blaming
from sites.identity import listed
from sites.npz import headers as npz_headers, values as npz_values
from sites.npz.beside import beside
from sites.npz.headers import COLUMN, channels_in_front, splits_of, strays
from sites.npz.labelled import Labelled
from sites.npz.table import as_text, table_of
from sites.pixels import channels_first, ranges, resized
from sites.watching import Watch, unwatched

Array = npt.NDArray[Any]

_NAMES = "findings"
"""The array that names the columns of several findings."""


@dataclass(frozen=True, kw_only=True)
class Npz:
    """A NumPy file with ``train_images``, ``train_labels`` and the same for val and test, as of MedMNIST.

    Present splits are pooled, since splits are made by patient here; which one an image came from is column ``split``.
    Every other ``<split>_<name>`` with one entry per image becomes a column: ``_patient_id`` (without it every image
    is a patient of its own), ``_names`` or ``_ids`` (image ids), ``_site``, ``_sex``, ``_age``, …. Labels are classes
    (N,) or (N, 1), whole numbers in the order of their value or names; label maps shaped like the images, with 0
    for background and 255 for voxels to be ignored: then it is a segmentation, in 3D for volumes (N, D, H, W); or
    several findings (N, F), each 1, 0, or -1, 255 or NaN where nobody knows. Ids
    are no people: the left and the right of one person, say, may be two of them, and forgetting one leaves the other.

    Attributes:
        path: the file, relative to the data root.
        size: edge of the images after resizing, in pixels; None for as they are. Not for label maps.
        table: a CSV or Parquet file relative to the data root, with a row for each image (column ``image``), whose
            other columns come to those of the file.
        label: the column to take labels from, of the file or the table, in place of ``_labels``.
        findings: where an image can have several: the names of the columns of (N, F) labels, or those of the findings
            to be read from cells such as Effusion|Mass or No Finding, others being left out; ``all`` for all there are,
            called as the file's array ``findings`` says, or by their numbers. (N, F) labels of which every row has
            just one 1 are findings only with it: else they would be one class, written as one-hot.
        beside: what comes beside each image with one class: a report, or numbers, out of the columns.
    """

    name: Literal["npz"] = "npz"
    path: str
    size: Annotated[int, Ge(4)] | None = None
    table: str | None = None
    label: str | None = None
    findings: tuple[str, ...] | Literal["all"] | None = None
    beside: Beside = NOTHING

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
            label = self._array(headers)
            messages = npz_headers.wrong(headers, label) or self._wrong_size(headers, label)
            if not messages and (excess := sizes.excess(headers)):
                messages = [excess]
            messages = messages or self._wrong_kinds(file, headers, label)
        except Unreadable as error:
            return [Problem(f"npz: {file} {error}")]
        return [Problem(f"npz: {file}: {message}") for message in messages]

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Read the file; see `Source.load`."""
        if problems := self._problems(root):
            raise InputError(problems)
        file, notes = root / self.path, list[str]()
        arrays, left, called = _read(file)
        if left:
            notes.append(f"the arrays {listed(left)} are left out, since they belong to no part")
        pixels, labels = _images(arrays.pop("images"), notes), arrays.pop("labels")
        if not len(pixels):
            raise InputError([Problem(f"npz: {file}: found no images, expected some")])
        if self.table is not None:
            arrays |= beside(root / self.table, as_text(arrays["image"]), arrays, notes)
        if self.label is not None:
            labels = self._column(arrays, notes)
        table, problems = table_of(arrays, len(pixels), file, notes)
        images = table["image"].tolist()
        read = Labelled(file, images, table["patient"].tolist(), labels, notes).read(self.findings, called)
        wrong = npz_values.wrong_pixels(pixels, images)
        if problems := [
            *(Problem(f"npz: {file}: {message}") for message in wrong),
            *problems,
            *read.problems,
        ]:
            raise InputError(problems)
        if read.kind != "segmentation":
            notes += contradicting(pixels, read.targets, images)
        synthetic = "patient" not in arrays
        collection = Collection(
            pixels=pixels if self.size is None else resized(pixels, self.size),
            targets=read.targets,
            table=table,
            classes=read.classes,
            synthetic_patients=synthetic,
            kind=read.kind,
            note=f"{len(pixels)} {'volumes' if pixels.ndim == 5 else 'images'} in {self.path}; "
            + (
                "it tells no patients, so each image is taken for one."
                if synthetic
                else "patient ids are those in it."
            )
            + read.told,
            names=read.names,
            notes=tuple(notes),
            seen=ranges(pixels, "NPZ"),
        )
        return joined(collection, self.beside, f"npz: {file}")

    def _column(self, arrays: dict[str, Array], notes: list[str]) -> Array:
        """The labels from a column, which is taken out of ``arrays``.

        Raises:
            InputError: there is none of that name.
        """
        if self.label in arrays and self.label not in ("image", "patient"):
            notes.append(f"labels are the column {self.label}, not the file's own")
            return arrays.pop(self.label)
        known = sorted(set(arrays) - {"image", "patient"})
        raise InputError(f"npz: label: found no column {self.label!r}, expected one of {', '.join(known)}")

    def _array(self, headers: Mapping[str, sizes.Claim]) -> str | None:
        """What the array with the labels is called after a part's name; None where the table tells them."""
        if self.label is None:
            return "labels"
        return self.label if any(f"{s}_{self.label}" in headers for s in splits_of(headers)) else None

    def _wrong_kinds(self, file: Path, headers: Mapping[str, sizes.Claim], label: str | None) -> list[str]:
        """Of arrays of a wrong type or width, what to do about their values, which are read for that."""
        splits, messages = splits_of(headers), list[str]()
        for name in npz_values.unfit(headers, splits, label):
            with _guarded(), np.load(file, allow_pickle=False) as opened:
                arrays = {f"{s}_{name}": opened[f"{s}_{name}"] for s in splits}
            messages.append(npz_values.wrong_kind(name, arrays, self.findings))
        return [message for message in messages if message]

    def _wrong_size(self, headers: Mapping[str, sizes.Claim], label: str | None) -> list[str]:
        maps = any(len(headers[f"{s}_{label}"].shape) > 2 for s in splits_of(headers) if label is not None)
        if maps and self.size is not None:
            return ["size is given, but the labels are maps and cannot be resized: leave it out"]
        return []


def _guarded() -> AbstractContextManager[None]:
    """Blames a file for whatever NumPy raises of damaged ones."""
    return blaming("an .npz file", zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError)


def _read(file: Path) -> tuple[dict[str, Array], list[str], list[str]]:
    """Its arrays, pooled over all parts, the names of those that belong to none, and what it calls its findings.

    Raises:
        InputError: it is damaged, or may not be opened.
    """
    try:
        with _guarded(), np.load(file, allow_pickle=False) as opened:
            called = as_text(opened[_NAMES].reshape(-1)) if _NAMES in opened else []
            return _pooled(opened), [name for name in strays(opened) if name != _NAMES], called
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
