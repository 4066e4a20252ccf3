"""The retrained-versus-retrained band of a measure."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fedunlearn.scoring.judgement.band import NONE, band, distance_band
from fedunlearn.scoring.measures.catalogue import MEASURES

AUC, LOSS, GAP, TOW = (MEASURES[name] for name in ("mia_loss_auc", "forget_loss", "avg_gap", "tow"))


def test_a_wide_spread_makes_the_band():
    """Mean .52, sd .02; t(.98, 2) = 4.848732, times sqrt(2/3): half = .07918 > margin .06."""
    assert band([0.50, 0.52, 0.54], AUC) == pytest.approx((0.52 - 0.079179, 0.52 + 0.079179), abs=1e-5)


def test_a_narrow_spread_leaves_the_margin():
    assert band([0.5, 0.5, 0.5], AUC) == pytest.approx((0.44, 0.56))


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
