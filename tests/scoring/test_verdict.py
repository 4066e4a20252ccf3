"""The retrained-versus-retrained band and the verdicts drawn from it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fedunlearn.scoring import MEASURES
from fedunlearn.scoring.judgement.band import NONE, Band, allowance, band, distance_band
from fedunlearn.scoring.judgement.difference import Difference
from fedunlearn.scoring.judgement.verdict import ATTACK, Diverged, Facts, decide, verdicts

AUC, LOSS, GAP, TOW = (MEASURES[name] for name in ("mia_loss_auc", "forget_loss", "avg_gap", "tow"))


def test_a_wide_spread_makes_the_band():
    """Mean .52, sd .02; t(.98, 2) = 4.848732, times sqrt(2/3): half = .07918 > 1.96 sqrt(2) sd = .05544, margin .06."""
    assert band([0.50, 0.52, 0.54], AUC) == pytest.approx((0.52 - 0.079179, 0.52 + 0.079179), abs=1e-5)


def test_a_narrow_spread_leaves_the_margin():
    assert band([0.5, 0.5, 0.5], AUC) == pytest.approx((0.44, 0.56))


def test_many_seeds_leave_what_two_retrainings_differ_by():
    """Eight values ± .1: sd .106904, allowance 1.96 sqrt(2) sd = .29632; t(.98, 7) sd sqrt(2/8) would be .135."""
    assert allowance([0.4, 0.6] * 4, AUC) == pytest.approx(0.296324, abs=1e-6)
    assert band([0.4, 0.6] * 4, AUC) == pytest.approx((0.203676, 0.796324), abs=1e-6)
    assert allowance([0.5], AUC) == 0.06


def test_a_band_stays_within_the_measures_range():
    """Two values .4, .6: sd .1414, t(.98, 1) = 15.8945, half = 2.248; for a loss only 0 is an end."""
    assert band([0.4, 0.6], AUC) == (0.0, 1.0)
    assert band([0.4, 0.6], LOSS) == pytest.approx((0.0, 0.5 + 15.8945 * math.sqrt(0.02)), abs=1e-4)


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan]])
def test_without_two_numbers_there_is_no_band(values: list[float]):
    assert np.isnan(band(values, AUC)).all()
    assert np.isnan(band([0.5, 0.5], MEASURES["bytes"])).all()


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_fresh_retraining_is_outside_the_band_four_times_in_a_hundred(seeds: int):
    """(m1 - m2) / (sd1 sqrt(2/K)) has Student's t with K-1 degrees. 4000 draws: 4 % ± .31 % (standard error)."""
    rng = np.random.default_rng(seeds)
    measure = replace(AUC, margin=0.0, low=None, high=None)
    reference, fresh = rng.normal(size=(2, 4000, seeds))
    edges = np.array([band(values.tolist(), measure) for values in reference])
    outside = (fresh.mean(axis=1) < edges[:, 0]) | (fresh.mean(axis=1) > edges[:, 1])
    assert outside.mean() == pytest.approx(0.04, abs=0.012)


def test_the_band_of_a_distance_is_that_of_the_worst_pair():
    """Accuracies differ by .1, .2, .3 in forget alone: gaps 2.5, 5, 7.5 points; tugs of war .9, .8, .7."""
    same = {"retain_accuracy": 1.0, "test_accuracy": 0.8, "mia_svc_confidence": 0.3}
    models = [{**same, "forget_accuracy": value} for value in (0.5, 0.6, 0.8)]
    assert distance_band(models, GAP) == pytest.approx((0, 7.5))
    assert distance_band(models, TOW) == pytest.approx((0.7, 1))
    assert distance_band(models[:1], GAP) == NONE
    assert distance_band([same, same], GAP) == NONE


# ------------------------------------------------------------------------------------------- verdicts

