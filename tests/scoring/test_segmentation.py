"""The measures of volumes by hand, against two slow lines, and what verdicts make of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fedunlearn.core import RunError
from fedunlearn.core.kinds import kinds
from fedunlearn.kinds.segmentation.evidence import Overlaps, overlaps
from fedunlearn.scoring.evidence import Estimates, Evidence, Frame
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.judgement.bias import gaps
from fedunlearn.scoring.judgement.usefulness import components
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.measures.catalogue import measures_of
from fedunlearn.scoring.measuring import measure
from tests.scoring.test_evidence import NOTHING, frame_of

MEASURES = measures_of("segmentation")
DICE = MEASURES["test_dice"]

# One volume of each patient, of no label. A forgets patient 0; 1 and 2 stay; 3 and 4 are held out.
IMAGES = [
    (0, 0, -1, "forget"),
    (1, 0, -1, "retain"),
    (2, 1, -1, "retain"),
    (3, 0, -1, "test"),
    (4, 1, -1, "test"),
]
# By volume and class (background, 1, 2): |P and G|, |P|, |G| of 100 voxels.
INTERSECTION = [[80, 4, 2], [80, 10, 5], [90, 6, 0], [80, 5, 0], [85, 3, 0]]
PREDICTED = [[88, 8, 4], [80, 12, 8], [94, 6, 0], [85, 10, 5], [95, 5, 0]]
TRUE = [[84, 12, 4], [85, 10, 5], [90, 10, 0], [90, 10, 0], [85, 7, 8]]
# Voxels between surfaces: class 2 of patient 2 is in neither, those of 3 and 4 are in one only, a diagonal of 20.
SURFACE = [[0, 2, 1], [0, 0.5, 1.5], [0, 3, 0], [0, 1, 20], [0, 2, 20]]


def answers(losses=(0.1, 0.2, 0.3, 0.4, 0.5), mae=(0.0, 0.1, 0.2, 0.3, 0.4), soft=(0.5, 0.4, 0.3, 0.2, 0.1)):
    counts = (np.array(x, dtype=np.float64) for x in (INTERSECTION, PREDICTED, TRUE, SURFACE))
    return Overlaps(*counts, *(np.array(x) for x in (losses, mae, soft)))


def evidence(answers: Overlaps, frame: Frame | None = None) -> Evidence[Overlaps]:
    return Evidence(frame or frame_of(IMAGES, 3), answers, answers, answers, NOTHING, NOTHING, 0)


def value(name: str, group: str = "all") -> float:
    return measure(evidence(answers()), MEASURES, None)[name][group].value


def test_a_structure_is_told_of_the_volumes_whose_labels_have_it():
    """A false alarm of class 2 in patient 3 does not count, a miss in patient 4 does; nor does any model change it."""
    found = measure(evidence(answers()), MEASURES, None)["test_dice"]
    assert found["class=1"].having is not None
    assert found["class=2"].having is not None
    assert found["class=1"].having.tolist() == [True] * 5
    assert found["class=2"].having.tolist() == [True, True, False, False, True]
    assert found["all"].having is None


def test_a_structure_that_two_patients_have_is_not_told_by_all():
    """Thirty test volumes, all segmented as by retraining; class 2 is in two: nobody can tell whether it was lost."""
    volumes = 30
    frame = frame_of([(i, i % 2, -1, "test") for i in range(volumes)] + [(99, 0, -1, "forget")], 3)
    true = np.tile([80.0, 10.0, 10.0], (volumes + 1, 1))
    true[2:, 2] = 0
    nothing = np.zeros(volumes + 1)

    def dice(seed: int) -> Estimates:
        right = true * np.random.default_rng(seed).uniform(0.88, 0.92, true.shape)
        return DICE.function(evidence(Overlaps(right, true, true, None, nothing, nothing, nothing), frame))

    models = [dice(seed) for seed in range(11)]
    found = {one.group: one for one in components(frame, models[:3], models[3:6], models[6:], Margins())}
    assert (found["class=2"].patients, found["class=2"].images) == (2, 2)
    assert found["class=2"].difference is not None
    assert found["class=2"].difference.patients == 2
    assert not found["class=2"].kept
    assert found["class=2"].advice() == "2 test patients; 14 would tell"
    assert found["class=1"].patients == volumes
    assert found["class=1"].kept


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        # Class 1: 2 * 4 / (8 + 12) = .4; class 2: 2 * 2 / (4 + 4) = .5.
        ("forget_dice", "all", 0.45),
        # Class 1: 20 / 22 and 12 / 16; class 2: 10 / 13 of patient 1 alone, since patient 2 has it in neither.
        ("retain_dice", "all", ((20 / 22 + 12 / 16) / 2 + 10 / 13) / 2),
        ("retain_dice", "site=B", 12 / 16),
        # Class 1: 10 / 20 and 6 / 12; class 2: a false alarm and a miss, both 0.
        ("test_dice", "all", 0.25),
        ("forget_dice", "class=1", 0.4),
        ("retain_dice", "class=2", 10 / 13),
        ("test_surface_distance", "class=1", 1.5),
        ("dice_gap", "class=2", 10 / 13 - 0.5),
        ("forget_surface_distance", "all", 1.5),
        # Class 1: .5 and 3; class 2: of patient 1 alone.
        ("retain_surface_distance", "all", (1.75 + 1.5) / 2),
        ("retain_surface_distance", "site=B", 3.0),
        ("test_surface_distance", "all", (1.5 + 20) / 2),
        ("dice_gap", "all", ((20 / 22 + 12 / 16) / 2 + 10 / 13) / 2 - 0.45),
        ("retain_voxel_loss", "all", 0.25),
        ("forget_mae", "all", 0.0),
        ("test_mae", "all", 0.35),
        ("mae_gap", "all", 0.0 - 0.15),
        ("retain_soft_mae", "all", 0.35),
        ("mia_loss_auc", "all", 1.0),  # .1 of the volume to forget < .4 of the held-out one of its hospital
    ],
)
def test_measures_by_hand(name: str, group: str, expected: float):
    assert value(name, group) == pytest.approx(expected, abs=1e-12)


def test_gaps_are_left_out_where_nothing_is_forgotten():
    found = measure(evidence(answers()), MEASURES, None)
    assert set(found["mae_gap"]) == {"all", "site=A"}
    assert set(found["dice_gap"]) == {"all", "site=A", "class=1", "class=2"}
    assert found["dice_gap"]["all"].n == 3


def test_the_mean_of_the_classes_is_the_mean_over_classes():
    frame, found, _ = random_volumes(np.random.default_rng(4))
    for name in ("test_dice", "test_surface_distance"):
        estimates = MEASURES[name].function(evidence(found, frame))
        each = [estimates[f"class={c}"] for c in (1, 2, 3)]
        assert np.mean([one.value for one in each]) == pytest.approx(estimates["all"].value, abs=1e-12)
        drawn = np.mean([one.replicates for one in each], axis=0)
        assert np.allclose(drawn, estimates["all"].replicates, atol=1e-12)


def test_a_class_that_does_not_occur_and_the_only_class_form_no_group():
    found = evidence(
        replace(answers(), predicted=np.array(TRUE) * [1, 1, 0], true=np.array(TRUE) * [1, 1, 0])
    )
    assert set(MEASURES["retain_dice"].function(found)) == {"all", "site=A", "site=B", "class=1"}
    one = {name: x[:, :2] if x.ndim == 2 else x for name, x in vars(answers()).items()}
    found = evidence(Overlaps(**one), frame_of(IMAGES, 2))
    assert set(MEASURES["retain_dice"].function(found)) == {"all", "site=A", "site=B"}


def test_unequal_treatment_is_of_patients_not_of_classes():
    frame, found, _ = random_volumes(np.random.default_rng(5), 200)
    measured = measure(evidence(found, frame), MEASURES, None)
    assert any(group.startswith("class=") for group in measured["retain_dice"])
    apart = gaps(frame, scored("segmentation").biased, measured, measured)
    assert set(apart) == {"forget_dice", "mia_loss_auc", "retain_dice", "test_dice"}
    assert set(apart["retain_dice"].values) == {"site=A", "site=B", "site=C"}


def test_dice_is_undefined_where_no_class_occurs():
    """Background alone, for model and labels: no number instead of a 0 or a 1."""
    nothing = np.tile([100.0, 0.0, 0.0], (5, 1))
    found = evidence(replace(answers(), intersection=nothing, predicted=nothing, true=nothing))
    assert np.isnan(MEASURES["forget_dice"].function(found)["all"].value)


def test_the_distance_from_the_retrained_model_by_hand():
    """Dice .1 lower on forget, .2 higher on retain, the same on test: 10 points in the mean of 10, 20 and 0."""
    own = measure(evidence(answers()), MEASURES, None)
    by = {"forget_dice": 0.1, "retain_dice": -0.2, "test_dice": 0.0}
    other = {
        name: {group: replace(e, value=e.value + by.get(name, 0.0)) for group, e in estimates.items()}
        for name, estimates in own.items()
    }
    distance = MEASURES["avg_dice_gap"].function
    assert distance(replace(evidence(answers()), measured=own, reference=own))["all"].value == 0
    found = distance(replace(evidence(answers()), measured=own, reference=other))["all"]
    assert found.value == pytest.approx(10.0)
    assert found.n == 5


def random_volumes(rng: np.random.Generator, n: int = 40, classes: int = 4) -> tuple[Frame, Overlaps, list]:
    part = rng.choice(["forget", "retain", "test"], size=n)
    frame = frame_of([(i // 2, i // 2 % 3, -1, str(part[i // 2])) for i in range(n)], classes)
    maps = [(rng.integers(classes, size=60), rng.integers(classes, size=60)) for _ in range(n)]
    counts = np.array(
        [
            [[((p == c) & (g == c)).sum(), (p == c).sum(), (g == c).sum()] for c in range(classes)]
            for p, g in maps
        ],
        dtype=np.float64,
    )
    surface = 9 * rng.random((n, classes))
    numbers = (rng.random(n) for _ in range(3))
    return frame, Overlaps(counts[..., 0], counts[..., 1], counts[..., 2], surface, *numbers), maps


def test_dice_is_that_of_scikit_learn():
    """Dice of two sets is their F1 score."""
    from sklearn.metrics import f1_score

    frame, found, maps = random_volumes(np.random.default_rng(0))
    rows = np.flatnonzero(frame.rows("retain"))
    slow = np.mean([f1_score(maps[i][1], maps[i][0], labels=[1, 2, 3], average="macro") for i in rows])
    assert MEASURES["retain_dice"].function(evidence(found, frame))["all"].value == pytest.approx(
        slow, abs=1e-9
    )


def test_values_do_not_depend_on_the_order_of_volumes():
    frame, found, _ = random_volumes(np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(len(frame.patients))
    moved = Overlaps(*(x[order] for x in vars(found).values()))
    arrays = ("patients", "sites", "labels", "train", "test", "forgotten", "gone")
    turned = replace(frame, **{name: getattr(frame, name)[order] for name in arrays})
    straight = measure(evidence(found, frame), MEASURES, None)
    shuffled = measure(evidence(moved, turned), MEASURES, None)
    for name, estimates in straight.items():
        for group, estimate in estimates.items():
            assert shuffled[name][group].value == pytest.approx(estimate.value, abs=1e-9)
            assert shuffled[name][group].interval() == pytest.approx(
                estimate.interval(), abs=1e-9, nan_ok=True
            )


def test_the_interval_of_a_gap_is_that_of_a_difference():
    """Of independent patients: its variance is the sum of both, to within what 2000 draws allow."""
    found = measure(evidence(*reversed(random_volumes(np.random.default_rng(3), 200)[:2])), MEASURES, None)
    parts = [found[name]["all"].replicates.var() for name in ("retain_dice", "forget_dice")]
    assert found["dice_gap"]["all"].replicates.var() == pytest.approx(sum(parts), rel=0.15)


def table(found: Overlaps) -> pd.DataFrame:
    columns = {
        f"{name}_{c}": getattr(found, name)[:, c]
        for name in ("intersection", "predicted", "true", "surface")
        for c in range(3)
    }
    return pd.DataFrame({**columns, "loss_0": found.losses, "mae_0": found.mae, "soft_mae_0": found.soft_mae})


def test_signals_are_read_as_they_were_written():
    read = overlaps(table(answers()), frame_of(IMAGES, 3), "file")
    for name, x in vars(answers()).items():
        assert np.array_equal(getattr(read, name), x)
    assert read.finite
    assert not overlaps(table(answers(losses=[np.nan] * 5)), frame_of(IMAGES, 3), "file").finite


def test_other_columns_are_refused():
    with pytest.raises(RunError, match=r"file has columns .* expected"):
        overlaps(table(answers()).drop(columns="mae_0"), frame_of(IMAGES, 3), "file")
    with pytest.raises(RunError, match="intersection_3"):
        overlaps(table(answers()), frame_of(IMAGES, 4), "file")


def test_predictions_dealt_to_other_volumes_overlap_by_chance():
    """Of the five volumes each keeps its labels, and P |G| / 100 voxels of the class agree."""
    mixed = answers().mixed_up(np.random.default_rng(0))
    assert np.array_equal(mixed.true, answers().true)
    assert np.array_equal(np.sort(mixed.predicted, axis=0), np.sort(answers().predicted, axis=0))
    assert np.allclose(mixed.intersection, mixed.predicted * mixed.true / 100)
    assert sorted(mixed.losses) == sorted(answers().losses)


def test_volumes_of_which_nothing_is_known_can_be_dealt_too():
    nothing = dict.fromkeys(("intersection", "predicted", "true"), np.zeros((5, 3)))
    assert not replace(answers(), **nothing).mixed_up(np.random.default_rng(0)).intersection.any()


def test_nobody_knows_the_surfaces_of_predictions_dealt_to_other_volumes():
    """Then the measure has no row, and what is compared with it none either; the others are as they were."""
    mixed, reference = (
        answers().mixed_up(np.random.default_rng(0)),
        measure(evidence(answers()), MEASURES, None),
    )
    found = measure(evidence(mixed), MEASURES, reference)
    assert mixed.surface is None
    assert all(not found[f"{part}_surface_distance"] for part in ("forget", "retain", "test"))
    assert all(found[f"{part}_dice"] for part in ("forget", "retain", "test"))


@pytest.mark.parametrize("kind", kinds())
def test_what_answers_rest_on_is_a_measure_of_its_kind(kind: str):
    measures, own = measures_of(kind), scored(kind)
    assert measures[own.tested].direction == "match"
    for name in own.trial:
        assert measures[name].margin
    for name in own.biased:
        assert measures[name] and own.said[name]
