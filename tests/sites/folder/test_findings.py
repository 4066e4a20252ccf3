"""Several findings in manifests: a column each, or cells that name them; every bad cell told by its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedunlearn.core import IGNORED, InputError
from sites.collection import Collection
from sites.folder import Folder

BOTH = ("Effusion", "Mass")
ROWS = ["1,0", "0,0", "1.0,-1.0", ",1", "u,0", "0,Uncertain", "NaN,1", "No,yes"]
EXPECTED = [(1, 0), (0, 0), (1, IGNORED), (IGNORED, 1), (IGNORED, 0), (0, IGNORED), (IGNORED, 1), (0, 1)]
CELLS = [
    "Effusion",
    "No Finding",
    "Effusion|Mass",
    "Mass;Effusion",
    "no_finding",
    " Mass | Nodule",
    "Mass",
    "Effusion|",
]


def load(root: Path, header: str, rows: list[str], source: Folder) -> Collection:
    lines = [header]
    for number, row in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 255, (6, 8), np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        lines.append(f"{number}.png,{number // 2:03d},{row}")
    (root / "m.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return source.load(root)


def several(root: Path, rows: list[str] = ROWS, header: str = "Effusion,Mass", named: tuple[str, ...] = BOTH):
    return load(root, f"file,patient,{header}", rows, Folder(manifest="m.csv", findings=named))


def named(root: Path, cells: list[str] = CELLS, source: Folder | None = None) -> Collection:
    source = source or Folder(manifest="m.csv", findings="all")
    return load(root, "file,patient,label", cells, source)


def refused(error: pytest.ExceptionInfo[InputError], words: str) -> bool:
    return words in str(error.value)


def test_a_column_for_each_finding(tmp_path: Path):
    found = several(tmp_path, [f"{row},F" for row in ROWS], "Effusion,Mass,sex")
    assert (found.kind, found.classes, found.names) == ("multilabel", 2, BOTH)
    assert [tuple(row) for row in found.targets.tolist()] == EXPECTED
    assert list(found.table.columns) == ["image", "patient", "sex"]  # findings are no attributes
    assert "2 findings: Effusion, Mass" in found.note
    (note,) = found.notes
    assert note.startswith("5 of 16 answers are unknown (") and note.endswith("Effusion 3, Mass 2")
    other = several(tmp_path, named=BOTH[::-1])
    assert np.array_equal(other.targets, found.targets[:, ::-1])


def test_a_label_beside_columns_of_findings_is_not_read(tmp_path: Path):
    found = several(tmp_path, [f"{row},anything" for row in ROWS], "Effusion,Mass,label")
    assert "column label is not read" in found.notes[-1]
    assert list(found.table.columns) == ["image", "patient"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            ["2,0", *ROWS[1:]],
            "m.csv:2:11: Effusion: found '2', expected 1 (present), 0 (absent), or -1, u or nothing",
        ),
        ([*ROWS[:3], "0,perhaps", *ROWS[4:]], "m.csv:5:13: Mass: found 'perhaps', expected 1 (present)"),
        ([f"{n % 2},-1" for n in range(8)], "findings: finding 'Mass' is known of no image"),
        (["0,1"] * 8, "found none that some images have and others have not"),
        (["+,-"] * 8, "m.csv:2:13: Mass: found '-' in a table with '+', which may say absent or that nobody"),
        (["+,0", "−,1"] * 4, "m.csv:3:11: Effusion: found '−' in a table with '+', which may say absent"),
    ],
)
def test_cells_that_are_no_answers_are_told_by_their_place(tmp_path: Path, rows: list[str], words: str):
    with pytest.raises(InputError) as error:
        several(tmp_path, rows)
    assert refused(error, words)


def test_a_missing_column_of_a_finding_is_told(tmp_path: Path):
    with pytest.raises(InputError) as error:
        several(tmp_path, named=("Effusion", "Nodule"))
    assert refused(error, "expected also Nodule")


def test_columns_that_may_be_findings_are_told_where_a_label_is_missing(tmp_path: Path):
    with pytest.raises(InputError) as error:
        load(tmp_path, "file,patient,Effusion,Mass", ROWS, Folder(manifest="m.csv"))
    assert refused(error, "expected also label: rename the columns")
    assert refused(error, "if columns tell findings, name them: findings: [Effusion, Mass, …]")


def test_findings_of_a_parquet_file(tmp_path: Path):
    several(tmp_path)  # writes the images
    frame = pd.DataFrame(
        {"file": [f"{n}.png" for n in range(8)], "patient": [f"p{n // 2}" for n in range(8)]}
    )
    frame["Effusion"], frame["Mass"] = [1.0, 0.0, np.nan, -1.0, 1.0, 0.0, 0.0, 0.0], [True, False] * 4
    frame["label"] = [["Effusion", "Mass"], ["No Finding"]] * 4
    frame.to_parquet(tmp_path / "m.parquet")
    columns = Folder(manifest="m.parquet", findings=BOTH).load(tmp_path)
    assert columns.targets[:, 0].tolist() == [1, 0, IGNORED, IGNORED, 1, 0, 0, 0]
    assert columns.targets[:, 1].tolist() == [1, 0] * 4
    cells = Folder(manifest="m.parquet", findings="all").load(tmp_path)
    assert cells.targets.tolist() == [[1, 1], [0, 0]] * 4


def test_cells_that_name_findings(tmp_path: Path):
    found = named(tmp_path)
    assert found.names == ("Effusion", "Mass", "Nodule")
    expected = ["100", "000", "110", "110", "000", "011", "010", "100"]
    assert ["".join(map(str, row)) for row in found.targets.tolist()] == expected
    assert found.notes == (
        "found in images of a single patient, who cannot be in training and in test: 'Nodule'",
    )


@pytest.mark.parametrize("wanted", ["all", ("Effusion", "Mass", "Nodule")])
@pytest.mark.parametrize("word", ["unknown", "Unknown", "-", "uncertain", "Not available", "u|Unclear", "-1"])
def test_a_word_for_what_nobody_knows_is_no_finding_and_not_none(
    tmp_path: Path, word: str, wanted: tuple[str, ...]
):
    found = named(tmp_path, [*CELLS, word, word], Folder(manifest="m.csv", findings=wanted))
    assert found.names == ("Effusion", "Mass", "Nodule")
    assert found.targets[-2:].tolist() == [[IGNORED] * 3] * 2
    assert found.targets[:-2].max() == 1
    assert f"6 of 30 answers are unknown ('{word}') and count neither" in found.notes[0]


def test_a_word_for_what_nobody_knows_cannot_be_asked_for(tmp_path: Path):
    with pytest.raises(InputError) as error:
        named(tmp_path, [*CELLS, "unclear"], Folder(manifest="m.csv", findings=("Mass", "unclear")))
    assert refused(error, "findings names 'unclear', which says that nobody knows")


def test_no_finding_is_called_as_what_nobody_knows(tmp_path: Path):
    with pytest.raises(InputError) as error:
        several(tmp_path, ROWS, "Effusion,Unknown", ("Effusion", "Unknown"))
    assert refused(
        error, "found a finding called 'Unknown', which says that nobody knows, expected another name"
    )


def test_findings_that_are_not_asked_for_are_left_out_with_a_note(tmp_path: Path):
    found = named(tmp_path, source=Folder(manifest="m.csv", findings=("Mass", "No Finding")))
    assert found.names == ("Mass", "No Finding")
    assert found.targets.sum(axis=0).tolist() == [4, 2]
    assert "left out: Effusion (4 images), Nodule (1 images)" in found.notes[-1]
    with pytest.raises(InputError) as error:
        named(tmp_path, source=Folder(manifest="m.csv", findings=("Mas",)))
    assert refused(error, "findings names 'Mas', which no image has, did you mean 'Mass'?")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("", "m.csv:2:11: label: found nothing, expected findings such as Effusion|Mass, or No Finding"),
        ("N/A", "m.csv:2:11: label: found 'N/A', expected findings"),
        ("Mass|No Finding", "m.csv:2:11: label: found 'Mass|No Finding', which is none and some"),
        ("effusion", "m.csv:2:11: label: found 'effusion', but 'Effusion' in line 4: write them alike"),
        ('"Mass, Nodule"', "label: found 'Mass, Nodule', expected findings joined by |, such as"),
        ("x" * 301, "301 letters, expected findings"),
        ("|", "m.csv:2:11: label: found '|', expected findings such as Effusion|Mass, or No Finding"),
        ("NA|NA", "m.csv:2:11: label: found 'NA|NA', expected findings such as"),
        ("Mass|uncertain", "m.csv:2:11: label: found 'Mass|uncertain', in which 'uncertain' is no finding"),
        (
            "No Finding; N/A",
            "in which 'N/A' is no finding: leave it out, or write it alone where nobody knows",
        ),
    ],
)
def test_cells_that_say_nothing_or_two_things_are_told_by_their_place(tmp_path: Path, cell: str, words: str):
    with pytest.raises(InputError) as error:
        named(tmp_path, [cell, *CELLS[1:]])
    assert refused(error, words)


def test_without_the_setting_each_combination_stays_a_class(tmp_path: Path):
    found = named(tmp_path, ["A|B", "C"] * 4, Folder(manifest="m.csv"))
    assert (found.kind, found.names) == ("classification", ("A|B", "C"))
    assert "say `findings: all`" in found.notes[0]


def test_label_maps_are_no_findings(tmp_path: Path):
    with pytest.raises(InputError) as error:
        load(tmp_path, "file,patient,label_map", ["0.png", "1.png"], Folder(manifest="m.csv", findings="all"))
    assert refused(error, "label maps are no findings: leave findings out")
