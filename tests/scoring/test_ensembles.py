"""Measures that compare many models of each kind: by hand, against SciPy and against loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from fedunlearn.scoring.attacks.ensembles import divergence, epsilon, points
from fedunlearn.scoring.measures.catalogue import MEASURES
from tests.scoring.answers import SMALL, outputs, value, with_models
from tests.scoring.test_evidence import evidence_of, frame_of

pytestmark = pytest.mark.usefixtures("few_resamples")


def test_the_divergence_of_margins_by_hand():
    """Range 0 … 20, a bin per unit. Unlearned in bins 0, 0, 19, 19; retrained in bins 0, 5, 5, 19: p ½ ½, q ¼ ¼.

    KL = 2 * ½ log 2. Of a second image in disjoint bins: log(1 / 1e-5) and a hair for the renormalised q.
    """
    unlearned = np.array([[0.0, 0.0], [0.5, 0.5], [19.5, 0.5], [20.0, 0.5]])
    retrained = np.array([[0.0, 20.0], [5.5, 20.0], [5.6, 20.0], [20.0, 20.0]])
    np.testing.assert_allclose(
        divergence(unlearned, retrained), [np.log(2), np.log(1e5) + np.log(1 + 1e-5)], atol=1e-12
    )


def test_the_divergence_is_that_of_scipy_on_histograms():
    rng = np.random.default_rng(0)
    unlearned, retrained = 3 * rng.normal(size=(40, 6)), 3 * rng.normal(size=(40, 6)) + np.arange(6)
    for i, found in enumerate(divergence(unlearned, retrained)):
        edges = np.histogram_bin_edges(np.concatenate([unlearned[:, i], retrained[:, i]]), 20)
        p, q = (np.histogram(x[:, i], edges)[0] / 40 for x in (unlearned, retrained))
        assert found == pytest.approx(stats.entropy(p, np.where(p > 0, np.maximum(q, 1e-5), q)), abs=1e-9)


def slow_epsilon(one, other) -> float:
    """Every threshold and interval at the values themselves, one by one."""
    high, low = (other, one) if np.median(other) > np.median(one) else (one, other)
    narrow, wide = (one, other) if np.ptp(one) < np.ptp(other) else (other, one)
    cuts = sorted({*one, *other})
    rates = [(np.mean(low >= t), np.mean(high < t)) for t in cuts]
    for i, left in enumerate(cuts):
        for right in cuts[i:]:
            inside = [(left <= x) & (x <= right) for x in (wide, narrow)]
            rates.append((np.mean(inside[0]), np.mean(~inside[1])))
    best = 0.0
    for fpr, fnr in rates:
        if fpr == fnr == 0:
            return 50.0
        if fpr > 0 and fnr > 0:
            for a, b in ((fpr, fnr), (fnr, fpr)):
                best = max(best, np.log((1 - 1e-5 - a) / b) if a < 1 - 1e-5 else 0.0)
    return best


@given(seed=st.integers(0, 10**6), shift=st.sampled_from([0.0, 1.0, 4.0]), scale=st.sampled_from([1.0, 0.1]))
def test_epsilon_is_that_of_the_loop_over_all_attacks(seed: int, shift: float, scale: float):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=6).round(1), (scale * rng.normal(size=6) + shift).round(1)
    if min(np.ptp(one), np.ptp(other)) >= 0.01 * max(np.ptp(one), np.ptp(other)):
        assert epsilon(one, other) == pytest.approx(slow_epsilon(one, other), abs=1e-9)


def test_epsilon_by_hand():
    """0 1 2 3 | 2 3 4 5. At 2: FPR 1/2, FNR 0, dropped. At 3: 1/4, 1/4: log((1 - d - 1/4) / (1/4)) = log 3 about. An
    interval, for the second (the ranges are equal), 3 … 5: FPR 1/4, FNR 1/4 too; others are worse.
    """
    found = epsilon(np.arange(4.0), np.arange(2.0, 6.0))
    assert found == pytest.approx(np.log((0.75 - 1e-5) / 0.25), abs=1e-12)
    assert epsilon(np.arange(4.0), np.arange(4.0) + 10) == 50  # no overlap
    assert epsilon(np.arange(4.0), np.full(4, 2.5)) == 50  # no spread
    assert epsilon(np.ones(4), np.ones(4)) == 0  # no attack at all


def test_points_halve_with_every_half_epsilon_up_to_what_so_many_models_can_show():
    """64 models: log 63 = 4.14, hence none from 5 on."""
    assert [points(e, 64) for e in (0.0, 0.49, 0.5, 1.2, 4.9, 5.0)] == [1, 1, 0.5, 0.25, 2.0**-9, 0]


@pytest.mark.parametrize(("models", "shift", "expected"), [(4, 0, 0.25), (64, 0, 0.09), (64, 1, 0.04)])
def test_forgetting_quality_of_normal_signals(models: int, shift: float, expected: float):
    """As an independent version on a grid of thresholds found, with N(0, 1) signals (to two digits, its own luck)."""
    rng = np.random.default_rng(0)
    found = [
        points(epsilon(rng.normal(size=models), rng.normal(size=models) + shift), models) for _ in range(200)
    ]
    assert np.mean(found) == pytest.approx(expected, abs=0.03)


def test_ensembles_compare_halves_of_disjoint_seeds_and_need_enough_of_them(monkeypatch: pytest.MonkeyPatch):
    """Three of each kind with seven seeds: unlearned models of the first three seeds, retrained of the last three."""
    rng = np.random.default_rng(0)
    frame = frame_of(SMALL)
    unlearned, retrained = rng.normal(size=(7, 5)) + 1, rng.normal(size=(7, 5))
    evidence = with_models(
        frame, unlearned[0], retrained=retrained[0], siblings=unlearned[1:], others=retrained[1:]
    )
    assert not MEASURES["klom_forget_p50"].function(evidence)
    monkeypatch.setattr("fedunlearn.scoring.attacks.ensembles.KLOM_MODELS", 3)
    slow = divergence(unlearned[:3], retrained[4:])
    assert value("klom_forget_p50", evidence) == pytest.approx(np.median(slow[:2]), abs=1e-9)
    assert value("klom_test_p95", evidence) == pytest.approx(np.percentile(slow[2:4], 95), abs=1e-9)
    assert value("klom_retain_p50", evidence) == pytest.approx(slow[4], abs=1e-9)
    monkeypatch.setattr("fedunlearn.scoring.attacks.ensembles.FEW_MODELS", 3)
    small = np.mean([points(epsilon(unlearned[:3, i], retrained[4:, i]), 3) for i in (0, 1)])
    assert value("forgetting_quality_small", evidence) == pytest.approx(small, abs=1e-9)
    assert not MEASURES["forgetting_quality"].function(evidence)
    monkeypatch.setattr("fedunlearn.scoring.attacks.ensembles.MANY_MODELS", 3)
    assert not MEASURES["forgetting_quality_small"].function(evidence)
    assert value("forgetting_quality", evidence) == pytest.approx(small, abs=1e-9)


def test_the_name_of_the_competitions_metric_needs_64_models_of_each_kind():
    """Of 127 seeds, 63 of each kind: the small one. Of 128: the whole."""
    rng = np.random.default_rng(0)
    frame = frame_of(SMALL)
    models = tuple(outputs(frame, row) for row in rng.normal(size=(128, 5)))
    evidence = replace(evidence_of(frame, np.zeros(5)), siblings=models[1:], others=models[1:])
    assert MEASURES["forgetting_quality"].function(evidence)
    assert not MEASURES["forgetting_quality_small"].function(evidence)
    fewer = replace(evidence, siblings=models[2:], others=models[2:])
    assert not MEASURES["forgetting_quality"].function(fewer)
    assert MEASURES["forgetting_quality_small"].function(fewer)
