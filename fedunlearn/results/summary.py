"""An overview as text: sentences, and a table with a line for every strategy.

For terminals all of it fits `WIDTH` columns, whatever labels there are; `report --details` has what is left out here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from fedunlearn.results.classes import numbered
from fedunlearn.results.columns import called
from fedunlearn.results.floors import dominated
from fedunlearn.results.kinds import spoken
from fedunlearn.results.overview import Overview, Row, Value
from fedunlearn.results.sentences import (
    DOMINATED,
    UNCLEAR,
    legend,
    notes,
    number,
    percent,
    sight,
    signed,
)
from fedunlearn.results.wording import cell, item, line, quoted, row

WIDTH = 80
STYLES = {
    "yes": "green",
    "yes, but": "yellow",
    "partly": "yellow",
    "no": "red",
    "too much": "magenta",
    "worse": "red",
    UNCLEAR: "dim",
}
FORGOTTEN = "FORGOTTEN?"
"""What the columns of memory answer."""
_FEWEST = 6
"""Columns that a label has at least."""
_LONGEST = 6
"""Letters of a class's name that the table shows."""


# ----------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        block: the question it belongs to, shown above the first of its columns.
        heading: two lines.
        cells: one for every row.
        left: whether cells stand at its left edge.
    """

    block: str
    heading: tuple[str, str]
    cells: tuple[str, ...]
    left: bool = False

    @property
    def width(self) -> int:
        """Of its widest cell or heading."""
        return max(map(cell_len, (*self.heading, *self.cells)))


def columns(one: Overview) -> tuple[tuple[str, ...], list[Column]]:
    """Labels and columns; without those of memory where nothing can be told of it."""
    rows, beaten = rows_of(one), dominated(one.rows, one.floors)
    names = tuple(label(r) + (DOMINATED if r.strategy in beaten else "") for r in rows)
    return names, [
        column for column in columns_of(rows, one.kind, one.classes) if one.tells or column.block != FORGOTTEN
    ]


def rows_of(one: Overview) -> list[Row]:
    """Strategies, best first, then retraining again and doing nothing."""
    return [*one.rows, *([one.again] if one.again else ()), *([one.nothing] if one.nothing else ())]


def label(one: Row) -> str:
    """What a row is called."""
    return called(one.strategy)


def columns_of(rows: Sequence[Row], kind: str, classes: Sequence[str] = ()) -> list[Column]:
    """All that is shown of models, which may be of several runs with the same ``kind`` of task.

    Classes are shown by their numbers: names would take too much room (`sentences.legend`).
    """
    quality, part, what = spoken(kind)
    first, second = FORGOTTEN, f"STILL GOOD, on unseen {what}s?"
    return [
        Column(first, ("answer", ""), tuple(_answer(r, r.forgotten) for r in rows), left=True),
        Column(first, ("memory", "left, %"), tuple(_left(r.left) for r in rows)),
        Column(first, ("patients", "known"), tuple(_known(r) for r in rows)),
        Column(second, ("answer", ""), tuple(_answer(r, r.useful) for r in rows), left=True),
        Column(second, ("test", quality), tuple(_difference(r.test) for r in rows)),
        Column(second, ("worst", "site"), tuple(signed(r.site.value) for r in rows)),
        Column(second, ("worst", part), tuple(_class(r, classes) for r in rows)),
        Column("COST", ("% of", "retr."), tuple(_cost(r) for r in rows)),
    ]


def _answer(one: Row, word: str) -> str:
    """Retraining again is no strategy: it has numbers, which show the noise, and no answers."""
    shown = UNCLEAR if word == "cannot tell" else word
    return "" if one.strategy == "retrained_other" else shown


def _left(value: Value) -> str:
    if math.isnan(value.value):
        return "-"
    half = "" if not math.isfinite(value.half) else f" ±{percent(value.half)}"
    return f"{percent(value.value)}{half}"


def _known(one: Row) -> str:
    return f"{len(one.known)} of {one.compared}" if one.compared else "-"


def _difference(value: Value) -> str:
    half = "" if not math.isfinite(value.half) else f" ±{number(value.half)}"
    return f"{signed(value.value)}{half}"


def _class(one: Row, classes: Sequence[str]) -> str:
    name = line(numbered(one.group.name, classes))
    shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    lost = round(one.group.value, 2) < 0  # False of NaN; nothing is worst where nothing was lost
    return f"{shown}: {signed(one.group.value)}" if lost else signed(one.group.value)


def _cost(one: Row) -> str:
    """Doing nothing is no work, however much training was."""
    return "-" if one.strategy == "original" or math.isnan(one.cost) else percent(one.cost)


# ------------------------------------------------------------------------------------------------ as text


def lines(one: Overview) -> list[Text]:
    """An overview for a terminal: no line is wider than `WIDTH`."""
    told = [*wrapped(f"{one.title}, {_trainings(one)}", "", "  ", "bold"), Text()]
    told += [Text("CAN THIS RUN TELL?", style="bold")]
    told += [part for sentence in sight(one) for part in wrapped(sentence, "  ", "    ")]
    told += [Text(), *table(*columns(one)), *wrapped(legend(one), "  ", "  ", "dim"), Text()]
    return told + [part for sentence in notes(one) for part in wrapped(sentence, "  ", "    ")]


def _trainings(one: Overview) -> str:
    seeds = "1 seed" if one.seeds == 1 else f"{one.seeds} seeds"
    return f"{seeds}, {one.references} retrainings" if one.references > one.seeds else seeds


def table(names: Sequence[str], shown: Sequence[Column]) -> list[Text]:
    """Rows for a terminal, a label before each, which goes on below where it has no room."""
    taken = sum(column.width + len(gap) for column, gap in _spaced(shown))
    labels = [wrapped(name, "", " ", width=max(WIDTH - taken, _FEWEST)) for name in names]
    room = max([part.cell_len for parts in labels for part in parts], default=0)
    questions, end = Text(" " * room, style="bold"), room
    for question, of in groupby(_spaced(shown), key=lambda pair: pair[0].block):
        pairs = list(of)
        width = sum(column.width + len(gap) for column, gap in pairs)
        questions.pad_right(max(0, end - questions.cell_len))
        questions.append(pairs[0][1] + (question if len(question) < width else _short(question)))
        end += width
    heads = [_row(Text(), [column.heading[k] for column in shown], shown, room) for k in (0, 1)]
    body = []
    for i, parts in enumerate(labels):
        body += [_row(parts[0], [column.cells[i] for column in shown], shown, room), *parts[1:]]
    found = [questions, *heads, *body]
    for text in found:
        text.rstrip()
    return [text for text in found if text]  # without questions or headings that nobody has


def _row(label: Text, cells: Sequence[str], shown: Sequence[Column], room: int) -> Text:
    text = label.copy()
    text.pad_right(room - label.cell_len)
    for content, (column, gap) in zip(cells, _spaced(shown), strict=True):
        text.append(gap)
        text.append(_placed(content, column.width, column.left), STYLES.get(content, ""))
    return text


def _spaced(shown: Sequence[Column]) -> list[tuple[Column, str]]:
    """Columns, and what is left free before each."""
    between = [i > 0 and column.block != shown[i - 1].block for i, column in enumerate(shown)]
    return [(column, "  " if wide else " ") for column, wide in zip(shown, between, strict=True)]


def _placed(text: str, width: int, left: bool) -> str:
    """In so many columns, which letters of some scripts take two of."""
    pad = " " * max(0, width - cell_len(text))
    return text + pad if left else pad + text


def wrapped(text: str, first: str, further: str, style: str = "", width: int = WIDTH) -> list[Text]:
    """A text in lines of at most ``width`` columns, the ``first`` of them indented otherwise than ``further`` ones."""
    whole = cell(text, style)
    if cell_len(first) + whole.cell_len <= width:
        return [Text(first).append_text(whole)]
    found = whole.wrap(Console(width=WIDTH), width - max(len(first), len(further)))
    for part in found:
        part.rstrip()
    return [Text(further if i else first).append_text(part) for i, part in enumerate(found)]


def markdown(one: Overview) -> list[str]:
    """An overview for a document."""
    names, shown = columns(one)
    heads = ["", *(_question(c) or " ".join(c.heading) for c in shown)]
    body = [[name, *(column.cells[i] for column in shown)] for i, name in enumerate(names)]
    return [
        f"**{quoted(one.title)}**, {_trainings(one)}\n",
        *(quoted(sentence) + "\n" for sentence in sight(one)),
        *map(row, [heads, ["---"] * len(heads), *body]),
        f"\n{quoted(legend(one))}\n",
        *(item(sentence) for sentence in notes(one)),
        "",
    ]


def _question(column: Column) -> str:
    """Above an answer, the question."""
    return _short(column.block).capitalize() if column.heading[0] == "answer" else ""


def _short(question: str) -> str:
    return f"{question.partition(',')[0].rstrip('?')}?"
