"""The ladder of attacks: by hand, against slow versions, on leaks planted and on none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from fedunlearn.scoring import MEASURES
from fedunlearn.scoring.attacks import ATTACKS, BY_LOSS
from fedunlearn.scoring.classification import Outputs
from fedunlearn.scoring.ensembles import divergence, epsilon, points
from fedunlearn.scoring.evidence import Evidence, Frame, Shadow
from fedunlearn.scoring.likelihood import PRIOR, predictive
from fedunlearn.scoring.population import clopper_pearson, true_positives
from fedunlearn.scoring.segmentation import Overlaps
from tests.test_scoring_evidence import evidence_of, frame_of, random_images

L = np.log(3.0)  # log-odds of p = 3/4

# One hospital, one label: two patients to forget, two held out, one retained.
SMALL = [(p, 0, 0, part) for p, part in enumerate(["forget", "forget", "test", "test", "retain"])]


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    """Intervals do not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        yield


def outputs(frame: Frame, odds) -> Outputs:
    return evidence_of(frame, odds).unlearned


def with_models(
    frame: Frame, odds, original=None, retrained=None, others=(), originals=(), siblings=()
) -> Evidence[Outputs]:
    """Evidence whose references answer with these log-odds, (N,) or (models, N)."""
    model = evidence_of(frame, odds)
    return replace(
        model,
        original=model.original if original is None else outputs(frame, original),
        retrained=model.retrained if retrained is None else outputs(frame, retrained),
        others=tuple(outputs(frame, row) for row in others),
        originals=tuple(outputs(frame, row) for row in originals),
        siblings=tuple(outputs(frame, row) for row in siblings),
    )


def value(name: str, evidence: Evidence[Outputs], group: str = "all") -> float:
    return MEASURES[name].function(evidence)[group].value


