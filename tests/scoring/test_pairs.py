"""Shares of pairs, means and their bootstrap against slow versions that do what the words say."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fedunlearn.scoring.attacks.pairs import pair_up, share, wins
from fedunlearn.scoring.evidence import RESAMPLES, Frame
from fedunlearn.scoring.evidence.bootstrap import macro, ratios
from tests.scoring.test_evidence import Image, frame_of, random_images


def slow_share(left, right, strata, scores, times=None) -> float:
    """Every pair once, or as often as both images were drawn."""
    won, count = 0.0, 0.0
    for i, j in product(np.flatnonzero(left), np.flatnonzero(right)):
        if strata[i] == strata[j]:
            weight = 1.0 if times is None else times[i] * times[j]
            won += weight * (scores[i] > scores[j]) + weight * (scores[i] == scores[j]) / 2
            count += weight
    return won / count if count else float("nan")


def times_drawn(frame: Frame, replicate: int):
    """(N,) how often each image is drawn in a replicate."""
    return np.where(frame.units < 0, 0, frame.draws[replicate][frame.units])


def test_a_share_by_hand():
    """Left 1, 2, 3 against right 2, 4: wins 0, ½, 1 of two each; 1.5 of 6 pairs."""
    frame = frame_of([(p, 0, 0, "forget") for p in range(3)] + [(p, 0, 0, "test") for p in (3, 4)])
    scores = np.array([1.0, 2.0, 3.0, 2.0, 4.0])
    pairs = pair_up(frame, frame.rows("forget"), frame.rows("test"), np.zeros(5, dtype=np.int64))
    assert pairs is not None
    np.testing.assert_array_equal(wins(pairs, scores), [[0, 0], [0.5, 0], [1, 0]])
    assert pairs.count == 6
    assert share([pairs], [scores])[0] == 1.5 / 6


def test_images_without_a_partner_in_their_stratum_are_left_out():
    frame = frame_of([(0, 0, 0, "forget"), (1, 0, 0, "forget"), (2, 0, 0, "test"), (3, 0, 0, "test")])
    left, right = frame.rows("forget"), frame.rows("test")
    pairs = pair_up(frame, left, right, np.array([5, 6, 5, 7]))
    assert pairs is not None
    assert (pairs.left.tolist(), pairs.right.tolist(), pairs.count) == ([0], [2], 1)
    assert pair_up(frame, left, right, np.array([5, 6, 7, 8])) is None


images = st.lists(
    st.tuples(
        st.integers(0, 9), st.integers(0, 2), st.integers(0, 2), st.sampled_from(["forget", "retain", "test"])
    ),
    min_size=1,
    max_size=25,
)


@given(images=images, data=st.data())
def test_share_is_that_of_the_double_loop(images: list[Image], data):
    """Patients here sit at several hospitals and in several parts at once, and scores are often equal."""
    frame = frame_of(images, classes=3)
    scores = np.array(data.draw(st.lists(st.integers(-2, 2), min_size=len(images), max_size=len(images)))) / 3
    left, right = frame.rows("forget"), frame.rows("test")
    pairs = pair_up(frame, left, right, frame.labels)
    expected = slow_share(left, right, frame.labels, scores)
    if pairs is None:
        assert np.isnan(expected)
        return
    value, replicates = share([pairs], [scores])
    assert value == pytest.approx(expected, abs=1e-9)
    assert replicates.size in (0, RESAMPLES)
    for b in range(3 if replicates.size else 0):
        slow = slow_share(left, right, frame.labels, scores, times_drawn(frame, b))
        assert replicates[b] == pytest.approx(slow, abs=1e-9, nan_ok=True)


@given(images=images, data=st.data())
def test_ratios_are_those_of_images_repeated_as_often_as_drawn(images: list[Image], data):
    frame = frame_of(images, classes=3)
    over = np.array(data.draw(st.lists(st.integers(0, 5), min_size=len(images), max_size=len(images)))) / 7
    rows = frame.rows("retain")
    estimates = ratios(frame, rows, over[:, None], np.ones((len(over), 1)))
    assert ("all" in estimates) == bool(rows.any())
    for group, estimate in estimates.items():
        here = rows & frame.groups[group]
        assert estimate.n == here.sum()
        assert estimate.value == pytest.approx(over[here].mean(), abs=1e-9)
        for b in range(3 if estimate.replicates.size else 0):
            times = times_drawn(frame, b)[here]
            slow = (times @ over[here]) / times.sum() if times.sum() else float("nan")
            assert estimate.replicates[b] == pytest.approx(slow, abs=1e-9, nan_ok=True)


def test_a_single_patient_has_no_interval():
    frame = frame_of([(0, 0, 0, "forget"), (0, 0, 0, "forget"), (1, 0, 0, "test"), (2, 0, 0, "test")])
    ones = np.ones((4, 1))
    assert not ratios(frame, frame.rows("forget"), ones, ones)["all"].replicates.size
    assert ratios(frame, frame.rows("test"), ones, ones)["all"].replicates.size
    pairs = pair_up(frame, frame.rows("forget"), frame.rows("test"), frame.labels)
    assert pairs is not None
    assert not share([pairs], [np.arange(4.0)])[1].size


def test_a_macro_mean_leaves_out_what_is_absent():
    """(1/2 + 3/4) / 2 = 0.625; the middle term has nothing under it; a row of nothing is NaN."""
    over, under = np.array([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]]), np.array([[2.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(macro(over, under), [0.625, np.nan])


def test_the_interval_is_that_of_a_plain_bootstrap_of_patients():
    """An independent bootstrap with its own random numbers: choose patients, stack their images, take the mean.

    The 2.5 % quantile of 2000 normal draws has the standard error sqrt(.025 * .975 / 2000) / (.0584 / sd) = .06 sd
    (.0584 is the normal density there); the difference of two such, .085 sd. 0.25 sd is three of them.
    """
    rng = np.random.default_rng(3)
    images = random_images(rng, patients=60)
    frame = frame_of(images, classes=3)
    taste = rng.normal(size=60)  # images of a patient resemble one another
    values = taste[frame.patients] + rng.normal(size=len(images))
    estimate = ratios(frame, frame.rows("retain"), values[:, None], np.ones((len(images), 1)))["all"]
    owned = [values[frame.patients == p] for p in np.unique(frame.patients[frame.rows("retain")])]
    drawn = [
        np.concatenate([owned[k] for k in rng.integers(len(owned), size=len(owned))]) for _ in range(2000)
    ]
    means = np.array([sample.mean() for sample in drawn])
    low, high = np.quantile(means, [0.025, 0.975])
    assert estimate.interval() == pytest.approx((low, high), abs=0.25 * means.std())
    by_image = values[frame.rows("retain")].std() / np.sqrt(frame.rows("retain").sum())
    assert means.std() > 1.5 * by_image  # which is why patients are drawn, not images
