"""Ranks of strategies over many runs, and which of them cannot be told apart.

What a diagram of critical differences shows (Demsar, JMLR 7, 2006), lying on its side: one row per strategy, so that
names have room. Bars join what cannot be told apart; pairs are tested one by one, so there is no single length of a
critical difference to draw.
"""

from __future__ import annotations

import pandas as pd

from fedunlearn.charts.layers import SAID, Spec, across, layer, layered, of, records, rows_of, values
from fedunlearn.charts.look import cut, ink, names

_BAR = 0.32
"""Ranks between two bars."""


def critical(ranks: pd.DataFrame, groups: pd.DataFrame, better: str) -> Spec:
    """The mean rank of every strategy, the best on top, over small dots for its ranks in single runs.

    Args:
        ranks: a row per strategy and run, the best strategy first: ``strategy``, ``mean`` (its mean rank), ``rank`` (in
            that run).
        groups: a row per group that cannot be told apart: ``first`` and ``last`` strategy, in the order of ranks.
        better: what rank 1 means, in words.
    """
    order = list(dict.fromkeys(ranks["strategy"]))
    known, k = names(order), len(order)
    runs = len(ranks) // max(k, 1)
    rows = ranks.assign(row=ranks["strategy"].map(known))
    alike = rows.groupby(["row", "rank"], sort=False).size().rename("runs").reset_index()
    alike["label"] = [f"{r['row']}: rank {r['rank']:g} in {r['runs']} of {runs} runs" for r in records(alike)]
    means = rows.drop_duplicates("row").copy()
    means["label"] = [f"{cut(r['strategy'], 60)}: mean rank {r['mean']:.2f}" for r in records(means)]
    bars = groups.assign(
        top=groups["first"].map(known),
        bottom=groups["last"].map(known),
        x=[k + 0.4 + _BAR * i for i in range(len(groups))],
    )
    bars["label"] = [f"not told apart: {r['top']} to {r['bottom']}" for r in records(bars)]
    x = across(
        "rank",
        f"rank in {runs} runs (1: {better})",
        (0.7, k + 0.4 + _BAR * max(len(groups), 1)),
        range(1, k + 1),
        grid=True,
    )
    y = rows_of(known.values())
    size = of("runs", legend=None, scale={"domain": [1, runs], "range": [18, 260], "zero": False})
    dot = {"color": ink("edge"), "opacity": 0.9}
    diamond = {"shape": "diamond", "filled": True, "size": 90, "color": ink("blue"), "opacity": 1}
    bar = {"color": ink("ink"), "strokeWidth": 4, "strokeCap": "round"}
    shown = values(alike[["row", "rank", "runs", "label"]])
    dots = layer(shown, "circle", dot, x=x, y=y, size=size, **SAID)
    mean = layer(values(means[["row", "mean", "label"]]), "point", diamond, x=of("mean"), y=y, **SAID)
    joined = layer(
        values(bars[["top", "bottom", "x", "label"]]),
        "rule",
        bar,
        x=of("x"),
        y=rows_of(known.values(), name="top"),
        y2={"field": "bottom"},
        **SAID,
    )
    said = (
        f"Mean ranks of {k} strategies over {runs} runs, best on top; bars at the right join those that cannot be "
        "told apart."
    )
    return layered([dots, joined, mean], said, {"step": 26})
