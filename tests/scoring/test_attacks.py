"""The ladder of attacks: on leaks planted and on none; those on populations and references, by hand and slowly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import roc_auc_score

from fedunlearn.kinds.segmentation.evidence import Overlaps
from fedunlearn.scoring.attacks.ladder import ATTACKS, BY_LOSS
from fedunlearn.scoring.evidence import Evidence, Frame, Shadow
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.measures.catalogue import MEASURES
from tests.scoring.answers import SMALL, L, made_up, outputs, value, with_models
from tests.scoring.test_evidence import evidence_of, frame_of, random_images

pytestmark = pytest.mark.usefixtures("few_resamples")

AREAS = ("mia_loss_auc", "mia_lr_auc", "mia_quantile_auc", "mia_rmia_auc", "mia_lira_auc", "mia_ulira_auc")


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
        *("mia_quantile_auc", "mia_rmia_auc", "mia_rmia_tpr_at_1", "mia_rmia_tpr_at_01"),
        *("mia_lira_auc", "mia_ulira_auc", "mia_ulira_excess", "iam_completeness", "mia_loss_tpr_at_01"),
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


# ------------------------------------------------------------------------------------------- reference attacks


def test_rmia_by_hand():
    """p_y .75 .5 | .75 .25 of the model, .5 .5 | .75 .25 of the other one; p(x) = .65 p_out + .35.

    LR: .75/.675 = 1.11, .5/.675 = .74 | .75/.8375 = .896, .25/.5125 = .488. Wins: 2 of 2, 1 of 2.
    """
    frame = frame_of(SMALL)
    evidence = with_models(frame, [L, 0, L, -L, 0], others=[[0, 0, L, -L, 0]])
    assert value("mia_rmia_auc", evidence) == 3 / 4


def test_rmia_with_shadows_that_saw_both_sides_is_online():
    """p_y .75 .5 | .75 .25 of the model; p(x) = (p_in + p_out) / 2 of two shadows, one of which saw the image.

    p_in .75 .25 | .75 .5, p_out .5 .25 | .25 .25: p(x) = .625 .25 | .5 .375. LR: 1.2, 2 | 1.5, .67. Wins: 1 of 2, 2 of
    2. Whichever of the two it was: the second image to forget and the second held-out one were seen by the other.
    """
    frame = frame_of(SMALL)
    shadows = (
        Shadow(outputs(frame, [L, -L, L, -L, 0]), np.array([True, False, True, False, True])),
        Shadow(outputs(frame, [0, -L, -L, 0, 0]), np.array([False, True, False, True, False])),
    )
    evidence = replace(with_models(frame, [L, 0, L, -L, 0]), shadows=shadows)
    assert value("mia_rmia_auc", evidence) == 3 / 4
    # Nobody saw the second held-out image: it has no p_in, and is left out. Wins: 0 and 1 of one.
    never = (shadows[0], replace(shadows[1], members=np.array([False, True, False, False, False])))
    assert value("mia_rmia_auc", replace(evidence, shadows=never)) == 1 / 2


def test_rmia_with_shadows_that_saw_one_side_is_offline_with_as_many_of_them_for_each_image():
    """Of two shadows one saw each image to forget, none a held-out one: of these, the first counts.

    p_out .5 .25 | .75 .25; p(x) = .65 p_out + .35 = .675 .5125 | .8375 .5125. LR of p_y .75 .5 | .75 .25: 1.11, .976 |
    .896, .488: all won. The mean of both shadows would make it .65 * .5 + .35 = .675 of the first held-out image, and
    1.11 as well: half a pair less, and another one lost.
    """
    frame = frame_of(SMALL)
    shadows = (
        Shadow(outputs(frame, [L, -L, L, -L, 0]), np.array([True, False, False, False, True])),
        Shadow(outputs(frame, [0, L, -L, -L, 0]), np.array([False, True, False, False, False])),
    )
    evidence = replace(with_models(frame, [L, 0, L, -L, 0]), shadows=shadows)
    assert value("mia_rmia_auc", evidence) == 1.0
    # With others of other seeds as well: shadows come first.
    assert value("mia_rmia_auc", replace(evidence, others=(outputs(frame, np.full(5, -9.0)),))) == 1.0


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
    evidence = with_models(frame_of(SMALL), np.full(5, -900.0), others=[np.full(5, -900.0)])
    assert value("mia_rmia_auc", evidence) == 0.5
    shadow = evidence.others[0]
    members = np.array([[True] * 5, [False] * 5])
    online = replace(evidence, shadows=tuple(Shadow(shadow, seen) for seen in members))
    assert value("mia_rmia_auc", online) == 0.5


def test_the_difference_by_hand():
    """Before minus after: 3 - 1 = 2, 3 - 3 = 0 | 1 - 0 = 1, 0 - 0 = 0. Wins: 2, ½ of 2 each."""
    evidence = with_models(frame_of(SMALL), [1, 3, 0, 0, 9], original=[3, 3, 1, 0, 0])
    assert value("mia_difference_auc", evidence) == 2.5 / 4
    assert value("mia_difference_auc", replace(evidence, unlearned=evidence.original)) == 0.5


def test_leaving_shows_in_the_difference_even_after_retraining():
    evidence = made_up(0.0)
    assert value("mia_difference_auc", replace(evidence, unlearned=evidence.retrained)) > 0.9


def test_no_difference_from_retraining_counts_in_the_difference_of_two_models():
    """Models of one seed share a lineage, those of different seeds do not: honest retrainings are not comparable."""
    assert MEASURES["mia_difference_auc"].margin is None
