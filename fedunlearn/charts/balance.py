"""What it costs to forget, and how good the model still is: one mark per strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from fedunlearn.charts.layers import (
    SAID,
    Rows,
    Spec,
    across,
    by,
    layer,
    layered,
    of,
    reach,
    records,
    ticks,
    values,
)
from fedunlearn.charts.look import between, cut, ink, names, percent, quality

ANSWERS: Mapping[str, tuple[str, str]] = {
    "yes": ("circle", "blue"),
    "yes, but": ("diamond", "sky"),
    "cannot tell": ("square", "muted"),
    "partly": ("triangle-up", "amber"),
    "no": ("cross", "red"),
    "too much": ("triangle-down", "pink"),
}
"""Shape and colour of the answers to "forgotten?"."""
_NAMED = 14
"""Strategies that have room for their names."""
_HIGH = 300
_PLACES: tuple[tuple[int, int, Literal["left", "right"]], ...] = (
    (9, -9, "left"),
    (9, 13, "left"),
    (-9, -9, "right"),
    (-9, 13, "right"),
    (9, -22, "left"),
    (9, 26, "left"),
)
"""Where a name may stand beside its mark: pixels to the right and down, and the side that is at the mark."""


def tradeoff(frame: pd.DataFrame) -> Spec:
    """Quality on unseen images, less retraining's, against work, in % of retraining's passes of images.

    Bars: 95 % upwards and downwards; sideways from the least to the most over seeds. Dashed: how much may be lost.
    Shape and colour tell whether it was forgotten; a hollow mark with † is dominated: what needs no thought does more
    for less.

    Args:
        frame: `fedunlearn.results.frames.useful`.
    """
    rows = _rows(frame)
    word = quality(frame["measure"])
    margin = 100 * float(frame["margin"].max()) if len(frame) else math.nan
    low, high = reach([*rows["low"], *rows["high"], -1.5 * margin], (-1, 1), (-40, 40))
    right = reach([*rows["most"], *rows["x"]], (0, 110), (0, 400))[1]
    x = across(
        "x", "work, % of retraining", (-4, right), [tick for tick in range(0, 401, 25) if tick <= right]
    )
    y = across("y", f"{word} on unseen images less retraining's, points", (low, high), ticks((low, high), 6))
    answers = [answer for answer in ANSWERS if answer in set(rows["forgotten"])]
    legend = {"title": "forgotten?", "symbolOpacity": 1}
    colours, shapes = [ink(ANSWERS[a][1]) for a in answers], [ANSWERS[a][0] for a in answers]
    colour = by("forgotten", legend=legend, scale={"domain": answers, "range": colours})
    shape = by("forgotten", legend=legend, scale={"domain": answers, "range": shapes})
    rows = rows.join(_placed(rows, (-4, right), (low, high), margin))
    whole = values(rows)
    bars = {"strokeWidth": 1.2, "strokeOpacity": 0.55, "aria": False, "clip": True}
    plain = by("ink", scale=None)
    marks = [
        layer(whole, "rule", bars, x=x, y=of("low"), y2={"field": "high"}, color=plain),
        layer(whole, "rule", bars, x=of("least"), x2={"field": "most"}, y=y, color=plain),
        *(_marks(values(some), bool(hollow), x, y, shape, colour) for hollow, some in rows.groupby("hollow")),
    ]
    for dx, dy, side in _PLACES:
        some = rows[rows["named"] & (rows["dx"] == dx) & (rows["dy"] == dy)]
        style = {"dx": dx, "dy": dy, "align": side, "color": ink("ink"), "aria": False}
        if not some.empty:
            marks.append(layer(values(some), "text", style, x=of("x"), y=of("y"), text=by("row")))
    said = f"{word.capitalize()} on unseen images against the work of hospitals, for {len(rows)} models."
    return layered([*_behind(margin, right), *marks], said, _HIGH)


def _marks(rows: Rows, hollow: bool, x: Spec, y: Spec, shape: Spec, colour: Spec) -> Spec:
    """Hollow ones are filled with paper, so that no bar shows through."""
    told = {"x": x, "y": y, "shape": shape, **SAID}
    if hollow:
        style = {"filled": True, "size": 90, "opacity": 1, "fill": ink("paper"), "strokeWidth": 2}
        return layer(rows, "point", style, stroke=by("ink", scale=None), **told)
    return layer(rows, "point", {"filled": True, "size": 95, "opacity": 1}, color=colour, **told)


def _behind(margin: float, right: float) -> list[Spec]:
    """Retraining, and the margin."""
    layers = []
    lines = [(0.0, "", "edge", [1, 0])]
    if margin > 0:
        lines.append((-margin, "margin", "muted", [4, 3]))
    for place, words, colour, dash in lines:
        rows = [{"y": place, "x": right, "words": words}]
        style = {"color": ink(colour), "strokeDash": dash, "aria": False}
        layers.append(layer(rows, "rule", style, y=of("y")))
        text = {"align": "right", "dy": -6, "dx": -2, "fontSize": 10, "color": ink("muted"), "aria": False}
        layers.append(layer(rows, "text", text, x=of("x"), y=of("y"), text=by("words")))
    return layers


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per mark. Doing nothing costs nothing, whatever training has cost."""
    nothing = frame["role"] == "original"
    costs = frame[["share_of_retraining", "share_low", "share_high"]].mask(nothing, 0.0) * 100
    known = names(frame["name"], 24)
    rows = pd.DataFrame(
        {
            "row": frame["name"].map(known),
            "forgotten": frame["forgotten"],
            "ink": [ink(ANSWERS[answer][1]) for answer in frame["forgotten"]],
            "hollow": frame["dominated_by"] != "",
            "strategy": frame["role"].isin(["strategy", "floor"]),
            "x": costs["share_of_retraining"],
            "least": costs["share_low"],
            "most": costs["share_high"],
            "y": 100 * frame["difference"],
            "low": 100 * frame["low"],
            "high": 100 * frame["high"],
            "label": [_told(row) for row in records(frame)],
        }
    )
    rows.loc[rows["hollow"], "row"] += " †"
    return rows.dropna(subset=["x", "y"]).reset_index(drop=True)


