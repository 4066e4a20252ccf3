"""Requests that pick the hardest, the easiest, the rarest or those with an attribute; in YAML too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.timing import counted
from fedunlearn.core import InputError
from fedunlearn.scenario import Pick, to_yaml
from sites.dealing.requests import resolve
from tests.runs import TINY, write


@pytest.fixture
def table() -> pd.DataFrame:
    """North trains on a … e, of whom b is at west too; t is held out. Hard shares there: a 1, b 1/2, c 1/2, d 0, e 0.

    Majority labels: a 2 (one of one), b 0, c 1 (a tie of 1 and 2), d 0, e 0. Of north's nine training images 5 are of
    label 0, 2 of label 1 and 2 of label 2.
    """
    rows = [
        ("a", "north", "train", "hard", 2, "F", 61.0),
        ("b", "north", "train", "easy", 0, "M", 40.0),
        ("b", "north", "train", "hard", 0, "M", 41.0),
        ("b", "west", "train", "hard", 3, "M", 41.0),
        ("c", "north", "train", "easy", 2, "F", 40.0),
        ("c", "north", "train", "hard", 1, "F", 40.0),
        ("d", "north", "train", "easy", 0, "F", 20.0),
        ("d", "north", "train", "easy", 0, "F", 20.0),
        ("e", "north", "train", "easy", 0, None, np.nan),
        ("e", "north", "train", "easy", 1, None, np.nan),
        ("t", "north", "test", "hard", 3, "X", 99.0),
    ]
    columns = ["patient", "site", "split", "difficulty", "label", "sex", "age"]
    return pd.DataFrame(rows, columns=columns).assign(image=[f"i{k}" for k in range(len(rows))])


def patients(table: pd.DataFrame, seed: int = 0, **wish) -> str:
    return "".join(resolve(table, "north", np.random.default_rng(seed), **wish).patients)


def test_the_hardest_and_the_easiest_come_first_and_equals_are_drawn(table):
    assert patients(table, count=1, pick="hardest") == "a"
    assert patients(table, count=3, pick="hardest") == "abc"
    assert patients(table, count=2, pick="easiest") == "de"
    assert {patients(table, seed, count=2, pick="hardest") for seed in range(20)} == {"ab", "ac"}
    assert {patients(table, seed, count=1, pick="easiest") for seed in range(20)} == {"d", "e"}
    assert patients(table, 5, count=2, pick="hardest") == patients(table[::-1], 5, count=2, pick="hardest")


def test_difficulty_may_be_a_number(table):
    """Means: a 3, b (1 + 9) / 2 = 5, c 0, d 1, e 2."""
    table["difficulty"] = [3, 1, 9, 0, 0, 0, 1, 1, 2, 2, 99]
    assert patients(table, count=2, pick="hardest") == "ab"
    assert patients(table, count=2, pick="easiest") == "cd"


def test_the_rarest_class_at_that_hospital_comes_first(table):
    """Images of labels 0, 1, 2: 5, 2, 2; so a (label 2) and c (1) are equally rare, e's majority is 0 or 1: 0."""
    assert patients(table, count=2, pick="rare_class") == "ac"
    assert {patients(table, seed, count=1, pick="rare_class") for seed in range(20)} == {"a", "c"}


def test_what_nobody_knows_is_no_rare_finding(table):
    """Known images of x, y, z: 4, 2, 1. All of a's are unknown, so it is last; c's known one is of z."""
    words = ["unknown", "x", "x", "x", "unknown", "z", "y", "y", "x", "x", "z"]
    found = table.drop(columns="label").assign(rarest_finding=words)
    assert [patients(found, count=n, pick="rare_class") for n in (1, 2, 5)] == ["c", "cd", "abcde"]
    assert {patients(found, seed, count=4, pick="rare_class") for seed in range(20)} == {"bcde"}
    nobody = found.assign(rarest_finding="unknown")
    assert len({patients(nobody, seed, count=1, pick="rare_class") for seed in range(20)}) > 1  # all alike


def test_the_class_comes_first_of_which_others_train_on_fewest_images(table):
    """West trains on label 3 once, east on 0 once and on 1 twice, so b, d and e (label 0) come before c (1).

    Of a's label 2 others have a test image alone: nobody trains on it there, so it comes last.
    """
    others = [
        ("x", "east", "train", 0),
        ("y", "east", "train", 1),
        ("y", "east", "train", 1),
        ("z", "west", "test", 2),
    ]
    more = pd.DataFrame(others, columns=["patient", "site", "split", "label"]).assign(
        image=["j0", "j1", "j2", "j3"]
    )
    whole = pd.concat([table, more], ignore_index=True)
    assert patients(whole, count=3, pick="scarce_elsewhere") == "bde"
    assert patients(whole, count=4, pick="scarce_elsewhere") == "bcde"
    drawn = {patients(whole, seed, count=1, pick="scarce_elsewhere") for seed in range(30)}
    assert drawn == {"b", "d", "e"}


def test_by_an_attribute_takes_all_or_some_of_those_that_have_it(table):
    assert patients(table, by={"sex": "F"}) == "acd"
    assert patients(table, by={"age": "40"}) == "bc"
    assert patients(table, by={"age": "40", "sex": "F"}) == "c"
    assert patients(table, by={"sex": "F"}, count=1, pick="easiest") == "d"
    assert patients(table, by={"sex": "F"}, fraction=0.67, pick="hardest") == "ac"  # round(0.67 * 3) = 2
    assert patients(table, by={"label": "1"}) == "ce"


