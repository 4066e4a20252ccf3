"""What comes beside images: reports as they are or made up of columns, tables of numbers; and what is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedunlearn.core import InputError
from sites.collection import Collection
from sites.companions import NOTHING, Beside, joined
from sites.folder import Folder
from sites.npz import Npz
from sites.tokens import tokens
from tests.sites.problems import problems_of


def images(**columns: list[object]) -> Collection:
    """Three images with further columns."""
    table = pd.DataFrame({"image": ["a", "b", "c"], "patient": ["p", "p", "q"], **columns})
    return Collection(np.zeros((3, 1, 4, 4), np.uint8), np.array([0, 1, 1]), table, 2, False, note="Images.")


def test_a_report_becomes_numbers_of_words_and_no_column_stays():
    found = joined(
        images(report=["Lungs clear.", "Heart large", ""], sex=list("FMF")), Beside("report", words=4), "x"
    )
    assert np.array_equal(found.companions["report"], tokens(["lungs clear", "heart large", ""], 4))
    assert list(found.table.columns) == ["image", "patient", "sex"]
    assert found.kind == "paired" and found.targets.tolist() == [[0] * 3, [1] * 3, [1] * 3]
    assert found.note == "Images. Beside each, its report."
    assert found.notes == ("1 of 3 images have a report without words",)


def test_a_report_is_made_up_of_columns_without_what_is_not_to_be_said():
    columns: dict[str, list[object]] = {
        "view": ["AP", "PA", "AP"],
        "age": [40, 41, 42],
        "seen": ["Mass|Pneumonia", "no_finding", "pneumonias"],
    }
    beside = Beside("{view}, {age} years. {seen}", unsaid=("Pneumonia", "No Finding"), words=4)
    found = joined(images(**columns), beside, "x")
    assert np.array_equal(
        found.companions["report"], tokens(["ap 40 years mass", "pa 41 years", "ap 42 years pneumonias"], 4)
    )
    assert list(found.table.columns) == ["image", "patient", "view", "age", "seen"]  # still attributes
    assert "made up of view, age" in found.note and "nobody wrote it" in found.note


@pytest.mark.parametrize(
    "report",
    [
        "Clear. No finding today",
        "clear no\nfinding today",
        "clear NO   FINDING, today",
        "clear no-finding today",
        "clear. ｎｏ\u2003ﬁnding today",
        "clear no_finding / pleural\n effusion today",
        "clear no mass finding today",
        "clear no pleural effusion finding today mass",
    ],
)
def test_what_is_not_to_be_said_is_struck_out_however_it_is_written(report: str):
    beside = Beside("report", unsaid=("Mass", "Pleural", "No Finding", "Pleural-Effusion", "-"), words=4)
    found = joined(images(report=[report, "x", "findings"]), beside, "x")
    assert np.array_equal(found.companions["report"], tokens(["clear today", "x", "findings"], 4))


def test_texts_of_which_a_report_is_put_together_leave_the_table():
    texts: dict[str, list[object]] = {
        "seen": ["Lungs are clear", "Heart large", ""],
        "view": ["AP", "PA", "AP"],
    }
    found = joined(images(**texts), Beside("{view} view. {seen}", words=8), "x")
    assert np.array_equal(
        found.companions["report"], tokens(["ap view lungs are clear", "pa view heart large", "ap view"], 8)
    )
    assert list(found.table.columns) == ["image", "patient", "view"]
    assert found.note.endswith("a report that is put together of view, seen; people wrote seen.")
    here = joined(images(site=["Hospital of the South"] * 3, **texts), Beside("{site}: {view}"), "x")
    assert "site" in here.table and "made up of site, view: nobody wrote it" in here.note
    alone = joined(images(**texts), Beside("{seen}", words=8), "x")
    assert list(alone.table.columns) == ["image", "patient", "view"]
    assert alone.note == "Images. Beside each, its report."


@pytest.mark.parametrize(
    ("cells", "gone"),
    [
        ([f"{number} years" for number in range(90)], False),
        (["Mass|Pleural_Thickening|No Finding", "Hernia;Edema"] * 45, False),
        ([f"{chr(97 + number // 3)}x" for number in range(90)], True),
        ([None] * 89 + ["shadow, right base"], True),
    ],
)
def test_a_text_has_several_words_or_many_that_differ(cells: list[str | None], gone: bool):
    ids = [f"i{number}" for number in range(90)]
    table = pd.DataFrame({"image": ids, "patient": ids, "told": cells})
    many = Collection(np.zeros((90, 1, 4, 4), np.uint8), np.arange(90) % 2, table, 2, False)
    assert ("told" not in joined(many, Beside("Told: {told}"), "x").table) == gone


def test_long_reports_are_cut_and_told():
    found = joined(images(report=["one two three"] * 3), Beside("report", words=2), "x")
    assert np.array_equal(found.companions["report"], tokens(["one two"] * 3, 2))
    assert found.notes == ("reports are cut after 2 words, the longest has 3: raise beside.words",)


def test_numbers_make_a_table_and_unknown_ones_are_told():
    found = joined(images(dose=["1.5", "", "2"], age=[40, 41, 42]), Beside(columns=("age", "dose")), "x")
    np.testing.assert_array_equal(found.companions["table"], [[40, 1.5], [41, np.nan], [42, 2]])
    assert found.companions["table"].dtype == np.float32
    assert list(found.table.columns) == ["image", "patient"]
    assert found.notes == ("dose is unknown of 1 of 3 images: the mean is taken",)
    assert found.note.endswith("Beside each, numbers: age, dose.")


def test_without_it_images_come_alone():
    alone = images()
    assert joined(alone, NOTHING, "x") is alone


def refused(found: Collection, beside: Beside) -> list[str]:
    with pytest.raises(InputError) as error:
        joined(found, beside, "npz: x.npz")
    return [str(problem) for problem in error.value.problems]


def test_what_cannot_be_is_refused_with_a_sentence():
    two = images(dose=["1", "much", "none"], report=["r"] * 3)
    assert refused(two, Beside("report", columns=("dose",))) == [
        "npz: x.npz: beside: found report and columns, expected one of them"
    ]
    (absent,) = refused(two, Beside("{view} {dose}"))
    assert absent == "npz: x.npz: beside: found no column 'view', expected one of dose, report"
    (word,) = refused(two, Beside(columns=("dose",)))
    assert word == "npz: x.npz: dose of image 'b': found 'much', expected a number or nothing"
    findings = replace(two, kind="multilabel", targets=np.zeros((3, 2), np.uint8))
    (several,) = refused(findings, Beside("report"))
    assert (
        several
        == "npz: x.npz: beside: found images for multilabel, expected one class for each: leave it out"
    )


def test_npz_and_a_table_beside_it(tmp_path: Path):
    made = {"train_images": np.zeros((3, 8, 8), np.uint8), "train_labels": np.array([0, 1, 0])}
    made |= {"train_names": np.array(["a", "b", "c"]), "train_report": np.array(["A b", "c", "d e"])}
    np.savez(tmp_path / "x.npz", **made)  # type: ignore[arg-type]
    (tmp_path / "t.csv").write_text('image,text,dose\na,"Heart, large",1\nc,e,3\nb,d,2\n', encoding="utf-8")
    own = Npz(path="x.npz", beside=Beside("report", words=2)).load(tmp_path)
    assert np.array_equal(own.companions["report"], tokens(["a b", "c", "d e"], 2))
    other = Npz(path="x.npz", table="t.csv", beside=Beside("text", words=2)).load(tmp_path)
    assert np.array_equal(other.companions["report"], tokens(["heart large", "d", "e"], 2))
    numbers = Npz(path="x.npz", table="t.csv", beside=Beside(columns=("dose",))).load(tmp_path)
    assert numbers.companions["table"].tolist() == [[1], [2], [3]]
    (problem,) = problems_of(Npz(path="x.npz", beside=Beside("text")), tmp_path)
    assert "found no column 'text', expected one of report" in str(problem)


def test_a_manifest(tmp_path: Path):
    for name in "ab":
        shade = np.full((6, 6), 40 * ord(name) % 251, np.uint8)
        Image.fromarray(shade).save(tmp_path / f"{name}.png")
    rows = 'file,label,patient,report\na.png,sick,p,"Lungs; hazy"\nb.png,well,q,clear\n'
    (tmp_path / "m.csv").write_text(rows, encoding="utf-8")
    found = Folder(manifest="m.csv", beside=Beside("report", words=3)).load(tmp_path)
    assert np.array_equal(found.companions["report"], tokens(["lungs hazy", "clear"], 3))
    assert "report" not in found.table.columns and found.kind == "paired"


def test_numbers_of_a_table_with_decimal_commas(tmp_path: Path):
    for number in range(3):
        Image.fromarray(np.full((6, 6), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
    rows = "file;label;patient;dose\n0.png;sick;p;0,5\n1.png;well;q;NA\n2.png;well;r;1,25\n"
    (tmp_path / "m.csv").write_text(rows, encoding="utf-8")
    found = Folder(manifest="m.csv", beside=Beside(columns=("dose",))).load(tmp_path)
    np.testing.assert_array_equal(found.companions["table"], [[0.5], [np.nan], [1.25]])


NIH = Npz(
    path="nih_cxr1000_128.npz",
    size=32,
    table="nih_cxr1000_metadata.csv",
    beside=Beside(
        "{view} view. {sex}, {age} years, visit {follow_up}. {finding_labels}",
        unsaid=("Pneumonia", "No Finding"),
        words=20,
    ),
)


@pytest.mark.data
def test_made_up_reports_of_real_chests_never_name_the_class():
    root = Path(os.environ.get("FEDUNLEARN_DATA", "nowhere"))
    if not (root / NIH.path).is_file():
        pytest.skip(f"no {NIH.path} in FEDUNLEARN_DATA ({root})")
    found = NIH.load(root)
    forbidden = set(tokens(["pneumonia finding"], 2)[0].tolist())
    assert not forbidden & set(np.unique(found.companions["report"]).tolist())
    assert found.companions["report"].shape == (1000, 20) and found.targets.shape == (1000, 3)
    assert "nobody wrote it" in found.note
    assert not found.synthetic_patients