BANDS: dict[str, Band] = {
    "mia_loss_auc": (0.44, 0.56),
    "forget_accuracy": (0.70, 0.80),
    "retain_accuracy": (0.94, 1.00),
    "test_accuracy": (0.74, 0.82),
    "forget_loss": (0.60, 1.10),
}
LOST = tuple(
    Diverged("some", "wild", seed, where)
    for seed, where in (
        (7, "at hospital north in round 2"),
        (8, "in its answers"),
        (9, "at hospital north in round 2"),
    )
)
RETRAINED = {name: (low + high) / 2 for name, (low, high) in BANDS.items()}


MARGINS = {name: (high - low) / 2 for name, (low, high) in BANDS.items()}
SURE, VAGUE = 0.1, 0.8
"""Noise in margins: with three seeds, a 90 % interval reaches 2.92 / sqrt(3) = 1.69 times as far."""


def apart(
    name: str, value: float, noise: float = SURE, null: float = SURE, shared: float = 0.0
) -> Difference:
    """A difference of three seeds and ten patients; noise in margins."""
    margin = MARGINS[name]
    return Difference(value, 3, 10, noise * margin, null * margin, shared, margin)


MEMORY = apart(ATTACK, 0.25)


def facts(
    noise: float = SURE,
    null: float = SURE,
    memory: Difference | None = MEMORY,
    seeds: int = 3,
    diverged=(),
    **values: float,
):
    every = RETRAINED | values
    differences = {name: apart(name, every[name] - RETRAINED[name], noise, null) for name in BANDS}
    return Facts(every, RETRAINED, BANDS, differences, seeds, memory, diverged)


@pytest.mark.parametrize(
    ("case", "verdict", "reasons"),
    [
        (facts(), "PASS", ["equivalent to retraining"]),
        (facts(mia_loss_auc=0.54), "PASS", ["equivalent to retraining"]),
        (facts(mia_loss_auc=0.56), "PASS", []),  # on the edge is within
        (
            facts(mia_loss_auc=0.71),
            "UNDER",
            ["remembers: mia_loss_auc 0.71, retrained 0.50, band 0.44–0.56"],
        ),
        (facts(forget_accuracy=0.98), "UNDER", ["remembers: forget_accuracy 0.98"]),
        (facts(forget_accuracy=0.60), "OVER", ["forgot too much: forget_accuracy 0.60"]),
        (facts(mia_loss_auc=0.30), "OVER", ["forgot too much: mia_loss_auc 0.30"]),
        (facts(forget_loss=1.50), "OVER", ["forgot too much: forget_loss 1.50"]),
        (facts(forget_loss=0.10), "PASS", []),  # alone, a low loss is confidence, not memory
        (
            facts(mia_loss_auc=0.71, forget_accuracy=0.60),
            "UNDER",
            ["remembers: mia", "forgot too much: forget"],
        ),
        (facts(test_accuracy=0.60), "DAMAGED", ["damaged: test_accuracy 0.60"]),
        (facts(retain_accuracy=0.80), "DAMAGED", ["damaged: retain_accuracy 0.80"]),
        (facts(test_accuracy=0.95), "PASS", []),  # better than retraining is no damage
        (facts(test_accuracy=0.60, mia_loss_auc=0.71), "DAMAGED", ["damaged: test", "remembers: mia"]),
        # A destroyed model: AUC as it should be, everything else lost.
        (
            facts(mia_loss_auc=0.50, test_accuracy=0.10, retain_accuracy=0.10, forget_accuracy=0.10),
            "DAMAGED",
            ["damaged: test", "damaged: retain", "forgot too much: forget_accuracy"],
        ),
        (
            facts(diverged=LOST[:1]),
            "DAMAGED",
            ["damaged: diverged for seed 7 at hospital north in round 2: "],
        ),
        (facts(diverged=LOST[:1], memory=None), "DAMAGED", ["damaged: diverged"]),
        (
            facts(diverged=LOST),
            "DAMAGED",
            [
                "damaged: diverged for seeds 7 and 9 at hospital north in round 2, for seed 8 in its answers: "
                "lower its learning rate, or set training.clip"
            ],
        ),
        # The 90 % interval is 0 ± 1.69 * .8 * .06 = .081: beyond the margin .06, but only 33 % of .25.
        (facts(VAGUE), "PASS", ["not told apart from retraining: less than 33 % of the original's memory"]),
        (facts(VAGUE, memory=apart(ATTACK, 0.16)), "INCONCLUSIVE", ["51 % of the original's memory might"]),
        (
            facts(mia_loss_auc=0.57, null=2.0),
            "INCONCLUSIVE",
            ["perhaps remembers: mia_loss_auc 0.57", "p 0."],
        ),
        (facts(test_accuracy=0.70, null=2.0), "INCONCLUSIVE", ["perhaps damaged: test_accuracy 0.70"]),
        # Erratic models must not hide behind their own spread: p is by that of retraining.
        (facts(5.0, test_accuracy=0.60), "DAMAGED", ["damaged: test_accuracy 0.60"]),
        (facts(memory=apart(ATTACK, 0.05)), "INCONCLUSIVE", ["the original model itself shows no memory"]),
        (facts(memory=apart(ATTACK, 0.2, null=5)), "INCONCLUSIVE", ["seems to remember", "would tell"]),
        (facts(memory=apart(ATTACK, 0.2, shared=math.nan)), "INCONCLUSIVE", ["a single patient on one side"]),
        (
            facts(memory=apart(ATTACK, 0.0), mia_loss_auc=0.3),
            "INCONCLUSIVE",
            ["no memory", "forgot too much"],
        ),
        (facts(memory=apart(ATTACK, 0.0), test_accuracy=0.6), "DAMAGED", ["damaged: test"]),
        (facts(seeds=1), "INCONCLUSIVE", ["1 seed: the spread of retraining is unknown"]),
    ],
)
def test_verdicts(case: Facts, verdict: str, reasons: list[str]):
    found, why = decide(case)
    assert found == verdict
    assert why
    for reason in reasons:
        assert any(reason in given for given in why), why


