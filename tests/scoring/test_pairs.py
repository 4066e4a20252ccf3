"""Shares of pairs, means and their bootstrap against slow versions that do what the words say."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, strategies as st

from fedunlearn.scoring.attacks import pairs as module
from fedunlearn.scoring.attacks.pairs import Contest, contest, pair_up, share, standing, with_themselves
from fedunlearn.scoring.evidence import RESAMPLES, Attribute, Frame, quantile
from fedunlearn.scoring.evidence.bootstrap import Below, added, macro, ratios
from tests.scoring.test_evidence import Image, frame_of, random_images


def slow_share(left, right, strata, scores, times=None, against=None) -> float:
    """Every pair once, or as often as both images were drawn; ``against`` are the right images' scores."""
    theirs = scores if against is None else against
    won, count = 0.0, 0.0
    for i, j in product(np.flatnonzero(left), np.flatnonzero(right)):
        if strata[i] == strata[j]:
            weight = 1.0 if times is None else times[i] * times[j]
            won += weight * (scores[i] > theirs[j]) + weight * (scores[i] == theirs[j]) / 2
            count += weight
    return won / count if count else float("nan")


def met(frame: Frame, left, right, strata) -> Contest | None:
    pairs = pair_up(frame, left, right, strata)
    return None if pairs is None else contest(frame, {"all": pairs})


def times_drawn(frame: Frame, replicate: int):
    """(N,) how often each image is drawn in a replicate."""
    return np.where(frame.units < 0, 0, frame.draws[replicate][frame.units])


def test_a_share_by_hand():
    """Left 1, 2, 3 against right 2, 4: wins 0, ½, 1 of two each; 1.5 of 6 pairs."""
    frame = frame_of([(p, 0, 0, "forget") for p in range(3)] + [(p, 0, 0, "test") for p in (3, 4)])
    scores = np.array([1.0, 2.0, 3.0, 2.0, 4.0])
    of = met(frame, frame.rows("forget"), frame.rows("test"), np.zeros(5, dtype=np.int64))
    assert of is not None
    stood = standing(of, scores[of.left.rows], scores[of.right.rows])
    np.testing.assert_array_equal(stood.won, [0, 1, 2])  # each counts twice
    assert of.pairs[0] == 6
    assert share(of, scores)["all"].value == 1.5 / 6


def test_images_without_a_partner_in_their_stratum_are_left_out():
    frame = frame_of([(0, 0, 0, "forget"), (1, 0, 0, "forget"), (2, 0, 0, "test"), (3, 0, 0, "test")])
    left, right = frame.rows("forget"), frame.rows("test")
    pairs = pair_up(frame, left, right, np.array([5, 6, 5, 7]))
    assert pairs is not None
    assert (pairs.left.tolist(), pairs.right.tolist()) == ([0], [2])
    assert contest(frame, {"all": pairs}).pairs[0] == 1
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
    of = met(frame, left, right, frame.labels)
    expected = slow_share(left, right, frame.labels, scores)
    if of is None:
        assert np.isnan(expected)
        return
    found = share(of, scores)["all"]
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.replicates.size in (0, RESAMPLES)
    for b in range(3 if found.replicates.size else 0):
        slow = slow_share(left, right, frame.labels, scores, times_drawn(frame, b))
        assert found.replicates[b] == pytest.approx(slow, abs=1e-9, nan_ok=True)


def crowd(rng: np.random.Generator) -> Frame:
    """Patients at several hospitals, in several parts and of several classes."""
    parts, drawn = ("retain", "test", "test"), rng.integers(0, (9, 2, 3), (80, 3))
    frame = frame_of([(int(p), int(s), int(c), parts[i % 3]) for i, (p, s, c) in enumerate(drawn)], classes=3)
    return replace(frame, attributes={"class": Attribute(frame.labels, ("0", "1", "2"))})


