"""Manifests: tables of image files in CSV or Parquet, every cell read as text and known by its place."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from fedunlearn.core import InputError, Problem
from sites.formats import sizes

SHOWN = 5
"""Problems of one kind that are told one by one; of the others, how many there are."""

LABELS = ("label", "label_map")
"""A manifest has one of these columns: a class for every image, or the file of its label map."""


@dataclass(frozen=True)
class Row:
    """One image of a manifest.

    Attributes:
        cells: by column name; ids keep their leading zeros.
        manifest: the file it stands in.
        line: its line in a CSV file, its number in a Parquet file, from 1.
        columns: where each cell starts in the line, from 1; empty where the file has no lines.
    """

    cells: Mapping[str, str]
    manifest: str
    line: int
    columns: Mapping[str, int]

    def problem(self, column: str, message: str) -> Problem:
        """A problem with one of the cells."""
        if not self.columns:
            return Problem(f"row {self.line}, column {column}: {message}", self.manifest)
        return Problem(f"{column}: {message}", self.manifest, self.line, self.columns.get(column))

    def fault(self, kind: str, column: str, message: str) -> Fault:
        """A problem with one of the cells, and its kind."""
        return Fault(self.problem(column, message), f"{column}: {kind}")


@dataclass(frozen=True)
class Fault:
    """One problem of many, some of them alike.

    Attributes:
        problem: with its place.
        kind: in a few words, equal for those that are alike.
    """

    problem: Problem
    kind: str


def grouped(faults: Iterable[Fault]) -> list[Problem]:
    """The first `SHOWN` problems of every kind in their order, then how many more there are of each."""
    shown, counts = list[Problem](), Counter[tuple[str | None, str]]()
    for fault in faults:
        kind = fault.problem.file, fault.kind
        counts[kind] += 1
        if counts[kind] <= SHOWN:
            shown.append(fault.problem)
    return shown + [
        Problem(f"{kind}: so in {count - SHOWN:,} more rows, {count:,} in all", file)
        for (file, kind), count in counts.items()
        if count > SHOWN
    ]


def read_manifest(file: Path) -> list[Row]:
    """All rows of a manifest.

    Raises:
        InputError: it is missing, no CSV or Parquet file, or lacks columns; all problems together.
    """
    if not file.is_file():
        raise InputError(
            f"folder: found no manifest {file}, expected a CSV or Parquet file with the columns "
            f"file, label or label_map, and patient: put it there or give its folder as --data-root"
        )
    if file.suffix == ".parquet":
        return _parquet(file)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return _csv(file, lines.read())
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            [Problem(f"is no CSV file in UTF-8 ({error}): save it as one", str(file))]
        ) from error


def _csv(file: Path, text: str) -> list[Row]:
    lines = text.splitlines(keepends=True)
    reader = csv.reader(lines, strict=True)
    header = next(reader, [])
    _require(file, header)
    rows, faults, start = [], list[Fault](), reader.line_num + 1
    for cells in reader:
        line, start = start, reader.line_num + 1
        if len(cells) == len(header):
            places = dict(zip(header, _starts(lines[line - 1]), strict=False))
            rows.append(Row(dict(zip(header, map(str.strip, cells), strict=True)), str(file), line, places))
        elif cells:  # not a blank line
            message = f"found {len(cells)} cells, expected {len(header)}, one for each column"
            faults.append(Fault(Problem(message, str(file), line), "another number of cells"))
    if faults:
        raise InputError(grouped(faults))
    return rows


def _starts(line: str) -> Iterator[int]:
    """The column where each cell of a CSV line starts, from 1."""
    yield 1
    quoted = False
    for place, character in enumerate(line, start=1):
        quoted ^= character == '"'
        if character == "," and not quoted:
            yield place + 1


def _parquet(file: Path) -> list[Row]:
    try:
        needed, texts = sizes.rows(file)
        if message := sizes.too_large(needed):
            raise InputError([Problem(f"is too large: it {message}", str(file))])
        table = pd.read_parquet(file, engine="pyarrow", read_dictionary=texts)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise InputError([Problem(f"is no Parquet file ({error}): save it as one", str(file))]) from error
    header = [str(name) for name in table.columns]
    _require(file, header)
    for column in {"patient", "site", "image"} & set(header):
        if table[column].dtype.kind == "f":
            raise InputError(
                [Problem(f"{column} ids are decimal numbers, expected text or integers", str(file))]
            )
    cells = [_cells(table[column]) for column in table.columns]
    return [
        Row(dict(zip(header, row, strict=True)), str(file), number, {})
        for number, row in enumerate(zip(*cells, strict=True), start=1)
    ]


def _cells(column: pd.Series) -> list[str]:
    """The texts of a column, empty where one is missing; a text that many rows have is there once."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        texts = [*map(str, column.cat.categories), ""]
        return [texts[code] for code in column.cat.codes]  # -1 where one is missing
    return ["" if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)]


