"""Manifests: tables of image files, with whose they are and what they show, every bad row told by its place."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fedunlearn.core import InputError, Problem
from sites.identity import is_missing, settled, tidied
from sites.sources.labels import Labels, missing, read_labels
from sites.sources.rows import Fault, Row, Table, grouped
from sites.sources.tables import read_table

_FILES = ("file", "label_map")
_IDS = ("patient", "site", "image")
_SHORTENED = re.compile(r"\d([.,]\d+)?[eE]\+\d+")
_QUOTES = ("''", "‘’", "“”", "„“", "``", "«»", "´´")


@dataclass(frozen=True)
class Inside:
    """Where the files of a manifest may lie.

    Attributes:
        folder: the manifest's, where their paths start.
        outside: they may lie anywhere else, too.
    """

    folder: Path
    outside: bool = False

    @cached_property
    def real(self) -> str:
        """The folder without links."""
        return os.path.realpath(self.folder)

    def path(self, file: str) -> str:
        """Where a path of the manifest's leads, links left as they are."""
        return os.path.join(self._start, file)

    def leads_out(self, file: str) -> str | None:
        """Where a path really leads, by ``..``, links or its own start, if that is not in the folder."""
        if self.outside:
            return None
        place, name = os.path.split(self.path(file))
        found = os.path.join(self._real(place), name)
        if name in ("", ".", "..") or os.path.islink(found):
            found = os.path.realpath(found)
        return None if found == self.real or found.startswith(os.path.join(self.real, "")) else found

    def has(self, file: str) -> bool:
        """Whether it is there, as a file or as the folder of a series; false, too, for names that no disk can have."""
        return os.path.exists(self.path(file))

    @cached_property
    def _start(self) -> str:
        return str(self.folder)

    @cached_property
    def _places(self) -> dict[str, str]:
        """Folders without links, by what they are called: most files of a manifest lie in a few."""
        return {}

    def _real(self, place: str) -> str:
        if place not in self._places:
            self._places[place] = os.path.realpath(place)
        return self._places[place]


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest as they are used.

    Attributes:
        rows: ids and attributes tidied (`sites.identity.tidied`), files as they are called on the disk.
        labels: the classes of the images; None for label maps, or where there are no rows.
        notes: what was read in a way that its owner should know of.
        problems: all that is wrong.
        good: the rows that nothing is wrong with.
    """

    rows: tuple[Row, ...]
    labels: Labels | None
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    good: tuple[Row, ...]


def read_manifest(file: Path) -> Table:
    """All rows of a manifest as they are written.

    Raises:
        InputError: it is missing, no CSV or Parquet file, or lacks columns; all problems together.
    """
    if not file.is_file():
        there = "a folder" if file.is_dir() else "no manifest"
        raise InputError(
            f"folder: found {there} {file}, expected a CSV or Parquet file with the columns "
            f"file, label or label_map, and patient: put it there or give its folder as --data-root"
        )
    return read_table(file)


def checked(table: Table, inside: Inside) -> Manifest:
    """The rows as they are used, and all that is wrong with them; no image is opened."""
    if not table.rows:
        problem = Problem("folder: the manifest has no rows, expected one per image")
        return Manifest((), None, table.notes, (problem,), ())
    named, renamed = _named(table.rows, inside)
    rows, notes = _settled(named)
    faults = defaultdict[int, list[Fault]](list)
    for number, row in enumerate(rows):
        faults[number] += _cell_faults(row, inside)
    for number, fault in _doubled(rows):
        faults[number].append(fault)
    labels, wrong = None, list[str]()
    if "label" in rows[0].cells:
        labels = read_labels(
            [row.cells["label"] for row in rows], _owners(rows), lambda number: rows[number].place
        )
        for one in labels.misread:
            faults[one.row].append(rows[one.row].fault(one.kind, "label", one.message))
        notes, wrong = (*notes, *labels.notes), [*labels.wrong]
    told = (
        fault
        for number in range(len(rows))
        for fault in sorted(faults[number], key=lambda f: _order(f.problem))
    )
    problems = (*grouped(told), *(Problem(f"label: {message}", rows[0].manifest) for message in wrong))
    good = tuple(row for number, row in enumerate(rows) if not faults[number])
    return Manifest(rows, labels, (*table.notes, *renamed, *notes), problems, good)


def _order(problem: Problem) -> tuple[int, str]:
    return problem.column or 0, problem.message


def _owners(rows: Sequence[Row]) -> list[str]:
    return [row.cells["patient"] for row in rows]


# ----------------------------------------------------------------------------------------------------- files


def _named(rows: Sequence[Row], inside: Inside) -> tuple[list[Row], list[str]]:
    """The rows with their files as the disk has them, and notes of those that are written otherwise."""
    found, counts = list[Row](), defaultdict[str, int](int)
    for row in rows:
        files = dict[str, str]()
        for column in _FILES:
            if column in row.cells:
                files[column], why = _on_disk(row.cells[column].strip(), inside)
                counts[why] += bool(why)
        found.append(replace(row, cells={**row.cells, **files}))
    return found, [f"{why} in {count:,} paths" for why, count in counts.items() if why]


def _on_disk(file: str, inside: Inside) -> tuple[str, str]:
    """A path as it is found, and how it differs from what is written; as it is where nothing is found."""
    if not file or inside.has(file):
        return file, ""
    slashed = file.replace("\\", "/")
    if slashed != file and inside.has(slashed):
        return slashed, "backslashes are read as /"
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, slashed)
        if other != file and inside.has(other):
            return other, "letters with accents are written otherwise than on the disk (Unicode form)"
    return file, ""


def _file_faults(row: Row, column: str, inside: Inside) -> Iterator[Fault]:
    file = row.cells[column]
    if is_missing(file) and not inside.has(file or "\0"):
        yield row.fault("missing" if file else "nothing", column, missing(column.replace("_", " "), file))
    elif found := inside.leads_out(file) if "\0" not in file else None:
        message = (
            f"found {file!r}, which leads out of the manifest's folder, to {found}: put the file there, or set "
            "outside: true if you trust who wrote the manifest"
        )
        yield row.fault("leads out of the manifest's folder", column, message)
    elif not inside.has(file):
        yield row.fault("no file", column, f"found no file {inside.path(file)}{_why_not(file)}")


def _why_not(file: str) -> str:
    if re.match(r"[A-Za-z]:[\\/]|\\\\", file):
        return ", a path of another computer (Windows): write paths relative to the manifest's folder, with /"
    if "\\" in file:
        return ", nor one with / in place of its backslashes; paths start at the manifest's folder"
    return "; paths start at the manifest's folder"


# ----------------------------------------------------------------------------------------------------- cells


def _settled(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows with tidied cells, and notes of ids that became one, or look alike."""
    columns, notes = dict[str, Sequence[str]](), list[str]()
    for name in rows[0].cells:
        written = [row.cells[name] for row in rows]
        if name in _FILES:
            columns[name] = written
        elif name in ("patient", "site"):
            ids = settled(name, written)
            columns[name] = ids.ids
            notes += ids.notes
        else:
            shape = {text: tidied(text) for text in set(written)}  # once: a million rows may have one text
            columns[name] = [shape[text] for text in written]
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
        if column in row.cells and (wrong := _damaged(row.cells[column])):
            yield row.fault(wrong[0], column, f"found {row.cells[column][:60]!r}, {wrong[1]}")
    for column in _FILES:
        if column in row.cells:
            yield from _file_faults(row, column, inside)


