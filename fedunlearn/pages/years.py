"""The section of a page about a year of requests: what came in, what each policy made of it, and how that went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from fedunlearn.charts import years as charts
from fedunlearn.pages.figures import Draw, Figure, pictures
from fedunlearn.pages.measured import Format, amount, percent, signed
from fedunlearn.pages.tables import Cell, Column, Number, Table, answer, number, words
from fedunlearn.results import almanac, years
from fedunlearn.results.columns import called
from fedunlearn.results.held import Held
from fedunlearn.results.kinds import words as words_of
from fedunlearn.scoring.kinds import scored

MOST = 200
"""Requests that the table of all lists, and the one of those that were refused; their file has all."""
_DAY = "%Y-%m-%d"


@dataclass(frozen=True)
class Year:
    """The section.

    Attributes:
        title: what it is about, and when.
        lead: what came in, and which policy is best.
        told: a sentence about each policy.
        answers: a row for every policy and strategy.
        timeline: every request from receipt to answer.
        panels: by what they show, small figures, a policy each; drawn narrow whatever the page's width.
        frontier: cost against memory and lateness.
        more: further numbers of every policy and strategy.
        courses: measures look by look.
        refused: requests that were refused, and why; None if none was.
        listed: every request.
        left: how many requests these two leave out, in words; empty for none.
    """

    title: str
    lead: tuple[str, ...]
    told: tuple[str, ...]
    answers: Table
    timeline: Figure
    panels: tuple[tuple[str, tuple[Figure, ...]], ...]
    frontier: tuple[Figure, ...]
    more: Table
    courses: tuple[Table, ...]
    refused: Table | None
    listed: Table
    left: str


def year(held: Held, draw: Draw) -> Year | None:
    """The section of a run; None of one without a calendar.

    Args:
        held: the run.
        draw: has charts drawn.

    Raises:
        RunError: a table is missing or damaged.
    """
    if not years.dated(held):
        return None
    frame, course, dates = years.policies(held), years.courses(held), years.timeline(held)
    first, *told = almanac.sentences(held)
    kind = held.read_manifest()["kind"]
    refused, listed, left = _docket(held, dates)
    labels = list(dict.fromkeys(map(str, frame["policy"])))
    return Year(
        title=almanac.title(held),
        lead=(first, *told[-1:]),
        told=tuple(told[:-1]),
        answers=_answers(held, frame),
        timeline=_figure(
            "year-timeline",
            "Every request, from the day it came in to its answer",
            "One line is one request; left the day it came in, right the day it was answered. Square: later than a "
            "month; triangle up: later than three. Grey cross: still open when the year ends.",
            charts.timeline(dates),
            draw,
        ),
        panels=tuple(_panels(course, labels, kind, draw)),
        frontier=tuple(_frontier(frame, draw)),
        more=_more(held, frame),
        courses=tuple(_course(held, measure, title) for measure, title in _shown(kind).items()),
        refused=refused,
        listed=listed,
        left=left,
    )


# ------------------------------------------------------------------------------------------------- figures


def _figure(id: str, title: str, caption: str, chart: Mapping[str, Any], draw: Draw) -> Figure:
    return Figure(id, title, caption, *pictures(draw, dict(chart), id))


def _shown(kind: str) -> dict[str, str]:
    """The measures that are shown over the year, and how they are headed."""
    of, word = scored(kind), words_of(kind).quality
    return {
        "memory_left": "Memory left of all earlier requests",
        of.tested: f"Test {word}",
        of.worst_site: f"Lowest test {word} of any hospital",
    }


def _panels(
    course: pd.DataFrame, labels: Sequence[str], kind: str, draw: Draw
) -> list[tuple[str, tuple[Figure, ...]]]:
    """Memory left and quality over the year, a small figure for each policy; all of one measure on one scale."""
    found = []
    for m, (measure, title) in enumerate(list(_shown(kind).items())[:2]):
        ends = charts.span(course, measure)
        drawn = (
            _figure(f"year-panel-{m}-{p}", label, "", charts.course(course, label, measure, ends), draw)
            for p, label in enumerate(labels)
        )
        found.append((title, tuple(drawn)))
    return found


def _frontier(frame: pd.DataFrame, draw: Draw) -> list[Figure]:
    """What cost buys; nothing where no cost is known."""
    if frame["cost"].isna().all():
        return []
    told = (
        "Left: cheaper than training anew for each answer. Down: better. Colour: the strategy; shape: the policy. "
        "Hollow: another policy and strategy is no later, no dearer and no less forgetful, or its memory is unknown. "
        "Bars: 95 %."
    )
    titles = {
        "memory_left": "What it costs to leave less memory",
        "late": "What it costs to answer in time",
    }
    return [
        _figure(f"year-frontier-{name}", title, told, charts.frontier(frame, name), draw)
        for name, title in titles.items()
        if not frame[name].isna().all()
    ]


# -------------------------------------------------------------------------------------------------- tables

Walk = tuple[str, str]
"""A policy and a strategy."""


@dataclass(frozen=True, eq=False)
class _Came:
    """``policies.parquet`` with the place of every row."""

    table: pd.DataFrame

    def number(
        self, walk: Walk, measure: str, shown: Format, times: float = 1, end: str = "value"
    ) -> Number | None:
        """One number of a walk; None where it was not measured."""
        of = self.table
        rows = of[(of["policy"] == walk[0]) & (of["strategy"] == walk[1]) & (of["measure"] == measure)]
        if rows.empty:
            return None
        (place,) = rows.index
        value = float(rows[end].iloc[0])
        shown = shown if times in (1, 100) else partial(_scaled, shown, times)
        return Number(shown(value), value, f"policies {place} {end} value", times)

    def cell(self, walk: Walk, measure: str, shown: Format, times: float = 1) -> Cell:
        """The same with its interval behind it, where it has one."""
        middle, low, high = (
            self.number(walk, measure, shown, times, end) for end in ("value", "low", "high")
        )
        if low is None or high is None or math.isnan(low.value + high.value) or low.value == high.value:
            return number(middle)
        return number(middle, " (", low, " to ", high, ")")

    def place(self, walk: Walk, measure: str) -> str:
        """Where that is."""
        of = self.table
        rows = of[(of["policy"] == walk[0]) & (of["strategy"] == walk[1]) & (of["measure"] == measure)]
        return "" if rows.empty else str(rows["place"].iloc[0])


def _scaled(shown: Format, times: float, value: float) -> str:
    return shown(value * times)


def _answers(held: Held, frame: pd.DataFrame) -> Table:
    """A row for every policy and strategy: what a hospital's board asks."""
    came, rows = _Came(held.read_table("policies.parquet")), []
    for row in frame.to_dict("records"):
        walk = str(row["policy"]), str(row["strategy"])
        place = came.place(walk, "worst_site_difference")
        rows.append(
            (
                words(walk[0]),
                words(called(walk[1])),
                came.cell(walk, "late", percent, 100),
                number(came.number(walk, "late_three", percent, 100)),
                number(came.number(walk, "median_days", amount)),
                came.cell(walk, "share_of_retraining", percent, 100),
                answer(str(row["forgotten"])),
                came.cell(walk, "memory_left", percent, 100),
                answer(str(row["useful"])),
                came.cell(walk, "test_difference", signed),
                number(came.number(walk, "worst_site_difference", signed), f" {place}"),
            )
        )
    late, left, good = "Answered", "Forgotten?", "Still good, on unseen images?"
    columns = (
        Column("policy", numbers=False),
        Column("strategy", numbers=False),
        Column("later than a month, %", late, words="of requests to unlearn, accepted or held back"),
        Column("than three, %", late),
        Column("median days", late),
        Column(
            "% of training anew on each day of acceptance", "Cost", words="passes of images through networks"
        ),
        Column("answer", left, numbers=False),
        Column("memory left, %", left, words="of what the original knew of all answered requests' patients"),
        Column("answer", good, numbers=False),
        Column("test", good, words="less that of all models that never saw them"),
        Column("worst hospital", good),
    )
    caption = (
        "What each policy came to with each strategy when the year ended, with 95 % intervals. "
        f"{almanac.TWO_MEMORIES}"
    )
    return Table("year-answers", caption, columns, tuple(rows))


