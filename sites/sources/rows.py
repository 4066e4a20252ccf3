"""Rows of a table, every cell known by its place, and problems of many rows told in few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedunlearn.core import Problem

SHOWN = 5
"""Problems of one kind that are told one by one; of the others, how many there are."""


@dataclass(frozen=True)
class Row:
    """One image of a manifest.

    Attributes:
        cells: by column name; ids keep their leading zeros.
        manifest: the file it stands in, or the folder it was made from.
        line: its line in a CSV file, its number in a Parquet file or folder, from 1.
        columns: where each cell starts in the line, from 1; empty where the file has no lines, None in a folder.
    """

    cells: Mapping[str, str]
    manifest: str
    line: int
    columns: Mapping[str, int] | None

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        if self.columns is None:
            return self.cells["file"]
        return f"line {self.line}" if self.columns else f"row {self.line}"

    def problem(self, column: str, message: str) -> Problem:
        """A problem with one of the cells."""
        if self.columns is None:
            return Problem(f"{self.cells['file']}: {column}: {message}", self.manifest)
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


@dataclass(frozen=True)
class Table:
    """What was read.

    Attributes:
        rows: in order.
        notes: what was read in a way that its owner should know of.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


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
