"""Runs side by side as one file of HTML: what differs first, then answers and numbers, then ranks over runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pandas import DataFrame

from fedunlearn.charts import painters
from fedunlearn.charts.critical import critical
from fedunlearn.comparison.differences import consequences, differences, spans
from fedunlearn.comparison.ranks import Pair
from fedunlearn.comparison.runs import DATA, FACTS, SEEDS, Compared
from fedunlearn.comparison.standings import Standing, frames_of, standings
from fedunlearn.comparison.streams import left_out, pools
from fedunlearn.comparison.table import LEGEND, heading, in_order, probability, sentences, titled
from fedunlearn.pages.figures import NARROW, WIDE, Draw, Figure, pictures
from fedunlearn.pages.html import render
from fedunlearn.pages.tables import Cell, Column, Table, answer, words
from fedunlearn.results import almanac
from fedunlearn.results.columns import called
from fedunlearn.results.kinds import spoken
from fedunlearn.results.overview import Overview, Place, Row, Value
from fedunlearn.results.sentences import limits, number, percent, signed
from fedunlearn.results.summary import label

METHOD = (
    "In every run strategies are ranked, 1 the best. Whether mean ranks differ at all is asked by Friedman’s test "
    "(Iman and Davenport’s form; Demšar 2006); which pairs by Wilcoxon’s signed rank test with Holm’s correction, as "
    "Benavoli and others (2016) recommend over critical differences of mean ranks, which depend on who else was ranked."
)


@dataclass(frozen=True)
class Request:
    """A request that some of the runs have.

    Attributes:
        id: of its element.
        title: its id, and what it asks for where all runs mean the same.
        answers: a row per strategy and run.
    """

    id: str
    title: str
    answers: Table


@dataclass(frozen=True)
class Ranked:
    """A ranking: what it tells, drawn, and pair by pair."""

    id: str
    title: str
    told: tuple[str, ...]
    figure: Figure | None
    pairs: Table | None


@dataclass(frozen=True)
class Page:
    """All that the page shows, from top to bottom."""

    title: str
    consequences: tuple[str, ...]
    runs: Table
    settings: Table | None
    years: tuple[tuple[str, Table], ...]
    left_out: tuple[str, ...]
    requests: tuple[Request, ...]
    method: str
    standings: tuple[Ranked, ...]
    limits: str


def page(runs: Sequence[Compared]) -> str:
    """The page, as HTML."""
    with painters((WIDE, NARROW)) as draw:
        facts = Page(
            title=f"{len(runs)} runs side by side" if len(runs) > 1 else "One run",
            consequences=tuple(consequences(runs)),
            runs=_runs(runs),
            settings=_settings(runs),
            years=tuple(_years(runs)),
            left_out=tuple(left_out(runs)),
            requests=tuple(_requests(runs)),
            method=METHOD,
            standings=tuple(_ranked(one, f"rank-{n}", draw) for n, one in enumerate(standings(runs), 1)),
            # What some run was not asked stays open for the comparison.
            limits=limits([name for name in runs[0].probes if all(name in run.probes for run in runs)]),
        )
        return render("compare.html", page=facts)


def _runs(runs: Sequence[Compared]) -> Table:
    """A row per run: its data and seeds, and what else differs."""
    differing = {one.what for one in differences(runs)} | {DATA, SEEDS}
    known = [what for what in FACTS if what in differing]
    columns = [Column("run", numbers=False), Column("folder", numbers=False)]
    columns += [Column(what, numbers=False) for what in known]
    rows = tuple(
        (_count(number_), words(run.name), *(words(run.facts.get(what, "–")) for what in known))
        for number_, run in enumerate(runs, 1)
    )
    alike = [
        f"{what} {runs[0].facts[what]}" for what in FACTS if what not in differing and what in runs[0].facts
    ]
    shared = f" Alike in all: {'; '.join(alike)}." if alike else ""
    return Table("runs", f"The runs, by the numbers that they have below.{shared}", tuple(columns), rows)


def _settings(runs: Sequence[Compared]) -> Table | None:
    found = [one for one in differences(runs) if one.what not in FACTS]
    rows = tuple(
        (words(one.what), words(value), words(spans(numbers)))
        for one in found
        for value, numbers in one.values
    )
    columns = tuple(Column(name, numbers=False) for name in ("setting", "value", "runs"))
    return (
        Table("settings", "Scenario keys that differ, and in which runs they are what", columns, rows)
        if rows
        else None
    )


# ------------------------------------------------------------------------------------------------- years

_STREAMED: Mapping[str, tuple[Column, Callable[[float], str], Callable[[float], str]]] = {
    "late": (Column("later than a month, %", "Answered"), percent, percent),
    "late_three": (Column("than three, %", "Answered"), percent, percent),
    "median_days": (Column("median days", "Answered"), almanac.days, almanac.days),
    "cost": (Column("% of training anew on each day of acceptance", "Cost"), percent, percent),
    "memory_left": (Column("memory left, %", "When the year ends"), percent, percent),
    "memory_back": (Column("back, points", "When the year ends"), percent, percent),
    "test_difference": (Column("test", "When the year ends"), signed, number),
    "worst_site_difference": (Column("worst hospital", "When the year ends"), signed, number),
}
"""By measure of `results.years.streams`: its column, and how it and half of its interval are written."""


def _years(runs: Sequence[Compared]) -> Iterator[tuple[str, Table]]:
    """What policies came to over streams of requests, and a title."""
    found = [pool for pool in pools(runs) if len(pool.runs) > 1]
    for i, pool in enumerate(found):
        yield pool.title, _over_streams(f"years-{i}" if i else "years", pool.frame)


def _over_streams(id: str, frame: DataFrame) -> Table:
    by = {(r["policy"], r["strategy"], r["measure"]): r for r in frame.to_dict("records")}
    rows = []
    for walk in dict.fromkeys(zip(frame["policy"], frame["strategy"], strict=True)):
        count = by[(*walk, "best")]["streams"]
        cells = [_mean(by[(*walk, measure)], count, *how[1:]) for measure, how in _STREAMED.items()]
        times = [by[(*walk, measure)] for measure in ("best", "front")]
        told = [_shown(f"{round(r['value'] * r['streams'])} of {r['streams']}", r["value"]) for r in times]
        rows.append((words(str(walk[0])), words(called(str(walk[1]))), *cells, *told))
    columns = (
        Column("policy", numbers=False),
        Column("strategy", numbers=False),
        *(how[0] for how in _STREAMED.values()),
        Column("best in", "Runs"),
        Column("on the front in", "Runs"),
    )
    return Table(id, almanac.streams_legend(frame), columns, tuple(rows))


def _mean(
    row: Mapping[Any, Any], count: int, shown: Callable[[float], str], half: Callable[[float], str]
) -> Cell:
    """A mean over streams; if it is known in fewer than ``count``, with how many."""
    reach = Value(row["value"], row["high"] - row["value"])
    return _shown(f"{shown(row['value'])}{_half(reach, half)}{almanac.of_some(row, count)}", row["value"])


# ----------------------------------------------------------------------------------------------- answers


def _requests(runs: Sequence[Compared]) -> Iterator[Request]:
    names = dict.fromkeys((name, one.kind) for run in runs for name, one in run.overviews.items())
    for count, (name, kind) in enumerate(names, 1):
        of = {
            number_: run.overviews[name]
            for number_, run in enumerate(runs, 1)
            if name in run.overviews and run.overviews[name].kind == kind
        }
        yield Request(f"request-{count}", titled(name, of), _answers(f"answers-{count}", of, kind))


def _answers(id: str, of: dict[int, Overview], kind: str) -> Table:
    quality, _, what = spoken(kind)
    good = f"Still good, on unseen {what}s?"
    columns = (
        Column("strategy", numbers=False),
        Column("run"),
        Column("answer", "Forgotten?", numbers=False),
        Column("memory left, %", "Forgotten?"),
        Column("known", "Forgotten?", words="patients who are still known"),
        Column("answer", good, numbers=False),
        Column(f"test {quality}", good),
        Column("worst hospital", good),
        Column("% of retraining", "Cost", words="passes of images through networks"),
    )
    rows = tuple((words(label(row)), _count(number_), *_cells(row)) for number_, row in in_order(of))
    return Table(id, LEGEND, columns, rows)


def _cells(row: Row) -> tuple[Cell, ...]:
    """As on the terminal: retraining again has numbers, which show the noise, and no answers."""
    judged = row.strategy != "retrained_other"
    known = f"{len(row.known)} of {row.compared}" if row.compared else "–"
    return (
        answer(row.forgotten) if judged else words(""),
        _shown(f"{percent(row.left.value)}{_half(row.left, percent)}", row.left.value),
        _shown(known, len(row.known) if row.compared else math.nan),
        answer(row.useful) if judged else words(""),
        _shown(f"{signed(row.test.value)}{_half(row.test, number)}", row.test.value),
        _place(row.site),
        _shown(percent(row.cost), math.nan if row.strategy == "original" else row.cost),
    )


def _place(place: Place) -> Cell:
    return _shown(f"{place.name}: {signed(place.value)}" if place.name else signed(place.value), place.value)


def _half(value: Value, shown: Any) -> str:
    return f" ±{shown(value.half)}" if math.isfinite(value.half) else ""


def _shown(text: str, value: float) -> Cell:
    """A number as it is read, sorted by what it is."""
    return Cell(("–",), math.nan) if math.isnan(value) else Cell((text,), float(value))


def _count(value: int) -> Cell:
    return Cell((str(value),), float(value))


# ------------------------------------------------------------------------------------------------- ranks


def _ranked(one: Standing, id: str, draw: Draw) -> Ranked:
    return Ranked(id, heading(one), tuple(sentences(one, "bar")), _figure(one, id, draw), _pairs(one, id))


def _figure(one: Standing, id: str, draw: Draw) -> Figure | None:
    if one.ranking is None:
        return None
    chart = critical(*frames_of(one.ranking), one.criterion.better)
    rows = tuple(
        (words(name), _shown(f"{mean:.2f}", mean), *(_shown(f"{rank:g}", rank) for rank in each))
        for (name, mean), each in zip(one.ranking.ranks, one.ranking.each, strict=True)
    )
    columns = (
        Column("strategy", numbers=False),
        Column("mean rank"),
        *(Column(str(number_), "rank in run") for number_ in one.runs),
    )
    return Figure(
        f"{id}-figure",
        f"Ranks by {one.criterion.name}",
        "Diamond: the mean rank, 1 the best. Dots: ranks in single runs, the larger the more runs. A bar at the right "
        "joins strategies next to one another of which no two can be told apart.",
        *pictures(draw, chart, f"{id}-figure"),
        Table(f"{id}-ranks", "Ranks in every run", columns, rows),
    )


def _pairs(one: Standing, id: str) -> Table | None:
    if one.ranking is None:
        return None
    columns = (
        Column("better in the mean", numbers=False),
        Column("than", numbers=False),
        Column("runs in which it is"),
        Column("and is not"),
        Column("p"),
        Column("p, Holm"),
        Column("told apart?", numbers=False),
    )
    rows = tuple(_pair(pair) for pair in one.ranking.pairs)
    return Table(f"{id}-pairs", "Wilcoxon’s signed rank test of every pair", columns, rows)


def _pair(pair: Pair) -> tuple[Cell, ...]:
    return (
        words(pair.first),
        words(pair.second),
        _count(pair.wins),
        _count(pair.losses),
        _shown(probability(pair.p).removeprefix("= "), pair.p),
        _shown(probability(pair.p_holm).removeprefix("= "), pair.p_holm),
        words("yes" if pair.apart else "no"),
    )