_MORE: Mapping[str, tuple[str, str, Format, float]] = {
    "answered": ("answered", "requests to unlearn", amount, 1),
    "most_days": ("most days", "from receipt to answer", amount, 1),
    "waiting_days": ("days anybody waited", "accepted, and not yet unlearned", amount, 1),
    "blocked_days": ("days without a model", "that may be used", amount, 1),
    "memory_back": ("memory back, points", "at the end, less right after each answer", percent, 100),
    "calibration_difference": ("calibration error", "less that of the model that never saw them", signed, 1),
    "distance": ("distance", "of weights, from that model, as a share of their length", amount, 1),
    "retrainings": ("trained anew", "since drift had passed its limit", amount, 1),
    "images": ("images", "passes of one image through a network", amount, 1),
    "site_seconds": ("hospital-seconds", "of work for answering", amount, 1),
    "bytes": ("MB", "sent between hospitals and server for it", amount, 1e-6),
    "stored_bytes": ("MB stored", "that the server kept for it", amount, 1e-6),
}
"""By measure of ``policies.parquet``: heading, what it is, its form, and the unit it is shown in."""


def _more(held: Held, frame: pd.DataFrame) -> Table:
    table = held.read_table("policies.parquet")
    came, known = _Came(table), set(table["measure"])
    shown = {measure: how for measure, how in _MORE.items() if measure in known}
    rows = []
    for policy, strategy in zip(frame["policy"], frame["strategy"], strict=True):
        walk = str(policy), str(strategy)
        cells = [came.cell(walk, measure, how[2], how[3]) for measure, how in shown.items()]
        rows.append((words(walk[0]), words(called(walk[1])), *cells))
    columns = (Column("policy", numbers=False), Column("strategy", numbers=False))
    heads = (Column(how[0], words=how[1]) for how in shown.values())
    caption = "Everything else that each policy came to with each strategy."
    return Table("year-more", caption, (*columns, *heads), tuple(rows))


