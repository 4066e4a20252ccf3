"""Moderated variances: what few trainings tell of each patient's luck, in the light of all patients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from fedunlearn.scoring.judgement.luck import CERTAIN, _trigamma_inverse, moderated, together

ALIKE = np.ones(2000, dtype=np.int64)


def drawn(prior: float, freedom: int, n: int = 20000, scale: float = 4.0) -> np.ndarray:
    """Sample variances with ``freedom`` degrees, of true ones drawn as the model says: prior scale² / chi-squared."""
    rng = np.random.default_rng(int(prior))
    true = scale * prior / rng.chisquare(prior, n)
    return true * rng.chisquare(freedom, n) / freedom


@pytest.mark.parametrize("prior", [6.0, 20.0])
def test_the_prior_is_found_again(prior: float):
    """20,000 variances tell the prior's degrees of freedom within a fifth, which the rest follows from."""
    found = moderated(drawn(prior, 4), 4.0, np.ones(20000, dtype=np.int64))
    assert found.freedom - 4 == pytest.approx(prior, rel=0.2)


def test_equal_variances_leave_nothing_to_guess():
    """Five patients whose sample variances agree more than chance has it: all are taken to have one and the same."""
    found = moderated(np.full(5, 2.0), 3.0, ALIKE[:5])
    assert found.freedom == CERTAIN
    assert np.ptp(found.variance) < 1e-5
    assert found.variance[0] == pytest.approx(2.0 * np.exp(np.log(3 / 2) - special.digamma(3 / 2)), rel=1e-5)


def test_moderated_t_statistics_have_the_size_they_claim():
    """Student's t with the moderated variance and all its degrees: 2 % of 2,000 patients beyond the 98 % quantile."""
    rng = np.random.default_rng(5)
    true = 4.0 * 6 / rng.chisquare(6, 2000)
    samples = rng.normal(size=(3, 2000)) * np.sqrt(true)
    luck = moderated(samples.var(axis=0, ddof=1), 2.0, ALIKE)
    t = rng.normal(size=2000) * np.sqrt(true) / np.sqrt(luck.variance)
    beyond = (t > stats.t(luck.freedom).ppf(0.98)).mean()
    assert beyond == pytest.approx(0.02, abs=0.008)


def test_patients_with_many_images_have_less_luck():
    """Variance 12 / images: without the trend, those with one image would be thought too steady."""
    rng = np.random.default_rng(1)
    images = rng.integers(1, 30, 3000)
    variances = 12 / images * rng.chisquare(3, 3000) / 3
    found = moderated(variances, 3.0, images)
    few, many = found.variance[images == 1].mean(), found.variance[images == 25].mean()
    assert (few, many) == pytest.approx((12, 12 / 25), rel=0.2)


def test_too_few_variances_stay_as_they_are():
    found = moderated(np.array([1.0, 0.0, 3.0]), 2.0, ALIKE[:3])
    assert found.variance.tolist() == [1.0, 0.0, 3.0]
    assert found.freedom == 2.0


def test_the_degrees_of_freedom_of_a_sum_by_hand():
    """1 with 2 degrees and 3 with 6: 4 with 4² / (1² / 2 + 3² / 6) = 8. No variance adds nothing, and is certain."""
    one, other, nothing = (np.array([x, 0.0]) for x in (1.0, 3.0, 0.0))
    variance, freedom = together([(one, 2.0), (other, 6.0), (nothing, 1.0)])
    assert variance.tolist() == [4.0, 0.0]
    assert freedom.tolist() == [8.0, CERTAIN]


@pytest.mark.parametrize("y", [0.01, 0.5, 3.0, 400.0])
def test_trigamma_is_inverted(y: float):
    assert _trigamma_inverse(float(special.polygamma(1, y))) == pytest.approx(y, rel=1e-6)
