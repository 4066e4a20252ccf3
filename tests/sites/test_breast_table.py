"""`breast_table`: scikit-learn's numbers as they are, a patient a row, put on one scale by those whom nobody names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

from fedunlearn.campaign.tables import on_one_scale
from sites.breast_table import BreastTable
from sites.twins import twins

NOWHERE = Path("/nowhere")  # nothing is read


def test_the_numbers_are_as_published():
    found, (data, target) = BreastTable().load(NOWHERE), load_breast_cancer(return_X_y=True)
    assert found.pixels.shape == (569, 30) and found.pixels.dtype == np.float32
    assert np.array_equal(found.pixels, data.astype(np.float32)) and np.array_equal(found.targets, target)
    assert np.bincount(found.targets).tolist() == [212, 357]  # as its documentation says
    assert (found.names, found.classes, found.kind) == (("malignant", "benign"), 2, "classification")
    assert found.table["patient"].is_unique and not found.synthetic_patients
    assert twins(found) == ()


def test_it_is_scaled_by_training_rows_that_nobody_names():
    found = BreastTable().load(NOWHERE)
    train = np.arange(569) < 300
    forgotten = np.arange(569) < 100
    scaled = on_one_scale(found, train, {"r": forgotten}).pixels
    own = found.pixels[100:300].astype(np.float64)
    expected = np.clip((found.pixels - own.mean(axis=0)) / own.std(axis=0), -10, 10)
    np.testing.assert_allclose(
        scaled, expected, rtol=1e-4, atol=1e-4
    )  # single precision of numbers up to 4,254


def test_some_of_each_class_are_given_the_other():
    """15 % of 212 is 31.8, of 357 is 53.55."""
    plain, found = BreastTable().load(NOWHERE), BreastTable(mislabelled=0.15).load(NOWHERE)
    wrong = plain.targets != found.targets
    assert np.bincount(plain.targets[wrong]).tolist() == [32, 54]
    assert (wrong == (found.table["difficulty"] == "hard")).all() and "86 rows" in found.note
    assert np.array_equal(plain.pixels, found.pixels)
