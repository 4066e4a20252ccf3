"""True positives at a low rate of false ones: by hand, against slow versions, and in many draws without memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from fedunlearn.scoring.attacks.rates import clopper_pearson, found, true_positives
from fedunlearn.scoring.evidence import Frame
from fedunlearn.scoring.judgement.difference import differences
from fedunlearn.scoring.measures.catalogue import MEASURES
from tests.scoring.answers import made_up, outputs
from tests.scoring.test_evidence import evidence_of, frame_of

pytestmark = pytest.mark.usefixtures("few_resamples")


def single(forget: int, held_out: int) -> Frame:
    """One image per patient, one hospital and label."""
    parts = ["forget"] * forget + ["test"] * held_out
    return frame_of([(p, 0, 0, part) for p, part in enumerate(parts)])


def test_a_true_positive_rate_by_hand():
    """Held out 0 … 8, one in five: (9 + 1) / 5 = 2 places of ten. Whoever has one or none above is found.

    Of 9, 8, 7.5, 7 and 6.5: none, none and level with 8, one, one and level with 7, two above. 9 and 7.5 are found for
    sure, and 8 at either of its places; of the places 2 and 3 that 7 may have, one counts.
    """
    frame = single(5, 9)
    scores = np.concatenate([[9.0, 8.0, 7.5, 7.0, 6.5], np.arange(9.0)])
    estimate = true_positives(frame, scores, 5)["all"]
    assert (estimate.value, estimate.n) == (3.5 / 5, 5)
    # Of 14 held out, 15 / 6 = 2.5 places: who has two above is found every other time.
    scores = np.concatenate([[20.0, 12.5, 11.5, 10.5, 0.5], np.arange(14.0)])
    assert true_positives(single(5, 14), scores, 6)["all"].value == 2.5 / 5


def test_too_few_images_are_no_estimate():
    """At one in five, nine held-out images make two places of ten; eight do not. At 1 %, 199."""
    assert true_positives(single(3, 9), np.zeros(12), 5)
    assert not true_positives(single(3, 8), np.zeros(11), 5)
    assert MEASURES["mia_loss_tpr_at_1"].function(evidence_of(single(3, 199), np.zeros(202)))
    assert not MEASURES["mia_loss_tpr_at_1"].function(evidence_of(single(3, 198), np.zeros(201)))


def test_who_answers_all_alike_is_found_at_the_rate_itself():
    """All the same: every place is as likely, 2 of 10 are found."""
    assert true_positives(single(4, 9), np.zeros(13), 5)["all"].value == pytest.approx(0.2, abs=1e-12)


@given(values=st.lists(st.integers(0, 4), min_size=2, max_size=12), one_in=st.sampled_from([2, 3, 5, 7, 100]))
def test_over_all_that_could_be_the_new_one_the_rate_is_exact(values: list[int], one_in: int):
    """Each of m + 1 values in turn against the other m, ties or none: in the mean 1 / one_in, but for rounding."""
    chances = []
    for i, value in enumerate(values):
        rest = np.delete(np.array(values), i)
        above, level = (rest > value).sum(), (rest == value).sum()
        chances.append(found(np.array(above), np.array(level), np.array(len(values) / one_in)))
    assert np.mean(chances) == pytest.approx(1 / one_in, abs=1e-12)


@pytest.mark.parametrize("held_out", [199, 210, 250])
def test_without_memory_the_rate_is_that_which_was_asked_for(held_out: int):
    """1000 draws of 20 and m images, one per patient: standard error sqrt(.01 (.99 / 20 + 1 / m) / 1000) = .0008.

    Whoever accuses above the highest score that floor(m / 100) held-out images exceed finds (floor(m / 100) + 1) /
    (m + 1): .010, .014 and .012.
    """
    rng, frame = np.random.default_rng(held_out), single(20, held_out)
    rates = [true_positives(frame, rng.normal(size=20 + held_out), 100)["all"].value for _ in range(1000)]
    assert np.mean(rates) == pytest.approx(0.01, abs=0.0024)


def slow(scores: np.ndarray, frame: Frame, times: np.ndarray, one_in: int, rows: np.ndarray) -> float:
    """Every image as often as it was drawn; whoever was not drawn at all does not count."""
    forget, held_out = np.flatnonzero(frame.rows("forget") & rows), np.flatnonzero(frame.rows("test"))
    held_out = np.array([j for j in held_out if frame.sites[j] in frame.sites[forget]])
    pool = np.repeat(scores[held_out], times[held_out].astype(int))
    total = weight = 0.0
    for i in forget:
        above, level = (pool > scores[i]).sum(), (pool == scores[i]).sum()
        places = [min(max((len(pool) + 1) / one_in - r, 0), 1) for r in range(above, above + level + 1)]
        total += times[i] * np.mean(places)
        weight += times[i]
    return total / weight


def test_replicates_take_patients_as_often_as_they_were_drawn_and_the_threshold_anew():
    """Two hospitals, patients of several images, many ties; every hospital with the images of its own."""
    rng = np.random.default_rng(1)
    images = [(p, p % 2, 0, "forget" if p < 14 else "test") for p in range(70) for _ in range(1 + p % 4)]
    frame = frame_of(images)
    scores = rng.integers(0, 60, size=len(images)).astype(float)
    estimates = true_positives(frame, scores, 20)
    assert estimates.keys() == {"all", "site=A", "site=B"}
    for group, estimate in estimates.items():
        rows = frame.groups[group]
        once = np.ones(len(images))
        assert estimate.value == pytest.approx(slow(scores, frame, once, 20, rows), abs=1e-12)
        for b in range(20):
            times = frame.draws[b][frame.units]
            assert estimate.replicates[b] == pytest.approx(slow(scores, frame, times, 20, rows), abs=1e-12)


def test_the_interval_covers_that_of_replicates_and_that_of_a_share():
    """Where nobody is found, no replicate finds anybody; of 20 images, up to 17 % may be found all the same."""
    rng = np.random.default_rng(2)
    frame = single(20, 300)
    none = true_positives(frame, np.concatenate([np.full(20, -9.0), rng.normal(size=300)]), 100)["all"]
    assert none.value == 0 and not none.replicates.any()
    assert none.interval() == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))
    some = true_positives(frame, np.concatenate([1 + rng.normal(size=20), rng.normal(size=300)]), 100)["all"]
    low, high = replace(some, exact=None).interval()
    share = clopper_pearson(some.value * 20, 20)
    assert some.interval() == (min(low, share[0]), max(high, share[1]))


@pytest.mark.parametrize(("k", "n"), [(0, 7), (7, 7), (3, 7), (40, 264)])
def test_the_interval_of_a_share_is_that_of_scipy(k: int, n: int):
    exact = stats.binomtest(k, n).proportion_ci(0.95, "exact")
    assert clopper_pearson(k, n) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_its_difference_has_a_p_even_where_no_retrained_model_finds_anybody():
    """Three seeds: retrained models find none of 200, the model 10 of them, another one 200.

    Single images alone make values of 1 % spread by sqrt(.01 * .99 / 200) = .00704, so that a mean difference of three
    has sqrt(2 / 3) of that, .00574; .05 is 8.7 times as much, of which Student's t with 2 degrees has p = .013; and a
    difference of .005, p = .475. Without that, three equal values would make any difference sure.
    """
    frame = frame_of([(p, 0, 0, "forget" if p < 200 else "test") for p in range(500)])
    measure = MEASURES["mia_loss_tpr_at_1"]

    def model(known: int):
        odds = np.where(frame.rows("forget"), -9.0, np.linspace(-1, 1, 500))
        odds[:known] = 9.0
        return {measure.name: measure.function(evidence_of(frame, odds))["all"]}

    models = [{"retrained": model(0), "ten": model(10), "one": model(1)} for _ in range(3)]
    apart = differences(models, {measure.name: measure}, frame)
    for strategy, difference in (("ten", 0.05), ("one", 0.005)):
        one = apart[strategy][measure.name]
        assert one.value == pytest.approx(difference)
        t = difference / np.sqrt(2 / 3 * 0.01 * 0.99 / 200)
        assert one.p_difference >= 2 * stats.t.sf(t, 2) - 1e-12
        assert (one.p_difference < 0.05) == (strategy == "ten")


def test_it_finds_the_few_that_a_model_betrays():
    """Four patients of 40 are known by heart: 20 images of 200 are above all held-out ones, and hardly any other is."""
    evidence = made_up(0.0)
    frame, rng = evidence.frame, np.random.default_rng(3)
    odds = rng.normal(size=len(frame.labels)) + np.where(frame.patients < 4, 9.0, 0.0)
    estimates = MEASURES["mia_loss_tpr_at_1"].function(replace(evidence, unlearned=outputs(frame, odds)))
    assert estimates["all"].value == pytest.approx(0.1, abs=0.02)
