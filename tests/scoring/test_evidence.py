"""How a request divides images and how patients are drawn anew; with helpers for the other tests of scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedunlearn.scoring.evidence import MOST_SITES, MOST_UNITS, RESAMPLES, Estimate, Evidence, Frame, Spent
from fedunlearn.scoring.evidence.classification import Outputs

NOTHING = Spent(0.0, 0.0, 0, 0, 0, 0)

Image = tuple[int, int, int, str]
"""Patient, hospital, label, part: "forget", "retain", "test", "val" or "gone"."""


def frame_of(images: Sequence[Image], classes: int = 2, seed: int = 0) -> Frame:
    patients, sites, labels, parts = zip(*images, strict=True)
    part = np.array(parts)
    return Frame(
        patients=np.array(patients, dtype=np.int64),
        sites=np.array(sites, dtype=np.int64),
        site_names=("A", "B", "C")[: max(sites) + 1],
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
        train=np.isin(part, ["forget", "retain", "gone"]),
        test=part == "test",
        forgotten=part == "forget",
        gone=part == "gone",
        seed=seed,
    )


def evidence_of(frame: Frame, logits, seed: int = 0) -> Evidence[Outputs]:
    """Evidence of one model; logits (N, C), or (N,) for two classes: the log-odds of the true class."""
    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim == 1:
        right = frame.labels[:, None] == np.arange(2)
        scores = np.where(right, scores[:, None], 0.0)
    outputs = Outputs(scores, frame.labels)
    return Evidence(frame, outputs, outputs, outputs, NOTHING, NOTHING, seed)


# Two hospitals. Patient 0 of A is to be forgotten.
TINY: tuple[Image, ...] = (
    (0, 0, 0, "forget"),
    (0, 0, 1, "forget"),
    (1, 0, 0, "retain"),
    (1, 0, 1, "retain"),
    (2, 0, 0, "test"),
    (2, 0, 1, "test"),
    (3, 1, 0, "retain"),
    (4, 1, 1, "test"),
    (5, 1, 1, "val"),
    (6, 1, 1, "gone"),
)


def random_images(rng: np.random.Generator, patients: int = 30, classes: int = 3) -> list[Image]:
    """Patients of three hospitals with two to six images each; the last third of them are test patients."""
    found: list[Image] = []
    for p in range(patients):
        part = ("forget", "retain", "test")[3 * p // patients]
        found += [(p, p % 3, int(rng.integers(classes)), part) for _ in range(rng.integers(2, 7))]
    return found


def test_a_request_divides_the_images_into_forget_retain_and_test():
    frame = frame_of(TINY)
    assert np.flatnonzero(frame.rows("forget")).tolist() == [0, 1]
    assert np.flatnonzero(frame.rows("retain")).tolist() == [2, 3, 6]
    assert np.flatnonzero(frame.rows("test")).tolist() == [4, 5, 7]


def test_there_is_a_group_of_all_and_one_per_hospital():
    groups = frame_of(TINY).groups
    assert list(groups) == ["all", "site=A", "site=B"]
    assert [int(members.sum()) for members in groups.values()] == [10, 6, 4]


def test_patients_are_numbered_by_part_and_hospital():
    """Forget: patient 0. Retain: 1 of A, 3 of B. Test: 2 of A, 4 of B. Patients 5 (val) and 6 (gone) are in no part."""
    assert frame_of(TINY).units.tolist() == [0, 0, 1, 1, 3, 3, 2, 4, -1, -1]


def test_each_part_draws_as_many_patients_as_it_has():
    draws = frame_of(TINY).draws
    assert draws.shape == (RESAMPLES, 5)
    assert (draws[:, 0] == 1).all()
    assert (draws[:, 1:3].sum(axis=1) == 2).all()
    assert (draws[:, 3:].sum(axis=1) == 2).all()
    # Of two patients, one is drawn 0, 1 or 2 times with probabilities 1/4, 1/2, 1/4.
    share = [(draws[:, 1] == k).mean() for k in range(3)]
    np.testing.assert_allclose(share, [0.25, 0.5, 0.25], atol=0.05)


def test_draws_depend_on_the_seed_and_not_on_the_order_of_images():
    frame, turned = frame_of(TINY), frame_of(TINY[::-1])
    np.testing.assert_array_equal(frame.units, turned.units[::-1])
    np.testing.assert_array_equal(frame.draws, turned.draws)
    assert (frame.draws != frame_of(TINY, seed=1).draws).any()


def test_very_many_patients_are_drawn_in_bundles_of_near_equal_size():
    patients = 3 * MOST_UNITS + 5
    frame = frame_of([(p, 0, 0, "test") for p in range(patients)])
    sizes = np.bincount(frame.units)
    assert len(sizes) == MOST_UNITS
    assert set(sizes.tolist()) == {3, 4}


def test_a_patient_with_images_in_two_parts_is_drawn_once():
    frame = frame_of([(0, 0, 0, "forget"), (0, 0, 0, "retain"), (1, 0, 0, "retain"), (2, 0, 0, "test")])
    assert frame.units.tolist() == [0, 0, 1, 2]
    assert frame.draws.shape == (RESAMPLES, 3)


def test_an_interval_is_the_central_95_percent_of_the_defined_replicates():
    """Of 0 … 100 the 2.5 % and 97.5 % quantiles are 2.5 and 97.5; NaN is left out."""
    replicates = np.append(np.arange(101.0), np.nan)
    assert Estimate(50.0, 1, replicates).interval() == (2.5, 97.5)
    assert np.isnan(Estimate(50.0, 1).interval()).all()


def test_margins_and_losses_do_not_saturate():
    """With log-odds m of the true class, the margin is m and the loss log(1 + exp(-m)), about exp(-m) for large m."""
    margins = np.array([-50.0, 0.0, 50.0, 60.0])
    outputs = evidence_of(frame_of([(i, 0, i % 2, "test") for i in range(4)]), margins).unlearned
    np.testing.assert_allclose(outputs.margin, margins, rtol=1e-12)
    np.testing.assert_allclose(outputs.losses, [50.0, np.log(2), np.exp(-50), np.exp(-60)], rtol=1e-12)


def test_the_margin_of_three_classes_is_that_of_the_class_against_all_others():
    """Probabilities .5, .3, .2: margins log(.5/.5), log(.3/.7), log(.2/.8)."""
    outputs = Outputs(np.log([[0.5, 0.3, 0.2]]), np.array([1]))
    np.testing.assert_allclose(outputs.margins, np.log([[1.0, 3 / 7, 1 / 4]]), atol=1e-12)
    np.testing.assert_allclose(outputs.losses, [-np.log(0.3)])


def test_a_model_that_answers_nan_or_infinity_is_not_finite():
    labels = np.array([0])
    assert Outputs(np.array([[1.0, 2.0]]), labels).finite
    assert not Outputs(np.array([[1.0, np.nan]]), labels).finite
    assert not Outputs(np.array([[np.inf, 0.0]]), labels).finite


def test_of_many_hospitals_those_with_most_images_held_out_are_told_one_by_one() -> None:
    """One patient each: hospitals 0, 1 and 2 hold nobody out, the last one two images."""
    count = MOST_SITES + 3
    images: list[Image] = [(site, site, 0, "test" if site > 2 else "retain") for site in range(count)]
    images.append((count - 1, count - 1, 0, "test"))
    frame = replace(frame_of(images), site_names=tuple(map(str, range(count))))
    assert frame.told == tuple(range(3, count)) and frame_of(images[:3]).told == (0, 1, 2)
    assert list(frame.within(frame.rows("retain"))) == ["all"], "the three are in no group but all"
    test = frame.within(frame.rows("test"))
    assert list(test) == ["all", *(f"site={code}" for code in range(3, count))]
    assert len(test["all"]) == MOST_SITES + 1 and len(test[f"site={count - 1}"]) == 2
