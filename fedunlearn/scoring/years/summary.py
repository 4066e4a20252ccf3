"""What each policy came to with each strategy, in a few numbers with their intervals: the rows that people compare.

Of *lateness* there is one stream of requests; what is random is when people ask. Requests that were answered on the
same day are late together, so the interval draws days of answers anew, not requests. Other streams (``arrivals.seed``)
tell more. *Costs* differ between seeds, if at all: Student's interval of the mean. *Memory* as `memory` has it.
*Quality* is that of ``statistics.parquet`` at the end of the year: less retraining's, by seeds and patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # Student's quantile; scipy.stats would take half a second to import

from fedunlearn.core import derive
from fedunlearn.scoring.evidence import RESAMPLES, Floats
from fedunlearn.scoring.evidence.year import OPT_OUT, Year
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.years import memory

COLUMNS = ("policy", "strategy", "measure", "value", "low", "high", "n", "place")
COSTS = ("share_of_retraining", "images", "site_seconds", "bytes", "stored_bytes")
"""Measures of ``years.parquet`` that are told in the mean over seeds, with those of `_DAYS`."""
_DAYS = ("waiting_days", "blocked_days")

Row = tuple[str, float, float, float, int, str]
"""Measure, value, both ends of its interval, how many it is about, and where."""


def table(
    kind: str,
    year: Year,
    calendar: pd.DataFrame,
    recalled: pd.DataFrame,
    course: pd.DataFrame,
    statistics: pd.DataFrame,
) -> pd.DataFrame:
    """The content of ``policies.parquet``: a row for every policy, strategy and measure.

    Args:
        kind: of task.
        year: the run's.
        calendar: ``calendar.parquet``.
        recalled: ``memory.parquet``.
        course: ``years.parquet``.
        statistics: ``statistics.parquet``; a policy is a request there.
    """
    ends = course[course["round"] == year.rounds]
    rows = list[tuple[str, str, *tuple[Any, ...]]]()
    for policy in year.policies:
        lateness = _lateness(calendar[calendar["policy"] == policy.label])
        for strategy in policy.strategies:
            of = [x[(x["policy"] == policy.label) & (x["strategy"] == strategy)] for x in (recalled, ends)]
            own, end = of
            good = statistics[(statistics["request"] == policy.label) & (statistics["strategy"] == strategy)]
            anew = [r for r in year.retrainings if (r.policy, r.strategy) == (policy.label, strategy)]
            found = [
                *lateness,
                *_means(end),
                _mean("retrainings", _counted([r.seed for r in anew], sorted(set(end["seed"])))),
                *_recalled(own, year.rounds),
                *_quality(kind, end, ends, good),
            ]
            rows += [(policy.label, strategy, *one) for one in found]
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    return made.astype({"n": "int64"} | dict.fromkeys(("value", "low", "high"), "float64"))


# ------------------------------------------------------------------------------------------------- lateness


def _lateness(calendar: pd.DataFrame) -> list[Row]:
    """Of the requests to unlearn that were accepted, or held back until the end by a quota, under one policy."""
    held = (calendar["state"] == "open") & (calendar["reason"] == "quota")
    mine = calendar["state"].isin(["unlearned", "waiting"]) | held
    rows = calendar[mine & (calendar["kind"] != OPT_OUT)]
    count, days = len(rows), rows["days"].fillna(math.inf).to_numpy(np.float64)
    found: list[Row] = [
        ("accepted", float(count), math.nan, math.nan, len(calendar), ""),
        ("answered", float((rows["state"] == "unlearned").sum()), math.nan, math.nan, count, ""),
    ]
    together = rows["answered"].astype("int64").to_numpy()  # those that still wait are late together, too
    for measure, column in (("late", "late"), ("late_three", "late_three")):
        late: Floats = (rows[column] > 0).to_numpy().astype(np.float64)
        value = float(late.mean()) if count else math.nan
        found.append((measure, value, *_by_days(late, together), count, ""))
    middle = float(np.quantile(days, 0.5, method="inverted_cdf")) if count else math.nan
    found.append(("median_days", middle, math.nan, math.nan, count, ""))
    return [*found, ("most_days", float(days.max(initial=0)), math.nan, math.nan, count, "")]


def _by_days(late: Floats, together: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The interval of a share of requests, when days of answers are drawn anew; NaN of a single day."""
    days, which = np.unique(together, return_inverse=True)
    if len(days) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(derive(0, "scoring", "days"))
    drawn = rng.multinomial(len(days), np.full(len(days), 1 / len(days)), RESAMPLES).astype(np.float64)
    counts, sums = np.bincount(which).astype(np.float64), np.bincount(which, late)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), [0.025, 0.975])
    return float(low), float(high)


