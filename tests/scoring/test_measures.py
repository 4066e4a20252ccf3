"""Every measure on arrays small enough to work out by hand, and against scikit-learn where that has one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from fedunlearn.core import RunError
from fedunlearn.scenario.catalogue import entries
from fedunlearn.scoring.evidence import Estimate, Spent
from fedunlearn.scoring.measures.catalogue import MEASURES, measures_of
from fedunlearn.scoring.measures.composite import avg_gap, tow
from fedunlearn.scoring.measuring import measure
from tests.scoring.test_evidence import TINY, evidence_of, frame_of, random_images

# Log-odds of the true class for the images of TINY. Log 3 is p = 3/4, -log 3 is p = 1/4.
L = np.log(3.0)
ODDS = np.array([L, -L, L, L, -L, -L, L, L, 0.0, 0.0])


def value(name: str, group: str = "all", odds=ODDS) -> float:
    estimates = MEASURES[name].function(evidence_of(frame_of(TINY), odds))
    return estimates[group].value


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        ("forget_accuracy", "all", 1 / 2),  # images 0 (right), 1 (wrong)
        ("retain_accuracy", "all", 1.0),  # 2, 3, 6, all right
        ("test_accuracy", "all", 1 / 3),  # 4, 5 wrong; 7 right
        ("test_accuracy", "site=A", 0.0),
        ("test_accuracy", "site=B", 1.0),
        # Test: class 0 is image 4, wrong; class 1 is 5, wrong, and 7, right: (0 + 1/2) / 2.
        ("test_balanced_accuracy", "all", 1 / 4),
        ("test_balanced_accuracy", "site=B", 1.0),  # class 1 only
        # Wrong by p = 1/4 costs log 4, right by 3/4 log(4/3); log 4 = 2 log 2.
        ("forget_loss", "all", (np.log(4) + np.log(4 / 3)) / 2),
        ("retain_loss", "all", np.log(4 / 3)),
        ("test_loss", "all", (2 * np.log(4) + np.log(4 / 3)) / 3),
        # Test, p of class 1: image 4 (class 0) 3/4; images 5, 7 (class 1) 1/4, 3/4. Pairs: lost, tied. (0 + ½) / 2.
        ("test_auroc", "all", 1 / 4),
        ("test_auroc", "site=A", 0.0),
        ("retain_auroc", "all", 1.0),
        # Forget, p of class 1: image 0 (class 0) 1/4, image 1 (class 1) 1/4: a tie.
        ("forget_auroc", "all", 1 / 2),
        # Image 0 against 4 (A, class 0): log-odds L > -L, won. Image 1 against 5 (A, class 1): tied. None against 7.
        ("mia_loss_auc", "all", 3 / 4),
        ("mia_loss_auc", "site=A", 3 / 4),
    ],
)
def test_measures_by_hand(name: str, group: str, expected: float):
    assert value(name, group) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("forget_accuracy", "site=B"),  # B has nothing to forget
        ("mia_loss_auc", "site=B"),
        ("retain_auroc", "site=B"),  # one class only
        ("test_auroc", "site=B"),
    ],
)
def test_a_measure_is_left_out_where_it_is_undefined(name: str, group: str):
    assert group not in MEASURES[name].function(evidence_of(frame_of(TINY), ODDS))


def test_n_counts_the_images_a_value_speaks_for():
    """Of two images to forget, one has a partner: the held-out ones are all of class 0."""
    images = [
        (0, 0, 0, "forget"),
        (0, 0, 1, "forget"),
        (1, 0, 0, "test"),
        (2, 0, 0, "test"),
        (3, 0, 1, "retain"),
    ]
    evidence = evidence_of(frame_of(images), [1.0, 2.0, 0.0, 2.0, 0.0])
    counts = {
        name: MEASURES[name].function(evidence)["all"].n
        for name in ("forget_loss", "test_loss", "mia_loss_auc")
    }
    assert counts == {"forget_loss": 2, "test_loss": 2, "mia_loss_auc": 1}
    assert MEASURES["mia_loss_auc"].function(evidence)["all"].value == 1 / 2  # 1 > 0 won, 1 < 2 lost


def test_a_held_out_patient_with_a_training_image_is_no_non_member():
    """Patient 1 has an image in train and one in test (a broken split): only patient 2's is compared with."""
    images = [(0, 0, 0, "forget"), (1, 0, 0, "retain"), (1, 0, 0, "test"), (2, 0, 0, "test")]
    estimate = MEASURES["mia_loss_auc"].function(evidence_of(frame_of(images), [1.0, 0.0, 0.0, 2.0]))["all"]
    assert estimate.value == 0.0


