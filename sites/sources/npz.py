"""`npz`: images in one NumPy file with the keys of MedMNIST, and whatever it tells of patients."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge

from fedunlearn.core import IGNORED, InputError, Problem
from sites.collection import Collection
from sites.formats import sizes
from sites.pixels import channels_first, resized
from sites.watching import Watch, unwatched

Array = npt.NDArray[Any]

SPLITS = ("train", "val", "test")
_COLUMN = {"patient_id": "patient", "names": "image", "ids": "image"}
_IDS = ("patient", "image", "site")
_CORRUPT = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, OSError)


@dataclass(frozen=True, kw_only=True)
class Npz:
    """A NumPy file with ``train_images``, ``train_labels`` and the same for val and test, as of MedMNIST.

    Present splits are pooled, since splits are made by patient here. Every other ``<split>_<name>`` with one entry
    per image becomes a column: ``_patient_id`` (without it every image is a patient of its own), ``_names`` or
    ``_ids`` (image ids), ``_site``, ``_sex``, ``_age``, …. Labels are classes (N,) or (N, 1), or label maps shaped
    like the images, with 0 for background and 255 for voxels to be ignored: then it is a segmentation, in 3D for
    volumes (N, D, H, W). Ids are no people: the left and the right of one person, say, may be two of them, and
    forgetting one leaves the other.

    Attributes:
        path: the file, relative to the data root.
        size: edge of the images after resizing, in pixels; None for as they are. Not for label maps.
    """

    name: Literal["npz"] = "npz"
    path: str
    size: Annotated[int, Ge(4)] | None = None

    def problems(self, root: Path) -> list[Problem]:
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
            headers = sizes.npz(file)
        except _CORRUPT as error:
            return [_damaged(file, error)]
        messages = _wrong(headers) or self._wrong_size(headers)
        if not messages and (excess := sizes.excess(headers)):
            messages = [excess]
        return [Problem(f"npz: {file}: {message}") for message in messages]

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Read the file; see `Source.load`."""
        if problems := self.problems(root):
            raise InputError(problems)
        file = root / self.path
        try:
            with np.load(file, allow_pickle=False) as opened:
                arrays = _pooled(opened)
        except _CORRUPT as error:
            raise InputError([_damaged(file, error)]) from error
        pixels, labels = channels_first(arrays.pop("images")), arrays.pop("labels")
        maps = labels.ndim > 2
        targets = labels if maps else labels.reshape(-1).astype(np.int64)
        table = _table(arrays, len(pixels))
        if messages := _wrong_values(pixels, targets, table):
            raise InputError([Problem(f"npz: {file}: {message}") for message in messages])
        synthetic = "patient" not in arrays
        return Collection(
            pixels=pixels if self.size is None else resized(pixels, self.size),
            targets=targets.astype(np.min_scalar_type(targets.max()))
            if maps
            else targets,  # int64 is 8 times as large
            table=table,
            classes=int(_classes(targets)[-1]) + 1,
            synthetic_patients=synthetic,
            kind="segmentation" if maps else "classification",
            note=f"{len(pixels)} {'volumes' if pixels.ndim == 5 else 'images'} of {self.path}; "
            + ("it tells no patients, so each image is one." if synthetic else "patient ids are its own."),
        )

    def _wrong_size(self, headers: Mapping[str, sizes.Claim]) -> list[str]:
        maps = any(key.endswith("_labels") and len(header.shape) > 2 for key, header in headers.items())
        if maps and self.size is not None:
            return ["size is given, but the labels are maps and cannot be resized: leave it out"]
        return []


def _wrong(headers: Mapping[str, sizes.Claim]) -> list[str]:
    """What is wrong with the arrays, as far as headers tell."""
    splits = [s for s in SPLITS if f"{s}_images" in headers or f"{s}_labels" in headers]
    if not splits:
        return [
            f"found the arrays {', '.join(sorted(headers)) or 'none'}, expected train_images and train_labels"
        ]
    if objects := sorted(key for key, header in headers.items() if header.dtype.hasobject):
        return [
            f"{', '.join(objects)} has Python objects, which would have to be unpickled: save numbers or text"
        ]
    messages = []
    names = sorted({key.removeprefix(f"{s}_") for s in splits for key in headers if key.startswith(f"{s}_")})
    for name in names:
        if missing := [f"{s}_{name}" for s in splits if f"{s}_{name}" not in headers]:
            messages.append(f"found no array {', '.join(missing)}, expected one for every split: add it")
        elif len({(headers[f"{s}_{name}"].shape[1:], _family(headers[f"{s}_{name}"])) for s in splits}) > 1:
            alike = ", ".join(f"{s}_{name} {headers[f'{s}_{name}']}" for s in splits)
            messages.append(f"found {alike}, expected the same kind and shape in every split: convert them")
    for split in splits:
        messages += _wrong_split(
            split, {n: headers[f"{split}_{n}"] for n in names if f"{split}_{n}" in headers}
        )
    return messages


def _family(header: sizes.Claim) -> str:
    """Dtypes of one family can be pooled."""
    return "integer" if header.dtype.kind in "iu" else header.dtype.kind


