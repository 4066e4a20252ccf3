"""What it took, and what somebody's further work brings back: a row per model, marks of several kinds."""

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
    reach,
    records,
    rounded,
    rows_of,
    ticks,
    values,
)
from fedunlearn.charts.look import cut, ink, names, percent
from fedunlearn.results.kinds import forgotten
from fedunlearn.scoring.kinds import said

EFFORTS: Mapping[str, tuple[str, str, str]] = {
    "site_seconds": ("hospitals' work", "circle", "blue"),
    "bytes": ("traffic", "square", "amber"),
    "rounds": ("rounds", "diamond", "pink"),
    "tuning_site_seconds": ("work for tuning", "triangle-up", "red"),
}
"""What is counted of each strategy, and its shape and colour."""
PROBES: Mapping[str, tuple[str, str, str]] = {
    "": ("right after unlearning", "circle", "blue"),
    "linear_probe": ("last layer refitted", "triangle-up", "red"),
    "resurgence": ("trained on", "square", "amber"),
    "retrained": ("retraining, after the same", "cross", "muted"),
}
"""What was done to each model, and its shape and colour."""
_FEW = 14
"""Rows that may be high."""


def costs(frame: pd.DataFrame) -> Spec:
    """Work, traffic and rounds of each strategy, in % of retraining's; the line at 100 is retraining.

    Args:
        frame: `fedunlearn.results.frames.costs`.
    """
    reference = frame[frame["role"] == "retrained"]
    rows = frame[frame["role"].isin(["strategy", "floor"])]
    known, marks = names(rows["name"]), []
    for row in records(rows):
        for measure, (kind, _, _) in EFFORTS.items():
            base = "site_seconds" if measure == "tuning_site_seconds" else measure
            whole = float(reference[base].iloc[0]) if len(reference) else math.nan
            share = 100 * row[measure] / whole if whole else math.nan
            if math.isfinite(share) and (share > 0 or measure != "tuning_site_seconds"):
                marks.append((known[row["name"]], share, kind, _effort(row, measure, share / 100)))
    dots = pd.DataFrame(marks, columns=["row", "x", "kind", "label"])
    ends = reach(dots["x"], (0, 105), (-2, 400))
    x = across("x", "% of retraining", ends, ticks(ends, 7))
    line = layer([{"x": 100}], "rule", {"color": ink("ink"), "aria": False}, x=x)
    said = f"Hospitals' work, traffic and rounds of {len(rows)} strategies, in percent of retraining's."
    return layered([line, *_marks(dots, EFFORTS, x, list(known.values()))], said, {"step": _high(rows)})


def probes(frame: pd.DataFrame, measure: str = "") -> Spec:
    """How well images to forget are recognised right after unlearning, and once somebody trains the model further.

    Beyond what retraining comes to after the same, something was left that training could build on.

    Args:
        frame: `fedunlearn.results.frames.probes`.
        measure: such as "mia_loss_auc"; by default, of the images to forget how many are recognised, or their Dice.
    """
    own = frame[frame["probe"] != "relearn"]
    base = own["measure"].map(lambda name: str(name).partition("_")[2])
    wanted = measure or next((m for m in dict.fromkeys(base) if m.startswith("forget_")), "")
    own = own[base == wanted]
    rows = own[own["role"] != "retrained"]
    known = names(rows["name"])
    marks = []
    for row in records(rows):
        shown, called = known[row["name"]], cut(row["name"], 60)
        for probe, value in (
            ("", row["before"]),
            (row["probe"], row["value"]),
            ("retrained", row["retrained"]),
        ):
            kind = PROBES[probe][0]
            told = f"retraining, {PROBES[row['probe']][0]}" if probe == "retrained" else f"{called}, {kind}"
            marks.append((shown, 100 * value, kind, f"{told}: {percent(value)}"))
    dots = (
        pd.DataFrame(marks, columns=["row", "x", "kind", "label"])
        .dropna()
        .drop_duplicates(["row", "x", "kind"])
    )
    title = f"{forgotten().get(wanted, _words(wanted))}, %"
    ends = rounded(dots["x"], 7)
    x = across("x", title, ends, ticks(ends, 7))
    said = f"{_words(wanted).capitalize()} of {rows['strategy'].nunique()} models before and after further training."
    return layered(_marks(dots, PROBES, x, list(known.values())), said, {"step": _high(rows)})


# ------------------------------------------------------------------------------------------------------ pieces


def _marks(
    dots: pd.DataFrame, looks: Mapping[str, tuple[str, str, str]], x: Spec, order: Sequence[str]
) -> list[Spec]:
    """A line through the marks of each row, and the marks."""
    there = [look for look in looks.values() if look[0] in set(dots["kind"])]
    words, legend = [look[0] for look in there], {"title": None, "symbolOpacity": 1, "symbolStrokeWidth": 2}
    y = rows_of(order)
    ends = dots.groupby("row", sort=False)["x"].agg(["min", "max"]).reset_index()
    between = {"color": ink("grid"), "strokeWidth": 3, "aria": False, "clip": True}
    shape = by("kind", legend=legend, scale={"domain": words, "range": [look[1] for look in there]})
    colour = by("kind", legend=legend, scale={"domain": words, "range": [ink(look[2]) for look in there]})
    point = {"filled": True, "size": 60, "opacity": 0.9}
    return [
        layer(values(ends), "rule", between, x=of("min"), x2={"field": "max"}, y=y),
        layer(values(dots), "point", point, x=x, y=y, shape=shape, color=colour, **SAID),
    ]


def _high(rows: pd.DataFrame) -> int:
    """Pixels of a row."""
    return 24 if rows["strategy"].nunique() <= _FEW else 16


def _effort(row: Mapping[str, Any], measure: str, share: float) -> str:
    """What a mark says."""
    value = row[measure]
    amount = {
        "bytes": f"{value / 1e6:.1f} MB sent and received",
        "rounds": f"{value:.3g} rounds",
        "site_seconds": f"{value:.3g} s of hospitals' work",
        "tuning_site_seconds": f"{value:.3g} s of hospitals' work for tuning",
    }[measure]
    stored = (
        f"; {row['storage_bytes'] / 1e6:.1f} MB stored before any request" if row["storage_bytes"] > 0 else ""
    )
    return f"{cut(row['name'], 60)}: {amount}, {percent(share)} of retraining's{stored}"


def _words(measure: str) -> str:
    """A measure in words."""
    return "attack's AUC" if measure == "mia_loss_auc" else said(measure).replace("_", " ")