def _told(row: Mapping[str, Any]) -> str:
    """What a mark says."""
    word = quality([row["measure"]])
    worth = percent(row["difference"], sign=True) + between(row["low"], row["high"], sign=True)
    cost = (
        "no work"
        if row["role"] == "original"
        else f"{percent(row['share_of_retraining'])} of retraining's work"
    )
    beaten = f"; dominated by {cut(row['dominated_by'], 40)}" if row["dominated_by"] else ""
    answers = f"forgotten: {row['forgotten']}; still good: {row['useful']}"
    return f"{cut(row['name'], 60)}: {answers}; {word} {worth}; {cost}{beaten}"


def _placed(
    rows: pd.DataFrame, across: tuple[float, float], along: tuple[float, float], margin: float
) -> pd.DataFrame:
    """By row, whether its name is shown, and where beside its mark: where it hides no mark and no other name.

    Reckoned in pixels of a picture of 640 x `_HIGH`.
    """
    wide, high = across[1] - across[0], along[1] - along[0]
    px = [640 * (x - across[0]) / wide for x in rows["x"].clip(*across)]
    py = [_HIGH * (along[1] - y) / high for y in rows["y"].clip(*along)]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in zip(px, py, strict=True)]
    if math.isfinite(margin):
        line = _HIGH * (along[1] + margin) / high
        taken.append((590.0, line - 14, 640.0, line))  # its word
    many = len(rows) > _NAMED
    places = []
    for x, y, row in zip(px, py, records(rows), strict=True):
        wanted = not many or (
            row["strategy"] and not row["hollow"] and row["forgotten"] in ("yes", "yes, but")
        )
        place, box = _free(x, y, 6.2 * len(row["row"]), taken) if wanted else (_PLACES[0], None)
        if box is not None:
            taken.append(box)
        places.append((box is not None, *place))
    return pd.DataFrame(places, columns=["named", "dx", "dy", "side"], index=rows.index)


Box = tuple[float, float, float, float]


def _free(x: float, y: float, long: float, taken: Sequence[Box]) -> tuple[tuple[int, int, str], Box | None]:
    """The first place where a name of that length fits; None where there is none."""
    for dx, dy, side in _PLACES:
        left = x + dx if side == "left" else x + dx - long
        box = (left, y + dy - 7, left + long, y + dy + 5)
        inside = box[0] >= -10 and box[2] <= 650 and box[1] >= 0 and box[3] <= _HIGH
        if inside and not any(
            box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken
        ):
            return (dx, dy, side), box
    return _PLACES[0], None
