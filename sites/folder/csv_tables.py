"""Tables in CSV as people's programs write them: every cell as text and known by its place."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedunlearn.core import InputError, Problem
from sites.folder.columns import SEPARATORS, WANTED, Needed, header_of, known_in, require
from sites.folder.encodings import lines_of, text_of
from sites.identity import is_missing
from sites.rows import Fault, Row, Table, grouped

_BY_SPACES = "its columns are separated by spaces; separate them by commas (R: write.csv, not write.table)"
_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_NUMBER = re.compile(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True)
class _Flavour:
    """How a CSV file is written: what separates cells, and in which line (from 0) its header stands."""

    separator: str
    header: int
    notes: tuple[str, ...]


def read_csv(file: Path, needed: Needed) -> Table:
    """All rows of a CSV file.

    Args:
        file: the file.
        needed: the columns that it must have.

    Raises:
        InputError: it is none, lacks columns, or has rows of another length; all problems together.
    """
    lines = lines_of(text_of(file))
    flavour = _flavour(lines)
    try:
        records = list(_records(lines, flavour))
    except csv.Error as error:
        spaces = len(known_in(lines[flavour.header], " ")) > 1
        why = _BY_SPACES if spaces else "is a quote missing, or one too many?"
        message = f"is no CSV file ({error.args[0]}): {why}"
        raise InputError([Problem(message, str(file), error.args[1])]) from error
    first = records[0][1] if records else []
    header, notes = header_of(first)
    require(file, header, needed, flavour.header + 1, lines)
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
    candidates = dict.fromkeys((*([told] if told in SEPARATORS else []), *SEPARATORS))
    best = max(candidates, key=lambda one: len(known_in(header, one)))
    if best != ",":
        notes.append(f"its columns are separated by {SEPARATORS[best]}")
    return _Flavour(best, start, tuple(notes))


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
    hint = f" (columns are separated by {SEPARATORS[separator]})" if separator != "," else ""
    message = f"found {len(cells)} cells, expected {len(header)}, one for each column{hint}"
    if len(cells) == len(header) + 1:
        message += (
            ": is a separator in a cell without quotes around it, or did R write row names (row.names=FALSE)?"
        )
    others = [one for one in SEPARATORS if len(cells) == 1 and cells[0].count(one) + 1 == len(header)]
    if others:
        message += (
            f": it is separated by {SEPARATORS[others[0]]}, unlike the header; separate all lines alike"
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
    """Numbers with decimal commas as numbers with points, in columns that have nothing else; ids and files stay."""
    names = [name for name in (rows[0].cells if rows else ()) if name == "label" or name not in WANTED]
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
    """Whether all cells are numbers or words for nothing, some with a comma, not all of them for thousands."""
    commas = [cell for cell in cells if _COMMA.fullmatch(cell)]
    numbers = all(_NUMBER.fullmatch(cell) or is_missing(cell) for cell in cells)
    return numbers and not all(map(_THOUSANDS.fullmatch, commas))
