"""Manifests: tables of image files, with whose they are and what they show, every bad row told by its place."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedunlearn.core import InputError, Problem
from sites import sexes
from sites.findings import Findings, Wanted, of_cells, of_columns
from sites.folder.columns import Needed
from sites.folder.paths import FILES, Inside, file_faults, on_disk
from sites.folder.tables import read_table
from sites.identity import damaged, is_missing, quoted, settled, tidied
from sites.labels import Labels, missing, read_labels
from sites.rows import Fault, Row, Table, grouped

_IDS = ("patient", "site", "image")


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest as they are used.

    Attributes:
        rows: ids and attributes tidied (`sites.identity.tidied`), files as they are called on the disk.
        labels: the classes of the images; None for label maps or findings, or where there are no rows.
        findings: several of every image, where a scenario asks for them.
        notes: what was read in a way that its owner should know of.
        problems: all that is wrong.
        good: the rows that nothing is wrong with.
    """

    rows: tuple[Row, ...]
    labels: Labels | None
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    good: tuple[Row, ...]
    findings: Findings | None = None


def read_manifest(file: Path, wanted: Wanted = None) -> Table:
    """All rows of a manifest as they are written.

    Args:
        file: the manifest.
        wanted: the findings that are asked for.

    Raises:
        InputError: it is missing, no CSV or Parquet file, or lacks columns; all problems together.
    """
    if not file.is_file():
        there = "a folder" if file.is_dir() else "no manifest"
        raise InputError(
            f"folder: found {there} {file}, expected a CSV or Parquet file with the columns "
            f"file, label or label_map, and patient: put it there or give its folder as --data-root"
        )
    return read_table(file, Needed(findings=wanted if isinstance(wanted, tuple) else ()))


def checked(table: Table, inside: Inside, wanted: Wanted = None) -> Manifest:
    """The rows as they are used, and all that is wrong with them; no image is opened.

    Args:
        table: the rows as they are written.
        inside: where their files may lie.
        wanted: the findings that are asked for.
    """
    if not table.rows:
        problem = Problem("folder: the manifest has no rows, expected one per image")
        return Manifest((), None, table.notes, (problem,), ())
    named, renamed = on_disk(table.rows, inside)
    rows, notes = _settled(named)
    faults = defaultdict[int, list[Fault]](list)
    for number, row in enumerate(rows):
        faults[number] += _cell_faults(row, inside)
    for number, fault in _doubled(rows):
        faults[number].append(fault)
    labels, findings = None, None
    if wanted is not None:
        findings = _findings(rows, wanted)
        misread, notes, wrong = findings.misread, (*notes, *findings.notes), findings.wrong
    elif "label" in rows[0].cells:
        labels = read_labels(_cells(rows, "label"), _cells(rows, "patient"), lambda row: rows[row].place)
        misread, notes, wrong = {"label": labels.misread}, (*notes, *labels.notes), labels.wrong
    else:
        misread, wrong = {}, ()
    for column, one in ((column, one) for column, several in misread.items() for one in several):
        faults[one.row].append(rows[one.row].fault(one.kind, column, one.message))
    told = (
        fault
        for number in range(len(rows))
        for fault in sorted(faults[number], key=lambda f: _order(f.problem))
    )
    what = "label" if findings is None else "findings"
    problems = (*grouped(told), *(Problem(f"{what}: {message}", rows[0].manifest) for message in wrong))
    good = tuple(row for number, row in enumerate(rows) if not faults[number])
    return Manifest(rows, labels, (*table.notes, *renamed, *notes), problems, good, findings)


def _findings(rows: Sequence[Row], wanted: Wanted) -> Findings:
    """The findings, each from a column of its own, or all from cells that name them."""
    patients, names = _cells(rows, "patient"), rows[0].cells.keys()
    if "label_map" in names:
        empty = np.zeros((len(rows), 0), dtype=np.uint8)
        return Findings((), empty, wrong=("label maps are no findings: leave findings out",))
    if isinstance(wanted, tuple) and not names.isdisjoint(wanted):
        found = of_columns({name: _cells(rows, name) for name in wanted}, patients)
        if "label" not in names:
            return found
        note = "column label is not read, since findings have columns of their own"
        return replace(found, notes=(*found.notes, note))
    return of_cells(_cells(rows, "label"), patients, lambda row: rows[row].place, wanted)


