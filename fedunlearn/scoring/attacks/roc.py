"""The ROC curve of the attack by loss: how many members it finds, by how many others it accuses.

Two ways to draw it, since there are two ways to attack; images are those of `mia_loss_auc`.

- *one*: one threshold for all hospitals and labels, as an attacker would have, and rates that are exact in the mean
  (`fedunlearn.scoring.attacks.rates`): at 1 % and 0.1 % it is `mia_loss_tpr_at_1` and `mia_loss_tpr_at_01`.
- *each*: a threshold for every hospital and label, at the same rate in each; the mean over them by the number of
  pairs. The area under it is `mia_loss_auc`. Near a rate of 0 it is too high: whoever is above all of few held-out
  images counts as found.

Only rates are shown at which `FEWEST_PLACES` held-out images could be accused; below, all hangs on one image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn.core import RequestId
from fedunlearn.scoring.attacks.membership import forget_versus_held_out
from fedunlearn.scoring.attacks.pairs import Pairs
from fedunlearn.scoring.attacks.rates import FEWEST_PLACES, found
from fedunlearn.scoring.evidence import Floats, Frame

RATES: Floats = 10.0 ** (np.arange(-60, 1) / 20)
"""False positive rates, 20 in each factor of ten from 0.1 % to 1."""

COLUMNS = (
    *("request", "strategy", "thresholds", "fpr", "tpr", "low", "high"),
    *("models", "n_members", "n_nonmembers"),
)
"""Of `fedunlearn.results.runfolder.ROC`."""

Curves = Mapping[str, Floats]
"""By kind of thresholds, (rates,) the share of members found at each of `rates`."""


def rates(frame: Frame) -> Floats:
    """Those of `RATES` that a request's images allow; none where there is nothing to compare."""
    pairs = forget_versus_held_out(frame).get("all")
    if pairs is None:
        return np.empty(0)
    # a whole number of places may be a little less, by rounding
    return RATES[RATES * (len(pairs.right) + 1) >= FEWEST_PLACES - 1e-9]


def roc(frame: Frame, losses: Floats) -> Curves:
    """The curves of a model with these losses, (N,)."""
    pairs, at = forget_versus_held_out(frame).get("all"), rates(frame)
    if pairs is None:
        return {}
    return {"one": one_threshold(pairs, -losses, at), "each": own_thresholds(pairs, -losses, at)}


def one_threshold(pairs: Pairs, scores: Floats, at: Floats) -> Floats:
    """(rates,) the share of left images found, one threshold for all; ``scores`` (N,): the higher, the rather so."""
    above, level = _places(scores[pairs.left], scores[pairs.right])
    places = at * (len(pairs.right) + 1)
    shares: Floats = found(above[:, None], level[:, None], places[None]).mean(axis=0)
    return shares


def own_thresholds(pairs: Pairs, scores: Floats, at: Floats) -> Floats:
    """(rates,) the share of left images found, a threshold for each stratum; strata count by their pairs."""
    total, shares = 0.0, np.zeros(len(at))
    for stratum in np.unique(pairs.left_strata):
        left = scores[pairs.left[pairs.left_strata == stratum]]
        right = scores[pairs.right[pairs.right_strata == stratum]]
        above, level = (x[:, None] for x in _places(left, right))
        accused = at[None] * len(right) + 1e-9  # of a whole number of images, rounding must not cost one
        within = np.clip((accused - above) / np.maximum(level, 1), 0, 1)
        shares += len(right) * np.where(level > 0, within, accused >= above).sum(axis=0)
        total += len(left) * len(right)
    return shares / total


def table(request: RequestId, frame: Frame, models: Mapping[str, Sequence[Curves]]) -> pd.DataFrame:
    """Rows of ``roc.parquet``: the mean over each strategy's models, and their range.

    Args:
        request: whose.
        frame: its images.
        models: by strategy, the curves of its models; those of retrained ones show what no memory looks like.
    """
    pairs, at, rows = forget_versus_held_out(frame).get("all"), rates(frame), list[tuple[Any, ...]]()
    for strategy, curves in models.items():
        if pairs is None or not curves:
            continue
        for thresholds in curves[0]:
            of = np.stack([one[thresholds] for one in curves])
            counts = len(curves), len(pairs.left), len(pairs.right)
            low, high = of.min(axis=0), of.max(axis=0)
            mean = np.clip(of.mean(axis=0), low, high)  # of equal values, rounding may be beside them
            for rate, *values in zip(at, mean, low, high, strict=True):
                rows.append((request, strategy, thresholds, float(rate), *map(float, values), *counts))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        {name: "float64" for name in ("fpr", "tpr", "low", "high")}
        | {name: "int64" for name in ("models", "n_members", "n_nonmembers")}
        | {name: "str" for name in ("request", "strategy", "thresholds")}
    )


def _places(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Of each left score, how many right ones are above it, and how many level with it."""
    order = np.sort(right)
    below, up_to = (np.searchsorted(order, left, side) for side in ("left", "right"))
    return (len(order) - up_to).astype(np.float64), (up_to - below).astype(np.float64)