def _wrong_split(split: str, columns: Mapping[str, sizes.Claim]) -> list[str]:
    images, labels = columns.get("images"), columns.get("labels")
    if images is None or labels is None:
        return []
    messages = _wrong_images(f"{split}_images", images) + _wrong_labels(f"{split}_labels", labels, images)
    for name, header in columns.items():
        if name != "labels" and header.shape[:1] != images.shape[:1]:
            count = header.shape[0] if header.shape else 0
            messages.append(
                f"found {count} entries in {split}_{name}, expected {images.shape[0]}, one per image"
            )
    return messages


def _wrong_images(key: str, images: sizes.Claim) -> list[str]:
    if images.dtype not in (np.uint8, np.float32):
        return [f"{key} has dtype {images.dtype}, expected uint8, or float32 within -1…1: convert it"]
    if len(images.shape) not in (3, 4) and not (len(images.shape) == 5 and images.shape[-1] == 1):
        return [f"{key} has shape {images.shape}, expected (N, H, W), (N, H, W, 3) or (N, D, H, W)"]
    return []


def _wrong_labels(key: str, labels: sizes.Claim, images: sizes.Claim) -> list[str]:
    count = images.shape[:1]
    if labels.dtype.kind not in "iu":
        return [f"{key} has dtype {labels.dtype}, expected integers: number the classes from 0"]
    if len(labels.shape) == 2 and labels.shape[1] > 1:
        return [f"{key} has {labels.shape[1]} labels per image, expected one: keep one column"]
    colours = images.shape[-1:] in ((1,), (3,)) and len(images.shape) > 3
    maps = images.shape[:-1] if colours else images.shape
    if labels.shape not in (count, (*count, 1), maps):
        return [f"{key} has shape {labels.shape}, expected {(*count, 1)}, or label maps of shape {maps}"]
    return []


def _damaged(file: Path, error: Exception) -> Problem:
    return Problem(
        f"npz: {file} is damaged or no .npz file ({error}): get it again, or save it with numpy.savez"
    )


def _pooled(file: Mapping[str, Array]) -> dict[str, Array]:
    """Every array over all splits, by its column name; image ids are made where there are none."""
    splits = [s for s in SPLITS if f"{s}_images" in file]
    names = [key.removeprefix(f"{splits[0]}_") for key in file if key.startswith(f"{splits[0]}_")]
    pooled = {_COLUMN.get(n, n): np.concatenate([file[f"{s}_{n}"] for s in splits]) for n in names}
    if "image" not in pooled:
        counts = [(s, len(file[f"{s}_labels"])) for s in splits]
        pooled["image"] = np.array([f"{s}-{i:06d}" for s, count in counts for i in range(count)])
    return pooled


def _table(columns: Mapping[str, Array], count: int) -> pd.DataFrame:
    """Ids as text, other columns as they are; several numbers per image as text, such as 31x40x24."""
    plain = {}
    for name, values in columns.items():
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        if values.ndim > 1:
            values = np.array(["x".join(map(str, row.reshape(-1).tolist())) for row in values])
        plain[name] = values.astype(str) if name in _IDS and values.dtype.kind in "iu" else values
    plain.setdefault("patient", plain["image"])
    order = ["image", "patient", *(name for name in plain if name not in ("image", "patient"))]
    return pd.DataFrame({name: plain[name] for name in order}, index=range(count))


def _wrong_values(pixels: Array, targets: Array, table: pd.DataFrame) -> list[str]:
    messages = []
    if not len(pixels):
        return ["found no images, expected some"]
    if pixels.dtype == np.float32 and not np.abs(pixels).max() <= 1:  # NaN is not either
        first = table["image"].iloc[[not np.abs(image).max() <= 1 for image in pixels].index(True)]
        messages.append(
            f"images are float32 but not all within -1…1 (first is {first!r}): scale them, or save them as uint8"
        )
    found = _classes(targets)
    if targets.ndim > 1 and len(found) < 2:
        messages.append(
            f"found the labels {np.unique(targets).tolist()}, expected 0 for background and at least 1: number the "
            f"structures from 1 ({IGNORED} stands for voxels to be ignored)"
        )
    elif found[0] != 0 or found[-1] != len(found) - 1:
        messages.append(
            f"found the labels {found[:12].tolist()}, the last of them first in {_holder(targets, found[-1], table)}, "
            "expected 0, 1, … without a gap: renumber them"
        )
    for column in set(_IDS) & set(table.columns):
        values = np.asarray(table[column])
        if values.dtype.kind == "f":
            messages.append(f"{column} ids are decimal numbers, expected integers or text")
        elif (np.asarray(values, dtype=str) == "").any():
            messages.append(f"some {column} ids are empty, expected one for every image")
    if not table["image"].is_unique:
        twice = table["image"][table["image"].duplicated()].iloc[0]
        messages.append(f"found the image id {twice!r} more than once, expected unique names")
    return messages


def _classes(targets: Array) -> Array:
    """The labels that occur, sorted; without `IGNORED` in maps."""
    found = np.unique(targets)
    return found[found != IGNORED] if targets.ndim > 1 else found


def _holder(targets: Array, label: int, table: pd.DataFrame) -> str:
    """The first image that has the label, or whose map has it."""
    row = next(row for row, target in enumerate(targets) if (target == label).any())
    return repr(table["image"].iloc[row])
