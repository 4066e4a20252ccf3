"""Memory left: scores of patients by hand and by a slow version, flags, intervals, one patient, power."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedunlearn.scoring.evidence import Floats, Frame
from fedunlearn.scoring.judgement.luck import Luck
from fedunlearn.scoring.judgement.memory import LEVEL, Noise, Scale, memory, recall, scale
from fedunlearn.scoring.judgement.patients import scores
from tests.scoring.test_evidence import frame_of

MARGIN = 0.25


def world(patients: int = 12, held_out: int = 13, images: int = 6, seed: int = 0) -> Frame:
    """One hospital, three labels."""
    rng = np.random.default_rng(seed)
    parts = [("forget", patients), ("test", held_out), ("retain", 3)]
    whose = [part for part, count in parts for _ in range(count)]
    return frame_of(
        [(p, 0, int(rng.integers(3)), part) for p, part in enumerate(whose) for _ in range(images)]
    )


def phis(
    frame: Frame, models: int, left: float | Floats = 0.0, seed: int = 0, shift: float = 0.0
) -> list[Floats]:
    """Margins of models that know ``left`` (by patient code, or of all) of the images to forget; memory is 3 nats."""
    rng = np.random.default_rng(seed)
    level = np.random.default_rng(99).normal(0, 4, len(frame.patients))
    people = frame.patients.max() + 1
    share = np.resize(left, people)[frame.patients] * frame.rows("forget")
    return [
        level + shift + 3 * share + rng.normal(0, 0.5, people)[frame.patients] + rng.normal(0, 1, len(level))
        for _ in range(models)
    ]


def ruler(frame: Frame, references: int = 8, seeds: int = 3) -> Scale:
    found = scale(frame, phis(frame, references, seed=1), phis(frame, seeds, 1.0, seed=2))
    assert found is not None
    return found


def slow(frame: Frame, phi: Floats, patient: int, rows: np.ndarray, held_out: np.ndarray) -> float:
    """A patient's score, image by image."""
    others = held_out & (frame.patients != patient)
    apart = []
    for i in np.flatnonzero(rows & (frame.patients == patient)):
        alike = others & (frame.sites == frame.sites[i]) & (frame.labels == frame.labels[i])
        near = others & (frame.sites == frame.sites[i])
        apart.append(phi[i] - phi[alike if alike.any() else near].mean())
    return float(np.mean(apart))


def test_scores_by_hand():
    """To forget: 5 (label 0) and 2 (label 1). Held out at the hospital: label 0: 1 and 3, mean 2; none of label 1.

    So the first image is 5 - 2 = 3 above, the second is compared with all held-out ones: 2 - 2 = 0; mean 1.5.
    The held-out patients, each against the other: 1 - 3 and 3 - 1. A held-out image elsewhere takes no part.
    """
    frame = frame_of(
        [(0, 0, 0, "forget"), (0, 0, 1, "forget"), (1, 0, 0, "test"), (2, 0, 0, "test"), (3, 1, 0, "test")]
    )
    phi = np.array([[5.0, 2.0, 1.0, 3.0, 100.0]])
    patients, own, images, (others, counts) = scores(frame, phi, np.ones(5, dtype=bool))
    assert patients.tolist() == [0]
    assert own.tolist() == [[1.5]]
    assert others.tolist() == [[-2.0, 2.0]]
    assert images.tolist() == [2]
    assert counts.tolist() == [1, 1]


def test_scores_are_what_a_slow_version_finds():
    frame = world()
    phi = np.stack(phis(frame, 2, 0.7))
    patients, own, _, (others, _) = scores(frame, phi, np.ones(len(frame.patients), dtype=bool))
    held_out = frame.rows("test")
    for model in (0, 1):
        expected = [slow(frame, phi[model], p, frame.rows("forget"), held_out) for p in patients]
        assert own[model] == pytest.approx(expected)
        strangers = [
            slow(frame, phi[model], p, held_out, held_out) for p in np.unique(frame.patients[held_out])
        ]
        assert others[model] == pytest.approx(strangers)


def test_a_model_that_is_surer_of_everything_remembers_nothing():
    frame = world()
    plain, surer = (
        scores(frame, np.stack(phis(frame, 1, shift=s)), frame.patients >= 0)[1] for s in (0.0, 5.0)
    )
    assert plain == pytest.approx(surer)