def test_the_attack_is_not_fooled_by_a_difference_between_hospitals():
    """A model that never saw hospital A, whose images are hard: 0.5 against A's held-out, far from it against all."""
    rng = np.random.default_rng(1)
    images = [(p, 0, i % 2, "forget") for p in range(60) for i in range(4)]
    images += [(100 + p, site, i % 2, "test") for p in range(60) for site in (0, 1, 2) for i in range(4)]
    images += [(300 + p, 1, i % 2, "retain") for p in range(60) for i in range(4)]
    frame = frame_of(images)
    odds = rng.normal(size=len(images)) + np.where(frame.sites == 0, 0.0, 2.0)
    same_site = MEASURES["mia_loss_auc"].function(evidence_of(frame, odds))["all"]
    member = frame.rows("forget")[frame.rows("forget") | frame.rows("test")]
    pooled = roc_auc_score(member, odds[frame.rows("forget") | frame.rows("test")])
    assert same_site.value == pytest.approx(
        0.5, abs=0.05
    )  # se sqrt((n1+n2+1)/(12 n1 n2)) = .026 with 240 and 240
    assert pooled < 0.3


@pytest.mark.parametrize(("own", "expected"), [(L, 0.0), (-L, 1.0)])
def test_the_svc_judges_images_like_retained_ones_members(own: float, expected: float):
    """All retained images have p = 3/4, all test images 1/4, so the SVC separates them by p alone."""
    images = [(p, 0, p % 2, "retain") for p in range(10)] + [(p, 0, p % 2, "test") for p in range(10, 20)]
    images += [(p, 0, p % 2, "forget") for p in range(20, 24)]
    odds = np.repeat([L, -L, own], [10, 10, 4])
    assert (
        MEASURES["mia_svc_confidence"].function(evidence_of(frame_of(images), odds))["all"].value == expected
    )


