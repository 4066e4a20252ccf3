"""One verdict per strategy and request, from means over seeds and what seeds and patients leave uncertain.

Every rule looks at one measure's difference from the retrained models (`fedunlearn.scoring.judgement.difference`) on
one side. It is

- *broken* if the difference is beyond the margin and no luck of seeds and patients explains it (p < `LEVEL`);
- *open* if it is beyond the margin but luck might explain it;
- *kept* if it is within the margin; and *kept for sure* if its one-sided 95 % limit is.

In this order; all reasons are given, the first that applies names the verdict:

1. DAMAGED: the model diverged for some seed: an answer is NaN or infinite. That needs no comparison, and what the
   other seeds' models are like does not matter: the mean over all seeds is no number.
2. INCONCLUSIVE: fewer than two seeds, so the spread of retraining is unknown.
3. DAMAGED: test or retain accuracy too low. To see that, no memory is needed.
4. INCONCLUSIVE: no image to forget has a comparable held-out one; or the attack does not see the original model's
   memory, where there must be some: its `mia_loss_auc` does not break the rule. Doing nothing would pass then.
5. UNDER: `mia_loss_auc` or forget accuracy too high: the model still remembers. (A low forget loss alone is
   confidence: what memory does to a loss is to lower it more than that of unseen images, which is the AUC.)
6. OVER: `mia_loss_auc` or forget accuracy too low, or forget loss too high: the images to forget stand out by being
   known *less* than by a model that never saw them, which betrays them just as well.
7. INCONCLUSIVE: a rule is open. The reason says how many seeds or patients would settle it.
8. PASS, "equivalent to retraining": every rule is kept for sure.
9. PASS, "not told apart from retraining": every rule is kept, and at least for `mia_loss_auc` it is sure (95 %) that
   less than `SOME` of what the original model remembers is left, on either side. That is the power it takes to say so.
10. INCONCLUSIVE: kept, but even that is not sure.

Why two grades of PASS. With three seeds Student's factor is 2.9 (one-sided), so that 90 % intervals are often wider
than margins, which are three standard deviations of retraining. Of honest retrainings with 12 patients to forget,
`benchmarks/yardstick.py` finds about 12 % equivalent at three seeds, 72 % not told apart and 11 % undecided; at eight
seeds 94 % are equivalent. To demand equivalence would leave most of what is right without a verdict; to demand only
"no difference seen" would reward whoever measures least. Grade 9 asks that the experiment could have seen half the
memory at stake, and says how much may be left.

All rules together raise an alarm for about 4 % of honest retrainings at three seeds, and for fewer with more seeds or
patients. There is no correction over strategies: what is said of one must not depend on which others were run
(`statistics.parquet` has Holm's).

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

from fedunlearn.scoring.judgement.band import LEVEL, Band
from fedunlearn.scoring.judgement.difference import Difference
from fedunlearn.scoring.measures import segmentation

Side = Literal["above", "below"]
Rule = tuple[str, str, str, Side]
RULES: tuple[Rule, ...] = (
    ("DAMAGED", "damaged", "test_accuracy", "below"),
    ("DAMAGED", "damaged", "retain_accuracy", "below"),
    ("UNDER", "remembers", "mia_loss_auc", "above"),
    ("UNDER", "remembers", "forget_accuracy", "above"),
    ("OVER", "forgot too much", "mia_loss_auc", "below"),
    ("OVER", "forgot too much", "forget_accuracy", "below"),
    ("OVER", "forgot too much", "forget_loss", "above"),
)
"""(verdict, in words, measure, side of the retrained models), the gravest first."""

ATTACK = "mia_loss_auc"
"""The measure of memory."""

SOME = 0.5
"""Of the original model's memory: less than this must be left for sure, for a PASS."""

RULES_OF: Mapping[str, tuple[Rule, ...]] = {"classification": RULES, "segmentation": segmentation.RULES}
"""The rules of each kind of task."""

