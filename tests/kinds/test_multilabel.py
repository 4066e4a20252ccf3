"""The measures of several findings by hand, against scikit-learn, and against the slow way to draw patients anew."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from fedunlearn.core import IGNORED, RunError
from fedunlearn.kinds.multilabel import areas
from fedunlearn.kinds.multilabel.evidence import Findings, findings
from fedunlearn.kinds.multilabel.scored import SCORED
from fedunlearn.learning.kinds import learnt
from fedunlearn.scoring.evidence import Evidence, Frame
from fedunlearn.scoring.measures.catalogue import measures_of
from fedunlearn.scoring.measuring import measure
from tests.scoring.test_evidence import NOTHING, Image, frame_of

MEASURES = measures_of("multilabel")

# Patients 0 to 5 of one hospital, all held out: what is known of two findings, and what a model says of them.
HELD_OUT: list[Image] = [(patient, 0, -1, "test") for patient in range(6)]
TARGETS = [[1, 0], [0, -1], [1, 1], [0, -1], [0, -1], [-1, -1]]
LOGITS = [[3.0, 1.0], [2.0, 9.0], [1.0, 2.0], [1.0, 9.0], [0.0, 9.0], [9.0, 9.0]]


def answers(logits: object = LOGITS, targets: object = TARGETS) -> Findings:
    return Findings(np.array(logits, dtype=np.float64), np.array(targets, dtype=np.int64))


def evidence(found: Findings, frame: Frame) -> Evidence[Findings]:
    return Evidence(frame, found, found, found, NOTHING, NOTHING, seed=0)


def value(name: str, found: Findings, frame: Frame, group: str = "all") -> float:
    return MEASURES[name].function(evidence(found, frame))[group].value


def drawn(rng: np.random.Generator, patients: int = 60, count: int = 4) -> tuple[Frame, Findings]:
    """Images of some patients, thirds of them to forget, retained and held out, and findings of which some are unknown.

    Scores are rounded, so that some are equal.
    """
    images: list[Image] = []
    for p in range(patients):
        part = ("forget", "retain", "test")[3 * p // patients]
        images += [(p, p % 3, -1, part)] * int(rng.integers(1, 4))
    targets = rng.integers(-1, 2, (len(images), count))
    logits = np.round(rng.normal(size=targets.shape) + targets, 1)
    return frame_of(images), answers(logits, targets)


# ------------------------------------------------------------------------------------------------- by hand


def test_areas_and_sensitivity_by_hand() -> None:
    """Finding 0: 3 and 1 have it; 2, 1 and 0 have it not. 3 wins all 3, 1 wins 0 and ties with 1: 4.5 of 6.

    At 3, 1 of 1 is right, at 1, 2 of 4: precision 1 and 1/2. No false positive in 3 is within a tenth: 1 of 2 is found.
    Finding 1: of the two images that it is known of, the one that has it scores higher: 1 each.
    """
    frame = frame_of(HELD_OUT)
    assert value("test_auroc", answers(), frame) == pytest.approx((4.5 / 6 + 1) / 2)
    assert value("test_auprc", answers(), frame) == pytest.approx(((1 + 1 / 2) / 2 + 1) / 2)
    assert value("test_sensitivity_at_90", answers(), frame) == pytest.approx((1 / 2 + 1) / 2)
    assert SCORED.value(answers(), frame.test) == pytest.approx((4.5 / 6 + 1) / 2)
    assert (
        MEASURES["test_auroc"].function(evidence(answers(), frame))["all"].n == 5
    )  # nothing is known of the last


def test_the_loss_of_an_image_is_the_mean_over_what_is_known_of_it() -> None:
    """Of z = 0: log 2. Of z = log 3: log(4/3) where present, log 4 where absent; of p = 1/2, log p - log(1 - p) = 0."""
    found = answers([[0.0, 7.0], [math.log(3), math.log(3)], [5.0, 5.0]], [[1, -1], [1, 0], [-1, -1]])
    assert found.losses.tolist() == pytest.approx([math.log(2), (math.log(4 / 3) + math.log(4)) / 2, 0.0])
    assert found.worst.tolist() == pytest.approx([math.log(2), math.log(4), 0.0])
    assert found.margin[0] == pytest.approx(0.0) and np.isfinite(found.margin).all()
    frame = frame_of(HELD_OUT[:3])
    assert value("test_finding_loss", found, frame) == pytest.approx(found.losses.mean())
    (one,) = SCORED.margin(
        pd.DataFrame({"loss_0": [math.log(2)]}), frame, np.array([0]), "copies/some.parquet"
    )
    assert one == pytest.approx(0.0)


def test_an_image_learnt_by_heart_is_right_about_its_odd_finding_too() -> None:
    """Both images lose .5 in the mean, but the held-out one all of it in one finding."""
    frame = frame_of([(0, 0, -1, "forget"), (1, 0, -1, "test")])
    half, whole, none = (-math.log(math.expm1(loss)) for loss in (0.5, 1.0, 1e-12))
    found = answers([[half, half], [whole, none]], [[1, 1], [1, 1]])
    assert found.losses.tolist() == pytest.approx([0.5, 0.5])
    assert value("mia_worst_finding_auc", found, frame) == 1.0
    assert value("mia_worst_finding_auc", answers(found.logits[::-1], found.targets), frame) == 0.0


def test_calibration_by_hand() -> None:
    """Ten answers, p = .5 each but for two: present at .9 is .1 off, absent at .8 is .8 off, in the mean over 10."""
    z = np.zeros((10, 1))
    z[8, 0], z[9, 0] = math.log(0.8 / 0.2), math.log(0.9 / 0.1)
    targets = np.array([[1], [0], [1], [0], [1], [0], [1], [0], [0], [1]])
    frame = frame_of([(p, 0, -1, "test") for p in range(10)])
    found = answers(z, targets)
    expected = (0.0 + 0.8 + 0.1) / 10  # the eight at .5 are in one bin, four of them present
    assert value("test_calibration_error", found, frame) == pytest.approx(expected)
    assert SCORED.calibration is not None and SCORED.calibration(found, frame.test) == pytest.approx(expected)


def test_the_worst_finding_is_the_lowest_of_those_told_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frame_of(HELD_OUT)
    measured = measure(evidence(answers(), frame), MEASURES, None)
    assert not measured["test_worst_auroc"]  # of neither finding there are patients enough
    monkeypatch.setattr(areas, "FEWEST", 1)
    areas.areas.cache_clear()
    measured = measure(evidence(answers(), frame), MEASURES, None)
    assert {group for group in measured["test_auroc"] if group.startswith("class=")} == {"class=0", "class=1"}
    assert measured["test_worst_auroc"]["all"].value == pytest.approx(4.5 / 6)
    having = measured["test_auroc"]["class=0"].having  # two have it and three have it not
    assert having is not None and having.tolist() == (answers().targets[:, 0] == 1).tolist()
    areas.areas.cache_clear()


# ----------------------------------------------------------------------------------- against other programs


@pytest.mark.parametrize("seed", range(3))
def test_every_finding_is_as_scikit_learn_has_it(seed: int) -> None:
    frame, found = drawn(np.random.default_rng(seed))
    for part in ("forget", "retain", "test"):
        expected = []
        for f in range(found.targets.shape[1]):
            own = frame.rows(part) & (found.targets[:, f] >= 0)
            true, scores = found.targets[own, f], found.logits[own, f]
            false, right, _ = roc_curve(true, scores, drop_intermediate=False)
            sensitivity = right[false <= 0.1 + 1e-12].max()
            expected.append([roc_auc_score(true, scores), average_precision_score(true, scores), sensitivity])
        values = [value(f"{part}_{name}", found, frame) for name in areas.NAMES]
        assert values == pytest.approx(np.mean(expected, axis=0).tolist(), abs=1e-12)


def test_patients_are_drawn_anew_as_if_their_images_were_there_so_often() -> None:
    frame, found = drawn(np.random.default_rng(7), patients=24)
    once = areas.areas(frame, found, "test")
    rows = np.flatnonzero(frame.rows("test"))
    for replicate in (0, 11, 1999):
        times = frame.draws[replicate, frame.units[rows]].astype(int)
        again = np.repeat(rows, times)
        expected = []
        for f in range(found.targets.shape[1]):
            own = again[found.targets[again, f] >= 0]
            if len(set(found.targets[own, f])) == 2:
                true, scores = found.targets[own, f], found.logits[own, f]
                expected.append([roc_auc_score(true, scores), average_precision_score(true, scores)])
        values = [once[name]["all"].replicates[replicate] for name in ("auroc", "auprc")]
        assert values == pytest.approx(np.mean(expected, axis=0).tolist(), abs=1e-12)


def test_many_thresholds_are_counted_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, found = drawn(np.random.default_rng(3))
    whole = areas.areas(frame, found, "retain")
    monkeypatch.setattr(areas, "_AT_ONCE", 2)
    areas.areas.cache_clear()
    parts = areas.areas(frame, found, "retain")
    for name in areas.NAMES:
        np.testing.assert_allclose(parts[name]["all"].replicates, whole[name]["all"].replicates, atol=1e-12)


def test_a_finding_that_all_have_or_none_has_no_area() -> None:
    frame = frame_of(HELD_OUT)
    alone = answers(LOGITS, [[1, 0], [1, 0], [1, -1], [1, 0], [1, 0], [1, 0]])
    assert MEASURES["test_auroc"].function(evidence(alone, frame)) == {}
    assert math.isnan(SCORED.value(alone, frame.test))


# ------------------------------------------------------------------------------------------- what is around


def test_all_measures_are_of_all_models() -> None:
    frame, found = drawn(np.random.default_rng(5))
    reference = measure(evidence(found, frame), MEASURES, None)
    other = replace(found, logits=found.logits[:, ::-1].copy())
    measured = measure(replace(evidence(found, frame), unlearned=other), MEASURES, reference)
    for name in ("avg_auroc_gap", "worst_site", "mia_loss_auc", "test_calibration_error", *SCORED.trial):
        assert np.isfinite(measured[name]["all"].value)
    gaps = [abs(measured[f"{p}_auroc"]["all"].value - reference[f"{p}_auroc"]["all"].value) for p in PARTS]
    assert measured["avg_auroc_gap"]["all"].value == pytest.approx(100 * np.mean(gaps))


PARTS = ("forget", "retain", "test")


def test_a_broken_model_is_given_what_was_said_of_others() -> None:
    mixed = answers().mixed_up(np.random.default_rng(0))
    assert (mixed.targets == answers().targets).all() and sorted(mixed.logits[:, 0]) == sorted(
        answers().logits[:, 0]
    )


def test_the_table_must_be_of_findings() -> None:
    frame, table = (
        frame_of(HELD_OUT[:1]),
        {"logit_0": [0.5], "logit_1": [1.0], "target_0": [1], "target_1": [-1]},
    )
    assert findings(pd.DataFrame(table), frame, "some").targets.tolist() == [[1, -1]]
    with pytest.raises(RunError, match=r"some has columns .*; expected logit_0, logit_1"):
        findings(pd.DataFrame({"logits_0": [0.5], "logits_1": [1.0]}), frame, "some")
    lost = findings(pd.DataFrame({name: [math.nan] for name in table}), frame, "some")
    assert not lost.finite


def test_a_model_is_right_about_an_image_if_it_is_about_all_that_is_known():
    logits = np.array([[2.0, -1.0], [2.0, 1.0], [-1.0, 3.0], [-1.0, -3.0]])
    targets = np.array([[1, 0], [1, 0], [IGNORED, 1], [1, IGNORED]], np.uint8)
    right = learnt("multilabel").right
    assert right is not None
    assert right({"logit": logits}, targets).tolist() == [True, False, True, False]
