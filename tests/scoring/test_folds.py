"""Attacks that learn: by hand, against scikit-learn, and on what they must not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, QuantileRegressor
from sklearn.model_selection import StratifiedGroupKFold

from fedunlearn.scoring.attacks import population, quantile
from fedunlearn.scoring.attacks.folds import folds_of
from fedunlearn.scoring.attacks.quantile import regressed, slope as slope_of
from fedunlearn.scoring.evidence import Evidence
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.measures.catalogue import MEASURES
from tests.scoring.answers import made_up, value, with_models
from tests.scoring.test_evidence import evidence_of, frame_of

pytestmark = pytest.mark.usefixtures("few_resamples")


def few(leak: float = 1.0) -> Evidence[Outputs]:
    """15 patients to forget and 25 held out, with three images each of two labels at two hospitals; one other model."""
    rng = np.random.default_rng(2)
    images = [(p, p % 2, i % 2, "forget" if p < 15 else "test") for p in range(40) for i in range(3)]
    frame = frame_of(images)
    level = rng.normal(size=120)
    own = level + 0.3 * rng.normal(size=120) + np.where(frame.rows("forget"), leak, 0.0)
    return with_models(frame, own, others=[level + 0.3 * rng.normal(size=120), level])


def within_folds(evidence: Evidence[Outputs], folds: int, judge) -> float:
    """Pairs of one hospital, label and fold won, of all there are: ``judge`` tells scores from rows to learn from."""
    frame, truth = evidence.frame, evidence.frame.rows("forget").astype(int)
    won = count = 0.0
    for learn, here in StratifiedGroupKFold(folds).split(truth[:, None], truth, frame.patients):
        scores = judge(learn, here)
        for i, one in enumerate(here):
            for j, other in enumerate(here):
                alike = (frame.sites[one], frame.labels[one]) == (frame.sites[other], frame.labels[other])
                if truth[one] and not truth[other] and alike:
                    won += (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
                    count += 1
    return won / count


def test_the_regression_is_that_of_scikit_learn_within_folds_by_patient():
    evidence = few()
    truth, loss = evidence.frame.rows("forget").astype(int), evidence.unlearned.losses[:, None]

    def judge(learn, here):
        attack = LogisticRegression(class_weight="balanced").fit(loss[learn], truth[learn])
        return attack.decision_function(loss[here])

    expected = within_folds(evidence, population.FOLDS, judge)
    assert value("mia_lr_auc", evidence) == pytest.approx(expected, abs=1e-9)


def test_the_quantile_is_that_of_scikit_learn_learnt_from_held_out_images_of_other_folds():
    evidence = few()
    frame, phi = evidence.frame, evidence.unlearned.margin
    other = (evidence.others[0].margin + evidence.others[1].margin) / 2
    known = np.column_stack([other, frame.sites == 1, frame.labels == 1])

    def judge(learn, here):
        outside = learn[~frame.rows("forget")[learn]]
        line = QuantileRegressor(quantile=0.9, alpha=0).fit(known[outside], phi[outside])
        return phi[here] - line.predict(known[here])

    expected = within_folds(evidence, quantile.FOLDS, judge)
    assert value("mia_quantile_auc", evidence) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sizes", [(40,), (10, 20, 30), (1, 1, 7, 65), (3, 2, 200)])
def test_the_slope_is_that_of_the_linear_programme(sizes: tuple[int, ...]):
    """Of ten, twenty or thirty images a tenth is a whole number: then many levels fit equally well, but one slope."""
    rng = np.random.default_rng(sum(sizes))
    strata = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    for steep in (1.0, 0.0, -30.0):
        x = rng.normal(size=len(strata))
        y = steep * x + strata + rng.standard_t(2, size=len(strata))
        line = regressed(np.column_stack([x, *(strata == one for one in range(1, len(sizes)))]), y)
        assert line is not None
        assert slope_of(x, y, strata) == pytest.approx(line[1][0], abs=1e-9)


def test_a_slope_that_is_not_the_only_one_is_left_to_the_programme():
    """Each image in a stratum of its own; images that are alike; confidences beyond what it takes as numbers."""
    x, y = np.array([0.0, 1.0, 3.0]), np.array([0.0, 5.0, 1.0])
    one, each = np.zeros(3, dtype=np.int64), np.arange(3)
    assert slope_of(x, y, one) is not None
    assert slope_of(x, y, each) is None
    assert slope_of(np.ones(3), y, one) is None
    assert slope_of(x, 1e16 * y, one) is None


def test_one_hospital_needs_no_linear_programme(monkeypatch: pytest.MonkeyPatch):
    """Both ways order images alike: 60 patients of one hospital, with two labels."""
    rng = np.random.default_rng(4)
    frame = frame_of([(p, 0, i % 2, "forget" if p < 20 else "test") for p in range(60) for i in range(4)])
    level = rng.normal(size=240)
    evidence = with_models(frame, level + rng.normal(size=240), others=[level + rng.normal(size=240), level])
    short = value("mia_quantile_auc", evidence)
    monkeypatch.setattr("fedunlearn.scoring.attacks.quantile.slope", lambda *_: None)
    assert value("mia_quantile_auc", evidence) == short
    monkeypatch.undo()
    monkeypatch.setattr("fedunlearn.scoring.attacks.quantile.regressed", lambda *_: None)
    assert value("mia_quantile_auc", evidence) == short


@pytest.mark.parametrize("who", ["unlearned", "others"])
def test_the_quantile_is_left_out_where_confidences_are_beyond_all_bounds(who: str):
    """1e21: more than HiGHS takes as a number, of the model in question or of those it is compared with."""
    evidence = few()
    assert MEASURES["mia_quantile_auc"].function(evidence)
    huge = Outputs(1e21 * evidence.unlearned.logits, evidence.frame.labels)
    evidence = replace(evidence, unlearned=huge) if who == "unlearned" else replace(evidence, others=(huge,))
    assert np.abs(huge.margin).max() > 1e20 and np.isfinite(huge.margin).all()
    assert not MEASURES["mia_quantile_auc"].function(evidence)


def test_no_patient_is_judged_by_what_was_learnt_of_it():
    frame = few().frame
    folds = folds_of(frame, 4)
    assert folds is not None and len(folds.parts) == 4
    judged = np.concatenate([judge for _, judge in folds.parts])
    assert sorted(judged) == list(range(len(folds.rows)))
    for learn, judge in folds.parts:
        assert not set(frame.patients[folds.rows[learn]]) & set(frame.patients[folds.rows[judge]])


def test_the_regression_finds_members_by_their_higher_loss_too():
    evidence = made_up(-4.0)
    assert value("mia_loss_auc", evidence) < 0.2
    assert value("mia_lr_auc", evidence) > 0.8


def test_the_quantile_sees_what_the_loss_alone_does_not():
    """How hard an image is spreads by 2, training on it moves it by 1; others know the former up to .5 sqrt(3/2).

    As for LiRA: Phi(1 / (.61 sqrt(2))) = .88 if the line were y = x. It is flatter, as others' mean has its own noise.
    """
    evidence = made_up(1.0)
    assert value("mia_quantile_auc", evidence) > value("mia_loss_auc", evidence) + 0.1
    assert value("mia_quantile_auc", evidence) == pytest.approx(0.87, abs=0.06)


def test_the_quantile_learns_nothing_from_models_that_saw_the_images():
    """Originals and the model's own siblings may be anything."""
    evidence = made_up(1.0)
    other = replace(evidence, original=evidence.retrained, originals=(), siblings=())
    assert value("mia_quantile_auc", other) == value("mia_quantile_auc", evidence)


