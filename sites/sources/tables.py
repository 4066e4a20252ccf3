"""Tables in CSV or Parquet, as people's programs write them: every cell as text and known by its place."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fedunlearn.core import InputError, Problem
from sites.formats import sizes
from sites.identity import tidied
from sites.sources.encodings import PARQUET, lines_of, text_of
from sites.sources.rows import Fault, Row, grouped

LABELS = ("label", "label_map")
"""A manifest has one of these columns: a class for every image, or the file of its label map."""

WANTED = ("file", *LABELS, "patient", "site", "image")
"""Columns that mean something to us, by the names that they must have."""

_KNOWN = (*WANTED, "age", "sex", "split", "difficulty")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_OFTEN = {
    "file": (
        "filename",
        "file_name",
        "path",
        "filepath",
        "file_path",
        "image_path",
        "img",
        "image index",
    ),
    "label": ("class", "diagnosis", "target", "dx", "finding labels", "labels", "y", "category"),
    "label_map": ("mask", "segmentation", "seg", "mask_path"),
    "patient": (
        "patient_id",
        "patientid",
        "patient id",
        "subject",
        "subject_id",
        "pid",
        "case",
        "id",
    ),
}
_COMMA = re.compile(r"[+-]?\d+,\d+")
_NUMBER = re.compile(r"[+-]?\d+(,\d+)?")


@dataclass(frozen=True)
class Table:
    """What was read.

    Attributes:
        rows: in order.
        notes: what was read in a way that its owner should know of.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def read_table(file: Path) -> Table:
    """All rows of a CSV or Parquet file; what it is is told by its content.

    Raises:
        InputError: it is none of the two, or has columns twice or rows of another length; all problems together.
    """
    with file.open("rb") as opened:
        start = opened.read(len(PARQUET))
    if start == PARQUET or file.suffix == ".parquet":
        return _parquet(file)
    return _csv(file, lines_of(text_of(file)))


# ------------------------------------------------------------------------------------------------------- CSV


@dataclass(frozen=True)
class _Flavour:
    """How a CSV file is written: what separates cells, and in which line (from 0) its header stands."""

    separator: str
    header: int
    notes: tuple[str, ...]


def _csv(file: Path, lines: Sequence[str]) -> Table:
    flavour = _flavour(lines)
    try:
        records = list(_records(lines, flavour))
    except csv.Error as error:
        line, message = (
            error.args[1],
            f"is no CSV file ({error.args[0]}): is a quote missing, or one too many?",
        )
        raise InputError([Problem(message, str(file), line)]) from error
    first = records[0][1] if records else []
    header, notes = _header(first)
    _require(file, header, flavour.header + 1, lines)
    rows, faults = list[Row](), list[Fault]()
    for line, cells in records[1:]:
        if any(cell.strip() for cell in cells[len(header) :]) or len(cells) < len(_trimmed(header)):
            faults.append(_another_length(file, line, cells, header, flavour.separator))
            continue
        starts = dict(zip(header, _starts(lines[line - 1], flavour.separator), strict=False))
        named = {name: cell for name, cell in zip(header, cells, strict=False) if name}
        rows.append(Row(named, str(file), line, {name: starts.get(name, 1) for name in named}))
    if faults:
        raise InputError(grouped(faults))
    notes += _nameless(header, [cells for _, cells in records[1:]])
    if flavour.separator != ",":
        rows, commas = _decimal(rows)
        notes += commas
    return Table(tuple(rows), (*flavour.notes, *notes))


def _records(lines: Sequence[str], flavour: _Flavour) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line where it starts, from 1; no blank ones.

    Raises:
        csv.Error: with its message and the line.
    """
    reader = csv.reader(
        lines[flavour.header :], delimiter=flavour.separator, strict=True, skipinitialspace=True
    )
    while True:
        line = flavour.header + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise csv.Error(str(error), line) from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _flavour(lines: Sequence[str]) -> _Flavour:
    """The separator with which most of the wanted columns appear; comments and a ``sep=`` line come before."""
    start, notes, told = 0, list[str](), ""
    while start < len(lines) and (not lines[start].strip() or lines[start].lstrip().startswith("#")):
        if text := lines[start].strip():
            notes.append(f"line {start + 1} ({text[:60]!r}) is taken for a comment")
        start += 1
    if start < len(lines) and (match := re.fullmatch(r'"?sep=(.)"?', lines[start].strip("\r\n"))):
        told, start = match[1], start + 1
    header = lines[start] if start < len(lines) else ""
    candidates = dict.fromkeys((*([told] if told in _SEPARATORS else []), *_SEPARATORS))
    best = max(candidates, key=lambda one: len(_found(header, one)))
    if best != ",":
        notes.append(f"its columns are separated by {_SEPARATORS[best]}")
    return _Flavour(best, start, tuple(notes))


def _found(header: str, separator: str) -> set[str]:
    """The wanted columns of a header if its cells are separated so."""
    try:
        cells = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return set()
    return {tidied(cell).casefold() for cell in cells} & set(_KNOWN)


def _header(cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns' names, and notes; names of ours may be written with capitals and with spaces around them."""
    names, renamed = [], []
    for cell in cells:
        name = tidied(cell)
        known = name.casefold() if name.casefold() in _KNOWN else name
        names.append(known)
        if known != name or (known and cell != known and cell.isascii()):
            renamed.append(f"{cell!r} is {known}")
    return names, [f"columns are written otherwise: {', '.join(renamed)}"] if renamed else []