def made_up(leak: float, seed: int = 0, models: int = 3) -> Evidence[Outputs]:
    """A model that knows images to forget better by ``leak`` than retrained ones do; some images are harder.

    A retrained model answers with the image's own level and a taste of its own; the original with 3 more if it was
    trained on it.
    """
    rng = np.random.default_rng(seed)
    parts = ("forget", "retain", "test")
    frame = frame_of([(p, p % 2, i % 2, parts[p // 40]) for p in range(120) for i in range(5)])
    level = 2 * rng.normal(size=len(frame.labels))

    def model(more: float):
        own = level + 0.5 * rng.normal(size=len(level))
        return own + np.where(frame.rows("retain"), 3.0, 0.0) + np.where(frame.rows("forget"), more, 0.0)

    return with_models(
        frame,
        model(leak),
        retrained=model(0),
        original=model(3),
        others=[model(0) for _ in range(models - 1)],
        originals=[model(3) for _ in range(models - 1)],
        siblings=[model(leak) for _ in range(models - 1)],
    )


AREAS = ("mia_loss_auc", "mia_lr_auc", "mia_rmia_auc", "mia_lira_auc", "mia_ulira_auc")


@pytest.mark.parametrize("name", AREAS)
def test_a_planted_leak_is_seen_and_none_where_there_is_none(name: str):
    """Without a leak, standard error sqrt((n1 + n2 + 1) / (12 n1 n2)) = .029 with 200 and 200 images; .09 is three."""
    assert value(name, made_up(0.0)) == pytest.approx(0.5, abs=0.09)
    assert value(name, made_up(3.0)) > 0.75


def test_reference_attacks_see_more_than_the_loss_alone():
    """How hard an image is spreads by 2, training on it moves it by 1: only who knows the former sees the latter.

    Loss: P(N(1, 2 (4 + .25)) > 0) = Phi(1 / 2.92) = .63. With two others, the image's level is known up to
    .5 sqrt(3/2): P(N(1, 2 * .25 * 3/2) > 0) = Phi(1 / .87) = .87. LiRA's scale is the same for all but for luck.
    """
    evidence = made_up(1.0)
    assert value("mia_loss_auc", evidence) == pytest.approx(0.63, abs=0.08)
    assert value("mia_lira_auc", evidence) == pytest.approx(0.87, abs=0.06)
    assert value("mia_rmia_auc", evidence) > value("mia_loss_auc", evidence) + 0.1


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6))
def test_attacks_do_not_depend_on_the_order_of_images(seed: int):
    """All but the SVC, whose examples are drawn by position: there, `reading` sorts the images first."""
    rng = np.random.default_rng(seed)
    images = random_images(rng, patients=12)
    logits = rng.normal(size=(9, len(images), 3))
    members = rng.random((6, len(images))) < 0.5

    def evidence(order):
        frame = frame_of([images[i] for i in order], classes=3)
        models = [Outputs(one[order], frame.labels) for one in logits]
        shadows = tuple(Shadow(m, s[order]) for m, s in zip(models[3:], members, strict=True))
        return replace(
            evidence_of(frame, logits[0][order]),
            original=models[1],
            retrained=models[2],
            others=tuple(models[3:5]),
            originals=tuple(models[5:7]),
            siblings=tuple(models[7:9]),
            shadows=shadows if seed % 2 else (),
        )

    straight, shuffled = evidence(np.arange(len(images))), evidence(rng.permutation(len(images)))
    for name in [m.name for m in ATTACKS if "svc" not in m.name]:
        one, other = (MEASURES[name].function(e) for e in (straight, shuffled))
        assert one.keys() == other.keys()
        for group, estimate in one.items():
            assert other[group].value == pytest.approx(estimate.value, abs=1e-9)
            assert other[group].interval() == pytest.approx(estimate.interval(), abs=1e-9, nan_ok=True)


def test_what_lacks_models_is_left_out():
    """One seed alone: no other, hence no attack that compares with others; the rest has a value."""
    evidence = replace(made_up(1.0), others=(), originals=(), siblings=())
    missing = {m.name for m in ATTACKS if not m.function(evidence)}
    assert missing == {
        *(m.name for m in ATTACKS if m.name.startswith(("klom", "forgetting"))),
        *("mia_rmia_auc", "mia_rmia_online_auc", "mia_rmia_tpr_at_1", "mia_rmia_tpr_at_01"),
        *("mia_lira_auc", "mia_ulira_auc", "iam_completeness", "mia_loss_tpr_at_01"),
    }
    two_seeds = made_up(1.0, models=2)
    assert value("mia_rmia_auc", two_seeds) and value("iam_completeness", two_seeds)
    assert not MEASURES["mia_lira_auc"].function(two_seeds)
    assert not MEASURES["mia_ulira_auc"].function(two_seeds)


def as_volumes(answers: Outputs) -> Overlaps:
    """Volumes of which nothing is known but the losses."""
    nothing, none = np.zeros((len(answers.losses), 2)), np.zeros(len(answers.losses))
    return Overlaps(nothing, nothing, nothing, None, answers.losses, none, none)


def of_volumes(evidence: Evidence[Outputs]) -> Evidence[Overlaps]:
    return Evidence(
        evidence.frame,
        as_volumes(evidence.original),
        as_volumes(evidence.retrained),
        as_volumes(evidence.unlearned),
        evidence.spent,
        evidence.retraining,
        evidence.seed,
        others=tuple(as_volumes(model) for model in evidence.others),
        originals=tuple(as_volumes(model) for model in evidence.originals),
        siblings=tuple(as_volumes(model) for model in evidence.siblings),
        shadows=tuple(Shadow(as_volumes(shadow.answers), shadow.members) for shadow in evidence.shadows),
    )


@pytest.mark.parametrize("pairs", [0, 3])
def test_volumes_with_the_losses_of_images_give_away_as_much(pairs: int):
    """By every attack but those of an SVC, with shadows and without."""
    images = made_up(1.0)
    members = np.random.default_rng(1).random((2 * pairs, len(images.frame.labels))) < 0.5
    models = (*images.others, *images.originals, *images.siblings)
    images = replace(images, shadows=tuple(map(Shadow, models, members)))
    volumes = of_volumes(images)
    for one in BY_LOSS:
        expected, found = one.function(images), one.function(volumes)
        assert found.keys() == expected.keys(), one.name
        for group, estimate in expected.items():
            assert found[group].value == pytest.approx(estimate.value, abs=1e-9), one.name
    svc = {f"mia_svc_{feature}" for feature in ("confidence", "correctness", "entropy", "m_entropy")}
    assert {m.name for m in ATTACKS} - {m.name for m in BY_LOSS} == svc


def test_the_margin_of_a_volume_by_hand_and_at_its_ends():
    """p = 3/4: log 3. Of no loss at all and of one that overflows exp, finite."""
    losses = np.array([-np.log(0.75), 0.0, 800.0])
    none = np.zeros(3)
    margin = Overlaps(none, none, none, None, losses, none, none).margin
    assert margin[0] == pytest.approx(L) and margin[2] == pytest.approx(-800.0)
    assert 700 < margin[1] < np.inf


# ------------------------------------------------------------------------------------------- population attacks


def test_entropies_by_hand():
    """p = (.5, .3, .2), true class 1: -sum p log p, and -(1 - .3) log .3 - .5 log(1 - .5) - .2 log(1 - .2)."""
    model = Outputs(np.log([[0.5, 0.3, 0.2]]), np.array([1]))
    log = np.log
    assert model.entropy[0] == pytest.approx(-(0.5 * log(0.5) + 0.3 * log(0.3) + 0.2 * log(0.2)), abs=1e-12)
    expected = -0.7 * log(0.3) - 0.5 * log(0.5) - 0.2 * log(0.8)
    assert model.modified_entropy[0] == pytest.approx(expected, abs=1e-12)


def test_modified_entropy_of_an_image_does_not_depend_on_its_batch():
    """What published code of that name gets wrong: alone and among others, the same number."""
    rng = np.random.default_rng(0)
    logits, labels = 5 * rng.normal(size=(50, 4)), rng.integers(4, size=50)
    batch = Outputs(logits, labels).modified_entropy
    alone = [Outputs(logits[[i]], labels[[i]]).modified_entropy[0] for i in range(50)]
    np.testing.assert_allclose(batch, alone, rtol=1e-12)


def test_modified_entropy_is_low_only_for_a_right_answer_given_with_confidence():
    """At odds e^50, each of the two terms is exp(-50) log(1 + exp(-50)) if right, and 50 if wrong."""
    right, wrong = Outputs(np.array([[50.0, 0.0], [0.0, 50.0]]), np.array([0, 0])).modified_entropy
    assert right == pytest.approx(2 * np.exp(-100), rel=1e-9, abs=0)
    assert wrong == pytest.approx(100.0, rel=1e-9)


def svc_frame() -> Frame:
    parts = np.repeat(["retain", "test", "forget"], [10, 10, 4])
    return frame_of([(p, 0, p % 2, str(part)) for p, part in enumerate(parts)])


def test_the_svc_on_correctness_says_one_minus_forget_accuracy():
    """All retained images are right, all test images wrong; of the four to forget one is right."""
    evidence = evidence_of(svc_frame(), np.repeat([L, -L, L, -L], [10, 10, 1, 3]))
    assert value("mia_svc_correctness", evidence) == 0.75 == 1 - value("forget_accuracy", evidence)


def test_the_svc_on_correctness_is_undefined_where_all_examples_are_right():
    evidence = evidence_of(svc_frame(), np.repeat([L, L / 2, -L], [10, 10, 4]))
    assert not MEASURES["mia_svc_correctness"].function(evidence)
    assert MEASURES["mia_svc_confidence"].function(evidence)


def test_only_the_svc_on_entropy_does_not_see_the_label():
    """Retained: right, sure. Test: right, unsure. To forget: wrong, as sure as the retained."""
    evidence = evidence_of(svc_frame(), np.repeat([6.0, 0.1, -6.0], [10, 10, 4]))
    assert value("mia_svc_entropy", evidence) == 0.0
    assert value("mia_svc_m_entropy", evidence) == 1.0


def test_the_regression_is_that_of_scikit_learn_cross_validated_by_patient():
    """One hospital and label, so that the area is the ordinary one."""
    rng = np.random.default_rng(2)
    frame = frame_of([(p, 0, 0, "forget" if p < 15 else "test") for p in range(40) for _ in range(3)])
    evidence = evidence_of(frame, rng.normal(size=120) + np.where(frame.rows("forget"), 1.0, 0.0))
    truth, loss = frame.rows("forget").astype(int), evidence.unlearned.losses[:, None]
    split = StratifiedGroupKFold(5)
    attack = LogisticRegression(class_weight="balanced")
    scores = cross_val_predict(
        attack, loss, truth, groups=frame.patients, cv=split, method="decision_function"
    )
    assert value("mia_lr_auc", evidence) == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)


def test_the_regression_finds_members_by_their_higher_loss_too():
    evidence = made_up(-4.0)
    assert value("mia_loss_auc", evidence) < 0.2
    assert value("mia_lr_auc", evidence) > 0.8


def test_the_regression_is_undefined_for_a_single_patient():
    frame = frame_of([(0, 0, 0, "forget"), (0, 0, 0, "forget"), (1, 0, 0, "test"), (2, 0, 0, "test")])
    assert not MEASURES["mia_lr_auc"].function(evidence_of(frame, [1.0, 2.0, 0.0, 1.0]))


# ------------------------------------------------------------------------------------------- true positive rates


def test_a_true_positive_rate_by_hand():
    """Held out 0 … 99: one of 100 may be accused, 99. So the threshold is 98, and 99 and 200 of four are found."""
    frame = frame_of([(p, 0, 0, "forget") for p in range(4)] + [(p, 0, 0, "test") for p in range(4, 104)])
    scores = np.concatenate([[98.0, 99.0, 200.0, 5.0], np.arange(100.0)])
    estimate = true_positives(frame, scores, 100)["all"]
    assert (estimate.value, estimate.n) == (0.5, 4)
    assert estimate.interval() == clopper_pearson(2, 4)
    assert not true_positives(frame, scores, 101)


def test_equal_scores_are_not_found():
    """All the same: whoever finds one member accuses all others."""
    frame = frame_of([(p, 0, 0, "forget") for p in range(4)] + [(p, 0, 0, "test") for p in range(4, 104)])
    assert true_positives(frame, np.zeros(104), 100)["all"].value == 0


@pytest.mark.parametrize(("k", "n"), [(0, 7), (7, 7), (3, 7), (40, 264)])
def test_the_interval_of_a_share_is_that_of_scipy(k: int, n: int):
    slow = stats.binomtest(k, n).proportion_ci(0.95, "exact")
    assert clopper_pearson(k, n) == pytest.approx((slow.low, slow.high), abs=1e-9)


# ------------------------------------------------------------------------------------------- reference attacks


def test_rmia_by_hand():
    """p_y .75 .5 | .75 .25 of the model, .5 .5 | .75 .25 of the other one; p(x) = .65 p_out + .35.

    LR: .75/.675 = 1.11, .5/.675 = .74 | .75/.8375 = .896, .25/.5125 = .488. Wins: 2 of 2, 1 of 2.
    """
    frame = frame_of(SMALL)
    evidence = with_models(frame, [L, 0, L, -L, 0], others=[[0, 0, L, -L, 0]])
    assert value("mia_rmia_auc", evidence) == 3 / 4
    # Online, p(x) = (p_in + p_out) / 2 with p_in = .75: .75/.625 = 1.2, .5/.625 = .8; held out as offline.
    online = replace(evidence, originals=(outputs(frame, np.full(5, L)),))
    assert value("mia_rmia_online_auc", online) == 3 / 4
    # With p_in = .25 for image 1: .5/.375 = 1.33, so that it wins both of its pairs.
    hard = replace(evidence, originals=(outputs(frame, [L, -L, L, -L, 0]),))
    assert value("mia_rmia_online_auc", hard) == 1.0


def test_rmia_is_the_area_of_the_share_of_population_images():
    """The paper's score, image by image, the mean of models in float64; ties are a half."""
    evidence = made_up(1.0)
    frame = evidence.frame
    p, out = (np.exp(-m.losses) for m in (evidence.unlearned, evidence.others[0]))
    out = (out + np.exp(-evidence.others[1].losses)) / 2
    ratio = p / (0.65 * out + 0.35)
    won = count = 0.0
    for site in (0, 1):
        for label in (0, 1):
            here = (frame.sites == site) & (frame.labels == label)
            z = ratio[here & frame.rows("test")]

            def score(x, z=z):
                return np.mean(x / z > 1) + np.mean(x == z) / 2

            member, other = ([score(x) for x in r] for r in (ratio[here & frame.rows("forget")], z))
            won += roc_auc_score(np.repeat([1, 0], [len(member), len(other)]), [*member, *other]) * (
                len(member) * len(other)
            )
            count += len(member) * len(other)
    assert value("mia_rmia_auc", evidence) == pytest.approx(won / count, abs=1e-9)


def test_rmia_of_surely_wrong_models_stays_finite():
    """p_y = exp(-900) is 0 in float64; its logarithm is not."""
    evidence = with_models(
        frame_of(SMALL), np.full(5, -900.0), others=[np.full(5, -900.0)], originals=[np.full(5, -900.0)]
    )
    assert value("mia_rmia_auc", evidence) == 0.5
    assert np.isfinite(value("mia_rmia_online_auc", evidence))


def test_the_difference_by_hand():
    """Before minus after: 3 - 1 = 2, 3 - 3 = 0 | 1 - 0 = 1, 0 - 0 = 0. Wins: 2, ½ of 2 each."""
    evidence = with_models(frame_of(SMALL), [1, 3, 0, 0, 9], original=[3, 3, 1, 0, 0])
    assert value("mia_difference_auc", evidence) == 2.5 / 4
    assert value("mia_difference_auc", replace(evidence, unlearned=evidence.original)) == 0.5


def test_leaving_shows_in_the_difference_even_after_retraining():
    evidence = made_up(0.0)
    assert value("mia_difference_auc", replace(evidence, unlearned=evidence.retrained)) > 0.9


# ------------------------------------------------------------------------------------------- likelihoods


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


# ------------------------------------------------------------------------------------------- ensembles


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
    monkeypatch.setattr("fedunlearn.scoring.ensembles.KLOM_MODELS", 3)
    slow = divergence(unlearned[:3], retrained[4:])
    assert value("klom_forget_p50", evidence) == pytest.approx(np.median(slow[:2]), abs=1e-9)
    assert value("klom_test_p95", evidence) == pytest.approx(np.percentile(slow[2:4], 95), abs=1e-9)
    assert value("klom_retain_p50", evidence) == pytest.approx(slow[4], abs=1e-9)
    monkeypatch.setattr("fedunlearn.scoring.ensembles.FEW_MODELS", 3)
    small = np.mean([points(epsilon(unlearned[:3, i], retrained[4:, i]), 3) for i in (0, 1)])
    assert value("forgetting_quality_small", evidence) == pytest.approx(small, abs=1e-9)
    assert not MEASURES["forgetting_quality"].function(evidence)
    monkeypatch.setattr("fedunlearn.scoring.ensembles.MANY_MODELS", 3)
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