def _require(file: Path, header: list[str]) -> None:
    labels = [column for column in LABELS if column in header]
    wanted = ("file", *(labels or LABELS[:1]), "patient")
    missing = [column for column in wanted if column not in header]
    twice = sorted({column for column in header if header.count(column) > 1})
    problems = []
    if missing:
        message = f"found the columns {', '.join(header) or 'none'}, expected also {', '.join(missing)}"
        problems.append(Problem(message, str(file), 1))
    if len(labels) > 1:
        problems.append(Problem("found the columns label and label_map, expected one of them", str(file), 1))
    if twice:
        problems.append(Problem(f"found the columns {', '.join(twice)} more than once", str(file), 1))
    if problems:
        raise InputError(problems)


def row_problems(rows: Sequence[Row], inside: Inside) -> list[Problem]:
    """Everything wrong with the rows of a manifest; no image is opened."""
    if not rows:
        return [Problem("folder: the manifest has no rows, expected one per image")]
    labels = [row.cells["label"] for row in rows if "label" in row.cells]
    numbered = sum(label.isdecimal() for label in labels) * 2 > len(rows)
    problems = grouped(_row_faults(rows, inside, numbered))
    classes = {int(label) for label in labels if label.isdecimal()}
    if numbered and not problems and classes != set(range(len(classes))):
        problems.append(
            Problem(
                f"found the labels {sorted(classes)[:12]}, expected 0, 1, … without a gap", rows[0].manifest
            )
        )
    return problems


def _row_faults(rows: Sequence[Row], inside: Inside, numbered: bool) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for row in rows:
        yield from cell_faults(row, inside, numbered)
        image = row.cells.get("image", row.cells["file"])
        if (first := seen.setdefault(image, row.line)) != row.line:
            column = "image" if "image" in row.cells else "file"
            message = f"found {image!r} again (first in line {first}), expected unique ids"
            yield row.fault("an id again", column, message)


def cell_faults(row: Row, inside: Inside, numbered: bool = False) -> list[Fault]:
    """Everything wrong with one row.

    Args:
        row: of a manifest.
        inside: where its files must lie.
        numbered: whether labels must be numbers.
    """
    faults = []
    for column in {"patient", "label", "label_map", "site", "image"} & set(row.cells):
        if not row.cells[column]:
            message = f"found nothing, expected the {column} of this image"
            faults.append(row.fault("nothing", column, message))
    if numbered and row.cells["label"] and not row.cells["label"].isdecimal():
        found = row.cells["label"]
        message = f"found {found!r}, expected a class number as in most rows (0, 1, …)"
        faults.append(row.fault("no class number", "label", message))
    maps = "label_map" in row.cells
    faults += _file_faults(row, "file", inside)
    if maps and row.cells["label_map"]:
        faults += _file_faults(row, "label_map", inside)
    return sorted(faults, key=lambda fault: fault.problem)


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

    def leads_out(self, file: str) -> str | None:
        """Where a path really leads, by ``..``, links or its own start, if that is not in the folder.

        Of a folder, its files are asked, too.
        """
        place = self.folder / file
        inner = sorted(os.listdir(place)) if not self.outside and os.path.isdir(place) else []
        found = (os.path.realpath(place / name) for name in ("", *inner))
        return next((one for one in found if not (self.outside or Path(one).is_relative_to(self.real))), None)


def _file_faults(row: Row, column: str, inside: Inside) -> list[Fault]:
    file = row.cells[column]
    if "\0" in file:
        return [row.fault("no file", column, f"found {file!r}, which no file can be called")]
    if found := inside.leads_out(file):
        message = (
            f"found {file!r}, which leads out of the manifest's folder, to {found}: put the file there, or set "
            "outside: true if you trust who wrote the manifest"
        )
        return [row.fault("leads out of the manifest's folder", column, message)]
    if not os.path.exists(inside.folder / file):  # false, too, for names that no disk can have
        message = f"found no file {inside.folder / file}; paths start at the manifest's folder"
        return [row.fault("no file", column, message)]
    return []
