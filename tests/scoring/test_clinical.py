"""Clinical measures against scikit-learn, against slow versions and by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import multilabel_confusion_matrix, recall_score

from fedunlearn.scoring.evidence import Attribute, Estimates, Evidence, Frame
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.measures.catalogue import MEASURES, measures_of
from fedunlearn.scoring.measures.clinical import CLINICAL
from fedunlearn.scoring.measuring import measure
from tests.scoring.test_evidence import TINY, evidence_of, frame_of, random_images

KNOWN = {one.name: one for one in CLINICAL}


def classed(frame: Frame) -> Frame:
    """With the groups of classes, as a run has them."""
    own = Attribute(frame.labels, tuple(str(c) for c in range(frame.classes)))
    return replace(frame, attributes={"class": own})


def made_up(classes: int, patients: int = 90, seed: int = 1) -> Evidence[Outputs]:
    rng = np.random.default_rng(seed)
    frame = classed(frame_of(random_images(rng, patients, classes), classes))
    logits = rng.normal(size=(len(frame.labels), classes))
    logits[np.arange(len(logits)), frame.labels] += 1
    return evidence_of(frame, logits)


def scored(evidence: Evidence[Outputs], name: str) -> Estimates:
    return measure(evidence, KNOWN, None)[name]


@pytest.mark.parametrize("classes", [2, 4])
def test_rates_are_those_of_scikit_learn_by_class_and_hospital(classes: int) -> None:
    evidence = made_up(classes)
    frame, given = evidence.frame, evidence.unlearned.predicted
    for group in ("all", "site=A", "site=B", "site=C"):
        rows = frame.rows("test") & frame.groups[group]
        y, x, every = frame.labels[rows], given[rows], range(classes)
        (tn, fp), (fn, tp) = np.moveaxis(multilabel_confusion_matrix(y, x, labels=every), 0, 2)
        own, others = tp + fn > 0, tn + fp > 0
        expected = {
            "test_sensitivity": recall_score(y, x, labels=np.unique(y), average="macro"),
            "test_specificity": (tn[others] / (tn + fp)[others]).mean(),
            "test_false_negative_rate": (fn[own] / (tp + fn)[own]).mean(),
        }
        for name, slow in expected.items():
            assert scored(evidence, name)[group].value == pytest.approx(slow, abs=1e-12)
        if group == "all":
            for c in every:
                rates = (
                    scored(evidence, f"test_{name}")[f"class={c}"].value
                    for name in ("sensitivity", "specificity")
                )
                assert tuple(rates) == pytest.approx((tp[c] / (tp + fn)[c], tn[c] / (tn + fp)[c]), abs=1e-12)


def test_a_class_has_an_interval_of_its_own_and_counts_the_images_it_speaks_of() -> None:
    """The replicates of one class are drawn sums over drawn sums, patient by patient."""
    evidence = made_up(3)
    frame, rows = evidence.frame, evidence.frame.rows("test")
    of_class, given = frame.labels == 1, evidence.unlearned.predicted == 1
    for name, asked, right in (
        ("test_sensitivity", rows & of_class, given),
        ("test_specificity", rows & ~of_class, ~given),
    ):
        top, bottom = (
            frame.draws @ np.bincount(frame.units[some], minlength=frame.draws.shape[1])
            for some in (asked & right, asked)
        )
        found = scored(evidence, name)["class=1"]
        np.testing.assert_allclose(found.replicates, top / bottom, atol=1e-12)
        assert found.n == asked.sum()
        low, high = found.interval()
        assert low < found.value < high


def test_what_is_missed_is_the_rest() -> None:
    evidence = made_up(3)
    missed, seen = (scored(evidence, name) for name in ("test_false_negative_rate", "test_sensitivity"))
    assert missed.keys() == seen.keys()
    for group, one in seen.items():
        assert missed[group].value == pytest.approx(1 - one.value)
        assert missed[group].interval() == pytest.approx([1 - x for x in one.interval()[::-1]], nan_ok=True)


def test_the_mean_sensitivity_is_balanced_accuracy() -> None:
    evidence = made_up(4)
    known = MEASURES["test_balanced_accuracy"].function(evidence)
    for group in ("all", "site=B"):
        assert scored(evidence, "test_sensitivity")[group].value == pytest.approx(known[group].value)


def test_a_class_of_few_patients_is_not_shown_by_itself() -> None:
    """Four patients of class 1: one fewer than a group needs. It counts in the mean."""
    images = [(p, 0, 0, "test") for p in range(6)] + [(p, 0, 1, "test") for p in range(6, 10)]
    evidence = evidence_of(classed(frame_of(images)), [1.0] * 6 + [-1.0] * 4)
    found = scored(evidence, "test_sensitivity")
    assert {group: one.value for group, one in found.items()} == {"all": 0.5, "site=A": 0.5, "class=0": 1.0}


def test_specificity_of_the_only_class_that_was_tested_is_left_out() -> None:
    images = [(p, 0, 0, "test") for p in range(6)] + [(p, 0, 1, "retain") for p in range(6, 12)]
    evidence = evidence_of(classed(frame_of(images)), [1.0] * 5 + [-1.0] + [1.0] * 6)
    assert {group: one.value for group, one in scored(evidence, "test_specificity").items()} == pytest.approx(
        {"all": 5 / 6, "site=A": 5 / 6}  # that of class 1
    )


def test_risk_is_the_mean_cost_by_hand() -> None:
    """TINY's test images: 4 of class 0 is taken for 1 (costs 1), 5 of class 1 for 0 (costs 6), 7 is right."""
    odds = np.array([0, 0, 0, 0, -1.0, -1.0, 0, 1.0, 0, 0])
    costly = replace(frame_of(TINY), costs=np.array([[0.0, 1.0], [6.0, 0.0]]))
    found = scored(evidence_of(costly, odds), "test_risk")
    assert {group: one.value for group, one in found.items()} == pytest.approx(
        {"all": 7 / 3, "site=A": 7 / 2, "site=B": 0.0}
    )
    plain = scored(evidence_of(frame_of(TINY), odds), "test_risk")
    assert plain["all"].value == pytest.approx(2 / 3)


