"""The measures of pairs by hand and against scikit-learn, and the answers to both as a classifier's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, roc_auc_score, top_k_accuracy_score

from fedunlearn.core import RunError
from fedunlearn.kinds.paired import measures
from fedunlearn.kinds.paired.evidence import agreement, likeness, margin, pairs, remembered
from fedunlearn.kinds.paired.measures import recalled
from fedunlearn.scoring.evidence import Evidence, Frame
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.measures.catalogue import measures_of
from tests.scoring.test_evidence import NOTHING, Image, frame_of

MEASURES = measures_of("paired")


def answers(frame: Frame, **scores: Any) -> Outputs:
    """Class scores by both, image and beside, (N, C) each."""
    each = {
        name: Outputs(np.asarray(logits, dtype=np.float64), frame.labels) for name, logits in scores.items()
    }
    both = each.pop("both")
    return Outputs(both.logits, frame.labels, each)


def evidence(found: Outputs, frame: Frame) -> Evidence[Outputs]:
    return Evidence(frame, found, found, found, NOTHING, NOTHING, seed=0)


def value(name: str, found: Outputs, frame: Frame, group: str = "all") -> float:
    return MEASURES[name].function(evidence(found, frame))[group].value


def log(*rows: tuple[float, ...]) -> np.ndarray:
    return np.log(np.array(rows))


def drawn(seed: int, patients: int = 60, classes: int = 4) -> tuple[Frame, Outputs]:
    """Images of some patients, thirds of them to forget, retained and held out, in one hospital."""
    rng = np.random.default_rng(seed)
    images: list[Image] = []
    for p in range(patients):
        part = ("forget", "retain", "test")[3 * p // patients]
        images += [(p, 0, int(rng.integers(classes)), part) for _ in range(int(rng.integers(1, 4)))]
    frame = frame_of(images, classes)
    sure = 2 * np.eye(classes)[frame.labels]
    scores = {name: sure + rng.normal(size=sure.shape) for name in ("both", "image", "beside")}
    return frame, answers(frame, **scores)


# ------------------------------------------------------------------------------------------------- by hand

ONE_HOSPITAL: list[Image] = [(0, 0, 0, "forget"), (1, 0, 0, "test"), (2, 0, 0, "test")]


def test_likeness_by_hand() -> None:
    """sqrt(.5 * .9) + sqrt(.5 * .1); the same is 1, what excludes each other 0."""
    half, sure, other = log((0.5, 0.5)), log((0.9, 0.1)), np.array([[-800.0, 0.0]])
    assert likeness(half, sure).tolist() == [[pytest.approx(0.45**0.5 + 0.05**0.5)]]
    assert likeness(sure + 7, sure)[0, 0] == pytest.approx(
        1.0
    )  # a constant on all scores changes no probability
    assert likeness(np.array([[0.0, -800.0]]), other)[0, 0] == pytest.approx(0.0)


def test_recall_by_hand() -> None:
    """Image 0 is most like its own report. 1 is more like report 0 than its own. 2 is as like its own as report 1."""
    image = log((0.9, 0.1), (0.8, 0.2), (0.3, 0.7))
    beside = log((0.9, 0.1), (0.3, 0.7), (0.3, 0.7))
    assert recalled(image, beside, 1).tolist() == [1.0, 0.0, 0.5]
    assert recalled(image, beside, 2).tolist() == [
        1.0,
        0.5,
        1.0,
    ]  # of image 1, reports 1 and 2 share the second place
    assert recalled(image, beside, 3).tolist() == [1.0, 1.0, 1.0]


def test_all_answers_alike_are_recalled_by_chance() -> None:
    same = np.zeros((8, 3))
    assert recalled(same, same, 1) == pytest.approx(1 / 8)
    assert recalled(same, same, 5) == pytest.approx(5 / 8)


def test_pairs_are_looked_for_within_their_hospital_and_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four held-out pairs that all look alike: 1/4 together, 1/2 in two hospitals or in pools of two."""
    same = np.zeros((4, 2))
    together, apart = (frame_of([(p, p // 2 * two, 0, "test") for p in range(4)]) for two in (0, 1))
    for frame, expected in ((together, 1 / 4), (apart, 1 / 2)):
        assert (
            value("test_retrieval_1", answers(frame, both=same, image=same, beside=same), frame) == expected
        )
    monkeypatch.setattr(measures, "POOL", 2)
    found = answers(together, both=same, image=same, beside=same)
    assert value("test_retrieval_1", found, together) == 1 / 2


def test_memory_of_each_modality_by_hand() -> None:
    """By its image the one to forget beats one of two held-out ones, by its report both, by both together neither."""
    frame = frame_of(ONE_HOSPITAL)
    found = answers(
        frame,
        image=log((0.6, 0.4), (0.7, 0.3), (0.5, 0.5)),
        beside=log((0.9, 0.1), (0.5, 0.5), (0.6, 0.4)),
        both=log((0.2, 0.8), (0.5, 0.5), (0.6, 0.4)),
    )
    assert value("mia_image_loss_auc", found, frame) == 0.5
    assert value("mia_beside_loss_auc", found, frame) == 1.0
    assert value("mia_loss_auc", found, frame) == 0.0
    assert (
        value("forget_image_accuracy", found, frame) == value("forget_beside_accuracy", found, frame) == 1.0
    )
    assert value("forget_accuracy", found, frame) == 0.0


def test_memory_of_the_link_by_hand() -> None:
    """The one to forget is answered wrongly, but alike by image and report; of the others one agrees as much."""
    frame = frame_of(ONE_HOSPITAL)
    image = log((0.2, 0.8), (0.9, 0.1), (0.6, 0.4))
    beside = log((0.2, 0.8), (0.2, 0.8), (0.6, 0.4))
    found = answers(frame, image=image, beside=beside, both=image)
    assert agreement(found)[[0, 2]].tolist() == [0.0, 0.0]
    assert agreement(found)[1] == pytest.approx(0.18**0.5 + 0.08**0.5 - 1)
    assert (
        value("mia_link_auc", found, frame) == 0.75
    )  # it beats the one, and is as sure of its own as the other


def test_nearly_sure_answers_are_told_apart() -> None:
    """Of sqrt(p) = (1, a, 0) and (1, b, 0) but for squares of a and b, the distance is (a - b)^2 / 2."""
    frame = frame_of(ONE_HOSPITAL, classes=3)
    a, b = np.exp([-20.0, -20.0, -20.0]), np.exp([-21.0, -22.0, -20.0])
    image, beside = (np.log(np.stack([np.ones(3), x**2, np.full(3, 1e-300)], axis=1)) for x in (a, b))
    found = answers(frame, image=image, beside=beside, both=image)
    assert agreement(found) == pytest.approx(-((a - b) ** 2) / 2, rel=1e-6)
    assert value("mia_link_auc", found, frame) == 0.5  # more alike than the second, less than the third


# ------------------------------------------------------------------------------------------ against scikit-learn


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("place", ["image", "beside"])
def test_accuracy_and_attack_as_of_scikit_learn(seed: int, place: str) -> None:
    frame, found = drawn(seed, classes=2)
    logits = found.beside[place].logits
    for part in ("forget", "retain", "test"):
        rows = frame.rows(part)
        expected = accuracy_score(frame.labels[rows], logits[rows].argmax(axis=1))
        assert value(f"{part}_{place}_accuracy", found, frame) == pytest.approx(expected)
    loss = -np.log(softmax(logits, axis=1)[np.arange(len(logits)), frame.labels])
    over, pairs_met = 0.0, 0
    for label in (0, 1):
        one, other = (loss[frame.rows(part) & (frame.labels == label)] for part in ("forget", "test"))
        area = roc_auc_score([1] * len(one) + [0] * len(other), -np.concatenate([one, other]))
        over, pairs_met = over + area * len(one) * len(other), pairs_met + len(one) * len(other)
    assert value(f"mia_{place}_loss_auc", found, frame) == pytest.approx(over / pairs_met)


@pytest.mark.parametrize("k", [1, 5])
def test_recall_as_of_scikit_learn(k: int) -> None:
    """Each image is a sample whose right class is its own report, scored by likeness."""
    frame, found = drawn(5)
    rows = frame.rows("test")
    image, beside = (found.beside[name].logits[rows] for name in ("image", "beside"))
    alike, numbers = likeness(image, beside), np.arange(int(rows.sum()))
    expected = top_k_accuracy_score(numbers, alike, k=k, labels=numbers)
    assert value(f"test_retrieval_{k}", found, frame) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------- as evidence


def table(found: Outputs) -> pd.DataFrame:
    each = {"image": found.beside["image"], "beside": found.beside["beside"], "both": found}
    return pd.DataFrame(
        {f"{place}_{c}": one.logits[:, c] for place, one in each.items() for c in range(one.logits.shape[1])}
    )


def test_signals_are_read_as_they_are_kept() -> None:
    frame, found = drawn(0)
    again = pairs(table(found), frame, "signals.parquet")
    assert np.array_equal(again.logits, found.logits)
    assert list(again.beside) == ["image", "beside"]
    assert all(np.array_equal(again.beside[name].logits, found.beside[name].logits) for name in again.beside)
    rows = np.array([3, 1])
    known = margin(table(found).iloc[rows], frame, rows, "copies.parquet")
    assert known == pytest.approx(remembered(found)[rows])


def test_memory_is_of_all_three_answers() -> None:
    """Of two classes, a margin is a difference of scores: 2, 5 and 8 by both, image and report are 5 in the mean."""
    frame, _ = drawn(0, classes=2)
    sign = np.where(frame.labels == 1, 1.0, -1.0)
    scores = {
        place: np.stack([0 * sign, n * sign], 1) for place, n in (("both", 2), ("image", 5), ("beside", 8))
    }
    assert remembered(answers(frame, **scores)) == pytest.approx(5)


def test_other_columns_are_refused() -> None:
    frame, found = drawn(0)
    for read in (
        lambda wrong: pairs(wrong, frame, "signals.parquet"),
        lambda wrong: margin(wrong, frame, np.arange(len(frame.labels)), "signals.parquet"),
    ):
        with pytest.raises(RunError, match=r"signals.parquet has columns \['image_0'"):
            read(table(found).drop(columns="both_3"))


def test_answers_dealt_to_others_stay_with_what_is_beside_them() -> None:
    frame, found = drawn(1)
    mixed = found.mixed_up(np.random.default_rng(0))
    assert not np.array_equal(mixed.logits, found.logits)
    assert np.array_equal(mixed.labels, found.labels)
    assert sorted(agreement(mixed)) == pytest.approx(sorted(agreement(found)))
    lost = answers(frame, both=found.logits, image=found.logits, beside=np.full_like(found.logits, np.nan))
    assert found.finite and not lost.finite


def test_a_classifier_alone_is_mixed_up_as_ever() -> None:
    """As NumPy permutes the rows themselves: the damaged model of old runs is the same, to the bit."""
    frame, found = drawn(1)
    plain = Outputs(found.logits, frame.labels).mixed_up(np.random.default_rng(7))
    assert np.array_equal(plain.logits, np.random.default_rng(7).permutation(found.logits))


def test_all_measures_of_classifiers_are_of_both() -> None:
    frame, found = drawn(2)
    plain = Outputs(found.logits, frame.labels)
    of = measures_of("classification")
    for name in ("test_accuracy", "forget_loss", "mia_loss_auc", "test_auroc", "test_sensitivity"):
        function: Callable[[Evidence[Any]], Any] = of[name].function
        assert value(name, found, frame) == function(evidence(plain, frame))["all"].value
