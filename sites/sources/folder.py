"""`folder`: a hospital's own image files, listed in a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge, Le

from fedunlearn.core import IGNORED, InputError, Problem
from sites.collection import SEEN, Collection
from sites.formats import nifti, sizes
from sites.formats.images import claimed, reading, unreadable
from sites.formats.maps import MOST
from sites.formats.picture import Picture, counted
from sites.formats.unreadable import Unreadable
from sites.formats.volumes import Edge, Millimetres, Stored, examine, store
from sites.pixels import resized
from sites.sources.manifest import Fault, Inside, Row, cell_faults, grouped, read_manifest, row_problems

Array = npt.NDArray[Any]

Label = Annotated[int, Ge(0), Le(MOST)]

_GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601, as Pillow has it


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Image files listed in a CSV or Parquet manifest, with real patient ids.

    PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI and NPY are read, told by their content and never by their names; so is a
    folder of one DICOM series, which is a volume. Volumes are turned so that their axes run to the right, to the front
    and up, where the files tell how they lie.

    Columns: ``file`` (relative to the manifest), ``label`` (0, 1, …, or names, numbered in alphabetical order),
    ``patient``, and if known ``site``, ``image`` (a unique id; else the file) and any attributes. Ids are text:
    012 stays 012. DICOM's window, where there is one, says what is black and white; 8-bit images stay as they are;
    anything else is stretched from its 0.5th…99.5th percentile to 0…255.

    With ``label_map`` instead of ``label`` (a file, too, of labels 0 for background, 1, …, and 255 for voxels to be
    ignored, on the grid of its image) the images are NIfTI volumes to be segmented. They are made alike as
    `sites.formats.nifti.Handling` tells, once (`sites.formats.volumes`).

    Attributes:
        manifest: the CSV or Parquet file, relative to the data root.
        size: edge of the images after resizing, in pixels; None if all have one shape already. Not for label maps.
        channels: make 2D images grey (1) or colour (3); None for as they are. Not for label maps.
        shape: with label maps: edges in voxels to the right, to the front and up; None if all have one already.
        spacing: with label maps: edges of a voxel in millimetres; None for as they are.
        dtype: with label maps: uint8 in 0…255, or float32 in -1…1.
        classes: with label maps: how many labels there are, background included; None for those that are found.
        labels: with label maps: the class that a number in the maps stands for, such as {255: 1} or {4: 3, 9: ignored};
            all other numbers are classes as they are.
        outside: files may lie outside of the manifest's folder (``..``, links, absolute paths). Only for manifests
            of somebody you trust: any file that you can read could be named.
    """

    name: Literal["folder"] = "folder"
    manifest: str
    size: Annotated[int, Ge(4)] | None = None
    channels: Literal[1, 3] | None = None
    shape: tuple[Edge, Edge, Edge] | None = None
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = None
    dtype: Literal["uint8", "float32"] = "uint8"
    classes: Annotated[int, Ge(2), Le(MOST)] | None = None
    labels: Mapping[Label, Label | Literal["ignored"]] | None = None
    outside: bool = False

    def problems(self, root: Path) -> list[Problem]:
        """Every bad row of the manifest with its place; of volumes with label maps every bad one, too.

        Args:
            root: where ``manifest`` starts.
        """
        try:
            rows, inside = read_manifest(root / self.manifest), self._inside(root)
            problems = self._misplaced(rows) + row_problems(rows, inside)
            stored = self._stored(rows, inside, problems) if _with_maps(rows) else problems
            return stored if isinstance(stored, list) else []
        except InputError as error:
            return list(error.problems)

    def load(self, root: Path) -> Collection:
        """Read all files; see `Source.load`."""
        rows, inside = read_manifest(root / self.manifest), self._inside(root)
        problems = self._misplaced(rows) + row_problems(rows, inside)
        if _with_maps(rows):
            return self._volumes(rows, inside, problems)
        if problems:
            raise InputError(problems)
        pictures = self._pictures(rows, inside.folder)
        names, targets = _targets([row.cells["label"] for row in rows])
        return Collection(
            pixels=np.stack([picture.pixels for picture in pictures]),
            targets=targets,
            table=_table(rows),
            classes=len(names),
            synthetic_patients=False,
            note=f"{len(rows)} images of {self.manifest}; patient ids are its own. "
            f"Labels: {', '.join(f'{i} {name}' for i, name in enumerate(names))}.",
            notes=counted(picture.notes for picture in pictures),
            seen=pd.DataFrame([picture.seen for picture in pictures], columns=[*SEEN]),
        )

    def _inside(self, root: Path) -> Inside:
        return Inside((root / self.manifest).parent, self.outside)

    def _misplaced(self, rows: Sequence[Row]) -> list[Problem]:
        """Settings that this kind of manifest has no use for."""
        maps = _with_maps(rows)
        for_volumes = {
            "shape": self.shape,
            "spacing": self.spacing,
            "classes": self.classes,
            "labels": self.labels,
        }
        unused = {"size": self.size, "channels": self.channels} if maps else for_volumes
        given = [name for name, value in unused.items() if value is not None]
        meant = max((one for _, one in _meant(self.labels or {}) if one != IGNORED), default=0)
        if maps and self.classes is not None and meant >= self.classes:
            message = f"labels names the class {meant}, expected those below {self.classes} as classes says"
            return [Problem(f"folder: {message}: raise classes")]
        if not rows or not given:
            return []
        advice = "give shape or spacing instead" if maps else "they are for label maps: leave them out"
        column = "label_map" if maps else "label"
        return [Problem(f"folder: found {' and '.join(given)}, but the manifest has {column}: {advice}")]

    def _volumes(self, rows: Sequence[Row], inside: Inside, problems: list[Problem]) -> Collection:
        stored = self._stored(rows, inside, problems)
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
            notes=stored.notes,
            seen=pd.DataFrame(stored.seen, columns=[*SEEN]),
        )

    def _stored(self, rows: Sequence[Row], inside: Inside, problems: list[Problem]) -> Stored | list[Problem]:
        """The volumes; or all problems, those given and those of the files that rows without problems name."""
        classes = None if self.classes is None else tuple(range(self.classes))
        meant = None if self.labels is None else _meant(self.labels)
        how = nifti.Handling(self.shape, self.spacing, self.dtype, classes, meant)
        good, folder = [row for row in rows if not cell_faults(row, inside)], inside.folder
        pairs = [nifti.Pair((folder / row.cells["file"],), folder / row.cells["label_map"]) for row in good]
        found = examine(pairs, how) if problems else store(pairs, how)
        if isinstance(found, Stored):
            return found
        columns = ("label_map" if bad.file == pairs[bad.number].label_map else "file" for bad in found)
        return problems + grouped(
            good[bad.number].fault(bad.kind, column, f"{bad.file} {bad.message}")
            for column, bad in zip(columns, found, strict=True)
        )

    def _pictures(self, rows: Sequence[Row], folder: Path) -> list[Picture]:
        """All images, of one shape.

        Raises:
            InputError: files that cannot be read or are too large, alone or together, or shapes that differ.
        """
        read, errors = reading(), unreadable()
        faults, good = self._oversized(rows, folder, errors)
        pictures = []
        for row in good:
            try:
                pictures.append(self._alike(read(folder / row.cells["file"])))
            except errors as error:
                faults[row.line] = _unread(row, error)
        if faults:
            raise InputError(grouped(faults[line] for line in sorted(faults)))
        if others := _of_other_shapes(rows, [picture.pixels for picture in pictures]):
            raise InputError(grouped(others))
        return pictures

    def _oversized(
        self, rows: Sequence[Row], folder: Path, errors: tuple[type[Exception], ...]
    ) -> tuple[dict[int, Fault], list[Row]]:
        """What is wrong with the files' headers, by line, and the rows whose are good.

        Raises:
            InputError: memory cannot hold all the images.
        """
        faults, good, needed = dict[int, Fault](), list[Row](), 0
        for row in rows:
            try:
                claim = claimed(folder / row.cells["file"])
            except errors as error:
                faults[row.line] = _unread(row, error)
                continue
            if message := sizes.excess({"it": claim}, sizes.WORK):
                faults[row.line] = row.fault("too large", "file", message)
                continue
            needed += self._kept(claim)
            good.append(row)
        if message := sizes.too_large(needed):
            whole = Problem(f"all {len(good):,} images together: {message}", rows[0].manifest)
            raise InputError([*grouped(faults.values()), whole])
        return faults, good

    def _kept(self, claim: sizes.Claim) -> int:
        """Bytes of an image that claims so much, once it is resized and uint8."""
        shape = [edge for edge in claim.shape if edge != 1]
        ends = {shape[0], shape[-1]} & {3, 4} if len(shape) == 3 else set()
        colours, edges = (3, 2) if ends else (1, len(shape))
        pixels = claim.count // colours if self.size is None else self.size**edges
        return pixels * ((self.channels or colours) if edges == 2 else 1)

    def _alike(self, picture: Picture) -> Picture:
        """A picture with the channels and the size of all."""
        image = picture.pixels[None]
        if image.ndim == 4 and self.channels == 1 and image.shape[1] == 3:
            image = np.tensordot(_GREY, image, axes=(0, 1))[:, None].round().astype(np.uint8)
        if image.ndim == 4 and self.channels == 3 and image.shape[1] == 1:
            image = np.repeat(image, 3, axis=1)
        return replace(picture, pixels=(image if self.size is None else resized(image, self.size))[0])


def _meant(labels: Mapping[int, int | str]) -> tuple[tuple[int, int], ...]:
    """Found labels and what they stand for."""
    return tuple((found, IGNORED if isinstance(one, str) else one) for found, one in sorted(labels.items()))


def _with_maps(rows: Sequence[Row]) -> bool:
    return bool(rows) and "label_map" in rows[0].cells


def _unread(row: Row, error: Exception) -> Fault:
    kind = error.kind if isinstance(error, Unreadable) else "cannot be read"
    return row.fault(kind, "file", f"{row.cells['file']} {error}")


def _of_other_shapes(rows: Sequence[Row], images: Sequence[Array]) -> list[Fault]:
    usual = Counter(image.shape for image in images).most_common(1)[0][0]
    return [
        row.fault(
            "another shape",
            "file",
            f"has shape {image.shape} (channels, edges), most have {usual}: set size, or channels",
        )
        for row, image in zip(rows, images, strict=True)
        if image.shape != usual
    ]


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