def test_the_original_has_all_of_its_memory_and_a_retrained_model_none():
    one = ruler(world())
    same = memory(one, one.original, MARGIN)
    assert same.mean.left == pytest.approx(1.0, abs=1e-6)
    assert (same.remembered | same.suspected).all()
    assert same.remembered.mean() > 0.8
    again = recall(world(), one, phis(world(), 3, seed=3), MARGIN)
    assert not again.flagged.any()
    low, high = again.mean.interval()
    assert low < 0 < high < 2 * MARGIN  # as a yes asks
    assert one.visible


def test_one_patient_remembered_whole_is_flagged_and_no_other():
    frame, left = world(), np.zeros(30)
    left[4] = 1.0
    found = recall(frame, ruler(frame), phis(frame, 8, left, seed=3), MARGIN)
    assert found.patients[found.remembered].tolist() == [4]
    assert found.left[found.remembered][0] == pytest.approx(1.0, abs=0.35)
    assert found.mean.left < MARGIN


def test_a_patient_overdone_is_flagged_on_the_other_side():
    frame, left = world(), np.zeros(30)
    left[7] = -1.0
    found = recall(frame, ruler(frame), phis(frame, 3, left, seed=3), MARGIN)
    assert found.patients[found.overdone].tolist() == [7]


def test_what_rests_on_a_single_training_is_suspected_only():
    frame = world()
    models = phis(frame, 3, seed=3)
    rows = frame.rows("forget") & (frame.patients == 4)
    models[1] = models[1] + 12.0 * rows
    found = recall(frame, ruler(frame), models, MARGIN)
    assert not found.flagged.any()
    assert found.patients[found.suspected].tolist() == [4]


def test_a_request_of_one_patient_is_answered():
    """3 nats of memory, luck .5 + 1/6 images: .65; error .65 √(1/8 + 1/8) = .32: seen in nearly all of 40 draws."""
    found, alarms = 0, 0
    for draw in range(40):
        frame = world(1, seed=draw)
        of = scale(frame, phis(frame, 8, seed=100 + draw), phis(frame, 8, 1.0, seed=200 + draw))
        assert of is not None
        found += bool(recall(frame, of, phis(frame, 8, 1.0, seed=300 + draw), MARGIN).remembered.any())
        alarms += bool(recall(frame, of, phis(frame, 8, seed=400 + draw), MARGIN).flagged.any())
    assert found >= 38
    assert alarms <= 3


def test_intervals_hold_the_truth():
    """The 95 % interval of the mean memory of 200 honest pairs of trainings with half of it left: 95 % ± 2 s.e."""
    inside = []
    for draw in range(200):
        frame = world(6, 8, 3, seed=draw)
        of = scale(frame, phis(frame, 6, seed=1000 + draw), phis(frame, 3, 1.0, seed=2000 + draw))
        assert of is not None
        low, high = recall(frame, of, phis(frame, 3, 0.5, seed=3000 + draw), MARGIN).mean.interval()
        inside.append(low <= 0.5 <= high)
    assert np.mean(inside) >= 0.92


def plain(luck: float = 0.01, patients: int = 1) -> Scale:
    """Eight retrained models at 0, three original ones at 1, and luck of that variance, known with 7 degrees."""
    return Scale(
        asked=np.ones(1, dtype=bool),
        patients=np.arange(patients),
        retrained=np.zeros((8, patients)),
        original=np.ones((3, patients)),
        luck=Luck(np.full(patients, luck), 7.0),
        noise=Noise(luck, 7.0),
        images=np.full(patients, 6),
        level=LEVEL,
        unusual=np.ones(8),
    )


def test_models_that_differ_more_than_luck_are_known_with_their_own_degrees_of_freedom():
    """One patient, of whom they know 0, .3 and .6: variance .09, mean .3.

    .09/3 with 2 degrees, and .01 (.7²/8 + .3²/3) = .0009125 with 7: together .0309125, with
    .0309125² / (.03²/2 + .0009125²/7) = 2.12296. Of one patient, the mean is the patient.
    """
    found = memory(plain(), np.array([[0.0], [0.3], [0.6]]), MARGIN)
    assert found.mean.error**2 == pytest.approx(0.0309125)
    assert found.mean.freedom == pytest.approx(2.12296, abs=1e-5)
    half = stats.t(found.mean.freedom).ppf(0.975) * found.mean.error
    assert found.mean.interval() == pytest.approx((0.3 - half, 0.3 + half))
    beyond = (0.5 - 0.3) / found.mean.error
    assert found.mean.p_within(0.5) == pytest.approx(stats.t(found.mean.freedom).sf(beyond))
    assert (found.low[0], found.high[0]) == pytest.approx((0.3 - half, 0.3 + half))


