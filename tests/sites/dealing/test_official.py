"""Parts and hospitals as the data has them, and columns of the data that are called like ours."""

from __future__ import annotations

import unicodedata

import numpy as np
import pandas as pd
import pytest

from fedunlearn.core import InputError
from sites.dealing.columns import apart
from sites.dealing.partitions import ByColumn
from sites.dealing.requests import left_behind, resolve
from sites.dealing.split import official

SITE = np.array(["a"] * 6 + ["b"] * 6)
PARTS = ["train", "train", "val", "val", "test", "test"] * 2


def table(**columns: list[str]) -> pd.DataFrame:
    """Two images of each of six patients."""
    names = {"image": [f"i{n}" for n in range(12)], "patient": [f"p{n // 2}" for n in range(12)]}
    return pd.DataFrame(names | columns)


@pytest.mark.parametrize(
    "words",
    [
        {"train": "train", "val": "val", "test": "test"},
        {"train": "Training", "val": "VALID", "test": "Testing "},
        {"train": "TRAIN", "val": "validation", "test": "test"},
        {"train": "train", "val": "dev", "test": "test"},
    ],
)
def test_an_official_split_is_taken_as_it_is(words: dict[str, str]):
    found = official(table(fold=[words[part] for part in PARTS]), "fold", SITE)
    assert found.tolist() == PARTS
    assert official(table(Fold=PARTS), "fold", SITE).tolist() == PARTS


def message(frame: pd.DataFrame, column: str = "fold") -> str:
    with pytest.raises(InputError) as caught:
        official(frame, column, SITE)
    return str(caught.value)


def test_what_an_official_split_may_not_be():
    torn = message(table(fold=["train", "test", "val", "val", "test", "train", *PARTS[6:]]))
    assert (
        "2 of 6 patients are in two parts, 'p0' (test and train), 'p2' (test and train): a patient tested"
        in torn
    )
    odd = message(table(fold=["train", "holdout", *PARTS[2:]]))
    assert "column 'fold' has 'holdout' in 1 images, first 'i1'; expected train, val or test" in odd
    assert "has 'None' in 1 images, first 'i0'" in message(table(fold=["None", *PARTS[1:]]))
    short = message(table(fold=["train"] * 4 + ["test"] * 2 + PARTS[6:]))
    assert "hospital 'a' has 4 train, 0 val, 2 test images, expected some of each" in short
    assert "the data has no column 'split', it has image, patient, fold" in message(
        table(fold=PARTS), "split"
    )


def test_columns_of_our_names_are_kept_under_others():
    given = table(
        site=["x"] * 12, split=PARTS, forgotten_by=["?"] * 12, data_split=["1"] * 12, age=["4"] * 12
    )
    kept, notes = apart(given, SITE)
    assert list(kept.columns) == [
        *("image", "patient", "data_site", "data_data_split", "data_forgotten_by", "data_split", "age")
    ]
    assert kept["data_data_split"].tolist() == PARTS
    assert [note.split(",")[0] for note in notes] == [
        "the data's column site is kept as data_site",
        "the data's column split is kept as data_data_split",
        "the data's column forgotten_by is kept as data_forgotten_by",
    ]
    assert notes[1].endswith(
        "splits are made anew by patient; `split: {from: split}` would use the data's own"
    )


def test_columns_that_say_what_ours_say_are_left_out():
    kept, notes = apart(table(site=SITE.tolist(), split=PARTS), SITE, used="split")
    assert (list(kept.columns), notes) == (["image", "patient"], [])


def test_hospitals_are_found_in_any_form_and_near_twins_refused():
    nfd = unicodedata.normalize("NFD", "Köln")
    frame = table(Site=["Köln", nfd, f" {nfd}"] * 2 + ["Bonn"] * 6)
    rng = np.random.default_rng(0)
    found = ByColumn().assign(frame, np.zeros(12, np.int64), ("Bonn", nfd), rng)
    assert found.tolist() == [nfd] * 6 + ["Bonn"] * 6  # as the scenario calls them
    frame["Site"] = ["bonn"] * 3 + ["Bonn"] * 9
    with pytest.raises(InputError, match=r"'Bonn' \(9 images\) and 'bonn' \(3 images\): write them alike"):
        ByColumn().assign(frame, np.zeros(12, np.int64), ("Bonn", "bonn"), rng)
    frame["Site"] = ["NA"] * 2 + ["Bonn"] * 10
    with pytest.raises(InputError, match=r"2 images have no value in 'site' .* first 'i0', 'i1': fill it in"):
        ByColumn().assign(frame, np.zeros(12, np.int64), ("Bonn", "NA"), rng)


def test_a_request_finds_an_id_in_any_form():
    frame = table().assign(site=SITE, split="train")
    frame["patient"] = frame["patient"].replace("p1", "Müller 1")
    found = resolve(
        frame, "a", np.random.default_rng(0), ids=[unicodedata.normalize("NFD", "Müller 1") + " "]
    )
    assert found.patients == ("Müller 1",)
    assert np.flatnonzero(found.forgotten).tolist() == [2, 3]


def test_a_request_for_a_near_twin_says_how_the_data_writes_it():
    frame = table().assign(site=SITE, split="train")
    with pytest.raises(InputError, match="found no patient 'P1', but 'p1', which is almost alike"):
        resolve(frame, "a", np.random.default_rng(0), ids=["P1"])


def test_a_near_twin_that_stays_is_told():
    frame = table()
    frame["patient"] = frame["patient"].replace({"p1": "A-1", "p2": "a-1"})
    (note,) = left_behind(frame, (frame["patient"] == "A-1").to_numpy())
    assert (
        note
        == "it names 'A-1' but not 'a-1', written almost alike: if they are one person, the other stays known"
    )
    assert left_behind(frame, frame["patient"].isin(["A-1", "a-1"]).to_numpy()) == ()
