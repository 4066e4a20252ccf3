"""`folder`: a hospital's own image files, listed in a manifest."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge, Le

from fedunlearn.core import InputError, Problem
from sites import nifti
from sites.collection import Collection
from sites.manifest import Row, cell_problems, read_manifest, row_problems, suffix
from sites.pixels import channels_first, resized
from sites.volumes import Edge, Millimetres, Stored, examine, store

Array = npt.NDArray[Any]

_GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601, as Pillow has it


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Image files (PNG, NPY, NIfTI, DICOM) listed in a CSV or Parquet manifest, with real patient ids.

    Columns: ``file`` (relative to the manifest), ``label`` (0, 1, …, or names, numbered in alphabetical order),
    ``patient``, and if known ``site``, ``image`` (a unique id; else the file) and any attributes. Ids are text:
    012 stays 012. 8-bit images stay as they are; anything else is stretched from its 0.5th…99.5th percentile to
    0…255.

    With ``label_map`` instead of ``label`` (a file, too, of labels 0 for background, 1, …, and 255 for voxels to be
    ignored, on the grid of its image) the images are NIfTI volumes to be segmented. They are made alike as
    `sites.nifti.Handling` tells, once (`sites.volumes`).

    Attributes:
        manifest: the CSV or Parquet file, relative to the data root.
        size: edge of the images after resizing, in pixels; None if all have one shape already. Not for label maps.
        channels: make 2D images grey (1) or colour (3); None for as they are. Not for label maps.
        shape: with label maps: edges in voxels to the right, to the front and up; None if all have one already.
        spacing: with label maps: edges of a voxel in millimetres; None for as they are.
        dtype: with label maps: uint8 in 0…255, or float32 in -1…1.
        classes: with label maps: how many labels there are, background included; None for those that are found.
    """

    name: Literal["folder"] = "folder"
    manifest: str
    size: Annotated[int, Ge(4)] | None = None
    channels: Literal[1, 3] | None = None
    shape: tuple[Edge, Edge, Edge] | None = None
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = None
    dtype: Literal["uint8", "float32"] = "uint8"
    classes: Annotated[int, Ge(2), Le(nifti.MOST)] | None = None

    def problems(self, root: Path) -> list[Problem]:
        """Every bad row of the manifest with its place; of volumes with label maps every bad one, too.

        Args:
            root: where ``manifest`` starts.
        """
        try:
            rows, folder = read_manifest(root / self.manifest), (root / self.manifest).parent
            problems = self._misplaced(rows) + row_problems(rows, folder)
            stored = self._stored(rows, folder, problems) if _with_maps(rows) else problems
            return stored if isinstance(stored, list) else []
        except InputError as error:
            return list(error.problems)

    def load(self, root: Path) -> Collection:
        """Read all files; see `Source.load`."""
        file = root / self.manifest
        rows = read_manifest(file)
        problems = self._misplaced(rows) + row_problems(rows, file.parent)
        if _with_maps(rows):
            return self._volumes(rows, file.parent, problems)
        if problems:
            raise InputError(problems)
        pixels = self._pixels(rows, file.parent)
        names, targets = _targets([row.cells["label"] for row in rows])
        return Collection(
            pixels=pixels,
            targets=targets,
            table=_table(rows),
            classes=len(names),
            synthetic_patients=False,
            note=f"{len(rows)} images of {self.manifest}; patient ids are its own. "
            f"Labels: {', '.join(f'{i} {name}' for i, name in enumerate(names))}.",
        )

    def _misplaced(self, rows: Sequence[Row]) -> list[Problem]:
        """Settings that this kind of manifest has no use for."""
        maps = _with_maps(rows)
        for_volumes = {"shape": self.shape, "spacing": self.spacing, "classes": self.classes}
        unused = {"size": self.size, "channels": self.channels} if maps else for_volumes
        given = [name for name, value in unused.items() if value is not None]
        if not rows or not given:
            return []
        advice = "give shape or spacing instead" if maps else "they are for label maps: leave them out"
        column = "label_map" if maps else "label"
        return [Problem(f"folder: found {' and '.join(given)}, but the manifest has {column}: {advice}")]

    def _volumes(self, rows: Sequence[Row], folder: Path, problems: list[Problem]) -> Collection:
        stored = self._stored(rows, folder, problems)
        if isinstance(stored, list):
            raise InputError(stored)
        return Collection(
            pixels=stored.pixels,
            targets=stored.targets,
            table=_table(rows),
            classes=stored.classes,
            synthetic_patients=False,
            kind="segmentation",
            note=f"{len(rows)} volumes with label maps of {self.manifest}; patient ids are its own.",
        )

    def _stored(self, rows: Sequence[Row], folder: Path, problems: list[Problem]) -> Stored | list[Problem]:
        """The volumes; or all problems, those given and those of the files that rows without problems name."""
        classes = None if self.classes is None else tuple(range(self.classes))
        how = nifti.Handling(self.shape, self.spacing, self.dtype, classes)
        good = [row for row in rows if not cell_problems(row, folder)]
        pairs = [nifti.Pair((folder / row.cells["file"],), folder / row.cells["label_map"]) for row in good]
        found = examine(pairs, how) if problems else store(pairs, how)
        if isinstance(found, Stored):
            return found
        columns = ("label_map" if bad.file == pairs[bad.number].label_map else "file" for bad in found)
        return problems + [
            good[bad.number].problem(column, f"{bad.file} {bad.message}")
            for column, bad in zip(columns, found, strict=True)
        ]

    def _pixels(self, rows: Sequence[Row], folder: Path) -> Array:
        """(N, C, *spatial) uint8.

        Raises:
            InputError: files that cannot be read, or shapes that differ.
        """
        images, problems = [], []
        for row in rows:
            try:
                images.append(self._image(folder / row.cells["file"]))
            # MONAI's readers raise whatever the format's library does; the row is named.
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                problems.append(row.problem("file", f"cannot be read as an image ({reason})"))
        if problems:
            raise InputError(problems)
        usual = Counter(image.shape for image in images).most_common(1)[0][0]
        for row, image in zip(rows, images, strict=True):
            if image.shape != usual:
                message = (
                    f"has shape {image.shape} (channels, edges), most have {usual}: set size, or channels"
                )
                problems.append(row.problem("file", message))
        if problems:
            raise InputError(problems)
        return np.stack(images)

    def _image(self, file: Path) -> Array:
        """(C, *spatial) uint8."""
        image = channels_first(_read(file)[None])
        if image.ndim == 4 and self.channels == 1 and image.shape[1] == 3:
            image = np.tensordot(_GREY, image, axes=(0, 1))[:, None].round().astype(image.dtype)
        if image.ndim == 4 and self.channels == 3 and image.shape[1] == 1:
            image = np.repeat(image, 3, axis=1)
        stretched = _stretched(image[0])[None]
        final: Array = (stretched if self.size is None else resized(stretched, self.size))[0]
        return final


