"""Memorisation scores against values by hand and a slow loop."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from fedunlearn.core.kinds import kinds
from fedunlearn.kinds.segmentation.evidence import Overlaps, overlap
from fedunlearn.scoring.evidence import Shadow
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.measures.memorisation import memorisation, table

# Two pairs of models, three images; the last one is a test image.
MEMBERS = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=bool)
SIGNALS = np.array([[0.9, 0.2, 0.5], [0.5, 0.3, 0.1], [0.4, 0.6, 0.2], [1.0, 0.6, 0.9]])


def test_by_hand() -> None:
    found = memorisation(SIGNALS, MEMBERS)
    assert list(found.index) == [0, 1]  # the test image is in no model
    # image 0: in .9 and 1.0, out .5 and .4. image 1: in .3 and .6, out .2 and .6
    np.testing.assert_allclose(found["value"], [0.95 - 0.45, 0.45 - 0.40], atol=1e-12)
    # differences within pairs: .4 and .6, mean .5, sd .1 sqrt 2, over sqrt 2 pairs .1; t at .975 with one degree of
    # freedom (Cauchy) is tan(.475 pi) = 12.706: .5 ± 1.27, cut to [-1, 1]. Image 1: .1 and 0, .05 ± 12.706 * .05
    assert found["low"].tolist() == pytest.approx(
        [0.5 - math.tan(0.475 * math.pi) * 0.1, 0.05 - math.tan(0.475 * math.pi) * 0.05], abs=1e-9
    )
    assert found["high"].tolist() == pytest.approx([1.0, 0.05 + math.tan(0.475 * math.pi) * 0.05], abs=1e-9)
    assert found["n_in"].tolist() == found["n_out"].tolist() == [2, 2]


def test_against_a_slow_loop_and_in_any_order_of_images() -> None:
    rng = np.random.default_rng(3)
    first = rng.random((6, 40)) < 0.5
    members = np.stack([first, ~first], axis=1).reshape(12, 40)
    members[:, ::7] = False
    signals = rng.random((12, 40))
    found = memorisation(signals, members)
    for image in range(40):
        inside = [signals[m, image] for m in range(12) if members[m, image]]
        outside = [signals[m, image] for m in range(12) if not members[m, image]]
        if inside:
            expected = sum(inside) / len(inside) - sum(outside) / len(outside)
            assert found.loc[image, "value"] == pytest.approx(expected, abs=1e-9)
        else:
            assert image not in found.index
    order = rng.permutation(40)
    again = memorisation(signals[:, order], members[:, order])
    pd.testing.assert_frame_equal(again.set_index(order[again.index]).sort_index(), found)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    # 4000 images, each remembered by .3 with normal noise of its own: 95 % of the intervals, give or take .7 %
    rng = np.random.default_rng(0)
    first = rng.random((8, 4000)) < 0.5
    members = np.stack([first, ~first], axis=1).reshape(16, 4000)
    signals = 0.4 + 0.3 * members + 0.1 * rng.normal(size=members.shape)
    found = memorisation(signals, members)
    assert ((found["low"] <= 0.3) & (found["high"] >= 0.3)).mean() == pytest.approx(0.95, abs=0.015)


def test_one_pair_has_a_value_and_no_interval() -> None:
    found = memorisation(SIGNALS[:2], MEMBERS[:2])
    assert found["value"].tolist() == pytest.approx([0.4, 0.1])
    assert found[["low", "high"]].isna().all(axis=None)


def test_models_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="complementary"):
        memorisation(SIGNALS[[0, 3]], MEMBERS[[0, 3]])
    with pytest.raises(ValueError, match="complementary"):
        memorisation(SIGNALS[:3], MEMBERS[:3])


def test_of_volumes_dice_is_compared() -> None:
    """Classes 1 and 2 of four volumes: 2 * 3 / 8 and 2 * 1 / 4; one missed; one in neither; nothing there nor seen."""
    both = np.array([[9, 3, 1], [9, 3, 0], [9, 3, 0], [20, 0, 0]], dtype=np.float64)
    predicted = np.array([[14, 4, 2], [16, 4, 0], [16, 4, 0], [20, 0, 0]], dtype=np.float64)
    true = np.array([[14, 4, 2], [14, 4, 2], [16, 4, 0], [20, 0, 0]], dtype=np.float64)
    none = np.zeros(4)
    answers = Overlaps(both, predicted, true, None, none, none, none)
    assert overlap(answers).tolist() == pytest.approx([(0.75 + 0.5) / 2, 0.75 / 2, 0.75, 1.0])


def test_every_kind_of_task_has_something_to_compare() -> None:
    assert all(callable(scored(kind).confidence) for kind in kinds())


def test_the_table_names_the_images() -> None:
    images = pd.DataFrame({"image": ["i", "j", "k"], "patient": ["p", "q", "r"], "site": ["A", "B", "B"]})
    labels = np.array([0, 1, 0])
    shadows = [
        Shadow(
            Outputs(np.where(labels[:, None] == [0, 1], np.log(p / (1 - p))[:, None], 0.0), labels), inside
        )
        for p, inside in zip(np.clip(SIGNALS, 0, 1 - 1e-12), MEMBERS, strict=True)
    ]
    found = table(images, "classification", shadows)
    assert list(found.columns) == ["image", "patient", "site", "value", "low", "high", "n_in", "n_out"]
    assert found["image"].tolist() == ["i", "j"] and found["site"].tolist() == ["A", "B"]
    assert found["value"].tolist() == pytest.approx([0.5, 0.05], abs=1e-9)  # p_y is the probability put in
