"""Several findings in `.npz` files: as columns of numbers, or named in a table beside the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedunlearn.core import IGNORED, InputError
from sites.collection import Collection
from sites.npz import Npz
from tests.sites.npz.test_values import IMAGES, LABELS, made

SEVERAL = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0]] * 3)


def load(root: Path, source: Npz | None = None, **arrays: Any) -> Collection:
    np.savez(root / "x.npz", **made(**arrays))  # type: ignore[arg-type]
    return (source or Npz(path="x.npz")).load(root)


def refused(root: Path, source: Npz, **arrays: Any) -> str:
    with pytest.raises(InputError) as caught:
        load(root, source, **arrays)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_columns_of_numbers_are_findings(tmp_path: Path, dtype: Any):
    found = load(tmp_path, train_labels=SEVERAL.astype(dtype))
    assert (found.kind, found.classes) == ("multilabel", 2)
    assert found.targets.dtype == np.uint8 and np.array_equal(found.targets, SEVERAL)
    assert found.names == ("finding 0", "finding 1", "finding 2")
    assert "labels of 3 columns are read as 3 findings" in found.notes[0]


@pytest.mark.parametrize(("unknown", "dtype"), [(-1, np.int64), (255, np.uint8), (np.nan, np.float32)])
def test_what_nobody_knows_is_neither_present_nor_absent(tmp_path: Path, unknown: float, dtype: Any):
    labels = SEVERAL.astype(dtype)
    labels[:2, 1] = np.array(unknown).astype(dtype)
    found = load(tmp_path, train_labels=labels)
    assert found.targets[:2, 1].tolist() == [IGNORED] * 2 and found.targets[2:].max() == 1
    assert (
        "2 of 36 answers are unknown (-1, 255 or NaN)" in found.notes[1] and "finding 1 2" in found.notes[1]
    )


def test_findings_are_called_as_the_scenario_or_the_file_says(tmp_path: Path):
    names = ("effusion", "mass", "nodule")
    assert load(tmp_path, Npz(path="x.npz", findings=names), train_labels=SEVERAL).names == names
    found = load(tmp_path, train_labels=SEVERAL, findings=np.array(names))
    assert found.names == names and not any("belong to no part" in note for note in found.notes)
    message = refused(tmp_path, Npz(path="x.npz", findings=names[:2]), train_labels=SEVERAL)
    assert "train_labels has 3 labels per image, and findings names 2: name them all" in message
    message = refused(tmp_path, Npz(path="x.npz"), train_labels=SEVERAL, findings=np.array(names[:2]))
    assert "the array findings has 2 names, expected 3" in message


def test_one_hot_labels_are_findings_only_if_the_scenario_says_so(tmp_path: Path):
    hot = np.eye(2, dtype=np.uint8)[LABELS]
    message = refused(tmp_path, Npz(path="x.npz"), train_labels=hot)
    assert "take the argmax: train_labels.argmax(1); or, if these are findings" in message
    assert "say findings: all" in message
    found = load(tmp_path, Npz(path="x.npz", findings="all"), train_labels=hot)
    assert found.kind == "multilabel" and np.array_equal(found.targets, hot)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"train_labels": SEVERAL * 2},
            "3 labels per image, of which some are 2, expected one, or findings as 1",
        ),
        ({"train_labels": SEVERAL.astype(str)}, "which are text, expected one: write findings as 0 and 1"),
        ({"train_labels": SEVERAL * 0}, "findings: found none that some images have and others have not"),
        (
            {"train_labels": np.where(np.arange(3) == 1, -1, SEVERAL)},
            "findings: finding 'finding 1' is known of no image, expected some 0 and some 1: leave it out",
        ),
    ],
)
def test_labels_that_are_no_findings_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str):
    assert words in refused(tmp_path, Npz(path="x.npz"), **arrays)


SCORED = Npz(path="x.npz", label="scores")


@pytest.mark.parametrize(
    ("scores", "findings", "words"),
    [
        (
            SEVERAL + 2,
            "all",
            "train_scores has 3 labels per image, of which some are 3, expected one, or findings",
        ),
        (SEVERAL * 0.9, ("a", "b", "c"), "train_scores has 3 labels per image, of which some are 0.9"),
        (SEVERAL * 0.9, None, "train_scores has 3 labels per image, of which some are 0.9"),
        (
            np.full((12, 4), 0.25),
            "all",
            "they are probabilities, which sum to 1; take the argmax: train_scores",
        ),
        (
            np.eye(2)[LABELS],
            None,
            "they are one-hot; take the argmax: train_scores.argmax(1); or, if these are",
        ),
        (SEVERAL.astype(str), "all", "train_scores has 3 labels per image, which are text"),
        (SEVERAL, ("a", "b"), "train_scores has 3 labels per image, and findings names 2"),
        (
            np.zeros((12, 4, 4), np.uint8),
            None,
            "train_scores has shape (12, 4, 4), expected (12, 1), or label maps",
        ),
        (SEVERAL[:6], None, "train_scores has shape (6, 3), expected (12, 1)"),
    ],
)
def test_a_column_of_labels_is_looked_at_as_labels_are(
    tmp_path: Path, scores: Any, findings: Any, words: str
):
    assert words in refused(tmp_path, replace(SCORED, findings=findings), train_scores=scores)


def test_of_labels_those_that_are_used_are_looked_at(tmp_path: Path):
    hot, maps = np.eye(2)[LABELS], (IMAGES > 99).astype(np.uint8)
    found = load(tmp_path, replace(SCORED, size=4), train_scores=SEVERAL, train_labels=maps)
    assert found.kind == "multilabel" and np.array_equal(found.targets, SEVERAL)
    found = load(tmp_path, replace(SCORED, findings="all"), train_scores=hot, train_labels=hot * 0.5)
    assert np.array_equal(found.targets, hot)
    message = refused(tmp_path, replace(SCORED, size=4), train_scores=maps)
    assert "size is given, but the labels are maps" in message


def test_findings_are_asked_of_what_has_none(tmp_path: Path):
    source = Npz(path="x.npz", findings="all")
    assert "one number for each image, and findings asks for several" in refused(tmp_path, source)
    assert "label maps are no findings" in refused(
        tmp_path, source, train_labels=(IMAGES > 99).astype(np.uint8)
    )


ROWS = [f"train-{i:06d},{'Mass|Effusion' if i % 3 else 'No Finding'},{i % 2}" for i in range(12)]
BESIDE = Npz(path="x.npz", table="t.csv", label="finding_labels", findings="all")


def table(root: Path, rows: list[str], header: str = "image,finding_labels,view") -> None:
    (root / "t.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def test_a_table_beside_the_file_names_findings(tmp_path: Path):
    table(tmp_path, [*reversed(ROWS), "other.png,Mass,0"], "image,finding_labels,view")
    found = load(tmp_path, BESIDE)
    assert found.names == ("Effusion", "Mass")
    assert np.array_equal(found.targets, np.repeat((np.arange(12) % 3 > 0)[:, None], 2, axis=1))
    assert found.table["view"].tolist() == [str(i % 2) for i in range(12)]
    assert "finding_labels" not in found.table and found.table["patient"].nunique() == 6
    assert "t.csv: 1 rows are of no image here" in found.notes[0]
    assert "labels are the column finding_labels" in found.notes[1]
    only = load(tmp_path, replace(BESIDE, findings=("Mass",)))
    assert only.names == ("Mass",) and "left out: Effusion (8 images)" in only.notes[-1]


def test_a_column_of_the_table_or_the_file_can_be_the_label(tmp_path: Path):
    table(tmp_path, ROWS)
    found = load(tmp_path, Npz(path="x.npz", table="t.csv", label="view"))
    assert (found.kind, found.classes, found.targets.tolist()) == ("classification", 2, [0, 1] * 6)
    own = load(tmp_path, Npz(path="x.npz", label="grade"), train_grade=np.arange(12) % 3)
    assert own.targets.tolist() == [0, 1, 2] * 4 and "grade" not in own.table


def test_what_the_file_has_itself_stays(tmp_path: Path):
    table(tmp_path, [f"{row},elsewhere" for row in ROWS], "image,finding_labels,view,patient_id")
    found = load(tmp_path, BESIDE)
    assert found.table["patient"].nunique() == 6
    assert "t.csv: 'patient_id' are read from the NumPy file" in found.notes[0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (ROWS[1:], "has no row for 1 of 12 images, such as 'train-000000': add them"),
        ([*ROWS, ROWS[3]], "t.csv:14:1: image: found 'train-000003' again (first in line 5)"),
        (
            ["train-000000,,0", *ROWS[1:]],
            "label of image 'train-000000': found nothing, expected findings such as",
        ),
        (
            ["train-000000,No Finding|Mass,0", *ROWS[1:]],
            "label of image 'train-000000': found 'No Finding|Mass', which is none and some",
        ),
        (
            ["train-000000,mass,0", *ROWS[1:]],
            "label of image 'train-000000': found 'mass', but 'Mass' in image 'train-000001': write them alike",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, rows: list[str], words: str):
    table(tmp_path, rows)
    assert words in refused(tmp_path, BESIDE)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            replace(BESIDE, findings=("Masses", "Effusion")),
            "findings names 'Masses', which no image has, did you mean",
        ),
        (replace(BESIDE, label="finding"), "found no column 'finding', expected one of finding_labels, view"),
        (replace(BESIDE, table="u.csv"), "expected a CSV or Parquet file with the column image"),
    ],
)
def test_what_a_table_has_not_is_said(tmp_path: Path, source: Npz, words: str):
    table(tmp_path, ROWS)
    assert words in refused(tmp_path, source)
    table(tmp_path, ROWS, "name,finding_labels,view")
    assert "expected also image" in refused(tmp_path, BESIDE)
