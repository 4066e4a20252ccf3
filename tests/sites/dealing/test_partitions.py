"""Partitions and splits: every image is dealt exactly once, patients stay whole, ids decide and not the order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from fedunlearn.core import InputError
from sites import PARTITIONS
from sites.dealing.partitions import FEWEST, ByColumn, Iid, LabelSkew, Partition, SizeSkew
from sites.dealing.split import PARTS, split

Data = tuple[pd.DataFrame, np.ndarray[Any, Any]]
NAMES = ("north", "east", "west")
DEALERS: list[Partition] = [
    Iid(),
    LabelSkew(alpha=0.1),
    LabelSkew(alpha=100.0),
    SizeSkew(alpha=0.1),
    SizeSkew(alpha=3.0),
]


@st.composite
def data(draw: st.DrawFn, classes: int = 4) -> Data:
    """Patients with 1 to 6 images each, mostly of one label, rows shuffled."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(FEWEST * len(NAMES), 60))
    patient = np.repeat(np.arange(count), rng.integers(1, 7, count))
    targets = np.where(
        rng.random(len(patient)) < 0.8, (patient * 7) % classes, rng.integers(0, classes, len(patient))
    )
    order = rng.permutation(len(patient))
    table = pd.DataFrame(
        {
            "image": [f"i{row:04d}" for row in order],
            "patient": [f"p{patient[row]:03d}" for row in order],
            "difficulty": np.where(rng.random(len(patient)) < 0.2, "hard", "easy")[order],
        }
    )
    return table, targets[order]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("partition", DEALERS, ids=repr)
@settings(max_examples=25, deadline=None)
@given(data=data(), seed=st.integers(0, 1000))
def test_dealers_assign_whole_patients_to_filled_hospitals_whatever_the_order(
    partition, data: Data, seed: int
):
    table, targets = data
    site = partition.assign(table, targets, NAMES, rng(seed))

    assert site.shape == (len(table),)
    assert set(site) == set(NAMES)
    owners = pd.DataFrame({"patient": table["patient"], "site": site}).drop_duplicates()
    assert owners["patient"].is_unique  # a patient is at one hospital
    assert owners["site"].value_counts().min() >= FEWEST

    back = np.arange(len(table))[::-1]
    again = partition.assign(table.iloc[back].reset_index(drop=True), targets[back], NAMES, rng(seed))
    assert (again == site[back]).all()


@settings(max_examples=25, deadline=None)
@given(data=data(), seed=st.integers(0, 1000))
def test_a_split_gives_every_hospital_three_parts_and_every_patient_one(data: Data, seed: int):
    table, targets = data
    site = Iid().assign(table, targets, NAMES, rng(seed))
    images = table.groupby("patient")["image"]
    guests = (images.cumcount() == 0) & (images.transform("size") >= 3)
    site[guests.to_numpy()] = (
        "north"  # these patients are at two hospitals, and most of their images where they were
    )
    part = split(table, targets, site, (0.5, 0.2, 0.3), rng(seed))
    assert set(part) <= set(PARTS)
    frame = pd.DataFrame({"patient": table["patient"], "site": site, "part": part})
    assert frame[["patient", "part"]].drop_duplicates()["patient"].is_unique  # across all hospitals
    assert (frame.groupby("site")["part"].nunique() == 3).all()

    back = np.arange(len(table))[::-1]
    again = split(
        table.iloc[back].reset_index(drop=True), targets[back], site[back], (0.5, 0.2, 0.3), rng(seed)
    )
    assert (again == part[back]).all()


def uniform(patients: int, images: int, classes: int) -> Data:
    """``patients`` patients of ``images`` images each, each of one label, labels equally frequent."""
    owner = np.repeat(np.arange(patients), images)
    table = pd.DataFrame(
        {"image": [f"i{i}" for i in range(len(owner))], "patient": [f"p{p:04d}" for p in owner]}
    )
    return table, owner % classes


def test_split_keeps_fractions_and_the_label_mix_in_every_hospital():
    table, targets = uniform(patients=240, images=4, classes=4)
    site = Iid().assign(table, targets, NAMES, rng())
    part = split(table, targets, site, (0.6, 0.1, 0.3), rng())
    for name in NAMES:
        for label in range(4):
            # 240 patients / 3 hospitals / 4 labels = 20 patients of 4 images, so 12 : 2 : 6 patients; one may go astray
            for wanted, p in zip((48, 8, 24), PARTS, strict=True):
                count = int(((site == name) & (targets == label) & (part == p)).sum())
                assert abs(count - wanted) <= 4, (name, label, p)


def test_a_proxy_share_is_taken_from_the_test_share_and_leaves_the_rest_as_it_was():
    table, targets = uniform(patients=240, images=4, classes=4)
    site = Iid().assign(table, targets, NAMES, rng())
    without = split(table, targets, site, (0.6, 0.1, 0.3), rng())
    part = split(table, targets, site, (0.6, 0.1, 0.2), rng(), proxy=0.1)
    assert (np.where(part == "proxy", "test", part) == without).all()
    for name in NAMES:
        for label in range(4):
            # 20 patients of 4 images at every hospital and of every label, 2 of them proxies; one may go astray
            count = int(((site == name) & (targets == label) & (part == "proxy")).sum())
            assert abs(count - 8) <= 4, (name, label)


