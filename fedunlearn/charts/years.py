"""A year of requests: each from receipt to answer, lines over the year, and cost against what it buys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fedunlearn.charts.layers import (
    SAID,
    Spec,
    across,
    by,
    layer,
    layered,
    of,
    records,
    rounded,
    rows_of,
    ticks,
    values,
)
from fedunlearn.charts.look import DASHES, SERIES, between, cut, ink, names, percent
from fedunlearn.results.kinds import quality_words

HOW: Mapping[str, tuple[str, str]] = {
    "within a month": ("circle", "blue"),
    "within three months": ("square", "amber"),
    "later": ("triangle-up", "red"),
    "still open": ("cross", "muted"),
    "refused": ("triangle-down", "edge"),
}
"""Shape and colour of how requests were answered (`results.years.HOW`)."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
"""Of policies, in the scenario's order; where there are more, they begin anew."""
_MEASURES: Mapping[str, tuple[str, float]] = {
    "memory_left": ("memory left, %", 100),
    "memory_back": ("memory back, points", 100),
    "calibration_error": ("calibration error, points", 100),
    "share_of_retraining": ("cost so far, % of training anew", 100),
    "distance": ("distance from never having seen them", 1),
    "waiting_days": ("days on which anybody waited", 1),
    "blocked_days": ("days without a usable model", 1),
}
"""By measure, what its axis is called, and by what numbers are multiplied there; those of quality beside these."""
_STEP, _MOST, _SMALL, _HIGH = 6, 300, 170, 300
"""Pixels: of a request, of all requests of a policy at most, and how high other charts are."""
_MONTHS = "utcFormat(datum.value * 864e5, '%b')"
"""Of a day, counted from 1970, its month as an axis says it."""
_DAY = pd.Timedelta(days=1)


def _axis(measure: str) -> tuple[str, float]:
    """What a measure's axis is called, and by what numbers are multiplied there."""
    for name, word in quality_words().items():
        if measure in (f"test_{name}", f"worst_site_{name}"):
            return (f"test {word}, %" if measure == f"test_{name}" else f"worst hospital, {word}, %"), 100
    return _MEASURES.get(measure, (measure.replace("_", " "), 1))


def timeline(frame: pd.DataFrame) -> Spec:
    """A line for every request, from the day on which it came in to its answer; one block a policy.

    Shape and colour of the end tell how late that was. What is open ends where the year does.

    Args:
        frame: `fedunlearn.results.years.timeline`.
    """
    known = names(dict.fromkeys(frame["policy"]))
    rows = frame.assign(row=frame["policy"].map(known), x=_days(frame["received"]))
    rows["till"] = _days(frame["answered"].fillna(frame["end"]))
    rows["ink"] = [ink(HOW[how][1]) for how in rows["how"]]
    rows["label"] = [_told(row) for row in records(frame)]
    most = int(rows.groupby("row").size().max()) if len(rows) else 1
    rows["lane"] = rows.groupby("row").cumcount() / max(most - 1, 1)
    high = max(60, min(_STEP * most, _MOST) + 10)
    x = _dates(frame["received"], frame["end"], "x", most=12)
    y, lift = rows_of(known.values()), of("lane", scale={"domain": [0, 1], "range": [6, high - 6]})
    hows = [how for how in HOW if how in set(rows["how"])]
    key = {"title": None, "symbolOpacity": 1}
    colours, shapes = [ink(HOW[how][1]) for how in hows], [HOW[how][0] for how in hows]
    whole = values(rows[["row", "x", "till", "lane", "ink", "how", "label"]])
    plain = {"strokeWidth": 2, "strokeOpacity": 0.55, "aria": False, "clip": True}
    place = {"y": y, "yOffset": lift}
    end = {**x, "field": "till"}
    colour = by("how", legend=key, scale={"domain": hows, "range": colours})
    shape = by("how", legend=key, scale={"domain": hows, "range": shapes})
    point = {
        "filled": True,
        "size": max(8, 34 * min(1, _MOST / _STEP / most)),
        "opacity": 1,
        "strokeWidth": 0,
    }
    layers = [
        *_between_rows(list(known.values()), high),
        layer(whole, "rule", plain, x=x, x2={"field": "till"}, color=by("ink", scale=None), **place),
        layer(whole, "point", point, x=end, color=colour, shape=shape, **place, **SAID),
    ]
    said = f"{most} requests under {len(known)} policies, each from the day it came in to its answer."
    return layered(layers, said, {"step": high})