def _with_maps(rows: Sequence[Row]) -> bool:
    return bool(rows) and "label_map" in rows[0].cells


def _read(file: Path) -> Array:
    """A file as (H, W), (H, W, 3) or (D, H, W), in its own dtype."""
    from monai.data import image_reader  # here, since it takes seconds

    kind = suffix(file.name)
    readers = {
        ".png": image_reader.PILReader(converter=_unpacked),
        ".npy": image_reader.NumpyReader(),
        ".dcm": image_reader.PydicomReader(),
    }
    reader = readers.get(kind) or image_reader.NibabelReader()
    opened = reader.read(file)
    with warnings.catch_warnings():  # of DICOM that does not tell where the patient lay; we do not ask
        warnings.filterwarnings("ignore", message="PydicomReader: ImageOrientationPatient")
        image = np.asarray(reader.get_data(opened)[0])
    if getattr(opened, "PhotometricInterpretation", "") == "MONOCHROME1":  # DICOM with white as 0
        image = image.max() - image
    if kind in (".png", ".dcm"):  # MONAI has width first, and slices last
        image = image.T if image.ndim == 3 and image.shape[-1] > 4 else np.swapaxes(image, 0, 1)
    if kind == ".png" and image.ndim == 3 and image.shape[-1] in (2, 4):  # the last one is transparency
        image = image[..., 0] if image.shape[-1] == 2 else image[..., :3]
    if image.size == 0 or not np.isfinite(image).all():
        raise ValueError("it has no pixels, or some that are not finite")
    if kind in (".nii", ".nii.gz") and image.ndim == 3 and image.shape[-1] in (1, 3):
        raise ValueError(
            f"a volume of {image.shape[-1]} slices; expected 2D files, or volumes of at least 4 slices"
        )
    return image


def _unpacked(image: Any) -> Any:
    """A Pillow image whose pixels are colours, not numbers of colours in a palette."""
    return image.convert("RGB") if image.mode == "P" else image


def _stretched(image: Array) -> Array:
    """Any image as uint8; constant ones become 0."""
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image.astype(np.float64), (0.5, 99.5))
    scaled = (image.astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
    stretched: Array = np.clip(scaled, 0, 255).round().astype(np.uint8)
    return stretched


def _targets(labels: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The classes in order, and (N,) the class of each image."""
    if all(label.isdecimal() for label in labels):
        targets = np.array([int(label) for label in labels], dtype=np.int64)
        return [str(i) for i in range(int(targets.max()) + 1)], targets
    names = sorted(set(labels))
    return names, np.array([names.index(label) for label in labels], dtype=np.int64)


def _table(rows: Sequence[Row]) -> pd.DataFrame:
    """All columns but the files and label, as text; age as a number where every row has one."""
    columns = [c for c in rows[0].cells if c not in ("file", "label", "label_map", "image", "patient")]
    table = pd.DataFrame(
        {
            "image": [row.cells.get("image", row.cells["file"]) for row in rows],
            "patient": [row.cells["patient"] for row in rows],
            **{column: [row.cells[column] for row in rows] for column in columns},
        }
    )
    if "age" in columns:
        ages = pd.to_numeric(table["age"], errors="coerce")
        if not ages.isna().any():
            table["age"] = ages
    return table
