"""A run's year of requests as people look at it, as pandas frames; `columns.OF_YEARS` describes their columns.

Unlike other frames (`results.frames`) they are about the whole run, not about one request. A run without a calendar
gives no rows. Numbers are those of the run's own tables, unrounded: a share of 1 is 100 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fedunlearn.results.columns import OF_YEARS, STREAMS, called
from fedunlearn.results.held import has
from fedunlearn.results.overview import Source, Value, over_seeds

TABLES = ("calendar", "memory", "years", "policies")
"""The tables that only a run with a calendar has."""
RATES = ("late", "cost", "memory_left")
"""What a policy is to have little of: who comes out best in none of them is not on the front."""
_MEASURES: Mapping[str, str] = {
    "late": "late",
    "cost": "share_of_retraining",
    "memory_left": "memory_left",
    "memory_back": "memory_back",
    "test_difference": "test_difference",
    "worst_site_difference": "worst_site_difference",
    "calibration_difference": "calibration_difference",
}
"""Columns of `policies` with an interval, and the measures that they show."""
_PLAIN = (
    "accepted",
    "answered",
    "late_three",
    "median_days",
    "most_days",
    "waiting_days",
    "blocked_days",
    "site_seconds",
    "bytes",
    "stored_bytes",
    "retrainings",
    "distance",
)


def dated(run: Source) -> bool:
    """Whether requests came in over a year."""
    return has(run, "policies.parquet")


def policies(run: Source) -> pd.DataFrame:
    """One row per policy and strategy, in the scenario's order: lateness, cost, memory and quality at the end.

    Raises:
        RunError: a table is missing or damaged.
    """
    if not dated(run):
        return _frame("policies", [])
    table, verdicts = run.read_table("policies.parquet"), run.read_table("verdicts.parquet")
    judged = {
        (one["request"], one["strategy"]): (one["forgotten"], one["useful"])
        for one in verdicts.to_dict("records")
    }
    rows = []
    for (policy, strategy), of in table.groupby(["policy", "strategy"], sort=False):
        measured = {str(one["measure"]): one for one in of.to_dict("records")}
        forgotten, useful = judged.get((policy, strategy), ("cannot tell", "cannot tell"))
        row = {"policy": policy, "strategy": strategy, "name": called(str(strategy))}
        row |= {"forgotten": forgotten, "useful": useful}
        row |= {name: _value(measured, name, "value") for name in _PLAIN}
        for name, measure in _MEASURES.items():
            row |= {
                name if end == "value" else f"{name}_{end}": _value(measured, measure, end)
                for end in ("value", "low", "high")
            }
        row["worst_site"] = measured.get("worst_site_difference", {}).get("place", "")
        rows.append(row)
    for row, best in zip(rows, _front(rows), strict=True):
        row["front"] = best
    return _frame("policies", rows)


def _value(measured: Mapping[str, Mapping[Any, Any]], measure: str, column: str) -> float:
    return float(measured[measure][column]) if measure in measured else math.nan


def _front(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether no other has as little of all `RATES`, and less of any; by estimate.

    Less than nothing is no less memory. Where a rate is not known, such as the memory of a model that diverged, nothing
    can be said: such a row is not on the front, and keeps nobody from it.
    """
    found = [tuple(max(0.0, float(row[rate])) for rate in RATES) for row in rows]
    known = [not any(math.isnan(row[rate]) for rate in RATES) for row in rows]
    others = [own for own, able in zip(found, known, strict=True) if able]
    return [
        able
        and not any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in others)
        for own, able in zip(found, known, strict=True)
    ]


def courses(run: Source) -> pd.DataFrame:
    """One row per policy, strategy, measure and look, in the mean over seeds; references have no policy.

    Raises:
        RunError: a table is missing or damaged.
    """
    if not dated(run):
        return _frame("courses", [])
    keys = ["policy", "strategy", "measure", "round", "date"]
    grouped = run.read_table("years.parquet").groupby(keys, sort=False)["value"]
    found = grouped.agg(
        value=lambda of: of.mean(skipna=False), low="min", high="max", seeds="size"
    ).reset_index()
    return _frame("courses", found.assign(name=found["strategy"].map(called)))


