"""What goes on round by round, and curves of attacks: a line per model.

Of many strategies the first few, which are the best, have a colour and a pattern of their own; the others are grey, and
tell their names when a pointer comes to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
    ticks,
    values,
)
from fedunlearn.charts.look import DASHES, SERIES, cut, ink, names, percent
from fedunlearn.results.kinds import quality_words

OTHERS = "other strategies"
_REFERENCES: Mapping[str, tuple[str, list[int], float]] = {
    "retrained": ("ink", [1, 0], 2.4),
    "original": ("muted", [3, 3], 1.8),
    "again": ("ink", [1, 3], 1.4),
}
"""Colour, pattern and width of the lines of models that are no strategy's."""
_HIGH = 260
_POINTS = 400
"""Marks that tell values of single rounds, at most."""
_PART = {"forget": "images to forget", "validation": "validation images"}


def _rate(measure: str) -> str:
    """What an axis of a measure round by round is called."""
    known = {"loss": "mean loss, nats", **{name: f"{word}, %" for name, word in quality_words().items()}}
    return known.get(measure, measure)


def curves(frame: pd.DataFrame, part: str = "forget", measure: str = "") -> Spec:
    """A measure after every round of training, unlearning and recovery; lines are means, bands the range over seeds.

    The dashed line is the request: what goes on beyond it begins with the original model, but for retraining, which
    begins anew.

    Args:
        frame: `fedunlearn.results.frames.curves`.
        part: "forget" or "validation".
        measure: "loss", or the quality by default.
    """
    known = [m for m in dict.fromkeys(frame["measure"]) if m != "loss"]
    measure = measure or (known[0] if known else "loss")
    scale = 1 if measure == "loss" else 100
    rows = frame[(frame["part"] == part) & (frame["measure"] == measure)]
    rows = rows.assign(**{c: scale * rows[c] for c in ("value", "low", "high")})
    rows = rows.assign(line=rows["strategy"] + "\n" + rows["phase"])
    rows["label"] = [_round(row, measure) for row in records(rows)]
    ends = rounded([*rows["value"], *rows["low"], *rows["high"]], 6)
    y = across("value", _rate(measure), ends, ticks(ends, 6))
    x = _steps("rounds", rows["at"])
    asked = rows.loc[rows["phase"].isin(["unlearn", "continue"]), "after"]
    before = [] if asked.empty else _request(float(asked.min()))
    images = int(rows["images"].max()) if len(rows) else 0
    said = f"{measure.capitalize()} on {images} {_PART.get(part, part)}, round by round."
    return _lines(rows, x, y, "step", said, before)


def roc(frame: pd.DataFrame) -> Spec:
    """How many images to forget an attack finds, against how many unseen ones it takes for such; both on log scales.

    Grey: from the least to the most of all retrainings, of which none has seen these images. Dotted: guessing.

    Args:
        frame: `fedunlearn.results.frames.roc`.
    """
    rows = frame[frame["fpr"] > 0].rename(columns={"fpr": "at", "tpr": "value"})
    least = 100 * float(rows["at"].min()) if len(rows) else 0.1
    rows = rows.assign(**{c: (100 * rows[c]).clip(lower=least) for c in ("at", "value", "low", "high")})
    rows = rows.assign(line=rows["strategy"])
    rows["label"] = rows["line"].map(_finds(frame))
    tens = [tick for tick in (0.01, 0.1, 1, 10, 100) if tick >= least]
    whole = (least, 100.0)
    x = across("at", "unseen images taken for ones trained on, %", whole, tens, log=True)
    y = across("value", "images to forget that are found, %", (least * 0.8, 100), tens, log=True)
    guess = [{"at": end, "value": end} for end in whole]
    dotted = {"color": ink("edge"), "strokeDash": [2, 3], "aria": False}
    line = layer(guess, "line", dotted, x=x, y=y)
    said = "How many images to forget an attack finds at each rate of false alarms, on log scales."
    bands = rows[rows["role"] == "retrained"]
    return _lines(rows, x, y, "at", said, [line], bands, points=False)


def relearning(frame: pd.DataFrame) -> Spec:
    """The loss of images to forget while a model is trained on them again; who never saw them needs longest.

    Dashed: the loss at which they are known as well as to the original.

    Args:
        frame: `fedunlearn.results.frames.relearning`.
    """
    rows = frame.rename(columns={"epoch": "at", "loss": "value"})
    rows = rows.assign(line=rows["strategy"])
    rows["label"] = [
        f"{cut(row['name'], 60)}, after {row['at']:.0f} epochs: loss {row['value']:.3g}"
        for row in records(rows)
    ]
    x = _steps("epochs of training on the images to forget", rows["at"])
    bands = rows[rows["role"] == "retrained"]
    goal = float(rows["goal"].mean())
    ends = rounded([*rows["value"], *bands["low"], *bands["high"], goal], 6, zero=True)
    y = across("value", "their mean loss, nats", ends, ticks(ends, 6))
    behind = []
    if math.isfinite(goal):
        known = [{"y": goal, "words": "as the original"}]
        dashed = {"color": ink("muted"), "strokeDash": [4, 3], "aria": False}
        style = {"align": "right", "dy": -6, "fontSize": 10, "color": ink("muted"), "aria": False}
        behind.append(layer(known, "rule", dashed, y=of("y")))
        behind.append(layer(known, "text", style, x={"value": "width"}, y=of("y"), text=by("words")))
    said = "Loss of the images to forget, epoch by epoch, while models are trained on them again."
    return _lines(rows, x, y, "at", said, behind, bands)


