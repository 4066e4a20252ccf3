"""Who paid for it: quality on unseen images by hospital, class and group of patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
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
    ticks,
    values,
)
from fedunlearn.charts.look import between, cut, ink, names, percent, quality

KINDS: Mapping[str, tuple[str, str]] = {
    "within the margin": ("circle", "blue"),
    "beyond, may be luck": ("square", "amber"),
    "beyond the margin": ("triangle-down", "red"),
}
"""Shape and colour of what a loss comes to: beyond the margin, and if so, whether its 95 % interval is below 0."""
_HIGH = 26
_NAMED = 6
"""Losses that are named, the largest of those beyond a margin."""


def groups(frame: pd.DataFrame) -> Spec:
    """One row per hospital, class or group, in it one dot per strategy: quality on unseen images, less retraining's.

    Grey: the 95 % interval of retraining again. Black: how much may be lost there. The largest of the losses that are
    beyond that have their 95 % intervals and the strategy's name.

    Args:
        frame: `fedunlearn.results.frames.groups`.
    """
    known = names(frame["words"])
    rows = frame.assign(row=frame["words"].map(known), x=100 * frame["difference"])
    rows = rows.assign(**{end: 100 * rows[end] for end in ("low", "high", "margin")}).dropna(subset=["x"])
    rows = rows.assign(kind=_kinds(rows), label=[_told(row) for row in records(rows)])
    dots = rows[rows["role"].isin(["strategy", "floor"])].reset_index(drop=True)
    word = quality(frame["measure"])
    low, high = reach([*dots["x"], *(-dots["margin"])], (-5, 3), (-60, 40))
    dots["lift"] = lifted(dots["row"], dots["x"], (high - low) / 90)
    x = across("x", f"{word} on unseen images less retraining's, points", (low, high), ticks((low, high), 7))
    y = rows_of(known.values())
    again = values(rows.loc[rows["role"] == "again", ["row", "low", "high", "label"]])
    least = values(rows.drop_duplicates("row").assign(end=-rows["margin"])[["row", "end"]])
    worst = dots[dots["kind"] != next(iter(KINDS))].nsmallest(_NAMED, "x").drop_duplicates("row")
    shown = values(worst.assign(name=worst["name"].map(names(worst["name"], 16))))
    kinds = [kind for kind in KINDS if kind in set(dots["kind"])]
    legend = {"title": None, "symbolOpacity": 1}
    colours, shapes = [ink(KINDS[k][1]) for k in kinds], [KINDS[k][0] for k in kinds]
    shape = by("kind", legend=legend, scale={"domain": kinds, "range": shapes})
    colour = by("kind", legend=legend, scale={"domain": kinds, "range": colours})
    ends: Spec = {"x": of("low"), "x2": {"field": "high"}, "y": y}
    band = {"color": ink("zone"), "height": _HIGH - 4, "clip": True}
    tick = {"color": ink("ink"), "thickness": 1.5, "size": _HIGH - 10, "opacity": 1, "aria": False}
    point = {"filled": True, "size": 40, "strokeWidth": 0, "opacity": 0.85}
    lift = of("lift", scale={"domain": [-1, 1], "range": [2, _HIGH - 2]})
    text = {"align": "left", "dx": 9, "dy": -7, "fontSize": 10, "color": ink("ink"), "aria": False}
    layers = [
        layer(again, "bar", band, **ends, **SAID),
        layer([{"x": 0}], "rule", {"color": ink("edge"), "aria": False}, x=x),
        layer(least, "tick", tick, x=of("end"), y=y),
        layer(shown, "rule", {"color": ink("muted"), "aria": False, "clip": True}, **ends),
        layer(
            values(dots[["row", "x", "lift", "kind", "label"]]),
            "point",
            point,
            x=x,
            y=y,
            yOffset=lift,
            shape=shape,
            color=colour,
            **SAID,
        ),
        layer(shown, "text", text, x=of("x"), y=y, text=by("name")),
    ]
    said = f"{word.capitalize()} on unseen images by group, for {dots['strategy'].nunique()} strategies."
    return layered(layers, said, {"step": _HIGH})


def _kinds(rows: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Which of `KINDS` each row is."""
    beyond = rows["x"] < -rows["margin"]
    within, open_, lost = KINDS
    return np.select([beyond & (rows["high"] < 0), beyond], [lost, open_], within)


def _told(row: Mapping[str, Any]) -> str:
    """What a dot says; shares are in percent."""
    word = quality([row["measure"]])
    worth = percent(row["x"] / 100, sign=True) + between(row["low"] / 100, row["high"] / 100, sign=True)
    people = f"{int(row['patients'])} test patients" if row["patients"] == row["patients"] else ""
    parts = (f"{word} {worth}", f"margin {percent(row['margin'] / 100)}", people)
    return f"{cut(row['words'], 60)} · {cut(row['name'], 60)}: {'; '.join(part for part in parts if part)}"