def remembered(run: Source) -> pd.DataFrame:
    """One row per policy, strategy, request and look since its answer: how much of it is left, in the mean over seeds.

    The share is that of the seeds' means, as requests are pooled (`scoring.years.memory`).

    Raises:
        RunError: a table is missing or damaged.
    """
    if not dated(run):
        return _frame("remembered", [])
    keys = ["policy", "strategy", "request", "round", "date"]
    grouped = run.read_table("memory.parquet").groupby(keys, sort=False)
    found = grouped.agg(
        left=("left", lambda of: of.mean(skipna=False)),
        known=("known", lambda of: of.mean(skipna=False)),
        visible=("memory_left", lambda of: of.notna().any()),
        patients=("patients", "first"),
        seeds=("seed", "size"),
    ).reset_index()
    share = (found["left"] / found["known"]).where(found["visible"] & (found["known"] > 0))
    return _frame("remembered", found.assign(memory_left=share, name=found["strategy"].map(called)))


def timeline(run: Source) -> pd.DataFrame:
    """One row per policy and request: when it came in, when it was answered, and how late that was.

    Raises:
        RunError: a table is missing or damaged.
    """
    if not dated(run):
        return _frame("timeline", [])
    table, about = run.read_table("calendar.parquet"), run.read_manifest()["calendar"]
    end = pd.Timestamp(about["start"]) + pd.Timedelta(days=about["days"] * about["rounds"])
    sentences = {str(one["id"]): str(one["sentence"]) for one in run.read_manifest()["docket"]}
    kinds = [_kind(row) for row in table.to_dict("records")]
    return _frame("timeline", table.assign(end=end, how=kinds, sentence=table["request"].map(sentences)))


STREAMED = (
    "late",
    "late_three",
    "median_days",
    "cost",
    "memory_left",
    "memory_back",
    "test_difference",
    "worst_site_difference",
    "waiting_days",
    "blocked_days",
    "retrainings",
    "front",
)
"""Columns of `policies` that `streams` has the means of, and `best` beside them."""


def streams(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One row per policy, strategy and measure, over runs that differ in their stream of requests alone.

    A stream is as random as training is: which policy is better may depend on when people happened to ask.

    Args:
        found: `policies` of each run, such as of the cells of ``sweep: {arrivals.seed: [1, 2, 3]}``.
    """
    known = [frame.assign(best=_is(best(frame.to_dict("records")), frame)) for frame in found if len(frame)]
    if not known:
        return pd.DataFrame(columns=list(STREAMS))
    whole, rows = pd.concat(known, ignore_index=True), []
    for (policy, strategy), of in whole.groupby(["policy", "strategy"], sort=False):
        for measure in (*STREAMED, "best"):
            each = of[measure].dropna().astype("float64")
            mean = (
                over_seeds(each) if len(each) and each.abs().max() < math.inf else Value(float(each.mean()))
            )
            half = mean.half if math.isfinite(mean.half) else math.nan
            row = {"policy": policy, "strategy": strategy, "name": called(str(strategy)), "measure": measure}
            row |= {"value": mean.value, "low": mean.value - half, "high": mean.value + half}
            rows.append(row | {"least": each.min(), "most": each.max(), "streams": len(each)})
    return pd.DataFrame(rows, columns=list(STREAMS))


def best(rows: Sequence[Mapping[Any, Any]]) -> list[Mapping[Any, Any]]:
    """Of `policies`, those that answered all in time, forgot and are still good by both answers; the cheapest first."""
    good = [r for r in rows if r["late"] == 0 and (r["forgotten"], r["useful"]) == ("yes", "yes")]
    return sorted((r for r in good if not math.isnan(r["cost"])), key=lambda r: float(r["cost"]))


def _is(good: Sequence[Mapping[Any, Any]], frame: pd.DataFrame) -> list[bool]:
    """Whether each row is the first of ``good``."""
    whom = [(row["policy"], row["strategy"]) for row in good[:1]]
    return [walk in whom for walk in zip(frame["policy"], frame["strategy"], strict=True)]


HOW = ("within a month", "within three months", "later", "still open", "refused")
"""How requests were answered, or not: what has no answer when the year ends is open, however late it is."""


def _kind(row: Mapping[Any, Any]) -> str:
    if row["state"] == "refused":
        return HOW[4]
    if row["state"] in ("open", "waiting"):
        return HOW[3]
    if row["late_three"]:
        return HOW[2]
    if row["late"]:
        return HOW[1]
    return HOW[0]


def _frame(name: str, rows: pd.DataFrame | list[dict[str, Any]]) -> pd.DataFrame:
    """Rows under exactly the columns of a frame."""
    return pd.DataFrame(rows, columns=list(OF_YEARS[name])).reset_index(drop=True)