@pytest.mark.parametrize("ties", [3, 10**6])
@pytest.mark.parametrize("block", [1, 2, 512])
@pytest.mark.parametrize(
    ("small", "exact"),
    [(2**16 - 1, 2.0**24), (300, 2.0**24), (0, 2.0**24), (0, 0.0)],
    ids=["16 bits", "16 bits and 32", "32 bits", "64 bits"],
)
def test_groups_counted_at_once_are_what_each_is_alone(
    ties: int, block: int, small: int, exact: float, monkeypatch: pytest.MonkeyPatch
):
    """A group is what the double loop says."""
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "SMALL", small)
    monkeypatch.setattr(module, "EXACT", exact)
    rng = np.random.default_rng(ties)
    frame = crowd(rng)
    left, right = frame.rows("retain"), frame.rows("test")
    strata, scores = frame.labels % 2, rng.integers(0, ties, (2, 80)).astype(float)
    there = {
        group: pairs
        for group, own in frame.groups.items()
        if (pairs := pair_up(frame, left & own, right, strata)) is not None
    }
    assert len(there) == 6
    for against in (None, scores[1]):
        found = share(contest(frame, there), scores[0], against)
        other = scores[0] if against is None else against
        for group, pairs in there.items():
            alone = share(contest(frame, {"one": pairs}), scores[0], against)["one"]
            assert (
                (found[group].value, found[group].n)
                == (alone.value, alone.n)
                == (alone.value, len(pairs.left))
            )
            np.testing.assert_array_equal(found[group].replicates, alone.replicates)
            for b in range(2):
                own = left & frame.groups[group]
                slow = slow_share(own, right, strata, scores[0], times_drawn(frame, b), other)
                assert alone.replicates[b] == pytest.approx(slow, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("ties", [3, 10**6])
@pytest.mark.parametrize("block", [1, 512])
def test_images_meet_their_own_group(ties: int, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(ties)
    frame = crowd(rng)
    rows, scores, same = (
        frame.rows("test"),
        rng.integers(0, ties, (2, 80)).astype(float),
        np.zeros(80, dtype=int),
    )
    estimates = share(with_themselves(frame, rows), *scores)
    assert list(estimates) == list(frame.groups)
    for group, found in estimates.items():
        own = rows & frame.groups[group]
        assert found.n == own.sum()
        assert found.value == pytest.approx(slow_share(own, own, same, scores[0], None, scores[1]))
        for b in range(2):
            slow = slow_share(own, own, same, scores[0], times_drawn(frame, b), scores[1])
            assert found.replicates[b] == pytest.approx(slow, abs=1e-9, nan_ok=True)


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
    of = met(frame, frame.rows("forget"), frame.rows("test"), frame.labels)
    assert of is not None
    assert not share(of, np.arange(4.0))["all"].replicates.size


def test_a_macro_mean_leaves_out_what_is_absent():
    """(1/2 + 3/4) / 2 = 0.625; the middle term has nothing under it; a row of nothing is NaN."""
    over, under = np.array([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]]), np.array([[2.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(macro(over, under), [0.625, np.nan])


@pytest.mark.parametrize("terms", [1, 2, 7, 8, 9, 16, 21, 128, 129])
def test_replicates_side_by_side_come_to_the_same_bits(terms: int):
    """Some terms are absent, in some rows all of them; numpy adds up more than eight numbers in eight sums."""
    rng = np.random.default_rng(terms)
    under = rng.integers(0, 3, (2, 300, terms)).astype(float)
    under[0, :5] = 0
    over = np.minimum(rng.integers(0, 3, under.shape), under)
    turned = [np.ascontiguousarray(np.moveaxis(x, -1, -2)) for x in (over, under)]
    np.testing.assert_array_equal(added(turned[0] / 7), (over / 7).sum(axis=-1))
    below = Below.of(turned[1])
    np.testing.assert_array_equal(below.macro(turned[0]), macro(over, under))
    np.testing.assert_array_equal(below.macro(turned[0].astype(np.float32)), macro(over, under))
    alone = macro(over[1, :, -1:], under[1, :, -1:])
    np.testing.assert_array_equal(below.single(turned[0][1, -1], 1, terms - 1), alone)


def test_whole_numbers_are_counted_as_all_others_are():
    """A third of each is no whole number, and is added up in double precision."""
    rng = np.random.default_rng(7)
    frame = frame_of(random_images(rng, patients=20), classes=3)
    rows, over = frame.rows("test"), rng.integers(0, 2, (len(frame.labels), 3)).astype(float)
    under = np.ones_like(over)
    whole, thirds = ratios(frame, rows, over, under), ratios(frame, rows, over / 3, under / 3)
    assert whole.keys() == thirds.keys() and whole["all"].replicates.size
    for group, one in whole.items():
        assert one.value == pytest.approx(thirds[group].value, abs=1e-12)
        np.testing.assert_allclose(one.replicates, thirds[group].replicates, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 40, 41, 2000])
def test_a_quantile_is_that_of_numpy_to_the_last_bit(size: int):
    rng = np.random.default_rng(size)
    values = rng.normal(size=size)
    values[rng.random(size) < 0.1] = np.nan
    values[0] = 0.5
    for share_ in (0.025, 0.5, 0.95, 0.975):
        assert quantile(values, share_) == np.nanquantile(values, share_)
    assert np.isnan(quantile(np.array([np.nan]), 0.5))


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
