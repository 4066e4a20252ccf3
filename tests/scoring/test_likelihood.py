"""Attacks by likelihood, and completeness: by hand, against slow versions and against SciPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from fedunlearn.scoring.attacks.likelihood import PRIOR, predictive
from fedunlearn.scoring.evidence import Shadow
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.measures.catalogue import MEASURES
from tests.scoring.answers import SMALL, made_up, outputs, value, with_models
from tests.scoring.test_evidence import evidence_of, frame_of

pytestmark = pytest.mark.usefixtures("few_resamples")


def test_the_predictive_by_hand():
    """Signals 1, 3 and 0, 4: means 2, 2; sums of squares 2, 8; pooled variance 10 / 2 = 5.

    nu = 4 + 2 - 1 = 5; s^2 = (4 * 5 + 2) / 5 = 4.4 and (20 + 8) / 5 = 5.6; times 1 + 1/2.
    """
    signals = np.array([[1.0, 0.0], [3.0, 4.0]])
    found = predictive(signals, np.ones((2, 2), dtype=bool), np.ones(2, dtype=bool))
    assert found is not None and PRIOR == 4
    np.testing.assert_allclose(found.mean, [2, 2])
    np.testing.assert_allclose(found.scale**2, [6.6, 8.4])
    np.testing.assert_allclose(found.freedom, [5, 5])
    slow = stats.t(df=5, loc=2, scale=np.sqrt([6.6, 8.4]))
    phi = np.array([7.0, -3.0])
    np.testing.assert_allclose(found.log_density(phi), slow.logpdf(phi), atol=1e-9)
    np.testing.assert_allclose(found.log_odds(phi), slow.logcdf(phi) - slow.logsf(phi), atol=1e-9)


def test_signals_that_do_not_count_change_nothing():
    signals = np.array([[1.0, 0.0], [99.0, 4.0], [3.0, 2.0]])
    seen = np.array([[True, True], [False, True], [True, False]])
    found = predictive(signals, seen, np.ones(2, dtype=bool))
    same = predictive(signals[[0, 2]][:, [0]], np.ones((2, 1), dtype=bool), np.ones(1, dtype=bool))
    assert found is not None and same is not None
    np.testing.assert_allclose(found.mean, [2, 2])
    # Pooled with image 1 (sum of squares 8): 10 / 2 = 5; alone: 2 / 1.
    assert found.scale[0] ** 2 == pytest.approx((4 * 5 + 2) / 5 * 1.5)
    assert same.scale[0] ** 2 == pytest.approx((4 * 2 + 2) / 5 * 1.5)
    assert predictive(signals[:1], seen[:1], np.ones(2, dtype=bool)) is None  # one model
    assert predictive(np.ones((3, 2)), seen, np.ones(2, dtype=bool)) is None  # no spread


def test_offline_lira_is_the_area_of_the_distribution_function():
    evidence = made_up(1.0)
    frame, phi = evidence.frame, evidence.unlearned.margin
    out = np.stack([m.margin for m in evidence.others])
    rows = frame.rows("forget") | frame.rows("test")
    squares = ((out - out.mean(axis=0)) ** 2).sum(axis=0)
    scale = np.sqrt((4 * squares[rows].mean() + squares) / 5 * 1.5)
    score = stats.t.cdf((phi - out.mean(axis=0)) / scale, df=5)
    won = count = 0.0
    for stratum in range(4):
        here = 2 * frame.sites + frame.labels == stratum
        member, other = score[here & frame.rows("forget")], score[here & frame.rows("test")]
        won += (member[:, None] > other).sum() + (member[:, None] == other).sum() / 2
        count += len(member) * len(other)
    assert value("mia_lira_auc", evidence) == pytest.approx(won / count, abs=1e-9)


def test_lira_with_shadows_that_saw_and_did_not_see_both_sides():
    """Shadows know what they saw better by 1, on top of how hard an image is; so does the model attacked.

    With the levels known exactly, phi - level is N(1, .25) or N(0, .25): area Phi(1 / sqrt(.5)) = .92.
    """
    rng = np.random.default_rng(4)
    evidence = made_up(0.0)
    frame, n = evidence.frame, len(evidence.frame.labels)
    level = 3 * rng.normal(size=n)

    def shadow(members):
        return Shadow(outputs(frame, level + members + 0.5 * rng.normal(size=n)), members)

    drawn = rng.random((32, n)) < 0.5
    shadows = tuple(shadow(members) for members in drawn)
    target = outputs(frame, level + frame.rows("forget") + 0.5 * rng.normal(size=n))
    attacked = replace(evidence, unlearned=target, shadows=shadows)
    assert value("mia_lira_auc", attacked) == pytest.approx(0.92, abs=0.05)
    assert value("mia_loss_auc", attacked) < 0.7
    # Shadows that never saw a held-out image leave the one-sided attack with those that did not see an image.
    never = tuple(shadow(members & frame.train) for members in drawn)
    assert value("mia_lira_auc", replace(attacked, shadows=never)) == pytest.approx(0.92, abs=0.05)


def test_online_lira_is_the_area_of_the_ratio_of_densities():
    """One hospital and label, so that the area is the ordinary one; every image was seen by three of six shadows."""
    rng = np.random.default_rng(6)
    frame = frame_of([(p, 0, 0, "forget" if p < 15 else "test") for p in range(40)])
    odds, phi = 2 * rng.normal(size=(6, 40)), 2 * rng.normal(size=40)
    members = np.stack([rng.permutation(6) < 3 for _ in range(40)], axis=1)
    shadows = tuple(Shadow(outputs(frame, o), m) for o, m in zip(odds, members, strict=True))

    def log_density(side):
        own = np.array([odds[side[:, i], i] for i in range(40)]).T  # (3, images)
        squares = ((own - own.mean(axis=0)) ** 2).sum(axis=0)
        scale = np.sqrt((4 * squares.sum() / (2 * 40) + squares) / 6 * (1 + 1 / 3))
        return stats.t.logpdf(phi, 6, own.mean(axis=0), scale)

    slow = roc_auc_score(frame.rows("forget"), log_density(members) - log_density(~members))
    evidence = replace(evidence_of(frame, phi), shadows=shadows)
    assert value("mia_lira_auc", evidence) == pytest.approx(slow, abs=1e-9)


def test_shadow_lira_leaves_out_images_with_too_few_shadows():
    frame = frame_of(SMALL)
    odds = np.random.default_rng(1).normal(size=(5, 5))
    members = (
        np.array([[1, 0, 1, 0, 1], [1, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 0]]) > 0
    )
    shadows = tuple(Shadow(outputs(frame, o), m) for o, m in zip(odds, members, strict=True))
    found = MEASURES["mia_lira_auc"].function(replace(evidence_of(frame, np.zeros(5)), shadows=shadows))
    assert found["all"].n == 2
    only_one = tuple(replace(s, members=s.members & (np.arange(5) != 1)) for s in shadows)
    found = MEASURES["mia_lira_auc"].function(replace(evidence_of(frame, np.zeros(5)), shadows=only_one))
    assert found["all"].n == 1  # image 1 was seen by none


def test_ulira_by_hand():
    """In*: 3, 5 and 1, 3 (means 4, 2); out: 0, 2 and 1, 3 (means 1, 2). All sums of squares are 2; v = 8 / (2 * 2) = 2.

    ((phi - m_out)^2 - (phi - m_in)^2) / 4: model, phi 4, 2: (9 - 0) / 4, 0. Retrained, phi 1, 9: -9/4, 0.
    Pairs: 9/4 beats both; 0 beats -9/4, ties with 0. (2 + 1.5) / 4.
    """
    frame = frame_of(SMALL)
    evidence = with_models(
        frame,
        [4, 2, 0, 0, 0],
        retrained=[1, 9, 0, 0, 0],
        siblings=[[3, 1, 0, 0, 0], [5, 3, 0, 0, 0]],
        others=[[0, 1, 0, 0, 0], [2, 3, 0, 0, 0]],
    )
    assert value("mia_ulira_auc", evidence) == 3.5 / 4


def test_ulira_with_more_retrained_models_than_siblings_by_hand():
    """In*: 3, 5 and 1, 3 (means 4, 2; sums of squares 2, 2). Out: 0, 1, 2, 1 and 1, 3, 1, 3 (means 1, 2; 2, 4).

    v = (2 + 2 + 2 + 4) / (2 (2 + 4 - 2)) = 5/4; times 2 (1 + 1/4) and 2 (1 + 1/2): 25/8 and 15/4.
    Model, phi 4, 3: 9 * 8/25 - 0 = 2.88, 8/25 - 4/15 = .053. Retrained, phi 1, 5: 0 - 9 * 4/15 = -2.4, (9 - 9) of
    different variances, 9 * 8/25 - 9 * 4/15 = .48. Pairs won: 2, 1 of two each.
    """
    frame = frame_of(SMALL)
    evidence = with_models(
        frame,
        [4, 3, 0, 0, 0],
        retrained=[1, 5, 0, 0, 0],
        siblings=[[3, 1, 0, 0, 0], [5, 3, 0, 0, 0]],
        others=[[0, 1, 0, 0, 0], [1, 3, 0, 0, 0], [2, 1, 0, 0, 0], [1, 3, 0, 0, 0]],
    )
    assert value("mia_ulira_auc", evidence) == 3 / 4
    assert value("mia_ulira_auc", replace(evidence, unlearned=evidence.retrained)) == 0.5


def test_ulira_of_the_retrained_model_is_one_half():
    evidence = made_up(2.0)
    same = replace(evidence, unlearned=evidence.retrained, siblings=evidence.others)
    assert value("mia_ulira_auc", same) == 0.5


# ------------------------------------------------------------------------------------------- completeness


def test_iam_is_that_of_the_loop_with_scipys_gumbel_distribution():
    evidence = made_up(1.0)
    rows = evidence.frame.rows("forget")

    def signal(model):
        return -np.log(0.01 - np.log(np.exp(-model.losses[rows]) + 1e-5))

    out = np.stack([signal(m) for m in evidence.others])
    alphas, total = np.linspace(0, 1, 100), np.zeros(rows.sum())
    for i in range(99):
        between = out + alphas[i] * (signal(evidence.original) - out)
        beta = np.sqrt(6) * between.std() / np.pi
        mode = between.mean(axis=0) - np.euler_gamma * beta
        total += alphas[i + 1] * stats.gumbel_r.cdf(signal(evidence.unlearned), mode, beta)
    assert value("iam_completeness", evidence) == pytest.approx((1 - total / alphas.sum()).mean(), abs=1e-9)


def test_iam_grows_from_the_original_over_the_retrained_to_the_damaged_model():
    evidence = made_up(0.0)
    models = (evidence.original, evidence.retrained, outputs(evidence.frame, np.full(600, -9.0)))
    values = [value("iam_completeness", replace(evidence, unlearned=m)) for m in models]
    assert values[0] + 0.1 < values[1] and values[1] + 0.1 < values[2] and values[2] > 0.98


def test_ulira_excess_is_of_the_images_to_forget_alone():
    """A model that is less sure of everything is told from retraining, but by held-out images as well."""
    plain = made_up(0.0, models=8)

    def shifted(one: Outputs) -> Outputs:
        return outputs(plain.frame, one.margin - 2.0)

    everywhere = replace(
        plain, unlearned=shifted(plain.unlearned), siblings=tuple(shifted(one) for one in plain.siblings)
    )
    assert value("mia_ulira_auc", everywhere) > 0.9
    assert value("mia_ulira_excess", everywhere) == pytest.approx(0.0, abs=0.05)
    leak = made_up(1.5, models=8)
    assert value("mia_ulira_excess", leak) == pytest.approx(value("mia_ulira_auc", leak) - 0.5, abs=0.1)
    assert value("mia_ulira_excess", leak) > 0.3
