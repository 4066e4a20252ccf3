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
from annotated_types import Ge

from fedunlearn.core import InputError, Problem
from sites.collection import Collection
from sites.manifest import Row, read_manifest
from sites.pixels import channels_first, resized

Array = npt.NDArray[Any]

FORMATS = (".png", ".npy", ".nii", ".nii.gz", ".dcm")
_GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601, as Pillow has it


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Image files (PNG, NPY, NIfTI, DICOM) listed in a CSV or Parquet manifest, with real patient ids.

    Columns: ``file`` (relative to the manifest), ``label`` (0, 1, …, or names, numbered in alphabetical order),
    ``patient``, and if known ``site``, ``image`` (a unique id; else the file) and any attributes. Ids are text:
    012 stays 012. 8-bit images stay as they are; anything else is stretched from its 0.5th…99.5th percentile to
    0…255.

    Attributes:
        manifest: the CSV or Parquet file, relative to the data root.
        size: edge of the images after resizing, in pixels; None if all have one shape already.
        channels: make 2D images grey (1) or colour (3); None for as they are.
    """

    name: Literal["folder"] = "folder"
    manifest: str
    size: Annotated[int, Ge(4)] | None = None
    channels: Literal[1, 3] | None = None

    def problems(self, root: Path) -> list[Problem]:
        """Every bad row of the manifest with its place; images are not opened.

        Args:
            root: where ``manifest`` starts.
        """
        try:
            return _row_problems(read_manifest(root / self.manifest), (root / self.manifest).parent)
        except InputError as error:
            return list(error.problems)

    def load(self, root: Path) -> Collection:
        """Read all files; see `Source.load`."""
        file = root / self.manifest
        rows = read_manifest(file)
        if problems := _row_problems(rows, file.parent):
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


def _suffix(file: str) -> str:
    return ".nii.gz" if file.lower().endswith(".nii.gz") else Path(file).suffix.lower()


def _read(file: Path) -> Array:
    """A file as (H, W), (H, W, 3) or (D, H, W), in its own dtype."""
    from monai.data import image_reader  # here, since it takes seconds

    suffix = _suffix(file.name)
    readers = {
        ".png": image_reader.PILReader(converter=_unpacked),
        ".npy": image_reader.NumpyReader(),
        ".dcm": image_reader.PydicomReader(),
    }
    reader = readers.get(suffix) or image_reader.NibabelReader()
    opened = reader.read(file)
    with warnings.catch_warnings():  # of DICOM that does not tell where the patient lay; we do not ask
        warnings.filterwarnings("ignore", message="PydicomReader: ImageOrientationPatient")
        image = np.asarray(reader.get_data(opened)[0])
    if getattr(opened, "PhotometricInterpretation", "") == "MONOCHROME1":  # DICOM with white as 0
        image = image.max() - image
    if suffix in (".png", ".dcm"):  # MONAI has width first, and slices last
        image = image.T if image.ndim == 3 and image.shape[-1] > 4 else np.swapaxes(image, 0, 1)
    if suffix == ".png" and image.ndim == 3 and image.shape[-1] in (2, 4):  # the last one is transparency
        image = image[..., 0] if image.shape[-1] == 2 else image[..., :3]
    if image.size == 0 or not np.isfinite(image).all():
        raise ValueError("it has no pixels, or some that are not finite")
    if suffix in (".nii", ".nii.gz") and image.ndim == 3 and image.shape[-1] in (1, 3):
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


def _row_problems(rows: Sequence[Row], folder: Path) -> list[Problem]:
    if not rows:
        return [Problem("folder: the manifest has no rows, expected one per image")]
    problems: list[Problem] = []
    numbered = sum(row.cells["label"].isdecimal() for row in rows) * 2 > len(rows)
    seen: dict[str, int] = {}
    for row in rows:
        problems += _cell_problems(row, folder, numbered)
        image = row.cells.get("image", row.cells["file"])
        if (first := seen.setdefault(image, row.line)) != row.line:
            column = "image" if "image" in row.cells else "file"
            problems.append(
                row.problem(column, f"found {image!r} again (first in line {first}), expected unique ids")
            )
    classes = {int(row.cells["label"]) for row in rows if row.cells["label"].isdecimal()}
    if numbered and not problems and classes != set(range(len(classes))):
        problems.append(
            Problem(
                f"found the labels {sorted(classes)[:12]}, expected 0, 1, … without a gap", rows[0].manifest
            )
        )
    return problems


def _cell_problems(row: Row, folder: Path, numbered: bool) -> list[Problem]:
    problems = []
    for column in {"patient", "label", "site", "image"} & set(row.cells):
        if not row.cells[column]:
            problems.append(row.problem(column, f"found nothing, expected the {column} of this image"))
    if numbered and row.cells["label"] and not row.cells["label"].isdecimal():
        found = row.cells["label"]
        problems.append(
            row.problem("label", f"found {found!r}, expected a class number as in most rows (0, 1, …)")
        )
    file = row.cells["file"]
    if _suffix(file) not in FORMATS:
        problems.append(row.problem("file", f"found {file!r}, expected one of {', '.join(FORMATS)}"))
    elif not (folder / file).is_file():
        problems.append(
            row.problem("file", f"found no file {folder / file}; paths start at the manifest's folder")
        )
    return sorted(problems)


def _targets(labels: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The classes in order, and (N,) the class of each image."""
    if all(label.isdecimal() for label in labels):
        targets = np.array([int(label) for label in labels], dtype=np.int64)
        return [str(i) for i in range(int(targets.max()) + 1)], targets
    names = sorted(set(labels))
    return names, np.array([names.index(label) for label in labels], dtype=np.int64)


def _table(rows: Sequence[Row]) -> pd.DataFrame:
    """All columns but file and label, as text; age as a number where every row has one."""
    columns = [c for c in rows[0].cells if c not in ("file", "label", "image", "patient")]
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