def test_the_svc_gives_the_share_by_hospital():
    """To forget: of A, one of two with p = 1/4; of B, both. 3/4 in all. Hospital B has no retained image."""
    images = [(p, 0, 0, "retain") for p in range(10)] + [(p, p % 2, 0, "test") for p in range(10, 30)]
    images += [(p, p // 32, 0, "forget") for p in range(30, 34)]
    odds = np.concatenate([np.full(10, L), np.full(20, -L), [L, -L, -L, -L]])
    estimates = MEASURES["mia_svc_confidence"].function(evidence_of(frame_of(images), odds))
    assert {group: e.value for group, e in estimates.items()} == {"all": 0.75, "site=A": 0.5, "site=B": 1.0}


def test_the_svc_is_that_of_scikit_learn_on_all_images_where_hospitals_and_labels_are_balanced():
    from sklearn.svm import SVC

    rng = np.random.default_rng(5)
    part = np.repeat(["retain", "test", "forget"], 40)
    images = [(p, p % 2, p // 2 % 2, str(part[p])) for p in range(120)]
    frame = frame_of(images)
    odds = rng.normal(size=120) + np.repeat([2.0, 0.0, 1.0], 40)
    p = 1 / (1 + np.exp(-odds))
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(p[:80, None], np.repeat([1, 0], 40))
    expected = 1 - attack.predict(p[80:, None]).mean()
    assert MEASURES["mia_svc_confidence"].function(evidence_of(frame, odds))["all"].value == pytest.approx(
        expected
    )


def known(**values: float) -> dict[str, dict[str, Estimate]]:
    return {name: {"all": Estimate(v, 10)} for name, v in values.items()}


MODEL = known(forget_accuracy=0.5, retain_accuracy=1.0, test_accuracy=0.8, mia_svc_confidence=0.4)
REFERENCE = known(forget_accuracy=0.75, retain_accuracy=0.9, test_accuracy=0.8, mia_svc_confidence=0.1)


def test_avg_gap_by_hand():
    """(25 + 10 + 0 + 30) / 4 = 16.25 points."""
    evidence = replace(evidence_of(frame_of(TINY), ODDS), measured=MODEL, reference=REFERENCE)
    assert avg_gap(evidence)["all"].value == pytest.approx(16.25)
    assert avg_gap(replace(evidence, measured=REFERENCE))["all"].value == 0


def test_tow_by_hand():
    """(1 - .25) (1 - .1) (1 - 0) = .675."""
    evidence = replace(evidence_of(frame_of(TINY), ODDS), measured=MODEL, reference=REFERENCE)
    assert tow(evidence)["all"].value == pytest.approx(0.675)
    assert tow(replace(evidence, measured=REFERENCE))["all"].value == 1


def test_a_composite_is_left_out_where_one_of_its_parts_is():
    evidence = replace(
        evidence_of(frame_of(TINY), ODDS), measured=MODEL, reference=known(forget_accuracy=0.5)
    )
    assert avg_gap(evidence) == tow(evidence) == {}


def test_the_interval_of_a_composite_compares_both_models_on_the_same_patients():
    frame = frame_of(random_images(np.random.default_rng(2)), classes=3)
    logits = np.random.default_rng(3).normal(size=(len(frame.labels), 3))
    known = measures_of("classification")
    reference = measure(evidence_of(frame, logits), known, None)
    again = measure(evidence_of(frame, logits), known, reference)
    assert again["avg_gap"]["all"].interval() == (0, 0)
    assert again["tow"]["all"].interval() == (1, 1)
    other = measure(evidence_of(frame, np.roll(logits, 1, axis=0)), known, reference)
    low, high = other["avg_gap"]["all"].interval()
    assert 0 < low < other["avg_gap"]["all"].value < high


def test_costs_by_hand():
    spent = Spent(site_seconds=3.0, server_seconds=0.5, bytes=40, storage_bytes=7, rounds=2, images=90)
    retraining = Spent(site_seconds=12.0, server_seconds=9.0, bytes=80, storage_bytes=0, rounds=6, images=900)
    evidence = replace(evidence_of(frame_of(TINY), ODDS), spent=spent, retraining=retraining)
    expected = {
        "seconds": 3.5,
        "site_seconds": 3,
        "share_of_retraining": 0.1,
        "bytes": 40,
        "storage_bytes": 7,
    }
    for name, cost in (expected | {"rounds": 2, "images": 90}).items():
        assert MEASURES[name].function(evidence)["all"].value == cost
    free = replace(evidence, retraining=replace(retraining, images=0))
    assert MEASURES["share_of_retraining"].function(free) == {}


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_performance_is_that_of_scikit_learn(classes: int):
    rng = np.random.default_rng(classes)
    frame = frame_of(random_images(rng, 60, classes), classes)
    logits = rng.normal(size=(len(frame.labels), classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = frame.rows("test")
    y, q = frame.labels[rows], p[rows]
    auc = roc_auc_score(y, q[:, 1]) if classes == 2 else roc_auc_score(y, q, multi_class="ovr")
    expected = {
        "test_accuracy": (q.argmax(axis=1) == y).mean(),
        "test_balanced_accuracy": balanced_accuracy_score(y, q.argmax(axis=1)),
        "test_auroc": auc,
        "test_loss": log_loss(y, q),
    }
    evidence = evidence_of(frame, logits)
    for name, slow in expected.items():
        assert MEASURES[name].function(evidence)["all"].value == pytest.approx(slow, abs=1e-9)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_scores_do_not_depend_on_the_order_of_images(seed: int):
    """All but the SVC, whose examples are drawn by position: there, `reading` sorts the images first."""
    rng = np.random.default_rng(seed)
    images = random_images(rng, patients=9)
    logits = rng.normal(size=(len(images), 3)).round(1)
    order = rng.permutation(len(images))
    straight = evidence_of(frame_of(images, classes=3), logits)
    shuffled = evidence_of(frame_of([images[i] for i in order], classes=3), logits[order])
    for name in [
        n
        for n in measures_of("classification")
        if n.startswith(("retain", "forget", "test")) or n == "mia_loss_auc"
    ]:
        one, other = MEASURES[name].function(straight), MEASURES[name].function(shuffled)
        assert one.keys() == other.keys()
        for group, estimate in one.items():
            assert other[group].value == pytest.approx(estimate.value, abs=1e-9)
            assert other[group].n == estimate.n
            assert other[group].interval() == pytest.approx(estimate.interval(), abs=1e-9, nan_ok=True)


def test_the_catalogue_says_what_every_measure_means():
    for name, one in MEASURES.items():
        assert name == one.name
        assert one.summary
        assert one.retrained
        assert one.source
        assert one.function.__doc__
        # Of a difference between two models, no distance from the retrained model's is one that counts; nor of what is
        # 1 for the retrained model by definition.
        if one.direction == "match" and name not in ("mia_difference_auc", "relearn_ratio"):
            assert one.margin is not None and one.margin > 0


def test_the_catalogue_is_plain_json():
    listed = json.loads(json.dumps(entries("measures"), allow_nan=False))
    assert [entry["name"] for entry in listed] == list(MEASURES)


def test_an_unknown_kind_is_refused():
    with pytest.raises(RunError, match=r"kind 'dance'.*classification"):
        measures_of("dance")
