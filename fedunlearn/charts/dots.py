"""Memory left: one dot per patient, by strategy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fedunlearn.charts.layers import (
    SAID,
    Spec,
    across,
    by,
    layer,
    layered,
    lifted,
    of,
    reach,
    records,
    rows_of,
    values,
)
from fedunlearn.charts.look import between, cut, ink, names, percent

FLAGS: Mapping[str, tuple[str, str, str]] = {
    "": ("not beyond luck", "circle", "blue"),
    "remembered": ("still known", "triangle-up", "red"),
    "overdone": ("known less than by retraining", "triangle-down", "pink"),
    "suspected": ("rests on one training", "square", "amber"),
}
"""What a patient's flag means, and the shape and colour that show it."""
_FEW = 14
"""Rows that may be high."""
_MARKS = 2500
"""Dots at most; of more, those of patients of whom the same is said are drawn together where they are alike."""
_NAMED = 6
"""Patients that a dot of several names."""
_WORDS = {"0": ["0", "never seen"], "100": ["100", "as the original"]}
"""What stands below these ticks."""
_EXPRESSION = f"{json.dumps(_WORDS)}[datum.value] || datum.label"


def memory(frame: pd.DataFrame) -> Spec:
    """The memory left of every patient, in % of what the original knew.

    Grey: where 95 of 100 patients of honest retrainings are. Black: the mean over patients with its 95 % interval.
    Dashed: how much may be left in that mean.

    Args:
        frame: `fedunlearn.results.frames.memory`.
    """
    count = frame["strategy"].nunique()
    high, size = (28, 42) if count <= _FEW else (17, 22)
    below = 0.31 * high  # the mean is drawn below the dots
    known = names(frame["name"])
    rows = frame.assign(row=frame["name"].map(known), x=100 * frame["memory_left"])
    means = rows.drop_duplicates("strategy").copy()
    means["label"] = [_mean(row) for row in records(means)]
    means[["m", "m_low", "m_high"]] = 100 * means[["mean", "mean_low", "mean_high"]]
    dots = _dots(rows)
    low, far = reach(dots["x"], (-40, 120), (-150, 250))
    dots["lift"] = lifted(dots["row"], dots["x"], (far - low) / (90 if count <= _FEW else 120))
    x = across(
        "x",
        "memory left, % of what the original knew",
        (low, far),
        [tick for tick in range(-200, 400, 50) if low <= tick <= far],
        labelExpr=_EXPRESSION,
    )
    y = rows_of(known.values(), outer=0.5)
    kinds = [flag for flag in FLAGS if flag in set(dots["flagged"])]
    words = [FLAGS[flag][0] for flag in kinds]
    legend = {"title": None, "symbolOpacity": 1}
    colours, shapes = [ink(FLAGS[k][2]) for k in kinds], [FLAGS[k][1] for k in kinds]
    marked = layer(
        values(dots),
        "point",
        {"filled": True, "opacity": 0.8, "strokeWidth": 0},
        x=x,
        y=y,
        yOffset=of("lift", scale={"domain": [-1, 1], "range": [0.11 * high, 0.69 * high]}),
        size=of("weight", legend=None, scale={"domain": [1, 40], "range": [size, 6 * size], "zero": False}),
        shape=by("kind", legend=legend, scale={"domain": words, "range": shapes}),
        color=by("kind", legend=legend, scale={"domain": words, "range": colours}),
        **SAID,
    )
    whole = values(means[["row", "m", "m_low", "m_high", "label"]])
    plain = {"color": ink("ink"), "yOffset": below}
    rule, tick = (
        {**plain, "strokeWidth": 1.5, "clip": True},
        {**plain, "thickness": 2, "size": 0.34 * high, "opacity": 1},
    )
    bars = layer(whole, "rule", rule, x=of("m_low"), x2={"field": "m_high"}, y=y, **SAID)
    ticks = layer(whole, "tick", tick, x=of("m"), y=y, **SAID)
    said = (
        f"Memory left of every patient under {count} models: 0 is as if never seen, 100 as in the original."
    )
    return layered([*_behind(frame), marked, bars, ticks], said, {"step": high})


def _behind(frame: pd.DataFrame) -> list[Spec]:
    """The grey zone, both ends of the scale, and the margin."""
    zone, margin = (100 * float(frame[c].max()) if len(frame) else float("nan") for c in ("zone", "margin"))
    layers = []
    if zone > 0:
        area = {"color": ink("zone"), "aria": False, "clip": True}
        layers.append(layer([{"low": -zone, "high": zone}], "rect", area, x=of("low"), x2={"field": "high"}))
    ends = {"color": ink("edge"), "aria": False}
    layers.append(layer([{"x": 0}, {"x": 100}], "rule", ends, x=of("x")))
    if margin > 0:
        rows = [{"x": margin, "words": "margin of the mean"}]
        dashed = {"color": ink("muted"), "strokeDash": [4, 3], "aria": False}
        layers.append(layer(rows, "rule", dashed, x=of("x")))
        style = {"align": "left", "baseline": "top", "dx": 4, "fontSize": 10, "color": ink("muted")}
        layers.append(
            layer(rows, "text", {**style, "aria": False}, x=of("x"), y={"value": 1}, text=by("words"))
        )
    return layers


def _dots(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per dot, with what it says."""
    rows = rows.assign(weight=1)
    told = [_patient(row) for row in records(rows)]
    dots = rows.assign(label=told)[["row", "x", "flagged", "weight", "label", "patient"]]
    dots = _together(dots) if len(dots) > _MARKS else dots.drop(columns="patient")
    dots["kind"] = dots["flagged"].map({flag: words for flag, (words, _, _) in FLAGS.items()})
    return dots


def _together(dots: pd.DataFrame) -> pd.DataFrame:
    """Dots of which the same is said as one where they lie within 4 %."""
    near = dots.assign(x=(dots["x"] / 4).round() * 4).groupby(["row", "flagged", "x"], sort=False)
    found = near.agg(weight=("weight", "size"), label=("label", "first"), who=("patient", list)).reset_index()
    many = found["weight"] > 1
    found.loc[many, "label"] = [_several(row) for row in records(found[many])]
    return found.drop(columns="who")


def _several(row: Mapping[str, Any]) -> str:
    """What a dot of several patients says; those that stand out are named, as far as there is room."""
    told = f"{cut(row['row'])}: {row['weight']} patients with about {percent(row['x'] / 100)} left"
    if not row["flagged"]:
        return told
    some = ", ".join(cut(patient, 24) for patient in row["who"][:_NAMED])
    return f"{told}; {FLAGS[row['flagged']][0]}: {some}{', …' if row['weight'] > _NAMED else ''}"


def _patient(row: Mapping[str, object]) -> str:
    """What a dot says."""
    number = {key: float(str(row[key])) for key in ("memory_left", "low", "high", "copies_left")}
    flag = str(row["flagged"])
    told = f"{cut(row['patient'], 60)} · {cut(row['name'], 60)}: {percent(number['memory_left'])} left"
    told += between(number["low"], number["high"])
    if math.isfinite(number["copies_left"]):
        told += f"; {percent(number['copies_left'])} on changed copies"
    return f"{told}; {FLAGS[flag][0]}" if flag else told


def _mean(row: Mapping[str, object]) -> str:
    """What a row's mean says."""
    left, low, high = (float(str(row[key])) for key in ("mean", "mean_low", "mean_high"))
    return f"{cut(row['name'], 60)}: {percent(left)} left in the mean over patients{between(low, high)}"
