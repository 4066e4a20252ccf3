"""`folder`: a hospital's own image files, listed in a manifest or lying in folders by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy.typing as npt
import pandas as pd
from annotated_types import Ge, Le

from fedunlearn.core import IGNORED, InputError, Problem
from sites import findings
from sites.collection import SEEN, Collection
from sites.companions import NOTHING, Beside, joined
from sites.copies import contradicting
from sites.findings import Findings
from sites.folder import people
from sites.folder.layout import Layout, rows_of
from sites.folder.manifest import Manifest, attributes, checked, read_manifest
from sites.folder.paths import Inside
from sites.folder.pictures import Alike, Pictures, read_pictures
from sites.formats import nifti
from sites.formats.maps import MOST
from sites.formats.volumes import Edge, Millimetres, Stored, examine, store
from sites.identity import in_words, tidied
from sites.rows import Row, Table, grouped
from sites.watching import Watch, unwatched

Label = Annotated[int, Ge(0), Le(MOST)]


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Image files listed in a CSV or Parquet manifest, or lying in folders by patient, with real patient ids.

    PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI and NPY are read, told by their content and never by their names; so is a
    folder of one DICOM series, which is a volume. Volumes are turned so that their axes run to the right, to the front
    and up, where the files tell how they lie.

    Columns: ``file`` (relative to the manifest), ``label`` (whole numbers, in the order of their value, or names, in
    alphabetical order),
    ``patient``, and if known ``site``, ``image`` (a unique id; else the file) and any attributes. Ids are text:
    012 stays 012. DICOM's window, where there is one, says what is black and white; 8-bit images stay as they are;
    anything else is stretched from its 0.5th…99.5th percentile to 0…255.

    With ``label_map`` instead of ``label`` (a file, too, of labels 0 for background, 1, …, and 255 for voxels to be
    ignored, on the grid of its image) the images are NIfTI volumes to be segmented. They are made alike as
    `sites.formats.nifti.Handling` tells, once (`sites.formats.volumes`).

    Attributes:
        manifest: the CSV or Parquet file, relative to the data root.
        path: a folder without a manifest, instead; relative to the data root, too.
        layout: what the folders in ``path`` are, from the outermost on (`sites.folder.layout`).
        size: edge of the images after resizing, in pixels; None if all have one shape already. Not for label maps.
        channels: make 2D images grey (1) or colour (3); None for as they are. Not for label maps.
        shape: with label maps: edges in voxels to the right, to the front and up; None if all have one already.
        spacing: with label maps: edges of a voxel in millimetres; None for as they are.
        dtype: with label maps: uint8 in 0…255, or float32 in -1…1.
        classes: with label maps: how many labels there are, background included; None for those that are found.
        findings: where an image can have several: their names, each a column of its own with 1, 0, and -1, u or nothing
            where nobody knows; or, where there are no such columns, what ``label`` names in cells such as
            Effusion|Mass or No Finding. Then ``all`` means all that it names. Others are left out.
        labels: with label maps: the class that a number in the maps stands for, such as {255: 1} or {4: 3, 9: ignored};
            all other numbers are classes as they are.
        outside: files may lie outside of the manifest's folder (``..``, links, absolute paths). Only for manifests
            of somebody you trust: any file that you can read could be named.
        beside: what comes beside each image with one class: a report, or numbers, out of the manifest's columns.
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
    classes: Annotated[int, Ge(2), Le(MOST)] | None = None
    findings: tuple[str, ...] | Literal["all"] | None = None
    labels: Mapping[Label, Label | Literal["ignored"]] | None = None
    outside: bool = False
    beside: Beside = NOTHING

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Read all files; see `Source.load`."""
        manifest, inside = self._manifest(root), self._inside(root)
        rows, labels = manifest.rows, manifest.findings or manifest.labels
        if _with_maps(rows) and self.findings is None:
            return self._volumes(manifest, inside, watch)
        if manifest.problems or labels is None:
            raise InputError(manifest.problems)
        found = read_pictures(rows, inside.folder, Alike(self.size, self.channels), watch)
        several = isinstance(labels, Findings)
        told = findings.in_words(labels.names) if several else f"Labels: {in_words(labels.names)}"
        collection = Collection(
            pixels=found.pixels,
            targets=labels.targets,
            table=_table(rows, labels.names if several else ()),
            classes=findings.CLASSES if several else len(labels.names),
            synthetic_patients=False,
            kind="multilabel" if several else "classification",
            note=f"{len(rows)} images {_place(self)}; patient ids are those found there. {told}.",
            names=labels.names,
            notes=_notes(manifest, found, labels.targets),
            seen=found.seen,
        )
        return joined(collection, self.beside, "folder")

    def _manifest(self, root: Path) -> Manifest:
        """The rows with all that is wrong with them, and with settings that they have no use for."""
        found = checked(self._rows(root), self._inside(root), self.findings)
        return replace(found, problems=(*self._misplaced(found.rows), *found.problems))

    def _rows(self, root: Path) -> Table:
        """The rows as they are written, or as the folders tell them.

        Raises:
            InputError: it is not clear which, or they cannot be read.
        """
        if self.manifest is not None and self.path is None and self.layout is None:
            return read_manifest(root / self.manifest, self.findings)
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

    def _volumes(self, manifest: Manifest, inside: Inside, watch: Watch) -> Collection:
        stored = self._stored(manifest, inside, watch)
        if isinstance(stored, list):
            raise InputError(stored)
        collection = Collection(
            pixels=stored.pixels,
            targets=stored.targets,
            table=_table(manifest.rows),
            classes=stored.classes,
            synthetic_patients=False,
            kind="segmentation",
            note=f"{len(manifest.rows)} volumes with label maps {_place(self)}; patient ids are those found there.",
            notes=(*manifest.notes, *stored.notes),
            seen=pd.DataFrame(stored.seen, columns=[*SEEN]),
        )
        return joined(collection, self.beside, "folder")

    def _stored(self, manifest: Manifest, inside: Inside, watch: Watch) -> Stored | list[Problem]:
        """The volumes; or all problems, those known and those of the files that rows without problems name."""
        classes = None if self.classes is None else tuple(range(self.classes))
        meant = None if self.labels is None else _meant(self.labels)
        how = nifti.Handling(self.shape, self.spacing, self.dtype, classes, meant)
        good, folder = manifest.good, inside.folder
        pairs = [nifti.Pair((folder / row.cells["file"],), folder / row.cells["label_map"]) for row in good]
        found = examine(pairs, how, watch) if manifest.problems else store(pairs, how, watch)
        if isinstance(found, Stored):
            return found
        columns = ("label_map" if bad.file == pairs[bad.number].label_map else "file" for bad in found)
        faults = (
            good[bad.number].fault(bad.kind, column, f"{bad.file} {bad.message}")
            for column, bad in zip(columns, found, strict=True)
        )
        return [*manifest.problems, *grouped(faults)]


def _meant(labels: Mapping[int, int | str]) -> tuple[tuple[int, int], ...]:
    """Found labels and what they stand for."""
    return tuple((found, IGNORED if isinstance(one, str) else one) for found, one in sorted(labels.items()))


def _notes(manifest: Manifest, found: Pictures, targets: npt.NDArray[Any]) -> tuple[str, ...]:
    """What is to be known of rows, of their files, and of what both say together."""
    rows, files = manifest.rows, [row.cells["file"] for row in manifest.rows]
    whose = people.notes(rows, found.people.tolist())
    return (*manifest.notes, *found.notes, *whose, *contradicting(found.pixels, targets, files))


def _place(source: Folder) -> str:
    """Where the images are, or are told of, in words."""
    return f"listed in {source.manifest}" if source.manifest else f"in the folder {source.path}"


def _with_maps(rows: Sequence[Row]) -> bool:
    return bool(rows) and "label_map" in rows[0].cells


def _table(rows: Sequence[Row], several: Sequence[str] = ()) -> pd.DataFrame:
    """All columns but the files, label and findings, as text; age as a number where every row has one."""
    columns = attributes(rows, several)
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
