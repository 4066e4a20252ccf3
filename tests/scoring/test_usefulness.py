"""Still good? What a model must keep on unseen images, component by component."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedunlearn.scoring.evidence import Attribute, Bools, Estimate, Estimates, Frame
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.judgement.usefulness import Component, components, fewest, least_luck
from tests.scoring.test_evidence import frame_of

MARGINS = Margins(test=0.03, worst_hospital=0.05, class_recall=0.10)


def world(patients: int = 20) -> Frame:
    """Two hospitals with so many test patients each, every one with an image of either label."""
    rows = [(p, p % 2, label, "test") for p in range(2 * patients) for label in (0, 1)]
    frame = frame_of([*rows, (99, 0, 0, "forget"), (98, 0, 1, "retain")])
    return replace(frame, attributes={"class": Attribute(frame.labels, ("0", "1"))})


def qualities(values: Sequence[float], noise: float = 0.002, **groups: float) -> Sequence[Estimates]:
    """Models whose quality is ``values``, one each, everywhere but where a group is lower by so much."""
    names = ["all", "site=A", "site=B", "class=0", "class=1"]
    rng = np.random.default_rng(0)
    found = []
    for value in values:
        own = {name: value - groups.get(name.replace("=", "_"), 0.0) for name in names}
        found.append({n: Estimate(v, 40, v + noise * rng.normal(size=500)) for n, v in own.items()})
    return found


def judged(frame: Frame, models: Sequence[Estimates], further: Sequence[float] = ()) -> dict[str, Component]:
    retrained = qualities([0.80, 0.81, 0.79])
    found = components(frame, models, retrained, qualities(further), MARGINS)
    return {one.group: one for one in found}


def test_as_good_as_retraining_is_kept_everywhere():
    found = judged(world(), qualities([0.80, 0.81, 0.79]))
    assert list(found) == ["all", "site=A", "site=B", "class=0", "class=1"]
    assert all(one.kept and not one.worse for one in found.values())
    assert [one.margin for one in found.values()] == [0.03, 0.05, 0.05, 0.10, 0.10]
    assert found["all"].patients == 40
    assert found["site=A"].patients == 20


def test_better_is_kept_too():
    assert all(one.kept for one in judged(world(), qualities([0.95, 0.96, 0.94])).values())


def test_a_loss_beyond_the_margin_is_worse_there_and_nowhere_else():
    found = judged(world(), qualities([0.80, 0.81, 0.79], site_B=0.2, class_1=0.3))
    assert [one.group for one in found.values() if one.worse] == ["site=B", "class=1"]


def test_a_loss_within_the_margin_is_kept_if_surely_within_twice_of_it():
    found = judged(world(), qualities([0.775, 0.785, 0.765]))
    assert found["all"].kept  # .025 of .03; limit .025 + luck below .06
    assert not judged(world(), qualities([0.76, 0.77, 0.75]))["all"].kept  # .04


def test_where_trainings_differ_more_than_the_margin_nobody_can_tell():
    found = judged(world(), qualities([0.80, 0.95, 0.65]))
    assert not found["all"].kept
    assert not found["all"].worse
    assert "seeds" in found["all"].advice()


def test_one_bad_training_does_not_make_a_strategy_worse():
    found = judged(world(), qualities([0.80, 0.81, 0.40]))
    assert not any(one.worse for one in found.values())
    assert not found["all"].kept


def test_a_class_with_few_patients_cannot_be_told_and_says_how_many_could():
    """.8^n < .05 from n = 14 on: seven test patients cannot exclude that a fifth of the class is lost."""
    assert fewest(0.10) == 14
    assert 0.8**14 < 0.05 < 0.8**13
    found = judged(world(3), qualities([0.80, 0.81, 0.79]))
    assert not found["class=1"].kept
    assert found["class=1"].advice() == "6 test patients; 14 would tell"
    assert judged(world(7), qualities([0.80, 0.81, 0.79]))["class=1"].kept


def test_a_class_without_any_estimate_is_open():
    models = [
        {name: one for name, one in model.items() if name != "class=1"}
        for model in qualities([0.8, 0.81, 0.79])
    ]
    found = judged(world(), models)
    assert found["class=1"].difference is None
    assert not found["class=1"].kept
    assert not found["class=1"].worse


def test_a_single_seed_tells_nothing():
    found = components(world(), qualities([0.8]), qualities([0.8]), (), MARGINS)
    assert not any(one.kept or one.worse for one in found)


def test_further_retrained_models_count():
    found = judged(world(), qualities([0.80, 0.81, 0.79]), further=[0.80, 0.80, 0.81, 0.79, 0.8])
    one = found["all"].difference
    assert one is not None
    assert (one.seeds, one.references) == (3, 8)
    assert one.value == pytest.approx(0.0)


def test_honest_models_are_rarely_called_worse():
    """Holm over five components at 2 %: of 400 honest pairs of three and eight trainings, at most 2 % + 2 s.e."""
    rng = np.random.default_rng(1)
    frame, called = world(), 0
    for _ in range(400):

        def models(count: int) -> list[Estimates]:
            names = ["all", "site=A", "site=B", "class=0", "class=1"]
            return [
                {
                    n: Estimate(v := 0.8 + 0.1 * rng.normal(), 40, v + 0.001 * rng.normal(size=20))
                    for n in names
                }
                for _ in range(count)
            ]

        found = components(frame, models(3), models(3), models(5), MARGINS)
        called += any(one.worse for one in found)
    assert called / 400 <= 0.02 + 2 * math.sqrt(0.02 * 0.98 / 400)


RARE = Margins()
CLASSES, SITES, OF_EACH = 8, 3, 5


def small_groups() -> Frame:
    """Eight classes of five test patients, one image each, at three hospitals: all of a group may be recognised."""
    labels = np.repeat(np.arange(CLASSES), OF_EACH)
    frame = frame_of([(i, i % SITES, int(c), "test") for i, c in enumerate(labels)], classes=CLASSES)
    return replace(frame, attributes={"class": Attribute(frame.labels, tuple(map(str, range(CLASSES))))})


def accuracies(frame: Frame, recognised: Bools) -> list[Estimates]:
    """Models by the images that each recognises, (models, N). Other patients add no luck: replicates are equal."""
    return [
        {
            group: Estimate(value := float(right[rows].mean()), int(rows.sum()), np.full(2, value))
            for group, rows in frame.groups.items()
        }
        for right in recognised
    ]


@pytest.mark.parametrize("references", [3, 8])
def test_honest_models_are_not_worse_where_all_retrained_ones_agree(references):
    """Accuracy .92, of few images 1.000 in all retrained models: called worse in 2 % + 2 s.e. at most.

    A spread of 0 made one image less a finding with p = 0: of 200, 78 were worse with three references, 11 with eight.
    """
    rng, frame = np.random.default_rng(5), small_groups()
    called, agreed, draws = 0, 0, 200
    for _ in range(draws):
        wrong = np.where(rng.random(len(frame.labels)) < 0.8, 0.02, 0.3)
        models = accuracies(frame, rng.random((3 + references, len(wrong))) > wrong)
        found = components(frame, models[:3], models[3:6], models[6:], RARE)
        called += any(one.worse for one in found)
        apart = {one.group: one.difference for one in found if one.difference is not None}
        assert len(apart) == len(found) and all(one.null_spread > 0 for one in apart.values())
        alike = [group for group in apart if len({model[group].value for model in models[3:]}) == 1]
        agreed += any(apart[group].value < -apart[group].margin for group in alike)
    assert agreed > 0.03 * draws  # the case is there
    assert called / draws <= 0.02 + 2 * math.sqrt(0.02 * 0.98 / draws)


@pytest.mark.parametrize("references", [3, 8])
def test_a_rare_class_that_is_lost_is_worse(references):
    """Five patients, 0 instead of 1. Of three references, p = 15.5/31, s = .22, error .22 sqrt(1/2 + 1/3) without a
    seed: 4.9 of a normal deviate, p < 1e-6, times 12 components; of eight more."""
    frame = small_groups()
    right = np.ones((3 + references, len(frame.labels)), dtype=bool)
    right[:3, frame.labels == 0] = False
    models = accuracies(frame, right)
    found = {c.group: c for c in components(frame, models[:3], models[3:6], models[6:], RARE)}
    assert found["class=0"].worse
    assert not found["class=0"].kept
    assert not found["class=1"].worse


def test_a_spread_that_was_seen_is_left_as_it_is():
    (one, *_) = judged(world(), qualities([0.80, 0.81, 0.79])).values()
    assert one.difference is not None
    assert one.difference.null_spread == float(np.std([0.80, 0.81, 0.79], ddof=1))


def test_equal_values_that_rounding_sets_apart_are_equal():
    """The standard deviation of three times .8 is 1e-16, not 0; 40 patients each a coin of about .8."""
    assert np.std([0.8] * 3, ddof=1) > 0
    found = components(world(), qualities([0.8] * 3), qualities([0.8] * 3), (), MARGINS)
    assert found[0].difference is not None
    assert found[0].difference.null_spread == pytest.approx(math.sqrt(0.16 / 40), rel=0.01)


def test_least_luck_by_hand():
    """Four patients, two models, 1 and .5: (4 + 2 + .5) / 9 = 13/18; its binomial's deviation over 4."""
    assert least_luck([1.0, 0.5], 4) == pytest.approx(math.sqrt(13 / 18 * 5 / 18 / 4))
