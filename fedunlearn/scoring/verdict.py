"""One verdict per strategy and request, from means over seeds against the retrained-versus-retrained band.

In this order; all reasons are given, the first that applies names the verdict:

1. DAMAGED: the model diverged for some seed: an answer is NaN or infinite. That needs no comparison, and what the
   other seeds' models are like does not matter: the mean over all seeds is no number.
2. INCONCLUSIVE: fewer than two seeds, so there is no band; or no image to forget has a comparable held-out one; or the
   original model itself shows no memory: its `mia_loss_auc` is within the band or its bootstrap interval reaches
   down to 0.5 (means over seeds). Doing nothing would pass then, so passing says nothing.
3. DAMAGED: test or retain accuracy below the band.
4. UNDER: `mia_loss_auc` or forget accuracy above the band: the model still remembers. (A low forget loss alone is
   confidence: what memory does to a loss is to lower it more than that of unseen images, which is the AUC.)
5. OVER: `mia_loss_auc` or forget accuracy below the band, or forget loss above it: the images to forget stand out
   by being known *less* than by a model that never saw them, which betrays them just as well.
6. PASS: none of these. It means: not told apart from retraining by these measures, at this number of seeds.

For volumes, the Dice coefficient stands in the place of accuracy, and the mean loss of voxels in that of loss.

No single number decides: a destroyed model has an AUC of 0.5, and one that memorised everything has a fine accuracy.
The original model is judged like a strategy ("do nothing"). The retrained one is the reference and gets no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from fedunlearn.scoring import segmentation
from fedunlearn.scoring.band import Band

Rule = tuple[str, str, str, Literal["above", "below"]]
RULES: tuple[Rule, ...] = (
    ("DAMAGED", "damaged", "test_accuracy", "below"),
    ("DAMAGED", "damaged", "retain_accuracy", "below"),
    ("UNDER", "remembers", "mia_loss_auc", "above"),
    ("UNDER", "remembers", "forget_accuracy", "above"),
    ("OVER", "forgot too much", "mia_loss_auc", "below"),
    ("OVER", "forgot too much", "forget_accuracy", "below"),
    ("OVER", "forgot too much", "forget_loss", "above"),
)
"""(verdict, in words, measure, side of the band), the gravest first."""

RULES_OF: Mapping[str, tuple[Rule, ...]] = {"classification": RULES, "segmentation": segmentation.RULES}
"""The rules of each kind of task."""

NO_MEMORY = (
    "the original model itself shows no memory of these patients: "
    "nothing here could tell forgetting from doing nothing"
)
TOO_WIDE = "the original model seems to remember, but two seeds make the band this wide: run at least 3"
ADVICE = "lower its learning rate, or set training.clip"
EDGE = 1e-9
"""A value this near the edge of the band, in the measure's unit, is on it: sums of floats are not exact."""


@dataclass(frozen=True)
class Diverged:
    """A model that is not finite, and in words where it ceased to be."""

    request: str
    strategy: str
    seed: int
    where: str


@dataclass(frozen=True)
class Facts:
    """What a verdict rests on, all means over seeds, of the group "all".

    Attributes:
        values: the model's measures by name.
        retrained: the retrained models' measures.
        bands: by measure; NaN where there is none.
        seeds: how many retrained models the bands come from.
        original_auc: the original models' `mia_loss_auc`; NaN if undefined.
        original_low: the lower end of its bootstrap interval; NaN if there is none.
        diverged: the model's answers are not finite for these seeds.
        rules: what to look at.
    """

    values: Mapping[str, float]
    retrained: Mapping[str, float]
    bands: Mapping[str, Band]
    seeds: int
    original_auc: float
    original_low: float
    diverged: tuple[Diverged, ...] = ()
    rules: tuple[Rule, ...] = RULES


def decide(facts: Facts) -> tuple[str, tuple[str, ...]]:
    """The verdict and its reasons."""
    broken = [(rule[0], _reason(rule, facts)) for rule in facts.rules if _outside(rule, facts)]
    findings = tuple(reason for _, reason in broken)
    if facts.diverged:
        return "DAMAGED", (_told(facts.diverged), *findings)
    doubts = _doubts(facts)
    if doubts:
        return "INCONCLUSIVE", (*doubts, *findings)
    if broken:
        return broken[0][0], findings
    names = (name for _, _, name, _ in facts.rules)
    judged = dict.fromkeys(name for name in names if name in facts.values and name in facts.bands)
    return "PASS", ("not told apart from retraining", *(_numbers(name, facts) for name in judged))


