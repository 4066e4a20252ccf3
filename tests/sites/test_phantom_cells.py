"""`phantom_cells`: the same pictures every time, honestly labelled as phantoms, equally hard for every patient."""

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sites.collection import Collection
from sites.phantom_cells import TYPES, PhantomCells
from tests.sites.problems import problems_of

NOWHERE = Path("/nowhere")  # nothing is read


def _digest(collection: Collection) -> str:
    parts = (collection.pixels.tobytes(), collection.targets.tobytes(), collection.table.to_csv().encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture(scope="module")
def cells() -> Collection:
    return PhantomCells(images=1200).load(NOWHERE)


def test_same_seed_same_images_and_another_seed_others():
    first, again, other = (PhantomCells(images=120, seed=seed).load(NOWHERE) for seed in (3, 3, 4))

    assert _digest(first) == _digest(again)
    assert (first.pixels != other.pixels).any(axis=(1, 2, 3)).all()


def test_global_random_state_is_neither_used_nor_moved():
    def state() -> tuple[str, bytes]:
        return repr(np.random.get_state(legacy=False)), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002

    before = state()
    first = _digest(PhantomCells(images=60).load(NOWHERE))
    assert state() == before

    np.random.seed(1)  # noqa: NPY002
    assert _digest(PhantomCells(images=60).load(NOWHERE)) == first


def test_shapes_dtypes_and_ids(cells):
    assert (cells.pixels.shape, cells.pixels.dtype) == ((1200, 3, 28, 28), np.uint8)
    assert (cells.targets.shape, cells.targets.dtype) == ((1200,), np.int64)
    assert (cells.classes, len(TYPES), cells.kind) == (8, 8, "classification")
    assert list(cells.table.columns) == ["image", "patient", "sex", "age", "scanner", "difficulty"]
    assert cells.table["image"].is_unique
    assert list(cells.table["image"][[0, 5, 6]]) == ["p-0000-00", "p-0000-05", "p-0001-00"]
    assert (cells.table["image"].str.rsplit("-", n=1).str[0] == cells.table["patient"]).all()


def test_it_says_that_it_is_a_phantom(cells):
    assert "phantom" in cells.note.lower()
    assert cells.synthetic_patients


def test_attributes_belong_to_patients(cells):
    per_patient = cells.table.groupby("patient")[["sex", "age", "scanner"]].nunique()

    assert (per_patient == 1).all(axis=None)
    assert set(cells.table["sex"]) == {"female", "male"}
    assert cells.table["age"].between(18, 90).all()
    assert cells.table.groupby("scanner")["patient"].nunique().tolist() == [
        67,
        67,
        66,
    ]  # 200 patients in turn


def test_1800_images_take_seconds():
    started = time.process_time()
    PhantomCells(images=1800).load(NOWHERE)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(("mislabelled", "ambiguous"), [(0.06, 0.10), (0.0, 0.0), (0.25, 0.0), (0.5, 0.5)])
def test_the_share_of_hard_images_is_the_declared_one(mislabelled, ambiguous):
    cells = PhantomCells(images=600, mislabelled=mislabelled, ambiguous=ambiguous).load(NOWHERE)

    assert (cells.table["difficulty"] == "hard").sum() == round(600 * (mislabelled + ambiguous))


def test_hard_images_are_dealt_evenly_over_patients(cells):
    hard = (cells.table["difficulty"] == "hard").groupby(cells.table["patient"]).sum()

    assert hard.sum() == 192  # 1200 · (.06 + .10)
    assert hard.max() - hard.min() <= 1  # 6 · .16 = .96 of every patient: none or one


def test_images_and_labels_are_dealt_evenly(cells):
    count = pd.crosstab(cells.table["patient"], cells.targets)

    assert (count.sum(axis=1) == 6).all()
    # 6 · .4 rounds to 2 images of the predominant type; the other 4 show four other types, in turn.
    assert (np.sort(count, axis=1) == [0, 0, 0, 1, 1, 1, 1, 2]).all()
    assert count.sum().min() >= 140  # 150 of each type, but for turns that were not completed
    assert (
        np.bincount(count.to_numpy().argmax(axis=1)).tolist() == [25] * 8
    )  # predominant in 200 / 8 patients


def test_a_label_names_what_is_drawn_unless_the_image_is_hard():
    """Nearest class mean, a learner too simple to know by heart: right on easy images, wrong where mislabelled."""
    plain = PhantomCells(images=480, patient_appearance=0.0, scanner_appearance=0.0, jitter=0.05)
    cells = replace(plain, mislabelled=0.2, ambiguous=0.0).load(NOWHERE)
    easy = (cells.table["difficulty"] == "easy").to_numpy()
    flat = (
        cells.pixels.astype(np.float32).transpose(0, 2, 3, 1).mean(axis=(1, 2))
    )  # mean colour: turns do not matter

    means = np.stack([flat[easy & (cells.targets == k)].mean(axis=0) for k in range(8)])
    guess = ((flat[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)

    assert (guess == cells.targets)[easy].mean() > 0.6  # chance is .125; granules hide some of the colour
    assert (guess == cells.targets)[~easy].mean() < 0.2


def test_one_knob_does_not_reshuffle_what_others_decide(cells):
    other = PhantomCells(images=1200, jitter=0.1, scanner_appearance=1.0).load(NOWHERE)

    pd.testing.assert_frame_equal(cells.table, other.table)
    assert (cells.targets == other.targets).all()


def test_the_smallest_collection_and_single_image_patients_work():
    assert len(PhantomCells(images=60, images_per_patient=1).load(NOWHERE).table) == 60
    assert PhantomCells(images=60, images_per_patient=100).load(NOWHERE).table["patient"].nunique() == 1
    assert problems_of(PhantomCells(), NOWHERE) == []