def test_attacks_that_learn_are_undefined_for_a_single_patient():
    frame = frame_of([(0, 0, 0, "forget"), (0, 0, 0, "forget"), (1, 0, 0, "test"), (2, 0, 0, "test")])
    evidence = with_models(frame, [1.0, 2.0, 0.0, 1.0], others=[[1.0, 1.0, 0.0, 0.0]])
    assert not MEASURES["mia_lr_auc"].function(evidence)
    assert not MEASURES["mia_quantile_auc"].function(evidence)


def test_attacks_that_learn_are_undefined_where_no_fold_has_images_to_compare(
    monkeypatch: pytest.MonkeyPatch,
):
    """Of each label one patient to forget and one held out, which are judged apart."""

    class Apart:
        def __init__(self, folds: int) -> None: ...

        def split(self, *_: object):
            return iter([(np.array([1, 2]), np.array([0, 3])), (np.array([0, 3]), np.array([1, 2]))])

    monkeypatch.setattr("sklearn.model_selection.StratifiedGroupKFold", Apart)
    frame = frame_of([(0, 0, 0, "forget"), (1, 0, 1, "forget"), (2, 0, 0, "test"), (3, 0, 1, "test")])
    assert not MEASURES["mia_lr_auc"].function(evidence_of(frame, [1.0, 2.0, 0.0, 1.0]))


def test_the_quantile_learns_from_a_few_hundred_images_at_most(monkeypatch: pytest.MonkeyPatch):
    """Of 1000 held-out patients two thirds, every other one in the order of confidence: 333 or 334."""
    learnt: list[np.ndarray] = []

    def record(known, targets, strata):
        learnt.append(targets)
        return slope_of(known, targets, strata)

    monkeypatch.setattr("fedunlearn.scoring.attacks.quantile.slope", record)
    rng = np.random.default_rng(0)
    frame = frame_of([(p, 0, 0, "forget" if p < 9 else "test") for p in range(1009)])
    level = rng.normal(size=1009)
    assert value("mia_quantile_auc", with_models(frame, level, others=[level]))
    assert len(learnt) == 3 and all(len(targets) in (333, 334) for targets in learnt)
    assert all((np.diff(targets) >= 0).all() for targets in learnt)
