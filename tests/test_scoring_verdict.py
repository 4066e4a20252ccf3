"""The retrained-versus-retrained band and the verdicts drawn from it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fedunlearn.scoring import MEASURES
from fedunlearn.scoring.band import NONE, Band, band, distance_band
from fedunlearn.scoring.verdict import Diverged, Facts, decide, verdicts

AUC, LOSS, GAP, TOW = (MEASURES[name] for name in ("mia_loss_auc", "forget_loss", "avg_gap", "tow"))


def test_a_wide_spread_makes_the_band():
    """Mean .52, sd .02; t(.975, 2) = 4.302653, times sqrt(2/3): half = .07026 > margin .06."""
    assert band([0.50, 0.52, 0.54], AUC) == pytest.approx((0.52 - 0.070262, 0.52 + 0.070262), abs=1e-5)


def test_a_narrow_spread_leaves_the_margin():
    assert band([0.5, 0.5, 0.5], AUC) == pytest.approx((0.44, 0.56))


def test_a_band_stays_within_the_measures_range():
    """Two values .4, .6: sd .1414, t(.975, 1) = 12.706, half = 1.797; for a loss only 0 is an end."""
    assert band([0.4, 0.6], AUC) == (0.0, 1.0)
    assert band([0.4, 0.6], LOSS) == pytest.approx((0.0, 0.5 + 12.7062 * math.sqrt(0.02)), abs=1e-4)


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan]])
def test_without_two_numbers_there_is_no_band(values: list[float]):
    assert np.isnan(band(values, AUC)).all()
    assert np.isnan(band([0.5, 0.5], MEASURES["bytes"])).all()


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_a_fresh_retraining_is_outside_the_band_five_times_in_a_hundred(seeds: int):
    """Without margin: (m1 - m2) / (sd1 sqrt(2/K)) has Student's t with K-1 degrees. 4000 draws: 5 % ± .34 % (se)."""
    rng = np.random.default_rng(seeds)
    measure = replace(AUC, margin=0.0, low=None, high=None)
    reference, fresh = rng.normal(size=(2, 4000, seeds))
    edges = np.array([band(values.tolist(), measure) for values in reference])
    outside = (fresh.mean(axis=1) < edges[:, 0]) | (fresh.mean(axis=1) > edges[:, 1])
    assert outside.mean() == pytest.approx(0.05, abs=0.012)


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


def facts(
    original_auc: float = 0.75, original_low: float = 0.65, seeds: int = 3, diverged=(), **values: float
):
    return Facts(RETRAINED | values, RETRAINED, BANDS, seeds, original_auc, original_low, diverged)


@pytest.mark.parametrize(
    ("case", "verdict", "reasons"),
    [
        (facts(), "PASS", ["not told apart from retraining"]),
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
        (facts(diverged=LOST[:1], original_auc=0.5), "DAMAGED", ["damaged: diverged"]),
        (
            facts(diverged=LOST),
            "DAMAGED",
            [
                "damaged: diverged for seeds 7 and 9 at hospital north in round 2, for seed 8 in its answers: "
                "lower its learning rate, or set training.clip"
            ],
        ),
        (facts(original_auc=0.55), "INCONCLUSIVE", ["the original model itself shows no memory"]),
        (facts(original_low=0.49), "INCONCLUSIVE", ["the original model itself shows no memory"]),
        (facts(original_low=math.nan), "INCONCLUSIVE", ["a single patient on one side"]),
        (facts(original_auc=0.55, test_accuracy=0.60), "INCONCLUSIVE", ["shows no memory", "damaged: test"]),
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
    case = replace(facts(seeds=1, mia_loss_auc=0.9, test_accuracy=0.1), bands=dict.fromkeys(BANDS, NONE))
    assert decide(case) == (
        "INCONCLUSIVE",
        ("1 seed: the spread of retraining is unknown; run at least 2 (better 3)",),
    )


def test_without_comparable_images_nothing_is_concluded():
    known = {name: edges for name, edges in BANDS.items() if name != "mia_loss_auc"}
    verdict, reasons = decide(replace(facts(), bands=known))
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
    judged = verdicts(pd.DataFrame(rows, columns=columns), LOST[1:2]).set_index("strategy")
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
