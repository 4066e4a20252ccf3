"""All requests of a year on one page, to be sorted: what was asked, what became of it, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from fedunlearn.pages.html import render
from fedunlearn.pages.tables import Cell, Column, Table, words

FILE = "records.html"
"""Beside the folder of records, where no request's record is in its way."""


@dataclass(frozen=True)
class Row:
    """A request.

    Attributes:
        id: its name.
        hospital: which asks.
        scope: what for.
        received: the day.
        decision: what was decided.
        reason: the code of why, if it was not accepted.
        due: the last day of the month.
        policies: by policy, the state when the year ends, days until the answer, and days late.
        blanks: lines of its record that are for people.
    """

    id: str
    hospital: str
    scope: str
    received: str
    decision: str
    reason: str
    due: str
    policies: Mapping[str, tuple[str, int | None, int]]
    blanks: int


def row(record: Mapping[str, Any]) -> Row:
    """What the page says of a record."""
    request, decision, clock = record["request"], record["decision"], record["clock"]
    policies = {one["policy"]: (one["state"], one.get("days"), one["days_late"]) for one in clock["policies"]}
    return Row(
        request["id"],
        request["hospital"],
        request["scope"],
        request["received"],
        decision["decision"],
        decision["reason"],
        clock["due"],
        policies,
        len(record["blanks"]),
    )


def page(run: str, rows: Sequence[Row]) -> str:
    """The page, one file that needs no network; its links lead to records in ``records/``.

    Args:
        run: its name.
        rows: of all requests, in their order; each with the same policies.
    """
    columns = [
        Column(name, numbers=False) for name in ("request", "hospital", "about", "came in", "decision")
    ]
    columns += [Column("reason", numbers=False), Column("due", numbers=False)]
    for policy in rows[0].policies if rows else ():
        columns.append(
            Column("state", policy, numbers=False, words="when the year ends, and this record is written")
        )
        columns += [
            Column("days", policy, words="from receipt to answer"),
            Column("late", policy, words="days after one month"),
        ]
    columns.append(Column("blanks", words="lines of the record that are for people to fill in"))
    caption = "Click a heading to sort. Days and dates are those of the simulation."
    table = Table("requests", caption, tuple(columns), tuple(map(_cells, rows)), paper=True)
    return render("records.html", title=f"Requests of {run}", run=run, count=len(rows), table=table)


def _cells(one: Row) -> tuple[Cell, ...]:
    link = Markup('<a href="records/{}.html">{}</a>').format(quote(one.id), one.id)
    cells = [Cell((link,), one.id)]
    cells += map(
        words, (one.hospital, one.scope, one.received, one.decision, one.reason.replace("_", " "), one.due)
    )
    for state, days, late in one.policies.values():
        cells += [words(state), _count(days), _count(late)]
    return (*cells, _count(one.blanks))


def _count(number: int | None) -> Cell:
    """A cell with a number that stands in no table of the run."""
    return Cell(("–",), float("nan")) if number is None else Cell((str(number),), float(number))