def _course(held: Held, measure: str, title: str) -> Table:
    """A measure look by look, in the mean over seeds."""
    table = held.read_table("years.parquet")
    table = table[table["measure"] == measure]
    dates = list(dict.fromkeys(table.sort_values("date")["date"]))
    found: dict[Walk, dict[Any, Cell]] = {}
    for key, of in table.groupby(["policy", "strategy", "date"], sort=False):
        policy, strategy, day = key
        value, places = float(of["value"].mean(skipna=False)), ",".join(map(str, of.index))
        shown = Number(percent(value), value, f"years {places} value mean", 100)
        found.setdefault((str(policy), str(strategy)), {})[day] = number(shown)
    rows = [
        (
            words(policy or "all"),
            words(_REFERENCES.get(strategy, called(strategy)) if not policy else called(strategy)),
            *(cells.get(day, number(None)) for day in dates),
        )
        for (policy, strategy), cells in found.items()
    ]
    columns = (Column("policy", numbers=False), Column("strategy", numbers=False))
    return Table(
        f"year-course-{measure.replace('_', '-')}",
        f"{title}, %, look by look; means over seeds.",
        (*columns, *(Column(f"{day:{_DAY}}") for day in dates)),
        tuple(rows),
    )


_REFERENCES = {"original": "saw everybody", "retrained": "never saw any of them"}
_KINDS = {
    "patients": "patients",
    "images": "single images",
    "whole_site": "the whole hospital",
    "opt_out": "no later use",
}


def _docket(held: Held, dates: pd.DataFrame) -> tuple[Table | None, Table, str]:
    """Requests that were refused, all requests, and who is left out of either."""
    table = held.read_table("calendar.parquet")
    labels = list(dict.fromkeys(map(str, table["policy"])))
    shown = dates[dates["policy"] == labels[0]] if labels else dates
    places = {
        (str(p), str(r)): int(i)
        for i, p, r in zip(table.index, table["policy"], table["request"], strict=True)
    }
    refused = shown[shown["state"] == "refused"]
    rows = [
        (
            words(str(row["request"])),
            words(str(row["site"])),
            words(f"{row['received']:{_DAY}}"),
            words(str(row["reason"]).replace("_", " ")),
            words(str(row["sentence"])),
        )
        for row in refused.head(MOST).to_dict("records")
    ]
    heads = ("request", "hospital", "received", "reason", "in words")
    why = Table(
        "year-refused",
        "Requests that were refused, and why. Nothing was unlearned of them.",
        tuple(Column(head, numbers=False) for head in heads),
        tuple(rows),
    )
    listed = [
        (
            words(str(row["request"])),
            words(str(row["site"])),
            words(_KINDS.get(str(row["kind"]), str(row["kind"]))),
            words(f"{row['received']:{_DAY}}"),
            words(f"{row['due']:{_DAY}}"),
            *(cell for label in labels for cell in _became(table, places[label, str(row["request"])])),
        )
        for row in shown.head(MOST).to_dict("records")
    ]
    columns = [
        Column(head, numbers=False) for head in ("request", "hospital", "asks about", "received", "due")
    ]
    for label in labels:
        columns += [
            Column("state", label, numbers=False),
            Column("days", label, words="from receipt to answer"),
        ]
    every = Table(
        "year-requests", "Every request, and what each policy made of it.", tuple(columns), tuple(listed)
    )
    left = len(shown) - len(listed)
    more = f"calendar.parquet has {left} more requests." if left else ""
    return (why if rows else None), every, more


def _became(table: pd.DataFrame, place: int) -> tuple[Cell, Cell]:
    """A request's state under a policy, and days to its answer."""
    row: Mapping[Any, Any] = table.loc[[place]].to_dict("records")[0]
    late = " (late)" if row["late"] else ""
    return (
        words(f"{row['state']}{late}"),
        number(Number(amount(row["days"]), float(row["days"]), f"calendar {place} days value")),
    )