@pytest.mark.parametrize("models", [[0.21, 0.3, 0.39], [0.3, 0.3, 0.3]])
def test_models_that_differ_no_more_than_luck_are_known_by_both(models: list[float]):
    """Their variance is .0081, or 0, with 2 degrees, and luck's .01 with 7: together (2 x .0081 + 7 x .01) / 9, with 9.

    That is taken (1/3 + .7²/8 + .3²/3) times, of the mean and of the one patient. "Nothing is left" is tested by luck.
    """
    found = memory(plain(), np.array(models)[:, None], MARGIN)
    both = (2 * np.var(models, ddof=1) + 7 * 0.01) / 9
    assert found.mean.error**2 == pytest.approx(both * (1 / 3 + 0.49 / 8 + 0.09 / 3))
    assert (found.mean.freedom, found.mean.null_freedom) == (9.0, 7.0)
    assert found.high[0] - 0.3 == pytest.approx(stats.t(9).ppf(0.975) * found.mean.error)


def test_what_all_patients_have_in_common_is_no_better_known_for_their_number():
    """Forty patients. Where all go up and down together, there are three numbers: as of one patient, above.

    Where each goes its own way (sd .3, about the mean 0), all forty tell of the same variance: 1.96 √(.09/3 + .01/8).
    """
    alike = np.tile([[0.0], [0.3], [0.6]], 40)
    apart = np.random.default_rng(4).normal(0, 0.3, (3, 40))
    wide, narrow = (
        memory(plain(patients=40), of, MARGIN) for of in (alike, apart - apart.mean(1, keepdims=True))
    )
    half = stats.t(2.12296).ppf(0.975) * np.sqrt(0.0309125)
    assert (wide.high - wide.low) / 2 == pytest.approx(half, rel=1e-4)
    assert (narrow.high - narrow.low).mean() / 2 == pytest.approx(1.96 * np.sqrt(0.03125), rel=0.15)


def test_other_patients_are_less_certain_than_these():
    frame = world()
    left = np.tile([0.0, 1.0], 20)
    mean = recall(frame, ruler(frame), phis(frame, 3, left, seed=3), MARGIN).mean
    fixed, others = mean.interval(), mean.interval(others=True)
    assert others[0] < fixed[0] < fixed[1] < others[1]
    single = recall(world(1), ruler(world(1)), phis(world(1), 3, seed=3), MARGIN).mean
    assert np.isnan(single.interval(others=True)).all()


def test_power_is_the_share_of_runs_in_which_a_patient_shows():
    """One patient remembered whole, in 60 draws: flagged or suspected as often as promised, within .15."""
    frame, promised, seen = world(6, 10, 2), [], []
    left = np.zeros(30)
    left[0] = 1.0
    for draw in range(60):
        of = scale(frame, phis(frame, 8, seed=5000 + draw), phis(frame, 3, 1.0, seed=6000 + draw))
        assert of is not None
        found = recall(frame, of, phis(frame, 3, left, seed=7000 + draw), 0.0)
        promised.append(of.power(3))
        seen.append((found.remembered | found.suspected)[0])
    assert np.mean(seen) == pytest.approx(np.mean(promised), abs=0.15)


def test_tests_are_students_with_the_variance_of_retrained_models():
    """With the luck known for certain, t is the difference over ``s √(1/K + 1/M)``, and p is two-sided."""
    of = ruler(world())
    models = of.original[:2]
    found = memory(of, models, MARGIN)
    error = np.sqrt(of.luck.variance * (1 / 2 + 1 / 8))
    t = (models.mean(axis=0) - of.retrained.mean(axis=0)) / error
    assert found.p == pytest.approx(2 * stats.t(of.luck.freedom).sf(np.abs(t)), rel=1e-6)
    assert (found.remembered <= (t > stats.t(of.luck.freedom).ppf(1 - LEVEL / 12))).all()