def test_with_one_seed_bands_are_nan_and_nothing_is_found():
    unknown = {
        name: replace(one, spread=math.nan, null_spread=math.nan) for name, one in facts().differences.items()
    }
    case = facts(seeds=1, mia_loss_auc=0.9, test_accuracy=0.1)
    assert decide(replace(case, bands=dict.fromkeys(BANDS, NONE), differences=unknown)) == (
        "INCONCLUSIVE",
        ("1 seed: the spread of retraining is unknown; run at least 2 (better 3)",),
    )


def test_without_comparable_images_nothing_is_concluded():
    known = {name: one for name, one in facts().differences.items() if name != ATTACK}
    verdict, reasons = decide(replace(facts(memory=None), differences=known))
    assert verdict == "INCONCLUSIVE"
    assert "held-out" in reasons[0]


def test_a_seed_that_diverged_leaves_no_mean_over_the_others():
    """Seed 7's AUC of .90 alone would be UNDER."""
    aucs = {"original": (0.75, 0.75), "retrained": (0.50, 0.50), "wild": (0.90, math.nan)}
    rows = [
        ("some", strategy, seed, "mia_loss_auc", "all", value, value - 0.1, 0.44, 0.56)
        for strategy, values in aucs.items()
        for seed, value in zip((7, 8), values, strict=True)
    ]
    columns = ["request", "strategy", "seed", "measure", "group", "value", "low", "null_low", "null_high"]
    found = {"some": {"original": {ATTACK: MEMORY}}}
    judged = verdicts(pd.DataFrame(rows, columns=columns), found, LOST[1:2]).set_index("strategy")
    assert judged.loc["original", "verdict"] == "UNDER"
    assert judged.loc["wild", "verdict"] == "DAMAGED"
    assert str(judged.loc["wild", "reasons"]).startswith("damaged: diverged for seed 8 in its answers: ")
    assert ";" not in str(judged.loc["wild", "reasons"])


def test_all_reasons_are_given():
    _, reasons = decide(facts(mia_loss_auc=0.9, forget_accuracy=0.99, test_accuracy=0.1, retain_accuracy=0.1))
    assert len(reasons) == 4


def test_a_pass_names_every_number_it_rests_on():
    _, reasons = decide(facts())
    for name in BANDS:
        assert any(name in reason for reason in reasons)