# ------------------------------------------------------------------------------------------------------ pieces


@dataclass(frozen=True)
class Stroke:
    """How a model's line looks, and what it is called in the legend."""

    words: str
    colour: str
    dash: list[int]
    width: float


def strokes(frame: pd.DataFrame) -> dict[str, Stroke]:
    """By strategy, its line: references as `_REFERENCES`, the first strategies in colours, the others in grey."""
    found, whom = dict[str, Stroke](), frame.drop_duplicates("strategy")
    known = names(whom["name"], 28)
    ours = [row["strategy"] for row in records(whom) if row["role"] not in _REFERENCES]
    shown = ours[: len(SERIES)]
    for row in records(whom):
        strategy, words = row["strategy"], known[row["name"]]
        if row["role"] in _REFERENCES:
            colour, dash, width = _REFERENCES[row["role"]]
            found[strategy] = Stroke(words, ink(colour), dash, width)
        elif strategy in shown:
            place = shown.index(strategy)
            found[strategy] = Stroke(words, ink(SERIES[place]), DASHES[place], 1.8)
        else:
            found[strategy] = Stroke(OTHERS, ink("edge"), [1, 0], 1)
    return found


def _steps(title: str, places: pd.Series[float]) -> Spec:
    """The axis of rounds or epochs, from 0 on."""
    ends = (0.0, max([1.0, *(place for place in places if math.isfinite(place))]))
    return across("at", title, ends, ticks(ends, 8, least=1), grid=False)


def _lines(
    rows: pd.DataFrame,
    x: Spec,
    y: Spec,
    order: str,
    said: str,
    behind: list[Spec],
    bands: pd.DataFrame | None = None,
    points: bool = True,
) -> Spec:
    """Lines with a band each, of few; the grey ones lowest."""
    looks = strokes(rows)
    extra = [] if order == "at" else [order]
    own = [looks[strategy] for strategy in rows["strategy"]]
    rows = rows.assign(series=[look.words for look in own], width=[look.width for look in own])
    rows["ink"] = [look.colour for look in own]
    plain = by("ink", scale=None)
    key = {
        "title": None,
        "symbolType": "stroke",
        "symbolStrokeWidth": 2.5,
        "symbolSize": 360,
        "symbolOpacity": 1,
    }
    legend = {look.words: look for look in sorted(looks.values(), key=lambda look: look.words == OTHERS)}
    words, colours = list(legend), [look.colour for look in legend.values()]
    dashes = [look.dash for look in legend.values()]
    colour = by("series", legend=key, scale={"domain": words, "range": colours})
    dash = by("series", legend=key, scale={"domain": words, "range": dashes})
    wide = of("width", scale=None)  # a scale of the series would take the legend away
    for_bands = rows[(rows["series"] != OTHERS) if bands is None else rows.index.isin(bands.index)]
    area = {"fillOpacity": 0.13 if bands is None else 0.22, "aria": False, "clip": True}
    band = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "fill": plain, "detail": by("line")}
    layers = [*behind, layer(values(for_bands[["line", "at", "low", "high", "ink"]]), "area", area, **band)]
    for grey in (True, False):
        these = rows[(rows["series"] == OTHERS) == grey]
        if these.empty:
            continue
        whole = values(these[["line", "series", "at", "value", "label", "width", "ink", *extra]])
        look = {"color": colour, "strokeDash": dash, "strokeWidth": wide}
        place = {"x": x, "y": y, "detail": by("line"), "order": of(order)}
        layers.append(layer(whole, "line", {"clip": True}, **place, **look, **SAID))
        if points and not grey and len(these) <= _POINTS:
            dots = {"filled": True, "size": 22, "opacity": 1, "strokeWidth": 0}
            layers.append(layer(whole, "point", dots, x=x, y=y, color=plain, **SAID))
    return layered(layers, said, _HIGH)


def _request(at: float) -> list[Spec]:
    """When the request came."""
    rows = [{"at": at, "words": "request"}]
    dashed = {"color": ink("muted"), "strokeDash": [4, 3], "aria": False}
    # Above the plot: in it, curves are everywhere.
    style = {"baseline": "bottom", "dy": -2, "fontSize": 10, "color": ink("muted")}
    return [
        layer(rows, "rule", dashed, x=of("at")),
        layer(rows, "text", {**style, "aria": False}, x=of("at"), y={"value": 0}, text=by("words")),
    ]


def _round(row: Mapping[str, Any], measure: str) -> str:
    """What a point says."""
    number = f"{row['value']:.3g}" if measure == "loss" else f"{row['value']:.1f} %"
    return f"{cut(row['name'], 60)}, round {row['at']:g}: {measure} {number}"


def _finds(frame: pd.DataFrame) -> dict[str, str]:
    """By strategy, how much an attack finds at a few rates of false alarms."""
    told = {}
    for strategy, own in frame.groupby("strategy"):
        near = [own.iloc[(own["fpr"] - rate).abs().argmin()] for rate in (0.01, 0.1)]
        found = " and ".join(f"{percent(row['tpr'])} at {percent(row['fpr'])} false alarms" for row in near)
        told[str(strategy)] = f"{cut(own['name'].iloc[0], 60)}: an attack finds {found}"
    return told