NO_MEMORY = (
    "the original model itself shows no memory of these patients: "
    "nothing here could tell forgetting from doing nothing"
)
NOT_SURE = "the original model seems to remember, but luck of seeds and patients might explain it"
ADVICE = "lower its learning rate, or set training.clip"
EDGE = 1e-9
"""A difference this near the margin, in the measure's unit, is within: sums of floats are not exact."""


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
        differences: the model's from the retrained ones, by measure; missing where undefined.
        seeds: how many retrained models there are.
        memory: the original models' difference in `ATTACK`; None if undefined.
        diverged: the model's answers are not finite for these seeds.
        rules: what to look at.
    """

    values: Mapping[str, float]
    retrained: Mapping[str, float]
    bands: Mapping[str, Band]
    differences: Mapping[str, Difference]
    seeds: int
    memory: Difference | None
    diverged: tuple[Diverged, ...] = ()
    rules: tuple[Rule, ...] = RULES


def decide(facts: Facts) -> tuple[str, tuple[str, ...]]:
    """The verdict and its reasons."""
    judged = [(rule, facts.differences[rule[2]]) for rule in facts.rules if rule[2] in facts.differences]
    broken = [(rule[0], _reason(rule, facts)) for rule, one in judged if is_broken(one, rule[3])]
    findings = tuple(reason for _, reason in broken)
    if facts.diverged:
        return "DAMAGED", (_told(facts.diverged), *findings)
    if facts.seeds < 2:
        why = f"{facts.seeds} seed: the spread of retraining is unknown; run at least 2 (better 3)"
        return "INCONCLUSIVE", (why,)
    if broken and broken[0][0] == "DAMAGED":
        return "DAMAGED", findings
    doubts = _doubts(facts)
    if doubts:
        return "INCONCLUSIVE", (*doubts, *findings)
    if broken:
        return broken[0][0], findings
    unsettled = tuple(_unsettled(rule, one, facts) for rule, one in judged if _beyond(one, rule[3]))
    if unsettled:
        return "INCONCLUSIVE", unsettled
    numbers = (_numbers(name, facts) for name in dict.fromkeys(rule[2] for rule, _ in judged))
    if all(one.within(one.margin, rule[3]) for rule, one in judged):
        return "PASS", ("equivalent to retraining", *numbers)
    return _graded(facts, tuple(numbers))


def is_broken(difference: Difference, side: Side) -> bool:
    """Whether it is beyond the margin on that side, and neither seeds nor patients explain it."""
    return _beyond(difference, side) and difference.p_difference < LEVEL


def verdicts(
    scores: pd.DataFrame,
    differences: Mapping[str, Mapping[str, Mapping[str, Difference]]],
    diverged: Sequence[Diverged],
    kind: str = "classification",
) -> pd.DataFrame:
    """Judge every model but the retrained ones.

    Args:
        scores: as in `scores.parquet`.
        differences: by request, strategy and measure.
        diverged: the models whose answers are not finite.
        kind: of task.

    Returns:
        Columns request, strategy, verdict, reasons (joined by "; ").
    """
    whole = scores[scores["group"] == "all"]
    rows = []
    for request, of_request in whole.groupby("request", sort=False):
        found = differences[str(request)]
        common = replace(_common(of_request, found), rules=RULES_OF[kind])
        for strategy, of_strategy in of_request.groupby("strategy", sort=False):
            if strategy == "retrained":
                continue
            lost = tuple(d for d in diverged if (d.request, d.strategy) == (request, strategy))
            own = found.get(str(strategy), {})
            facts = replace(common, values=_means(of_strategy, "value"), differences=own, diverged=lost)
            verdict, reasons = decide(facts)
            rows.append((request, strategy, verdict, "; ".join(reasons)))
    return pd.DataFrame(rows, columns=["request", "strategy", "verdict", "reasons"])


def _common(scores: pd.DataFrame, found: Mapping[str, Mapping[str, Difference]]) -> Facts:
    """What all models of a request are judged by; ``values`` and ``differences`` are those of no model yet."""
    retrained = scores[scores["strategy"] == "retrained"]
    edges = _means(retrained, "null_low"), _means(retrained, "null_high")  # the same in all rows
    return Facts(
        values={},
        retrained=_means(retrained, "value"),
        bands={name: (edges[0][name], edges[1][name]) for name in edges[0]},
        differences={},
        seeds=retrained["seed"].nunique(),
        memory=found.get("original", {}).get(ATTACK),
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
    """Why nothing can be concluded about memory."""
    memory = facts.memory
    if memory is None:
        return ("no image to forget has a held-out one of the same hospital and label to be compared with",)
    if is_broken(memory, "above"):
        return ()
    if not math.isfinite(memory.shared):
        return (f"{NO_MEMORY}: a single patient on one side leaves no interval",)
    seen = f"{ATTACK} {memory.value:+.2f} from retraining, margin {memory.margin:.2f}"
    if _beyond(memory, "above"):
        return (f"{NOT_SURE} ({seen}, p {memory.p_difference:.2f}): {memory.needed(memory.value, True)}",)
    return (f"{NO_MEMORY} ({seen}; below {memory.smallest_visible:.2f} it would go unseen)",)


def _graded(facts: Facts, numbers: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Of a model within every margin but not for sure: whether at least half the memory is gone for sure."""
    attack, memory = facts.differences[ATTACK], facts.memory
    assert memory is not None  # there is a doubt otherwise
    low, high = attack.interval(0.90)
    left = max(-low, high) / memory.value
    if left < SOME:
        told = f"less than {math.ceil(100 * left)} % of the original's memory is left"
        return "PASS", (f"not told apart from retraining: {told}", *numbers)
    advice = attack.needed(SOME * memory.value - abs(attack.value), False)
    why = f"within the margins, but {100 * left:.0f} % of the original's memory might still be left: {advice}"
    return "INCONCLUSIVE", (why, *numbers)


def _beyond(difference: Difference, side: Side) -> bool:
    value = difference.value if side == "above" else -difference.value
    return value > difference.margin + EDGE


def _unsettled(rule: Rule, one: Difference, facts: Facts) -> str:
    luck = f"p {one.p_difference:.2f}, " if math.isfinite(one.p_difference) else ""
    return f"perhaps {_reason(rule, facts)}: {luck}{one.needed(abs(one.value), True)}"


def _reason(rule: Rule, facts: Facts) -> str:
    return f"{rule[1]}: {_numbers(rule[2], facts)}"


def _numbers(name: str, facts: Facts) -> str:
    low, high = facts.bands[name]
    value, retrained = facts.values[name], facts.retrained[name]
    return f"{name} {value:.2f}, retrained {retrained:.2f}, band {low:.2f}–{high:.2f}"
