"""`phantom_chest`: the same pairs every time, honestly labelled as phantoms, equally hard for every patient."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sites.collection import Collection, digest
from sites.phantom_chest import PhantomChest
from sites.phantom_chest.writing import GRADE_NAMES
from sites.tokens import words
from sites.twins import twins

NOWHERE = Path("/nowhere")  # nothing is read


@pytest.fixture(scope="module")
def chests() -> Collection:
    return PhantomChest(images=1200).load(NOWHERE)


@pytest.fixture(scope="module")
def reports() -> list[str]:
    return PhantomChest(images=1200).reports()


def test_same_seed_same_pairs_and_another_seed_others():
    first, again, other = (PhantomChest(images=120, seed=seed).load(NOWHERE) for seed in (3, 3, 4))
    assert digest(first) == digest(again) != digest(other)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert (first.pixels != other.pixels).any(axis=(1, 2, 3)).all()


def test_global_random_state_is_neither_used_nor_moved():
    def state() -> tuple[str, bytes]:
        return repr(np.random.get_state(legacy=False)), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002

    before = state()
    first = digest(PhantomChest(images=60).load(NOWHERE))
    assert state() == before
    np.random.seed(1)  # noqa: NPY002
    assert digest(PhantomChest(images=60).load(NOWHERE)) == first


def test_shapes_dtypes_and_ids(chests: Collection):
    assert chests.pixels.shape == (1200, 1, 28, 28) and chests.pixels.dtype == np.uint8
    assert chests.targets.shape == (1200, 3) and chests.targets.dtype == np.uint8
    assert (chests.targets == chests.targets[:, :1]).all()  # the same class of image, report and both
    assert (chests.classes, chests.names, chests.kind) == (4, GRADE_NAMES, "paired")
    report = chests.companions["report"]
    assert list(chests.companions) == ["report"] and report.shape == (1200, 56) and report.dtype == np.int64
    assert list(chests.table.columns) == [
        "image",
        "patient",
        "sex",
        "age",
        "view",
        "department",
        "difficulty",
    ]
    assert list(chests.table["image"][[0, 3, 4]]) == ["p-0000-00", "p-0000-03", "p-0001-00"]
    assert set(chests.table["view"]) == {"PA", "AP"}
    assert twins(chests) == ()


def test_another_size():
    found = PhantomChest(images=60, size=32, words=20).load(NOWHERE)
    assert found.pixels.shape == (60, 1, 32, 32) and found.companions["report"].shape == (60, 20)


def test_it_says_that_it_is_a_phantom(chests: Collection):
    assert "phantom" in chests.note.lower() and "no radiologist" in chests.note
    assert chests.synthetic_patients


def test_attributes_belong_to_patients(chests: Collection):
    assert (chests.table.groupby("patient")[["sex", "age", "department"]].nunique() == 1).all(axis=None)
    assert chests.table.groupby("department")["patient"].nunique().tolist() == [100, 100, 100]


def test_1800_pairs_take_seconds():
    started = time.process_time()
    PhantomChest().load(NOWHERE)
    assert time.process_time() - started < 5


def test_hard_pairs_and_classes_are_dealt_evenly(chests: Collection):
    hard = (chests.table["difficulty"] == "hard").groupby(chests.table["patient"]).sum()
    assert hard.sum() == 528  # 1200 · (.14 + 2 · .10 + .10)
    assert hard.min() >= 1 and hard.max() <= 2  # 4 · .44 = 1.76
    count = pd.crosstab(chests.table["patient"], chests.targets[:, 0])
    assert (
        np.sort(count, axis=1) == [0, 1, 1, 2]
    ).all()  # 4 · .5 of the predominant grade, two others in turn
    assert count.sum().min() >= 280  # 300 of each, but for turns that were not completed


def test_no_report_names_the_class(reports: list[str]):
    forbidden = {word for name in GRADE_NAMES for word in name.split()} - {"no"} | {
        "oedema",
        "mild",
        "moderate",
        "severe",
    }
    said = {word for report in reports for word in words(report)}
    assert not said & forbidden
    assert not said & {"0", "1", "2", "3"}  # wards and millimetres are larger


def test_a_patient_has_the_same_history_in_all_reports_and_another_has_not(reports: list[str]):
    ward = [re.findall(r"Ward \d+, [a-z ]+\.", report)[0] for report in reports]
    per_patient = pd.Series(ward).groupby(np.arange(1200) // 4)
    assert (per_patient.nunique() == 1).all()
    assert per_patient.first().nunique() > 200  # of 300 patients; 90 wards, 8 histories


def test_each_department_has_its_habits(chests: Collection, reports: list[str]):
    """Two radiologists each, who begin always alike: at most two beginnings."""
    first = pd.Series([report.split(".")[0] for report in reports]).groupby(chests.table["department"])
    assert first.nunique().max() <= 2


def test_what_a_patient_carries_is_seen_and_told():
    """The same chest with and without: a spot is brighter in the pictures of those whose report says so."""
    plain = PhantomChest(
        images=400, jitter=0.0, body=0.0, machine=0.0, mislabelled=0.0, unclear=0.0, linked=0.0
    )
    found, told = plain.load(NOWHERE), plain.reports()
    paced = np.array(["Pacemaker" in report for report in told])
    place = found.pixels[:, 0, 5:8, 19:22].mean(axis=(1, 2)), found.pixels[:, 0, 5:8, 6:9].mean(axis=(1, 2))
    brighter = np.maximum(*place)
    assert 0 < paced.sum() < 400
    assert brighter[paced].min() > brighter[~paced].max()


def test_words_and_pictures_fit_the_class_unless_the_pair_is_hard(chests: Collection, reports: list[str]):
    """Counting grade words tells the class of easy pairs more often than of hard ones."""
    bat = np.array(["Confluent" in r or "Patchy" in r or "Bat wing" in r for r in reports])
    target, easy = chests.targets[:, 0], (chests.table["difficulty"] == "easy").to_numpy()
    assert bat[easy & (target == 3)].mean() > 0.6  # 1 - .3 · half of which stay at the top grade = .85
    assert bat[easy & (target < 2)].mean() == 0
    assert bat[~easy & (target == 3)].mean() < 0.5


def test_only_both_together_tell_a_linked_pair():
    """The report fits all classes, and says which way the picture is wrong; that added, the class is known."""
    linked = PhantomChest(images=240, mislabelled=0.0, unclear=0.0, linked=0.25)
    found, told = linked.load(NOWHERE), linked.reports()
    hard = (found.table["difficulty"] == "hard").to_numpy()
    shifted = np.array(
        [
            any(
                w in r for w in ("worse", "exaggerates", "Overestimated", "better", "hides", "Underestimated")
            )
            for r in told
        ]
    )
    assert (shifted == hard).all() and hard.sum() == 60


def test_one_knob_does_not_reshuffle_what_others_decide(chests: Collection):
    other = PhantomChest(images=1200, jitter=0.1, machine=1.0, loose=0.0).load(NOWHERE)
    pd.testing.assert_frame_equal(chests.table, other.table)
    assert (chests.targets == other.targets).all()


def test_the_smallest_collection_and_single_pair_patients_work():
    assert len(PhantomChest(images=60, images_per_patient=1).load(NOWHERE).table) == 60
    assert PhantomChest(images=60, images_per_patient=100).load(NOWHERE).table["patient"].nunique() == 1