@settings(max_examples=25, deadline=None)
@given(data=data(), seed=st.integers(0, 1000))
def test_a_split_with_a_proxy_share_gives_every_hospital_four_parts(data: Data, seed: int):
    table, targets = data
    site = Iid().assign(table, targets, NAMES, rng(seed))
    part = split(table, targets, site, (0.5, 0.2, 0.2), rng(seed), proxy=0.1)
    frame = pd.DataFrame({"patient": table["patient"], "site": site, "part": part})
    assert frame[["patient", "part"]].drop_duplicates()["patient"].is_unique
    assert set(part) == {*PARTS, "proxy"} and (frame.groupby("site")["part"].nunique() == 4).all()


def test_split_deals_hard_patients_evenly():
    table, targets = uniform(patients=200, images=5, classes=1)
    hard = np.arange(len(table)) // 5 % 5 == 0  # 40 of the 200 patients
    table["difficulty"] = np.where(hard, "hard", "easy")
    part = split(table, targets, np.full(len(table), "a"), (0.6, 0.1, 0.3), rng())
    for p in PARTS:
        assert hard[part == p].mean() == pytest.approx(0.2, abs=0.06)  # 1 patient of the 20 in val is 0.05


def test_iid_hospitals_have_the_same_labels_and_skewed_ones_have_not():
    table, targets = uniform(patients=300, images=2, classes=3)

    def spread(partition) -> float:
        site = partition.assign(table, targets, NAMES, rng(1))
        mixes = [np.bincount(targets[site == name], minlength=3) / (site == name).sum() for name in NAMES]
        return float(np.ptp(np.array(mixes), axis=0).max())

    assert spread(Iid()) < 0.02
    assert spread(SizeSkew(alpha=1.0)) < 0.1
    assert spread(LabelSkew(alpha=0.1)) > 0.5


def test_size_skew_makes_hospitals_unequal():
    table, targets = uniform(patients=300, images=2, classes=3)
    site = SizeSkew(alpha=0.3).assign(table, targets, NAMES, rng(1))
    counts = pd.Series(site).value_counts()
    assert counts.max() > 2 * counts.min()


def test_by_column_takes_the_hospitals_of_the_data_image_by_image():
    table, targets = uniform(patients=6, images=2, classes=2)
    table["site"] = ["a", "b"] * 6  # every patient is at both
    site = ByColumn().assign(table, targets, ("b", "a"), rng())
    assert site.tolist() == ["a", "b"] * 6


def test_by_column_says_what_to_write():
    table, targets = uniform(patients=6, images=2, classes=2)
    table["site"] = ["a", "b"] * 6
    with pytest.raises(InputError, match=r"names: \[a, b\]"):
        ByColumn().assign(table, targets, ("a", "c"), rng())
    with pytest.raises(InputError, match="no column 'ward'; it has image, patient, site"):
        ByColumn(column="ward").assign(table, targets, ("a", "b"), rng())
    table.loc[3, "site"] = ""
    with pytest.raises(InputError, match="1 images have no value"):
        ByColumn().assign(table, targets, ("a", "b"), rng())


def test_label_skew_refuses_label_maps_and_the_others_take_them():
    table, _ = uniform(patients=30, images=1, classes=2)
    maps = np.zeros((30, 4, 4, 4), dtype=np.int64)
    with pytest.raises(InputError, match="one label per image"):
        LabelSkew().assign(table, maps, NAMES, rng())
    site = SizeSkew().assign(table, maps, NAMES, rng())
    assert set(split(table, maps, site, (0.6, 0.1, 0.3), rng())) == set(PARTS)


def test_too_few_patients_are_refused():
    table, targets = uniform(patients=14, images=9, classes=2)
    for partition in DEALERS:
        with pytest.raises(InputError, match="found 14 patients for 3 hospitals, expected at least 15"):
            partition.assign(table, targets, NAMES, rng())
    with pytest.raises(InputError, match="'b' has 2 patients"):
        split(table, targets, np.where(np.arange(len(table)) < 18, "b", "a"), (0.6, 0.1, 0.3), rng())
    with pytest.raises(
        InputError, match=r"'b' has 3 .* at least 4 patients of its own \(train, val, test, proxy\)"
    ):
        split(table, targets, np.where(np.arange(len(table)) < 27, "b", "a"), (0.6, 0.1, 0.2), rng(), 0.1)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.0), (0.6, 0.3, 0.3), (1.2, -0.1, -0.1)])
def test_fractions_must_be_fractions(fractions):
    table, targets = uniform(patients=14, images=1, classes=2)
    with pytest.raises(InputError, match="sum to 1"):
        split(table, targets, np.full(14, "a"), fractions, rng())
    with pytest.raises(InputError, match="sum to 1"):
        split(table, targets, np.full(14, "a"), (0.6, 0.1, 0.4), rng(), proxy=-0.1)


def test_every_partition_has_its_name_and_settings():
    for name, cls in PARTITIONS.items():
        assert cls().name == name
        assert (cls.__doc__ or "").partition("\n")[0].endswith(".")


@pytest.mark.parametrize(
    ("found", "names"),
    [("1.0", '"1.0", b'), ("Off", '"Off", b'), ("A, B", '"A, B", b'), ("Åbo", "b, Åbo"), ("#1", '"#1", b')],
)
def test_names_that_are_missing_are_told_as_yaml_must_have_them(found: str, names: str):
    table = pd.DataFrame({"image": ["1", "2"], "patient": ["p", "q"], "site": [found, "b"]})
    with pytest.raises(InputError) as caught:
        ByColumn().assign(table, np.zeros(2, np.int64), ("x", "y"), np.random.default_rng(0))
    assert str(caught.value).endswith(f"write names: [{names}]")