def test_without_costs_risk_is_what_accuracy_leaves() -> None:
    evidence = made_up(4)
    right, wrong = MEASURES["test_accuracy"].function(evidence), scored(evidence, "test_risk")
    assert right.keys() == wrong.keys()
    for group, one in right.items():
        assert wrong[group].value == pytest.approx(1 - one.value)
        np.testing.assert_allclose(wrong[group].replicates, 1 - one.replicates, atol=1e-12)


def test_calibration_error_is_that_of_a_slow_version() -> None:
    """Softmax; ten bins between the tenths of all test images, which a hospital's images fall into as well."""
    evidence = made_up(4)
    frame, rows = evidence.frame, evidence.frame.rows("test")
    p = np.exp(evidence.unlearned.logits)
    p /= p.sum(axis=1, keepdims=True)
    tops, right = p.max(axis=1), p.argmax(axis=1) == frame.labels
    bounds = [-np.inf, *np.quantile(tops[rows], np.arange(1, 10) / 10), np.inf]
    for group in ("all", "site=A"):
        total = 0.0
        for low, high in pairwise(bounds):
            here = rows & frame.groups[group] & (tops > low) & (tops <= high)
            if here.any():
                total += here.sum() * abs(right[here].mean() - tops[here].mean())
        slow = total / (rows & frame.groups[group]).sum()
        assert scored(evidence, "test_calibration_error")[group].value == pytest.approx(slow, abs=1e-12)
    sizes = np.histogram(tops[rows], bounds)[0]
    assert sizes.max() - sizes.min() <= 1


def test_calibration_error_by_hand() -> None:
    """All are told with p = 3/4; half of them are right: 1/4 too sure."""
    images = [(p, 0, p % 2, "test") for p in range(40)]
    odds = np.log(3.0) * np.where(np.arange(40) % 4 < 2, 1, -1)
    found = scored(evidence_of(frame_of(images), odds), "test_calibration_error")
    assert found["all"].value == pytest.approx(0.25)


@pytest.mark.gate
@pytest.mark.parametrize(("sharp", "truth"), [(1.0, 0.0), (1.4, None), (3.0, None)])
def test_the_interval_of_the_calibration_error_holds_the_truth(sharp: float, truth: float | None) -> None:
    """Labels are drawn from what a model says at ``sharp`` 1: then the truth is 0. Else it is that of 200,000 images.

    Of 60 draws of 300 patients each, at least 95 % hold it, up to 3 standard errors: 52 or more. The value itself is
    too large, and the quantiles of replicates hold none of the first truth.
    """

    def drawn(n: int, seed: int) -> Evidence[Outputs]:
        rng = np.random.default_rng(seed)
        scores = 1.5 * rng.normal(size=(n, 3))
        labels = (scores + rng.gumbel(size=(n, 3))).argmax(axis=1)
        return evidence_of(
            frame_of([(p, 0, int(y), "test") for p, y in enumerate(labels)], 3, seed), sharp * scores
        )

    if truth is None:
        truth = scored(drawn(200_000, 0), "test_calibration_error")["all"].value
    found = [scored(drawn(300, seed), "test_calibration_error")["all"] for seed in range(1, 61)]
    intervals = [one.interval() for one in found]
    assert sum(low <= truth <= high for low, high in intervals) >= 52
    assert np.mean([one.value for one in found]) > truth
    if truth == 0:
        assert all(np.quantile(one.replicates, 0.025) > truth for one in found)


def test_without_a_test_image_there_is_nothing_to_say() -> None:
    images = [(p, 0, p % 2, "retain") for p in range(8)] + [(8, 0, 0, "forget")]
    assert all(
        not found for found in measure(evidence_of(frame_of(images), np.ones(9)), KNOWN, None).values()
    )


def test_they_are_measures_of_classification() -> None:
    assert set(KNOWN) <= set(measures_of("classification"))
    assert not set(KNOWN) & set(measures_of("segmentation"))
