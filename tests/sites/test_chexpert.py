"""`chexpert` on a made-up copy: the columns, paths and files of the distribution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedunlearn.core import IGNORED, InputError
from fedunlearn.kinds.multilabel.held import rarest
from sites.chexpert import FINDINGS, FIVE, CheXpert
from sites.collection import digest
from tests.sites.problems import problems_of

HEADER = ",".join(("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS))
TWO = CheXpert(findings=("Edema", "Consolidation"), size=8)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def line(path: str, about: str, **cells: str) -> str:
    return ",".join([path, about, *(cells.get(name.replace(" ", "_"), "") for name in FINDINGS)])


def copy_of(root: Path, tables: Mapping[str, list[str]]) -> None:
    """A copy with every file that its tables name, in several sizes."""
    for name, rows in tables.items():
        folder = root / "CheXpert-v1.0-small"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
        for number, row in enumerate(rows):
            file = root / row.partition(",")[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            edges = (9 + number % 3, 12)
            pixels = np.random.default_rng(number).integers(0, 255, edges, np.uint8)
            Image.fromarray(pixels).save(file, quality=95)


TRAIN = "CheXpert-v1.0-small/train"
ROWS = [
    line(
        f"{TRAIN}/patient00001/study1/view1_frontal.jpg",
        "Female,68,Frontal,AP",
        Edema="1.0",
        Consolidation="0.0",
    ),
    line(f"{TRAIN}/patient00001/study1/view2_lateral.jpg", "Female,68,Lateral,", Edema="1.0"),
    line(
        f"{TRAIN}/patient00002/study2/view1_frontal.jpg",
        "Male,87,Frontal,PA",
        Edema="-1.0",
        Consolidation="1.0",
    ),
    line(f"{TRAIN}/patient00003/study1/view1_frontal.jpg", "Unknown,0,Frontal,AP", Consolidation="-1.0"),
    line(
        f"{TRAIN}/patient00004/study1/view1_frontal.jpg", "Male,41,Frontal,AP", Edema="0.0", No_Finding="1.0"
    ),
]
VALID = "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg"
TABLES = {
    "train.csv": ROWS,
    "valid.csv": [line(VALID, "Male,73,Frontal,AP", Edema="0.0", Consolidation="0.0")],
}


def test_both_tables_are_read_as_they_are_distributed(tmp_path: Path):
    copy_of(tmp_path, TABLES)
    found = TWO.load(tmp_path)
    assert (found.kind, found.classes, found.names) == ("multilabel", 2, ("Edema", "Consolidation"))
    assert found.pixels.shape == (5, 1, 8, 8)
    patients = ["patient00001", "patient00002", "patient00003", "patient00004", "patient64541"]
    assert found.table["patient"].tolist() == patients
    assert found.table["image"].iloc[0] == "train/patient00001/study1/view1_frontal"
    assert found.table["sex"].tolist() == ["F", "M", "", "M", "M"]
    assert found.table["age"].tolist() == [68, 87, 0, 41, 73]
    assert found.table["view"].tolist() == ["AP", "PA", "AP", "AP", "AP"]
    assert found.table["split"].tolist() == ["train"] * 4 + ["valid"]
    assert not found.synthetic_patients and "No Finding" not in found.table
    assert digest(found) == digest(TWO.load(tmp_path))


@pytest.mark.parametrize(
    ("uncertain", "blank", "expected"),
    [
        ("ignore", "zero", [(1, 0), (IGNORED, 1), (0, IGNORED), (0, 0), (0, 0)]),
        ("zero", "zero", [(1, 0), (0, 1), (0, 0), (0, 0), (0, 0)]),
        ("one", "zero", [(1, 0), (1, 1), (0, 1), (0, 0), (0, 0)]),
        ("ignore", "ignore", [(1, 0), (IGNORED, 1), (IGNORED, IGNORED), (0, IGNORED), (0, 0)]),
        ("one", "ignore", [(1, 0), (1, 1), (IGNORED, 1), (0, IGNORED), (0, 0)]),
    ],
)
def test_policies_for_what_is_uncertain_and_not_mentioned(
    tmp_path: Path, uncertain: str, blank: str, expected: list[tuple[int, int]]
):
    copy_of(tmp_path, TABLES)
    source = CheXpert(findings=TWO.findings, size=8, uncertain=uncertain, blank=blank)  # type: ignore[arg-type]
    found = source.load(tmp_path)
    assert [tuple(row) for row in found.targets.tolist()] == expected
    assert "of 10 answers 2 are uncertain (-1)" in found.notes[0]
    assert "2 are not mentioned (blank)" in found.notes[0]


def test_lateral_views_all_findings_and_some_patients(tmp_path: Path):
    copy_of(tmp_path, TABLES)
    found = CheXpert(findings="all", views="all", size=8).load(tmp_path)
    assert found.names == FINDINGS and found.table["view"].tolist().count("Lateral") == 1
    assert found.targets.shape == (6, 14)
    some = CheXpert(findings="all", views="all", size=8, patients=3).load(tmp_path)
    assert some.table["patient"].nunique() == 3
    assert some.table["image"].isin(found.table["image"]).all()
    assert CheXpert().findings == FIVE and set(FIVE) < set(FINDINGS)


def test_what_is_wrong_is_told_by_its_place(tmp_path: Path):
    wrong = line(f"{TRAIN}/patient00005/study1/view1_frontal.jpg", "Male,41,Frontal,AP", Edema="2.0")
    copy_of(tmp_path, {"train.csv": [*ROWS, wrong]})
    (tmp_path / f"{TRAIN}/patient00004/study1/view1_frontal.jpg").unlink()
    found = [str(problem) for problem in problems_of(TWO, tmp_path)]
    assert "train.csv:6:1: file: found no file" in found[0]
    assert "train.csv:7:" in found[1] and "Edema: found '2', expected 1 (present)" in found[1]
    copy_of(tmp_path, {"train.csv": [*ROWS, "elsewhere/patient1.jpg,Male,41,Frontal,AP" + "," * 14]})
    assert "train.csv:7:1: Path: found 'elsewhere/patient1.jpg', expected a path such as" in str(
        problems_of(TWO, tmp_path)[0]
    )


def test_a_row_twice_is_told_by_its_place_also_in_the_other_table(tmp_path: Path):
    again = line(f"{TRAIN}/patient00001/study1/view1_frontal.png", "Male,41,Frontal,AP", Edema="0.0")
    other = line(VALID.replace("/valid/", "/train/"), "Male,41,Frontal,AP")
    copy_of(tmp_path, {"train.csv": [*ROWS, again, other], "valid.csv": [other]})
    found = [str(problem) for problem in problems_of(TWO, tmp_path)]
    assert (
        "train.csv:7:1: Path: found 'CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.png'"
        in found[0]
    )
    assert "again (first in train.csv, line 2), expected a row for each image: remove one of them" in found[0]
    assert "valid.csv:2:1: Path: found" in found[1] and "again (first in train.csv, line 8)" in found[1]


def test_sex_is_read_in_any_case_and_other_words_are_told(tmp_path: Path):
    words = ["M", "f", "MALE", "female", "Unknown", "", "Unknown", "X"]
    rows = [
        line(
            f"{TRAIN}/patient0000{n}/study1/view1_frontal.jpg", f"{word},4{n},frontal,AP", Edema=f"{n % 2}.0"
        )
        for n, word in enumerate(words)
    ]
    copy_of(tmp_path, {"train.csv": rows})
    found = CheXpert(findings=("Edema",), size=8).load(tmp_path)
    assert found.table["sex"].tolist() == ["M", "F", "M", "F", "", "", "", ""]
    note = "sex is neither female nor male in 4 rows, and left empty: 'Unknown' 2, nothing 1, 'X' 1"
    assert note in found.notes


@pytest.mark.parametrize(
    ("blank", "uncertain", "expected"),
    [("zero", "one", [0, 0, 1, 1, 1]), ("ignore", "zero", [IGNORED, IGNORED, 0, 0, 1])],
)
def test_words_for_nothing_are_blank_and_those_of_doubt_uncertain(
    tmp_path: Path, blank: str, uncertain: str, expected: list[int]
):
    rows = [
        line(f"{TRAIN}/patient0000{n}/study1/view1_frontal.jpg", f"M,4{n},Frontal,AP", Edema=word)
        for n, word in enumerate(["nan", " NA", "u", "-1.0", "1.0", "0"])
    ]
    copy_of(tmp_path, {"train.csv": rows})
    found = CheXpert(findings=("Edema",), size=8, blank=blank, uncertain=uncertain).load(tmp_path)  # type: ignore[arg-type]
    assert found.targets[:, 0].tolist() == [*expected, 0]
    assert "2 are uncertain (-1)" in found.notes[0] and "2 are not mentioned (blank)" in found.notes[0]


def test_a_view_that_is_neither_frontal_nor_lateral_is_not_left_out_unsaid(tmp_path: Path):
    copy_of(tmp_path, {"train.csv": [*ROWS, line(f"{TRAIN}/patient00005/study1/view1.jpg", "Male,41,,AP")]})
    (problem,) = map(str, problems_of(TWO, tmp_path))
    assert (
        "train.csv:7:" in problem and "Frontal/Lateral: found nothing, expected Frontal or Lateral" in problem
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (CheXpert(path="nowhere"), "found neither train.csv nor valid.csv"),
        (CheXpert(findings=("Oedema",)), "found findings 'Oedema', expected some of No Finding, Enlarged"),
        (CheXpert(findings=("Edema", "Edema")), "some twice"),
        (CheXpert(patients=99), "found 5 patients with such views, expected patients: 99"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, source: CheXpert, words: str):
    copy_of(tmp_path, TABLES)
    with pytest.raises(InputError) as error:
        source.load(tmp_path)
    assert words in str(error.value)


def test_a_table_of_something_else_is_refused(tmp_path: Path):
    copy_of(tmp_path, {"train.csv": ROWS})
    file = tmp_path / "CheXpert-v1.0-small" / "train.csv"
    file.write_text(file.read_text().replace("Edema", "Oedema"), encoding="utf-8")
    assert "expected also Edema" in str(problems_of(TWO, tmp_path)[0])


def test_the_rarest_finding_of_an_image_is_its_stratum():
    """Counts of present ones: 3, 1, 2; the fourth image has none, and of the fifth nobody knows two."""
    targets = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 1], [0, 0, 0], [IGNORED, 0, IGNORED]], np.uint8)
    assert rarest(targets).tolist() == [2, 3, 3, 0, 4]
