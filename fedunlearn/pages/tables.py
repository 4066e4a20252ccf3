"""Tables of a page as values: what is shown, by what it is sorted, and where every number is from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

TONES = {
    "yes": "yes",
    "yes, but": "but",
    "partly": "partly",
    "no": "no",
    "too much": "much",
    "worse": "no",
    "cannot tell": "unclear",
}
"""By answer, how the page sets it off; the word itself always stands beside the colour."""


_UPRIGHT, _LANDSCAPE = 12, 20
"""Columns of a table that fit on a sheet of paper, upright and turned."""


@dataclass(frozen=True)
class Number:
    """A number as it is shown.

    Attributes:
        text: as it is read.
        value: whole, as it is in the run's tables.
        source: the place there: a table, its rows (from 0), a column, and what is made of several rows: ``value`` (of
            one), ``mean``, ``median`` or ``count``. Such as ``statistics 12 difference value`` or ``scores 3,9 value
            mean``.
        times: what the value was multiplied by for the text.
    """

    text: str
    value: float
    source: str
    times: float = 1.0


@dataclass(frozen=True)
class Cell:
    """A cell: text and numbers one after another.

    Attributes:
        parts: what it holds.
        order: what its column is sorted by; a text, or a number, which comes before all texts.
        tone: of an answer.
    """

    parts: tuple[str | Number, ...] = ()
    order: float | str = ""
    tone: str = ""

    @property
    def sorting(self) -> str | None:
        """`order` where none of the parts tells it by itself; nothing known comes last. None if one does."""
        if isinstance(self.order, str) or any(isinstance(part, Number) for part in self.parts):
            return None
        return "" if math.isnan(self.order) else repr(float(self.order))


@dataclass(frozen=True)
class Column:
    """A column's heading.

    Attributes:
        name: what it is called.
        block: what it has in common with its neighbours, if anything.
        numbers: whether its cells stand to the right.
        words: what it means, if that needs a sentence.
    """

    name: str
    block: str = ""
    numbers: bool = True
    words: str = ""


@dataclass(frozen=True)
class Table:
    """A table, whose first column says what a row is about.

    Attributes:
        id: of the element.
        caption: what it shows, and how to read it.
        columns: headings; the first one is of the rows' names.
        rows: cells of every row.
        paper: where the page folds it, whether it is printed all the same.
    """

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    paper: bool = False

    @property
    def width(self) -> str:
        """How much of a sheet of paper it takes: nothing special, ``broad`` (landscape) or ``broadest`` (and small)."""
        count = len(self.columns)
        return "" if count <= _UPRIGHT else "broad" if count <= _LANDSCAPE else "broadest"

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """What neighbouring columns have in common, and how many they are; empty if none have anything."""
        found = list[tuple[str, int]]()
        for column in self.columns:
            if found and found[-1][0] == column.block:
                found[-1] = (column.block, found[-1][1] + 1)
            else:
                found.append((column.block, 1))
        return found if any(name for name, _ in found) else []


def words(text: str, tone: str = "") -> Cell:
    """A cell of text."""
    return Cell((text,) if text else (), text, tone)


def answer(word: str) -> Cell:
    """A cell with one of the answers."""
    return words(word, TONES.get(word, ""))


def number(one: Number | None, *more: str | Number) -> Cell:
    """A cell with a number, by which it is sorted, and what stands behind it; a dash if it is not known."""
    if one is None or math.isnan(one.value):
        return Cell(("–",), math.nan)
    return Cell((one, *more), one.value)


def names(found: Sequence[str], most: int = 3) -> str:
    """The first of some names; the rest is counted."""
    rest = len(found) - most
    return ", ".join([*found[:most], *([f"{rest} more"] if rest > 0 else [])])
