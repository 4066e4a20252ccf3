"""What charts are made of: layers, their channels and axes, and rows to draw, as Vega-Lite describes them.

A chart is its description, a plain dict with every scale's ends and every axis' ticks in it. Altair shows it in
notebooks (`fedunlearn.charts.interactive`), and `fedunlearn.charts.drawing` has a still picture made of it. It is not
built by Altair: importing it and making its objects took a quarter of a page's time, and saves no line here. That it
is valid Vega-Lite is tested against Altair's schema.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from fedunlearn.charts.look import CONFIG
from fedunlearn.results.wording import line

WIDTH = 640
"""Pixels that a chart's inside is wide in notebooks and files."""

Rows = list[dict[str, Any]]
"""Data of a layer: its columns by name, row by row."""
Spec = dict[str, Any]
"""A description in Vega-Lite, or a part of one."""


def layered(layers: Sequence[Spec], description: str, height: int | Mapping[str, int], **extra: Any) -> Spec:
    """Layers (`layer`), the lowest first, as one finished chart.

    Args:
        layers: what is drawn; every scale's ends stand in at least one of them.
        description: the words that stand for the chart where it cannot be seen.
        height: in pixels, or ``{"step": …}``, those of each row.
        extra: further entries of the description.
    """
    kept = {id(one["data"]): one["data"] for one in layers}
    called = {key: f"data-{number}" for number, key in enumerate(kept)}
    return {
        "description": line(description),
        "width": WIDTH,
        "height": height,
        "datasets": {called[key]: rows for key, rows in kept.items()},
        "layer": [{**one, "data": {"name": called[id(one["data"])]}} for one in layers],
        "config": CONFIG,
        **extra,
    }


def layer(rows: Rows, mark: str, style: Mapping[str, Any], **encoding: Any) -> Spec:
    """A layer: rows, how they are drawn, and by what of them."""
    return {"data": rows, "mark": {"type": mark, **style}, "encoding": encoding}


def of(name: str, **how: Any) -> Spec:
    """A channel that shows a column of numbers."""
    return {"field": name, "type": "quantitative", **how}


def by(name: str, **how: Any) -> Spec:
    """A channel that shows a column of words."""
    return {"field": name, "type": "nominal", **how}


SAID: Mapping[str, Spec] = {"tooltip": by("label"), "description": by("label")}
"""Channels of marks that tell what their rows say."""


def across(
    name: str,
    title: str,
    ends: tuple[float, float],
    ticks: Sequence[float],
    log: bool = False,
    **axis: Any,
) -> Spec:
    """The channel of an axis of numbers; what lies beyond its ends is drawn there.

    Args:
        name: the column.
        title: of the axis.
        ends: the numbers at its ends.
        ticks: the numbers that are written.
        log: whether equal ratios are equally far apart.
        axis: further entries of Vega-Lite's axis.
    """
    kind = {"type": "log"} if log else {"zero": False}
    scale = {**kind, "domain": list(ends), "clamp": True, "nice": False}
    return of(name, title=title, scale=scale, axis={"values": list(ticks), **axis})


def rows_of(known: Iterable[str], outer: float = 0, name: str = "row") -> Spec:
    """The channel of an axis with one row for each name.

    Args:
        known: names, the topmost first.
        outer: rows of room above and below.
        name: the column.
    """
    scale = {"type": "band", "domain": list(known), "paddingInner": 0, "paddingOuter": outer}
    return by(name, title=None, scale=scale, axis={"ticks": False, "domain": False})


def ticks(ends: tuple[float, float], count: int, least: float = 0) -> list[float]:
    """Round numbers from one end to the other, about ``count`` of them, ``least`` apart or more."""
    step = max(_step(ends, count), least)
    first, last = math.ceil(ends[0] / step - 1e-9), math.floor(ends[1] / step + 1e-9)
    return [round(number * step, 12) + 0 for number in range(first, last + 1)]


def rounded(numbers: Iterable[float], count: int, zero: bool = False) -> tuple[float, float]:
    """Ends of an axis at round numbers, around all finite ``numbers``; with ``zero``, around 0 too."""
    finite = [n for n in numbers if math.isfinite(n)] + ([0.0] if zero else [])
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if low == high:
        low, high = (low - 0.5, high + 0.5) if low or not zero else (0.0, 1.0)
    step = _step((low, high), count)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _step(ends: tuple[float, float], count: int) -> float:
    """1, 2 or 5 times a power of ten: that which divides the way between ends nearest to ``count`` parts."""
    rough = max(ends[1] - ends[0], 1e-9) / count
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(
        (f for f, most in ((1, 2**0.5), (2, 10**0.5), (5, 50**0.5)) if rough / power < most), 10
    )


def values(frame: pd.DataFrame) -> Rows:
    """Rows as a chart's own data, text on one line, numbers in five digits and unknown ones as nothing."""
    return [{key: _short(v) for key, v in row.items()} for row in records(frame)]


def records(frame: pd.DataFrame) -> Rows:
    """Rows by column."""
    columns = [frame[name].tolist() for name in frame.columns]
    return [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def reach(
    numbers: Iterable[float], least: tuple[float, float], most: tuple[float, float]
) -> tuple[float, float]:
    """Ends of an axis: from ``least``, wide enough for all finite ``numbers`` and a little more, up to ``most``."""
    finite = [n for n in numbers if math.isfinite(n)]
    low, high = min([*finite, least[0]]), max([*finite, least[1]])
    room = (high - low) * 0.02
    return max(low - room, most[0]), min(high + room, most[1])


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return line(value)
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value


def lifted(rows: pd.Series[Any], places: pd.Series[Any], width: float) -> list[float]:
    """How far above or below its row each dot is, in [-1, 1], so that dots within ``width`` do not hide one another."""
    lifts = [0.0] * len(rows)
    cells = (places / width).round()
    for together in rows.groupby([rows, cells], sort=False).indices.values():
        steps = [0, *(side * step for step in range(1, len(together)) for side in (1, -1))][: len(together)]
        most = max(4, max(map(abs, steps)))
        for place, step in zip(together, steps, strict=True):
            lifts[int(place)] = step / most
    return lifts