def course(frame: pd.DataFrame, policy: str, measure: str, ends: tuple[float, float] | None = None) -> Spec:
    """A measure over the year under one policy: a line per strategy, and what it is compared with.

    Bands: least and most over seeds.

    Args:
        frame: `fedunlearn.results.years.courses`.
        policy: its label.
        measure: one of the frame's.
        ends: of the axis of values, so that several charts can be compared; None for those of this one.
    """
    title, times = _axis(measure)
    looks = strategies(frame)
    rows = frame[frame["measure"] == measure]
    rows = rows[(rows["policy"] == policy) | (rows["policy"] == "")]
    rows = rows.assign(x=_days(rows["date"]), **{c: times * rows[c] for c in ("value", "low", "high")})
    rows = rows.dropna(subset=["value"])
    rows["label"] = [_at(row, title, policy) for row in records(rows)]
    for one in ("series", "ink"):
        rows[one] = [looks[strategy][one] for strategy in rows["strategy"]]
    reach = ends or span(frame, measure)
    guides = [{"y": 0.0}] if measure == "memory_left" else []
    shown = [one for strategy, one in looks.items() if strategy in set(rows["strategy"])]
    key = {"title": None, "symbolType": "stroke", "symbolStrokeWidth": 2.5, "symbolSize": 300}
    words = [one["series"] for one in shown]
    x = _dates(frame["date"], frame["date"], "x", most=6)
    y = across("value", title, reach, ticks(reach, 4))
    look = {
        "color": by("series", legend=key, scale={"domain": words, "range": [one["ink"] for one in shown]}),
        "strokeDash": by(
            "series", legend=key, scale={"domain": words, "range": [one["dash"] for one in shown]}
        ),
    }
    columns = ["strategy", "series", "x", "value", "low", "high", "ink", "label"]
    whole, spread = values(rows[columns]), rows.loc[~rows["strategy"].isin(list(_REFERENCES)), columns]
    plain, detail = by("ink", scale=None), by("strategy")
    band = {"fillOpacity": 0.13, "aria": False, "clip": True}
    dots = {"filled": True, "size": 24, "opacity": 1, "strokeWidth": 0}
    zero = {"color": ink("edge"), "aria": False}
    layers = [
        *([layer(guides, "rule", zero, y=of("y"))] if guides else []),
        layer(
            values(spread),
            "area",
            band,
            x=x,
            y={**y, "field": "low"},
            y2={"field": "high"},
            fill=plain,
            detail=detail,
        ),
        layer(whole, "line", {"strokeWidth": 1.8, "clip": True}, x=x, y=y, detail=detail, **look),
        layer(whole, "point", dots, x=x, y=y, color=plain, **SAID),
    ]
    return layered(layers, f"{title} over the year, under {cut(policy, 60)}.", _SMALL)


def span(frame: pd.DataFrame, measure: str) -> tuple[float, float]:
    """Ends of an axis for a measure of `fedunlearn.results.years.courses`, whatever the policy."""
    _, times = _axis(measure)
    rows = frame[frame["measure"] == measure]
    seen = [float(times * number) for column in ("low", "high") for number in rows[column]]
    return rounded(seen, 4, zero=measure in ("memory_left", "memory_back", "share_of_retraining"))


_REFERENCES: Mapping[str, tuple[str, str, list[int]]] = {
    "retrained": ("never saw them", "ink", [1, 0]),
    "original": ("saw everybody", "muted", [3, 3]),
}