def verdicts(
    scores: pd.DataFrame, diverged: Sequence[Diverged], kind: str = "classification"
) -> pd.DataFrame:
    """Judge every model but the retrained ones.

    Args:
        scores: as in `scores.parquet`.
        diverged: the models whose answers are not finite.
        kind: of task.

    Returns:
        Columns request, strategy, verdict, reasons (joined by "; ").
    """
    whole = scores[scores["group"] == "all"]
    rows = []
    for request, of_request in whole.groupby("request", sort=False):
        common = replace(_common(of_request), rules=RULES_OF[kind])
        for strategy, of_strategy in of_request.groupby("strategy", sort=False):
            if strategy == "retrained":
                continue
            lost = tuple(d for d in diverged if (d.request, d.strategy) == (request, strategy))
            verdict, reasons = decide(replace(common, values=_means(of_strategy, "value"), diverged=lost))
            rows.append((request, strategy, verdict, "; ".join(reasons)))
    return pd.DataFrame(rows, columns=["request", "strategy", "verdict", "reasons"])


def _common(scores: pd.DataFrame) -> Facts:
    """What all models of a request are judged by; ``values`` are those of no model yet."""
    retrained = scores[scores["strategy"] == "retrained"]
    original = scores[(scores["strategy"] == "original") & (scores["measure"] == "mia_loss_auc")]
    edges = _means(retrained, "null_low"), _means(retrained, "null_high")  # the same in all rows
    return Facts(
        values={},
        retrained=_means(retrained, "value"),
        bands={name: (edges[0][name], edges[1][name]) for name in edges[0]},
        seeds=retrained["seed"].nunique(),
        original_auc=float(original["value"].mean()),
        original_low=float(original["low"].mean()),
    )


def _means(scores: pd.DataFrame, column: str) -> dict[str, float]:
    """The mean over seeds by measure; NaN if one of them is."""
    by_measure = scores.groupby("measure")[column]
    return {str(name): float(values.mean(skipna=False)) for name, values in by_measure}


def _told(diverged: Sequence[Diverged]) -> str:
    """Which seeds diverged, and where."""
    seeds: dict[str, list[str]] = {}
    for one in diverged:
        seeds.setdefault(one.where, []).append(str(one.seed))
    places = [
        f"for seed{'s' if len(some) > 1 else ''} {' and '.join(some)} {where}"
        for where, some in seeds.items()
    ]
    return f"damaged: diverged {', '.join(places)}: {ADVICE}"


def _doubts(facts: Facts) -> tuple[str, ...]:
    """Why nothing can be concluded."""
    if facts.seeds < 2:
        return (f"{facts.seeds} seed: the spread of retraining is unknown; run at least 2 (better 3)",)
    if "mia_loss_auc" not in facts.bands:
        return ("no image to forget has a held-out one of the same hospital and label to be compared with",)
    # Written so that NaN, a single patient's interval, counts as no memory shown.
    shown = facts.original_auc > facts.bands["mia_loss_auc"][1] + EDGE and facts.original_low > 0.5
    if shown:
        return ()
    low, high = facts.bands["mia_loss_auc"]
    known = f"interval from {facts.original_low:.2f}"
    interval = known if math.isfinite(facts.original_low) else "no interval: a single patient on one side"
    why = TOO_WIDE if facts.seeds < 3 and facts.original_low > 0.5 else NO_MEMORY
    return (f"{why} (mia_loss_auc {facts.original_auc:.2f}, {interval}, band {low:.2f}–{high:.2f})",)


def _outside(rule: Rule, facts: Facts) -> bool:
    _, _, name, side = rule
    if name not in facts.values or name not in facts.bands:
        return False
    low, high = facts.bands[name]
    value = facts.values[name]
    return value > high + EDGE if side == "above" else value < low - EDGE


def _reason(rule: Rule, facts: Facts) -> str:
    return f"{rule[1]}: {_numbers(rule[2], facts)}"


def _numbers(name: str, facts: Facts) -> str:
    low, high = facts.bands[name]
    value, retrained = facts.values[name], facts.retrained[name]
    return f"{name} {value:.2f}, retrained {retrained:.2f}, band {low:.2f}–{high:.2f}"