def _order(problem: Problem) -> tuple[int, str]:
    return problem.column or 0, problem.message


def _cells(rows: Sequence[Row], column: str) -> list[str]:
    return [row.cells[column] for row in rows]


# ----------------------------------------------------------------------------------------------------- cells


def _settled(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows with tidied cells, and notes of ids that became one, or look alike."""
    columns, notes = dict[str, Sequence[str]](), list[str]()
    for name in rows[0].cells:
        written = [row.cells[name] for row in rows]
        if name in FILES:
            columns[name] = written
        elif name in ("patient", "site"):
            ids = settled(name, written)
            columns[name] = ids.ids
            notes += ids.notes
        else:
            shape = {text: tidied(text) for text in set(written)}  # once: a million rows may have one text
            columns[name] = [shape[text] for text in written]
    if "sex" in columns:
        notes += sexes.notes(columns["sex"], columns["patient"])
    cells = zip(*columns.values(), strict=True)
    return tuple(
        replace(row, cells=dict(zip(columns, texts, strict=True)))
        for row, texts in zip(rows, cells, strict=True)
    ), tuple(notes)


def _cell_faults(row: Row, inside: Inside) -> Iterator[Fault]:
    """Everything wrong with one row but its label."""
    for column in _IDS:
        if column in row.cells and is_missing(text := row.cells[column]):
            yield row.fault("missing" if text else "nothing", column, missing(column, text))
    for column in (*_IDS, "label"):
        if column in row.cells and (wrong := damaged(row.cells[column])):
            yield row.fault(wrong[0], column, f"found {quoted(row.cells[column])}, {wrong[1]}")
    for column in FILES:
        if column in row.cells:
            yield from file_faults(row, column, inside)


def _doubled(rows: Sequence[Row]) -> Iterator[tuple[int, Fault]]:
    """Images whose id came before, files in two rows, and maps of two patients, or of no others than themselves."""
    images: dict[str, Row] = {}
    files: dict[str, Row] = {}
    maps: dict[str, Row] = {}
    for number, row in enumerate(rows):
        image, file, label_map = (row.cells.get(name, "") for name in ("image", *FILES))
        if image and (first := images.setdefault(image, row)) is not row:
            yield number, _again(row, "image", first, "unique ids: remove one of the rows")
        elif file and (first := files.setdefault(_path(file), row)) is not row:
            advice = (
                "one row for each image: remove one of them, or if it has several labels, choose one, or name all "
                "findings in one cell (A|B) and say findings: all"
            )
            yield number, _again(row, "file", first, advice)
        if label_map and _path(label_map) == _path(file):
            message = (
                f"found {quoted(label_map)}, which is the image itself, expected its label map: correct it"
            )
            yield number, row.fault("the image itself", "label_map", message)
        elif label_map and not _of_one(row, first := maps.setdefault(_path(label_map), row)):
            advice = f"another than the map of patient {quoted(first.cells['patient'])}: correct one of them"
            yield number, _again(row, "label_map", first, advice)


def _again(row: Row, column: str, first: Row, expected: str) -> Fault:
    message = f"found {quoted(row.cells[column])} again (first in {first.place}), expected {expected}"
    return row.fault("again", column, message)


def _path(file: str) -> str:
    return os.path.normpath(tidied(file))


def _of_one(row: Row, other: Row) -> bool:
    """Whether two rows are of one patient, whose images may share a label map."""
    return row.cells["patient"] == other.cells["patient"]


def attributes(rows: Sequence[Row], findings: Sequence[str] = ()) -> Mapping[str, list[str]]:
    """The columns that are neither files nor labels nor findings nor ids of images and patients."""
    others = (*FILES, "label", "image", "patient", *findings)
    names: Iterable[str] = (n for n in rows[0].cells if n not in others)
    return {name: [row.cells[name] for row in rows] for name in names}