def strategies(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By strategy, its line: words, colour and pattern, the same under every policy."""
    whom = frame.drop_duplicates("strategy")
    ours = [s for s in whom["strategy"] if s not in _REFERENCES]
    known = names(ours, 24)
    found: dict[str, dict[str, Any]] = {}
    for number, strategy in enumerate(ours):
        place = number % len(SERIES)
        found[strategy] = {"series": known[strategy], "ink": ink(SERIES[place]), "dash": DASHES[place]}
    for strategy in whom["strategy"]:
        if strategy in _REFERENCES:
            words, colour, dash = _REFERENCES[strategy]
            found[strategy] = {"series": words, "ink": ink(colour), "dash": dash}
    return found


def frontier(frame: pd.DataFrame, against: str = "memory_left") -> Spec:
    """What answering cost, against the memory left or the share of late answers: a mark per policy and strategy.

    Colour tells the strategy, shape the policy. Hollow: another is no later, no dearer and no less forgetful, or
    memory is unknown. Bars: 95 %.

    Args:
        frame: `fedunlearn.results.years.policies`.
        against: ``memory_left`` or ``late``.
    """
    title = {"memory_left": "memory left at the end, %", "late": "answered later than a month, %"}[against]
    looks, known = strategies(frame), names(dict.fromkeys(frame["policy"]), 24)
    rows = frame.assign(kind=frame["policy"].map(known), label=[_point(row) for row in records(frame)])
    for column, source in (("x", "cost"), ("y", against)):
        for end in ("", "_low", "_high"):
            rows[f"{column}{end}"] = 100 * rows[f"{source}{end}"]
    for one in ("series", "ink"):
        rows[one] = [looks[strategy][one] for strategy in rows["strategy"]]
    rows = rows.dropna(subset=["x", "y"]).reset_index(drop=True)
    costs = [x for x in rows["x"] if x > 0]
    least = 10.0 ** math.floor(math.log10(min([*costs, 1.0])))
    most = 10.0 ** math.ceil(math.log10(max([*costs, 100.0])))
    tens = [10.0**n for n in range(round(math.log10(least)), round(math.log10(most)) + 1)]
    reach = rounded([*rows["y"], *rows["y_low"], *rows["y_high"], 5.0], 6, zero=True)
    x = across(
        "x", "cost, % of training anew on each day of acceptance", (least * 0.8, most * 1.25), tens, log=True
    )
    y = across("y", title, reach, ticks(reach, 6))
    series, kinds = list(dict.fromkeys(rows["series"])), list(dict.fromkeys(rows["kind"]))
    colours = [next(one["ink"] for one in looks.values() if one["series"] == words) for words in series]
    shapes = [SHAPES[list(known.values()).index(kind) % len(SHAPES)] for kind in kinds]
    key = {"title": None, "symbolOpacity": 1}
    plain_key = {**key, "symbolFillColor": ink("ink"), "symbolStrokeWidth": 0}
    colour = by("series", legend=key, scale={"domain": series, "range": colours})
    shape = by("kind", legend=plain_key, scale={"domain": kinds, "range": shapes})
    shown = rows[["x", "x_low", "x_high", "y", "y_low", "y_high", "kind", "series", "ink", "front", "label"]]
    plain = by("ink", scale=None)
    bars = {"strokeWidth": 1.2, "strokeOpacity": 0.55, "aria": False, "clip": True}
    whole = values(shown)
    layers = [
        layer([{"y": 0.0}], "rule", {"color": ink("edge"), "aria": False}, y=of("y")),
        layer(
            values(shown.dropna(subset=["y_low", "y_high"])),
            "rule",
            bars,
            x=x,
            y=of("y_low"),
            y2={"field": "y_high"},
            color=plain,
        ),
        layer(
            whole,
            "point",
            {"filled": True, "size": 110, "opacity": 1},
            x=x,
            y=y,
            color=colour,
            shape=shape,
            **SAID,
        ),
    ]
    behind = values(shown[~shown["front"]])
    if behind:
        bare = {**shape, "legend": None}
        hollow = {"filled": True, "size": 38, "opacity": 1, "fill": ink("paper"), "aria": False}
        layers.append(layer(behind, "point", {**hollow, "strokeWidth": 0}, x=x, y=y, shape=bare))
    said = f"Cost of answering against {title}, for {len(rows)} pairs of policy and strategy."
    return layered(layers, said, _HIGH)


# ------------------------------------------------------------------------------------------------------ pieces


def _days(column: pd.Series[Any]) -> pd.Series[Any]:
    """Dates as days since 1970."""
    return (column - pd.Timestamp(0)) / _DAY


def _dates(begins: pd.Series[Any], ends: pd.Series[Any], name: str, most: int) -> Spec:
    """The channel of an axis of days, with the first days of about ``most`` months as ticks."""
    known = [*begins.dropna(), *ends.dropna()] or [pd.Timestamp(0), pd.Timestamp(0) + _DAY]
    first, last = min(known), max(known)
    months = pd.date_range(first.normalize().replace(day=1), last, freq="MS")
    every = max(1, math.ceil(len(months) / (most + 1)))
    marks = [float((month - pd.Timestamp(0)) / _DAY) for month in months[::every] if month >= first]
    reach = (float((first - pd.Timestamp(0)) / _DAY) - 2, float((last - pd.Timestamp(0)) / _DAY) + 2)
    return across(name, "", reach, marks, labelExpr=_MONTHS, labelOverlap=True)


def _between_rows(known: Sequence[str], high: int) -> list[Spec]:
    """Every other policy on a ground of its own."""
    grounds = [{"row": row} for row in known[::2]]
    style = {"color": ink("zone"), "height": high, "opacity": 0.6, "aria": False}
    return [layer(grounds, "bar", style, y=by("row"), x={"value": 0}, x2={"value": "width"})]


def _told(row: Mapping[str, Any]) -> str:
    """What a request's line says."""
    whom = f"{cut(row['request'], 40)} ({cut(row['site'], 40)}), {cut(row['policy'], 40)}"
    came = f"received {row['received']:%Y-%m-%d}, due {row['due']:%Y-%m-%d}"
    if pd.isna(row["answered"]):
        return f"{whom}: {row['state']}; {came}; not answered when the year ended"
    late = f"; {row['late']} days late" if row["late"] else ""
    return f"{whom}: {row['state']} on {row['answered']:%Y-%m-%d}, after {row['days']:.0f} days{late}; {came}"


def _at(row: Mapping[str, Any], title: str, policy: str) -> str:
    return f"{cut(row['name'], 60)}, {cut(policy, 40)}, {row['date']:%Y-%m-%d}: {title} {row['value']:.3g}"


def _point(row: Mapping[str, Any]) -> str:
    """What a mark of the frontier says."""
    left = percent(row["memory_left"]) + between(row["memory_left_low"], row["memory_left_high"])
    late = percent(row["late"]) + between(row["late_low"], row["late_high"])
    whom = f"{cut(row['policy'], 40)}, {cut(row['name'], 60)}"
    cost = f"{percent(row['cost'])} of training anew on each day of acceptance"
    return f"{whom}: cost {cost}; memory left {left}; late {late}"