def _damaged(text: str) -> tuple[str, str] | None:
    """Of a cell that other programs, or quotes at the wrong place, have changed: the kind, and what to do."""
    if any(c in text for c in "\r\n"):
        return "a line break", "which has a line break in it: is a quote missing, or one too many?"
    if any(unicodedata.category(c) == "Cc" for c in text):
        return "control characters", "which has control characters in it: remove them"
    if '"' in text or (len(text) > 1 and text[0] + text[-1] in _QUOTES):
        return "quotes", 'which has quotes in it: write them as "…", or leave them out'
    if "\N{REPLACEMENT CHARACTER}" in text:
        return (
            "lost letters",
            "which lost letters when the file was converted: save it anew from its source, as UTF-8",
        )
    if _SHORTENED.fullmatch(text):
        return (
            "a shortened number",
            "a number that Excel shortened, so that several may be one: make the column text",
        )
    return None


def _doubled(rows: Sequence[Row]) -> Iterator[tuple[int, Fault]]:
    """Images whose id came before."""
    column = "image" if "image" in rows[0].cells else "file"
    seen: dict[str, Row] = {}
    for number, row in enumerate(rows):
        image = row.cells[column]
        if (
            image
            and (first := seen.setdefault(os.path.normpath(image) if column == "file" else image, row))
            is not row
        ):
            message = (
                f"found {image!r} again (first in {first.place}), expected unique ids: remove one of the rows"
            )
            yield number, row.fault("an id again", column, message)


def attributes(rows: Sequence[Row]) -> Mapping[str, list[str]]:
    """The columns that are neither files nor labels nor ids of images and patients."""
    names: Iterable[str] = (n for n in rows[0].cells if n not in (*_FILES, "label", "image", "patient"))
    return {name: [row.cells[name] for row in rows] for name in names}