def test_a_picked_patient_is_forgotten_at_every_hospital(table):
    named = resolve(table, "north", np.random.default_rng(0), by={"sex": "M"})
    assert np.flatnonzero(named.forgotten).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"by": {"sexx": "F"}}, "unknown column 'sexx', did you mean 'sex'.; expected difficulty, label, sex or age"),
        ({"by": {"sex": "X"}}, "'north' trains on no image with sex 'X'; expected F or M"),
        ({"by": {"age": "9"}}, "no image with age '9'; expected 20, 40, 41 or 61"),
        ({"by": {"sex": "M", "age": "61"}}, "no image with sex M and age 61 at once"),
        ({"by": {"sex": "F"}, "count": 4}, "found count 4, expected 1 to 3, the patients with sex F 'north' trains on"),
    ],
)  # fmt: skip
def test_what_cannot_be_picked_is_refused_with_what_there_is(table, wish, message):
    with pytest.raises(InputError, match=message.replace("?", ".")):
        patients(table, **wish)


@pytest.mark.parametrize("pick", ["hardest", "easiest"])
def test_without_a_difficulty_none_is_the_hardest(table, pick):
    with pytest.raises(
        InputError, match=f"pick: {pick} needs a column `difficulty`.*`_difficulty`.*learnt_after"
    ):
        patients(table.drop(columns="difficulty"), count=1, pick=pick)
    with pytest.raises(InputError, match="found difficulty 'so-so', expected a number, or easy or hard"):
        patients(table.assign(difficulty="so-so"), count=1, pick=pick)
    with pytest.raises(InputError, match="needs one class per image"):
        patients(table.drop(columns="label"), count=1, pick="rare_class")
    with pytest.raises(InputError, match="scarce_elsewhere needs one class per image"):
        patients(table.drop(columns="label"), count=1, pick="scarce_elsewhere")


# ------------------------------------------------------------------------------------------- as written

RANDOM = "{count: 2, pick: random}"


def picking(folder: Path, wish: str) -> scenarios.Scenario:
    return scenarios.read(write(folder, TINY.replace(RANDOM, wish)))


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("{fraction: 0.3, pick: hardest}", Pick(fraction=0.3, pick="hardest")),
        ("{count: 5, by: {sex: F}}", Pick(count=5, by={"sex": "F"})),
        ("{by: {age: 40, sex: NO, scanner: 012}}", Pick(by={"age": "40", "sex": "NO", "scanner": "012"})),
        ("{count: 1, pick: rare_class}", Pick(count=1, pick="rare_class")),
    ],
)
def test_a_pick_survives_being_written_out(tmp_path: Path, wish: str, expected: Pick):
    scenario = picking(tmp_path, wish)
    assert scenario.requests[0].patients == expected
    assert {*scenario.requests} >= {scenario.requests[0]}  # requests are looked up by themselves
    assert scenarios.read(write(tmp_path, to_yaml(scenario))) == scenario


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("{by: {}}", "the mapping is empty"),
        ("{by: {sex: F}, pick: hardest}", "so `pick: hardest` needs `fraction` or `count`"),
        ("{by: {sex: F}, count: 1, fraction: 0.5}", "either `fraction` or `count`"),
        ("{by: [F], count: 1}", "by: expected a mapping, found a list"),
        ("{by: {sex: [F]}, count: 1}", "by.sex: expected text, found a list"),
    ],
)
def test_a_pick_that_makes_no_sense_is_refused_at_its_place(tmp_path: Path, wish: str, message: str):
    with pytest.raises(InputError) as caught:
        picking(tmp_path, wish)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.line == 9


def test_picked_patients_are_counted_in_words_and_wrong_values_told_at_their_place(tmp_path: Path):
    scenario = picking(tmp_path, "{count: 3, pick: hardest, by: {sex: female}}")
    cohort = gather(scenario, tmp_path)
    assert cohort.summary(scenario.requests[0]).startswith(
        "forget 3 patients of north with sex female, the hardest ("
    )
    named = cohort.table[cohort.forgotten["some"]]
    assert set(named["sex"]) == {"female"}
    assert counted(scenario, cohort).trained > 0
    with pytest.raises(InputError) as caught:
        gather(picking(tmp_path, "{count: 3, by: {sex: F}}"), tmp_path)
    (problem,) = caught.value.problems
    assert (problem.line, "expected female or male" in problem.message) == (9, True)


@pytest.mark.parametrize("near", ["f", "Ｆ"])
def test_a_value_written_almost_alike_would_stay_and_is_refused(table: pd.DataFrame, near: str):
    table.loc[table["patient"] == "c", "sex"] = near
    with pytest.raises(
        InputError, match=r"column sex has 'F' and .*, written almost alike: those would stay"
    ):
        patients(table, by={"sex": "F"})


def test_a_near_twin_in_another_part_is_told_with_its_part(table: pd.DataFrame):
    with pytest.raises(
        InputError, match="no patient 'T', but one almost alike: patient 't' is in the test part"
    ):
        patients(table, ids=["T"])