# ------------------------------------------------------------------------------------------- means over seeds


def _mean(measure: str, values: Sequence[float], place: str = "") -> Row:
    """The mean over seeds, with Student's interval; a seed that diverged leaves no mean."""
    found, n = np.array(values, dtype=np.float64), len(values)
    middle = float(found.mean()) if n else math.nan
    if n < 2 or not math.isfinite(middle):
        return measure, middle, math.nan, math.nan, n, place
    half = float(stdtrit(n - 1, 0.975) * found.std(ddof=1) / math.sqrt(n))
    return measure, middle, middle - half, middle + half, n, place


def _means(end: pd.DataFrame) -> list[Row]:
    return [_mean(measure, _values(end, measure)) for measure in (*COSTS, *_DAYS, "distance")]


def _values(end: pd.DataFrame, measure: str) -> list[float]:
    return [float(x) for x in end.loc[end["measure"] == measure].sort_values("seed")["value"]]


def _counted(happened: Sequence[int], seeds: Sequence[int]) -> list[float]:
    return [float(happened.count(seed)) for seed in seeds]


def _recalled(rows: pd.DataFrame, boundary: int) -> list[Row]:
    found: Mapping[str, memory.Share] = {
        "memory_left": memory.pooled(rows[rows["round"] == boundary]),
        "memory_back": memory.back(rows, boundary),
    }
    return [(name, one.value, one.low, one.high, one.requests, "") for name, one in found.items()]


# --------------------------------------------------------------------------------------------------- quality


def _quality(kind: str, end: pd.DataFrame, ends: pd.DataFrame, good: pd.DataFrame) -> list[Row]:
    """How good the models are when the year ends, and how far from the model that never saw anybody of them."""
    of = scored(kind)
    measure = of.tested
    never = ends[(ends["strategy"] == "retrained") & (ends["policy"] == "")]
    found = [
        _mean(measure, _values(end, measure)),
        _mean(of.worst_site, _values(end, of.worst_site)),
        _difference("test_difference", good[(good["measure"] == measure) & (good["group"] == "all")]),
        _difference("worst_site_difference", _worst(good[good["measure"] == measure])),
    ]
    if of.calibration is None:
        return found
    pairs = zip(_values(end, "calibration_error"), _values(never, "calibration_error"), strict=True)
    return [
        *found,
        _mean("calibration_error", _values(end, "calibration_error")),
        _mean("calibration_difference", [own - other for own, other in pairs]),
    ]


def _worst(good: pd.DataFrame) -> pd.DataFrame:
    """The hospital that lost most."""
    sites = good[good["group"].str.startswith("site=")].dropna(subset="difference")
    return sites.nsmallest(1, "difference")


def _difference(name: str, rows: pd.DataFrame) -> Row:
    """Of at most one row of ``statistics.parquet``."""
    if rows.empty:
        return name, math.nan, math.nan, math.nan, 0, ""
    (one,) = rows.to_dict("records")
    place = str(one["group"]).partition("=")[2]
    return (
        name,
        float(one["difference"]),
        float(one["low"]),
        float(one["high"]),
        int(one["patients"]),
        place,
    )
