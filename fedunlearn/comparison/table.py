"""Runs side by side: for every request and strategy a line of each run, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from fedunlearn.comparison.runs import Compared
from fedunlearn.results.overview import Overview, Row, Value
from fedunlearn.results.summary import Column, columns_of, label, rows_of, table, wrapped

SHOWN = (("answer", ""), ("memory", "left, %"), ("% of", "retr."))
"""Headings of what is shown of each row, beside the difference on unseen images."""
LEGEND = (
    "Memory left: 0 as if never seen, 100 as in the original model; - where none can be seen. Test: against the same "
    "run's retraining. ±: 95 %."
)


def show(runs: Sequence[Compared], console: Console) -> None:
    """Print which runs they are, and a table for every request that any of them has."""
    for text in lines(runs):
        console.print(text, soft_wrap=True)


def lines(runs: Sequence[Compared]) -> list[Text]:
    """The same as text; no line is wider than 80 columns."""
    told = [text for number, run in enumerate(runs, 1) for text in _introduced(number, run, len(runs))]
    requests = dict.fromkeys((name, one.kind) for run in runs for name, one in run.overviews.items())
    for request, kind in requests:
        told += [Text(), *_request(request, kind, runs)]
    return [*told, Text(), *wrapped(LEGEND, "", "", "dim")]


def _introduced(number: int, run: Compared, count: int) -> list[Text]:
    which = f"{number}: " if count > 1 else ""
    return wrapped(f"{which}{run.name} ({run.about})", "", "   ")


def _request(request: str, kind: str, runs: Sequence[Compared]) -> list[Text]:
    """Its title, if all runs mean the same by it; and the table."""
    of = {
        number: run.overviews[request]
        for number, run in enumerate(runs, 1)
        if request in run.overviews and run.overviews[request].kind == kind
    }
    titles = {one.title for one in of.values()}
    pairs = list(_in_order(of))
    rows = [row for _, row in pairs]
    # A strategy's name stands at the first of its lines.
    names = ["" if i and label(rows[i - 1]) == label(row) else label(row) for i, row in enumerate(rows)]
    numbers = Column("", ("", "run"), tuple(str(number) for number, _ in pairs))
    shown = [c for c in columns_of(rows, kind) if c.heading in SHOWN or c.heading[0] == "test"]
    title = titles.pop() if len(titles) == 1 else request
    return [*wrapped(title, "", "  ", "bold"), *table(names, [*([numbers] if len(runs) > 1 else []), *shown])]


def _in_order(of: dict[int, Overview]) -> Iterator[tuple[int, Row]]:
    """(run, row): strategy by strategy, as the first run that has it orders them; controls last."""
    rows = {number: {row.strategy: _seen(row, one) for row in rows_of(one)} for number, one in of.items()}
    controls = ("retrained_other", "original")
    listed = [name for own in rows.values() for name in own if name not in controls]
    for strategy in dict.fromkeys([*listed, *controls]):
        yield from ((number, own[strategy]) for number, own in rows.items() if strategy in own)


def _seen(row: Row, one: Overview) -> Row:
    """Without a share of a memory that cannot be seen."""
    return row if one.visible else replace(row, left=Value())