def _trimmed(header: Sequence[str]) -> Sequence[str]:
    """Without nameless columns at its end."""
    end = len(header)
    while end and not header[end - 1]:
        end -= 1
    return header[:end]


def _nameless(header: Sequence[str], records: Sequence[Sequence[str]]) -> list[str]:
    """A note of each column that has content but no name, as the row numbers of pandas and R have."""
    return [
        f"column {place + 1} has no name and is left out"
        + (", as the row numbers that pandas and R write" if place == 0 else "")
        for place, name in enumerate(header)
        if not name and any(cells[place].strip() for cells in records if place < len(cells))
    ]


def _another_length(
    file: Path, line: int, cells: Sequence[str], header: Sequence[str], separator: str
) -> Fault:
    hint = f" (columns are separated by {_SEPARATORS[separator]})" if separator != "," else ""
    message = f"found {len(cells)} cells, expected {len(header)}, one for each column{hint}"
    if len(cells) == len(header) + 1:
        message += (
            ": is a separator in a cell without quotes around it, or did R write row names (row.names=FALSE)?"
        )
    return Fault(Problem(message, str(file), line), "another number of cells")


def _starts(line: str, separator: str) -> Iterator[int]:
    """The column where each cell of a CSV line starts, from 1."""
    yield 1
    quoted = False
    for place, character in enumerate(line, start=1):
        quoted ^= character == '"'
        if character == separator and not quoted:
            yield place + 1


def _decimal(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Numbers with decimal commas as numbers with points, in columns that have nothing but numbers."""
    names = [name for name in (rows[0].cells if rows else ()) if name in ("label", "age", "difficulty")]
    commas = [name for name in names if _has_commas([row.cells[name].strip() for row in rows])]
    if not commas:
        return rows, []
    changed = [
        Row(
            {**row.cells, **{c: row.cells[c].replace(",", ".") for c in commas}},
            row.manifest,
            row.line,
            row.columns,
        )
        for row in rows
    ]
    return changed, [f"decimal commas are read as points in {', '.join(commas)}"]


def _has_commas(cells: Sequence[str]) -> bool:
    given = [cell for cell in cells if cell]
    return all(_NUMBER.fullmatch(cell) for cell in given) and any(_COMMA.fullmatch(cell) for cell in given)


# --------------------------------------------------------------------------------------------------- Parquet


def _parquet(file: Path) -> Table:
    try:
        needed, texts = sizes.rows(file)
        if message := sizes.too_large(needed):
            raise InputError([Problem(f"is too large: it {message}", str(file))])
        table = pd.read_parquet(file, engine="pyarrow", read_dictionary=texts)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise InputError([Problem(f"is no Parquet file ({error}): save it as one", str(file))]) from error
    header, notes = _header([str(name) for name in table.columns])
    _require(file, header)
    for column in {"patient", "site", "image"} & set(header):
        if table.iloc[:, header.index(column)].dtype.kind == "f":
            message = (
                f"{column} ids are decimal numbers, expected text or integers: save them as text (7, not 7.0)"
            )
            raise InputError([Problem(message, str(file))])
    cells = [_cells(table.iloc[:, place]) for place in range(len(header))]
    rows = (
        Row({name: cell for name, cell in zip(header, row, strict=True) if name}, str(file), number, {})
        for number, row in enumerate(zip(*cells, strict=True), start=1)
    )
    return Table(tuple(rows), tuple(notes))


def _cells(column: pd.Series) -> list[str]:
    """The texts of a column, empty where one is missing; a text that many rows have is there once."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        texts = [*map(_text, column.cat.categories), ""]
        return [texts[code] for code in column.cat.codes]  # -1 where one is missing
    return ["" if missing else _text(value) for value, missing in zip(column, column.isna(), strict=True)]


def _text(value: object) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


# --------------------------------------------------------------------------------------------------- columns


def _require(file: Path, header: Sequence[str], line: int = 1, lines: Sequence[str] = ()) -> None:
    labels = [column for column in LABELS if column in header]
    wanted = ("file", *(labels or LABELS[:1]), "patient")
    missing = [column for column in wanted if column not in header]
    twice = sorted({column for column in header if column and header.count(column) > 1})
    problems = []
    if missing:
        there = [name for name in header if name]
        found = ", ".join(there[:20]) + (f" and {len(there) - 20:,} more" if len(there) > 20 else "")
        message = f"found the columns {found or 'none'}, expected also {', '.join(missing)}"
        problems.append(Problem(message + _meant(missing, there, line, lines), str(file), line))
    if len(labels) > 1:
        problems.append(
            Problem("found the columns label and label_map, expected one of them", str(file), line)
        )
    if twice:
        problems.append(Problem(f"found the columns {', '.join(twice[:10])} more than once", str(file), line))
    if problems:
        raise InputError(problems)


def _meant(missing: Sequence[str], header: Sequence[str], line: int, lines: Sequence[str]) -> str:
    """What to do about missing columns: rename others, or remove what stands above the header."""
    for below, text in enumerate(lines[line : line + 10], start=line + 1):
        if any(len(_found(text, one) & set(WANTED)) > 1 for one in _SEPARATORS):
            return f": the header seems to be in line {below}; remove what stands above it"
    by_fold = {name.casefold(): name for name in header}
    renames = [
        f"{by_fold[other]} to {column}"
        for column in missing
        for other in [next((one for one in _OFTEN.get(column, ()) if one in by_fold), "")]
        if other
    ]
    return f": rename {', '.join(renames)}?" if renames else ""