def test_an_unusual_training_stands_out():
    frame = world()
    retrained = phis(frame, 8, seed=1)
    retrained[5] = retrained[5] + np.random.default_rng(8).normal(0, 3, len(retrained[5]))
    of = scale(frame, retrained, phis(frame, 3, 1.0, seed=2))
    assert of is not None
    assert of.unusual.argmax() == 5
    assert of.unusual[5] > 3 > np.delete(of.unusual, 5).max()


def test_what_cannot_be_compared_has_no_scale():
    frame = world()
    assert scale(frame, phis(frame, 1), phis(frame, 1, 1.0)) is None
    alone = replace(frame, test=np.zeros(len(frame.test), dtype=bool))
    assert scale(alone, phis(frame, 3), phis(frame, 3, 1.0)) is None


def elsewhere(*parts: str) -> Frame:
    """`world`, and of the first patient of these parts one image more, at a hospital that has no other images."""
    frame = world()
    rows = zip(frame.patients.tolist(), frame.sites.tolist(), frame.labels.tolist(), strict=True)
    whose = np.select([frame.rows("forget"), frame.test], ["forget", "test"], "retain").tolist()
    images = [(*row, part) for row, part in zip(rows, whose, strict=True)]
    return frame_of([*images, *((images[whose.index(part)][0], 1, 0, part) for part in parts)])


def test_a_patient_is_judged_by_the_images_that_can_be_compared():
    """Seven images, one where nobody is held out, and all remembered: the patient was left out, and nobody flagged."""
    frame = elsewhere("forget")
    of = ruler(frame)
    assert of.images.tolist() == [6] * 12
    found = recall(frame, of, phis(frame, 3, left=np.arange(len(frame.patients)) == 0, seed=3), MARGIN)
    assert found.patients.tolist() == list(range(12))
    assert np.flatnonzero(found.remembered).tolist() == [0]


def test_what_cannot_be_compared_changes_no_number():
    """To the last bit, as if nobody had asked about it."""
    frame = elsewhere("forget")
    phi = np.stack(phis(frame, 4))
    found, as_if = (scores(frame, phi, asked) for asked in (frame.sites >= 0, frame.sites == 0))
    for one, other in zip([*found[:3], *found[3]], [*as_if[:3], *as_if[3]], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_held_out_image_that_has_only_its_own_patient_to_compare_changes_no_number_of_strangers():
    frame = elsewhere("forget", "test")
    phi = np.stack(phis(frame, 4))
    found, as_if = (scores(frame, phi, asked) for asked in (frame.sites >= 0, frame.sites == 0))
    assert found[2].tolist() == [7] + [6] * 11  # it is what the one to forget is compared with
    assert found[3][1].tolist() == [6] * 13
    np.testing.assert_array_equal(found[3][0], as_if[3][0])


def test_a_patient_without_any_image_to_compare_is_left_out():
    rows = [(p, 0, 0, "forget") for p in range(3)] + [(p, 0, 0, "test") for p in range(10, 20)]
    frame = frame_of([*rows, (7, 1, 0, "forget"), (7, 1, 0, "forget")])
    patients, own, images, _ = scores(frame, np.stack(phis(frame, 3)), frame.patients >= 0)
    assert patients.tolist() == [0, 1, 2, 7]
    assert np.isnan(own[:, 3]).all()
    assert images.tolist() == [1, 1, 1, 0]
    assert ruler(frame).patients.tolist() == [0, 1, 2]


def test_an_answer_that_is_no_number_is_not_left_out_of_the_mean():
    frame = elsewhere("forget")
    phi = np.stack(phis(frame, 1))
    phi[0, 0] = np.nan
    assert np.isnan(scores(frame, phi, frame.patients >= 0)[1][0, 0])


def test_images_that_nobody_asked_about_take_no_part():
    frame = world()
    blind = [np.where(np.arange(len(p)) % 2, p, np.nan) for p in phis(frame, 4)]
    of = scale(
        frame, blind, [np.where(np.arange(len(p)) % 2, p, np.nan) for p in phis(frame, 3, 1.0, seed=2)]
    )
    assert of is not None
    assert of.images.tolist() == [3] * 12
    assert np.isfinite(of.retrained).all()


def test_without_memory_in_the_original_nothing_is_visible():
    frame = world()
    of = scale(frame, phis(frame, 8, seed=1), phis(frame, 3, 0.0, seed=2))
    assert of is not None
    assert not of.visible
