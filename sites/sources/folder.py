"""`folder`: a hospital's own image files, listed in a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge, Le

from fedunlearn.core import InputError, Problem
from sites.collection import Collection
from sites.formats import nifti, sizes
from sites.formats.images import claimed, reading, unreadable
from sites.formats.volumes import Edge, Millimetres, Stored, examine, store
from sites.identity import tidied
from sites.pixels import channels_first, resized
from sites.sources.layout import Layout, rows_of
from sites.sources.manifest import Inside, Manifest, attributes, checked, read_manifest
from sites.sources.rows import Fault, Row, Table, grouped

Array = npt.NDArray[Any]

_GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601, as Pillow has it


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Image files (PNG, NPY, NIfTI, DICOM) listed in a CSV or Parquet manifest, or in folders by patient.

    Columns: ``file`` (relative to the manifest), ``label`` (whole numbers, in the order of their value, or names, in
    alphabetical order),
    ``patient``, and if known ``site``, ``image`` (a unique id; else the file) and any attributes. Ids are text:
    012 stays 012. 8-bit images stay as they are; anything else is stretched from its 0.5th…99.5th percentile to
    0…255.

    With ``label_map`` instead of ``label`` (a file, too, of labels 0 for background, 1, …, and 255 for voxels to be
    ignored, on the grid of its image) the images are NIfTI volumes to be segmented. They are made alike as
    `sites.formats.nifti.Handling` tells, once (`sites.formats.volumes`).

    Attributes:
        manifest: the CSV or Parquet file, relative to the data root.
        path: a folder without a manifest, instead; relative to the data root, too.
        layout: what the folders in ``path`` are, from the outermost on (`sites.sources.layout`).
        size: edge of the images after resizing, in pixels; None if all have one shape already. Not for label maps.
        channels: make 2D images grey (1) or colour (3); None for as they are. Not for label maps.
        shape: with label maps: edges in voxels to the right, to the front and up; None if all have one already.
        spacing: with label maps: edges of a voxel in millimetres; None for as they are.
        dtype: with label maps: uint8 in 0…255, or float32 in -1…1.
        classes: with label maps: how many labels there are, background included; None for those that are found.
        outside: files may lie outside of the manifest's folder (``..``, links, absolute paths). Only for manifests
            of somebody you trust: any file that you can read could be named.
    """

    name: Literal["folder"] = "folder"
    manifest: str | None = None
    path: str | None = None
    layout: Layout | None = None
    size: Annotated[int, Ge(4)] | None = None
    channels: Literal[1, 3] | None = None
    shape: tuple[Edge, Edge, Edge] | None = None
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = None
    dtype: Literal["uint8", "float32"] = "uint8"
    classes: Annotated[int, Ge(2), Le(nifti.MOST)] | None = None
    outside: bool = False

    def problems(self, root: Path) -> list[Problem]:
        """Every bad row of the manifest with its place; of volumes with label maps every bad one, too.

        Args:
            root: where ``manifest`` starts.
        """
        try:
            manifest = self._manifest(root)
            if _with_maps(manifest.rows):
                stored = self._stored(manifest, self._inside(root))
                return stored if isinstance(stored, list) else []
            return list(manifest.problems)
        except InputError as error:
            return list(error.problems)

    def load(self, root: Path) -> Collection:
        """Read all files; see `Source.load`."""
        manifest, inside = self._manifest(root), self._inside(root)
        rows, labels = manifest.rows, manifest.labels
        if _with_maps(rows):
            return self._volumes(manifest, inside)
        if manifest.problems or labels is None:
            raise InputError(manifest.problems)
        pixels = self._pixels(rows, inside.folder)
        return Collection(
            pixels=pixels,
            targets=labels.targets,
            table=_table(rows),
            classes=len(labels.names),
            synthetic_patients=False,
            note=f"{len(rows)} images of {self.manifest or self.path}; patient ids are its own. "
            f"Labels: {', '.join(f'{i} {name}' for i, name in enumerate(labels.names))}.",
            notes=manifest.notes,
        )

    def _manifest(self, root: Path) -> Manifest:
        """The rows with all that is wrong with them, and with settings that they have no use for."""
        found = checked(self._rows(root), self._inside(root))
        return replace(found, problems=(*self._misplaced(found.rows), *found.problems))

    def _rows(self, root: Path) -> Table:
        """The rows as they are written, or as the folders tell them.

        Raises:
            InputError: it is not clear which, or they cannot be read.
        """
        if self.manifest is not None and self.path is None and self.layout is None:
            return read_manifest(root / self.manifest)
        if self.manifest is None and self.path is not None and self.layout is not None:
            return rows_of(root / self.path, self.layout)
        given = [name for name in ("manifest", "path", "layout") if getattr(self, name) is not None]
        raise InputError(
            f"folder: found {' and '.join(given) or 'nothing'}, expected manifest: FILE.csv, or path: FOLDER and "
            "layout: class/patient, site/patient or site/class/patient"
        )

    def _inside(self, root: Path) -> Inside:
        folder = (root / self.manifest).parent if self.manifest is not None else root / (self.path or "")
        return Inside(folder, self.outside)

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

    def _volumes(self, manifest: Manifest, inside: Inside) -> Collection:
        stored = self._stored(manifest, inside)
        if isinstance(stored, list):
            raise InputError(stored)
        return Collection(
            pixels=stored.pixels,
            targets=stored.targets,
            table=_table(manifest.rows),
            classes=stored.classes,
            synthetic_patients=False,
            kind="segmentation",
            note=f"{len(manifest.rows)} volumes with label maps of {self.manifest or self.path}; patient ids are its "
            "own.",
            notes=manifest.notes,
        )

    def _stored(self, manifest: Manifest, inside: Inside) -> Stored | list[Problem]:
        """The volumes; or all problems, those known and those of the files that rows without problems name."""
        classes = None if self.classes is None else tuple(range(self.classes))
        how = nifti.Handling(self.shape, self.spacing, self.dtype, classes)
        good, folder = manifest.good, inside.folder
        pairs = [nifti.Pair((folder / row.cells["file"],), folder / row.cells["label_map"]) for row in good]
        found = examine(pairs, how) if manifest.problems else store(pairs, how)
        if isinstance(found, Stored):
            return found
        columns = ("label_map" if bad.file == pairs[bad.number].label_map else "file" for bad in found)
        faults = (
            good[bad.number].fault(bad.kind, column, f"{bad.file} {bad.message}")
            for column, bad in zip(columns, found, strict=True)
        )
        return [*manifest.problems, *grouped(faults)]

    def _pixels(self, rows: Sequence[Row], folder: Path) -> Array:
        """(N, C, *spatial) uint8.

        Raises:
            InputError: files that cannot be read or are too large, alone or together, or shapes that differ.
        """
        # Imported before any file is opened: what is wrong with an installation is no file's fault.
        read, errors = reading(), unreadable()
        faults, good = self._oversized(rows, folder, errors)
        images = []
        for row in good:
            try:
                images.append(self._image(read(folder / row.cells["file"])))
            except errors as error:
                faults[row.line] = _unread(row, error)
        if faults:
            raise InputError(grouped(faults[line] for line in sorted(faults)))
        if others := _of_other_shapes(rows, images):
            raise InputError(grouped(others))
        return np.stack(images)

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
        colours = claim.shape[-1] if len(claim.shape) == 3 and claim.shape[-1] in (3, 4) else 1
        edges = len(claim.shape) - (colours > 1)
        pixels = claim.count // colours if self.size is None else self.size**edges
        return pixels * ((self.channels or colours) if edges == 2 else 1)

    def _image(self, pixels: Array) -> Array:
        """(C, *spatial) uint8."""
        image = channels_first(pixels[None])
        if image.ndim == 4 and self.channels == 1 and image.shape[1] == 3:
            image = np.tensordot(_GREY, image, axes=(0, 1))[:, None].round().astype(image.dtype)
        if image.ndim == 4 and self.channels == 3 and image.shape[1] == 1:
            image = np.repeat(image, 3, axis=1)
        stretched = _stretched(image[0])[None]
        final: Array = (stretched if self.size is None else resized(stretched, self.size))[0]
        return final


def _with_maps(rows: Sequence[Row]) -> bool:
    return bool(rows) and "label_map" in rows[0].cells


def _unread(row: Row, error: Exception) -> Fault:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return row.fault("cannot be read", "file", f"cannot be read as an image ({reason})")


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


def _stretched(image: Array) -> Array:
    """Any image as uint8; constant ones become 0."""
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image.astype(np.float64), (0.5, 99.5))
    scaled = (image.astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
    stretched: Array = np.clip(scaled, 0, 255).round().astype(np.uint8)
    return stretched


def _table(rows: Sequence[Row]) -> pd.DataFrame:
    """All columns but the files and label, as text; age as a number where every row has one."""
    columns = attributes(rows)
    table = pd.DataFrame(
        {
            "image": [row.cells.get("image", tidied(row.cells["file"])) for row in rows],
            "patient": [row.cells["patient"] for row in rows],
            **columns,
        }
    )
    if "age" in columns:
        ages = pd.to_numeric(table["age"], errors="coerce")
        if not ages.isna().any():
            table["age"] = ages
    return table
