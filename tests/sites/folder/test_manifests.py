"""Manifests as people's programs write them: read rightly with a note, or refused with line and remedy.

The truth is one table of eight images; every flavour of its file must give the same rows, or say why it does not.
"""

from __future__ import annotations

import io
import unicodedata
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from fedunlearn.core import InputError, Problem
from sites.folder.manifest import Manifest, checked, read_manifest
from sites.folder.paths import Inside

HEADER = "file,label,patient,site"
ROWS = [
    f"{p}{i}.png,{i % 2},{p},{s}" for s, people in (("a", "pq"), ("b", "rs")) for p in people for i in (0, 1)
]
TEXT = "\n".join([HEADER, *ROWS]) + "\n"
TRUTH = [row.split(",") for row in ROWS]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for row in TRUTH:
        (tmp_path / row[0]).touch()
    return tmp_path


def read(root: Path, content: str | bytes, name: str = "m.csv") -> Manifest:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return checked(read_manifest(root / name), Inside(root))


def table(found: Manifest) -> list[list[str]]:
    return [[row.cells[column] for column in HEADER.split(",")] for row in found.rows]


def refused(root: Path, content: str | bytes) -> str:
    """The text of all problems."""
    try:
        return "\n".join(map(str, read(root, content).problems))
    except InputError as error:
        return str(error)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (TEXT.encode("utf-8-sig"), None),
        (TEXT.replace("\n", "\r\n"), None),
        (TEXT.replace("\n", "\r"), None),
        (TEXT.replace(",", ";"), "its columns are separated by semicolons"),
        ("sep=;\r\n" + TEXT.replace(",", ";"), "semicolons"),
        ('"sep=;"\n' + TEXT.replace(",", ";"), "semicolons"),
        (TEXT.replace(",", "\t"), "its columns are separated by tabs"),
        (TEXT.replace(",", "|"), "vertical bars"),
        ("\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in TEXT.split()), None),
        (
            "\n".join((f"{n - 1}," if n else ",") + line for n, line in enumerate(TEXT.split())),
            "row numbers that pandas",
        ),
        ("\n".join(f"{line}," for line in TEXT.split()), None),
        ("\n".join(f"{line},,," for line in TEXT.split()), None),
        ("\n".join([HEADER, *(f"{row},," for row in ROWS)]), None),
        (TEXT.replace(",", " , "), "columns are written otherwise: 'file ' is file"),
        (TEXT.replace(HEADER, "File,LABEL,Patient,Site"), "'File' is file, 'LABEL' is label"),
        ("# exported 2024-01-01\n" + TEXT, "line 1 ('# exported 2024-01-01') is taken for a comment"),
        ("\n\n" + TEXT.replace("\n", "\n\n"), None),
        (TEXT + ",,,\n,,,\n", None),
    ],
)
def test_flavours_are_read(root: Path, content: str | bytes, note: str | None):
    found = read(root, content)
    assert found.problems == ()
    assert table(found) == TRUTH
    assert (note in "\n".join(found.notes)) if note else found.notes == ()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_places_are_right_for_every_separator(root: Path, separator: str):
    text = TEXT.replace("q1.png,1,q", "q1.png,1,").replace(",", separator)
    (problem,) = read(root, text).problems
    assert (problem.line, problem.column) == (5, 10)  # after "q1.png" and "1", a separator each
    assert "found nothing, expected the patient of this image" in problem.message


def archive(member: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr(member, "application/vnd.oasis.opendocument.spreadsheet")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TEXT.encode("utf-16"), "but in UTF-16"),
        (TEXT.encode("utf-16-le"), "but in UTF-16"),
        (
            TEXT.replace(",q,", ",Müller,").encode("cp1252"),
            "m.csv:4:11: is no CSV file in UTF-8 (byte 0xFC), but probably",
        ),
        (TEXT.replace(",q,", ",Müller,").encode("cp1252"), "there it would be 'ü'"),
        (archive("xl/workbook.xml"), "an Excel workbook (.xlsx)"),
        (archive("mimetype"), "a LibreOffice spreadsheet (.ods)"),
        (archive("a.csv").replace(b"opendocument", b"............"), "a ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)"),
        ("<!DOCTYPE html><html>", "a web page"),
        (b"\x1f\x8b\x08", "compressed (gzip)"),
        (b"%PDF-1.4", "a PDF"),
        ("", "the file is empty"),
        (TEXT.replace(",", " "), "that is one column; separate columns by commas, semicolons or tabs"),
        (TEXT.replace(",", ":"), "that is one column"),
        (TEXT.replace("file,label", "'file','label'"), 'leave out the quotes, or write them as "…"'),
        (TEXT.replace("file,", "datei,"), "rename the columns that hold them"),
        ("\n".join(["Export,,,", TEXT]), "the header seems to be in line 2"),
        (
            TEXT.replace("file,", "filename,").replace(",patient", ",patient_id"),
            "rename filename to file, patient_id to",
        ),
        ("\n".join([HEADER, *(f'"{n}",{row}' for n, row in enumerate(ROWS))]), "did R write row names"),
        (TEXT.replace(HEADER, "file,File,patient,label"), "found the columns file more than once"),
        (TEXT.replace("p1.png,1,p,a", "p1.png,1,p"), "m.csv:3: found 3 cells, expected 4"),
        (TEXT.replace("p1.png", '"p1.png'), "is a quote missing, or one too many?"),
        (TEXT.replace(",q,", ",'q',"), "found \"'q'\", which has quotes in it"),
        (TEXT.replace(",q,", ",“q”,"), "which has quotes in it"),
        (TEXT.replace(",q,", ',q"1,'), "which has quotes in it"),
        (TEXT.replace(",q,", ',"q\nr",'), "which has a line break in it"),
        (TEXT.replace(",q,", ",M\ufffdller,"), "lost letters"),
        (TEXT.replace(",q,", ",1.23457E+11,"), "a number that Excel shortened"),
        (TEXT.replace(",q,", ",q\0,"), "control characters"),
        (TEXT.replace("q1.png", "C:\\data\\q1.png"), "a path of another computer (Windows)"),
        (TEXT.replace("q1.png", "https://x.org/q1.png"), "an address and not a path"),
        (TEXT.replace("q1.png", "x\\q1.png"), "nor one with / in place of its backslashes"),
        (TEXT + ROWS[2] + "\n", "m.csv:10:1: file: found 'q0.png' again (first in line 4)"),
        (TEXT + ROWS[2].replace(",q,", ",r,") + "\n", "again (first in line 4)"),
        (TEXT + "./" + ROWS[2] + "\n", "again (first in line 4)"),
    ],
)
def test_what_is_refused_by_name(root: Path, content: str | bytes, words: str):
    assert words in refused(root, content)


@pytest.mark.parametrize("word", ["NA", "n/a", "nan", "None", "NULL", "<NA>", "#N/A", "", " "])
@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_missing_values_are_refused_with_their_place(root: Path, word: str, column: int):
    cells = [list(row) for row in TRUTH]
    cells[2][column] = word
    (problem,) = read(root, "\n".join([HEADER, *map(",".join, cells)])).problems
    assert (problem.line, problem.message.split(":")[0]) == (4, HEADER.split(",")[column])
    assert "or remove the row" in problem.message
    assert ("stands for a missing value" in problem.message) == bool(word.strip())


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA])
def test_missing_values_of_parquet_are_refused(root: Path, nothing: object):
    cells: list[list[object]] = [[*row] for row in TRUTH]
    cells[2][1:] = [nothing] * 3
    pd.DataFrame(cells, columns=HEADER.split(",")).to_parquet(root / "m.parquet")
    found = checked(read_manifest(root / "m.parquet"), Inside(root)).problems
    assert [p.message.split(":")[0] for p in found] == [
        f"row 3, column {c}" for c in ("label", "patient", "site")
    ]


def test_parquet_is_told_by_its_content_and_labels_may_be_decimals(root: Path):
    frame = pd.DataFrame(TRUTH, columns=HEADER.split(",")).astype({"label": float})
    frame.to_parquet(root / "m.csv")
    found = checked(read_manifest(root / "m.csv"), Inside(root))
    assert found.labels is not None and found.labels.targets.tolist() == [0, 1] * 4
    assert found.notes == ("labels such as '0.0' are read as whole numbers",)


def test_decimal_commas_of_semicolon_files_are_numbers(root: Path):
    rows = "\n".join(
        [
            f"{HEADER};age".replace(",", ";"),
            *(f"{row};4{n},5".replace(",", ";", 3) for n, row in enumerate(ROWS)),
        ]
    )
    for label in "01":
        rows = rows.replace(f";{label};", f";{label},0;")
    found = read(root, rows)
    assert found.problems == ()
    assert found.labels is not None and found.labels.targets.tolist() == [0, 1] * 4
    assert [row.cells["age"] for row in found.rows] == [f"4{n}.5" for n in range(8)]
    assert "decimal commas are read as points in label, age" in found.notes


@pytest.mark.parametrize(
    ("cells", "read_as"),
    [
        (
            ["0,5", "NA", "-1,25", "3", "1,5e-05", "", "7,0", "2"],
            ["0.5", "NA", "-1.25", "3", "1.5e-05", "", "7.0", "2"],
        ),
        (["0,512", "1,234", *["2"] * 6], ["0.512", "1.234", *["2"] * 6]),
        (["1,234", "12,345", *["2"] * 6], None),  # these may be thousands
        (["1,5", "2,5 mg", *["2"] * 6], None),
    ],
)
def test_decimal_commas_of_any_attribute_are_numbers_and_ids_stay(
    root: Path, cells: list[str], read_as: list[str] | None
):
    lines = [f"{HEADER},creatinine,image".replace(",", ";")]
    for number, (row, cell) in enumerate(zip(ROWS, cells, strict=True)):
        lines.append(";".join([*row.split(","), cell, f"{number},5"]))
    found = read(root, "\n".join(lines))
    assert [row.cells["creatinine"] for row in found.rows] == (read_as or cells)
    assert [row.cells["image"] for row in found.rows] == [f"{number},5" for number in range(8)]
    assert ("decimal commas are read as points in creatinine" in found.notes) == (read_as is not None)


def test_backslashes_and_unicode_forms_of_paths_are_found(root: Path):
    (root / "x").mkdir()
    (root / "q1.png").rename(root / "x" / unicodedata.normalize("NFD", "ü.png"))
    found = read(root, TEXT.replace("q1.png", "x\\ü.png").replace("q0.png", ".\\q0.png"))
    assert found.problems == ()
    assert found.rows[3].cells["file"] == unicodedata.normalize("NFD", "x/ü.png")
    assert "backslashes are read as / in 1 paths" in found.notes
    assert (
        "letters with accents are written otherwise than on the disk (Unicode form) in 1 paths" in found.notes
    )


def test_capitals_of_a_file_name_are_read_as_on_the_disk_if_that_is_clear(root: Path):
    found = read(root, TEXT.replace("q1.png", "Q1.PNG"))
    assert (found.problems, found.rows[3].cells["file"]) == ((), "q1.png")
    assert found.notes == ("capitals are written otherwise than on the disk in 1 paths",)
    (root / "q1.PNG").touch()
    assert "found no file" in refused(root, TEXT.replace("q1.png", "Q1.PNG"))


def test_two_files_whose_names_look_the_same_are_refused(root: Path):
    for form in ("NFC", "NFD"):
        (root / unicodedata.normalize(form, "ü.png")).touch()
    names = [unicodedata.normalize(form, "ü.png") for form in ("NFC", "NFD")]
    text = TEXT.replace("q0.png", names[0]).replace("q1.png", names[1])
    assert "again (first in line 4)" in refused(root, text)


def test_long_cells_make_no_long_lines(root: Path):
    text = TEXT.replace(",1,", f",{'long ' * 1000},").replace(",q,", f",'{'q' * 5000}',")
    assert max(map(len, refused(root, text).splitlines())) < 400


def test_ids_that_look_the_same_are_one_and_near_twins_are_told(root: Path):
    nfd = unicodedata.normalize("NFD", "Müller 1")
    text = TEXT.replace("p0.png,0,p", "p0.png,0,Müller 1").replace("p1.png,1,p", f"p1.png,1, {nfd}\u00a0")
    found = read(root, text.replace("q1.png,1,q", "q1.png,1,Q"))
    assert [row.cells["patient"] for row in found.rows[:4]] == ["Müller 1", "Müller 1", "q", "Q"]
    assert "'Müller 1' is written in several ways" in found.notes[0]
    assert "'Q' (1) and 'q' (1)" in found.notes[1]


def test_five_thousand_bad_rows_take_few_lines(root: Path):
    text = "\n".join([HEADER, *(f"{n}.jpg,{n % 2}.5,NA,{'ab'[n % 2]}" for n in range(5000))])
    (root / "m.csv").write_text(text)
    problems = checked(read_manifest(root / "m.csv"), Inside(root)).problems
    assert len(problems) == 3 * 6  # files, labels and patients: five each, and how many more
    assert str(InputError(problems)).count("\n") < 40


def test_an_error_of_any_kind_has_forty_lines_at_most():
    text = str(InputError([Problem(f"p{n}") for n in range(5000)]))
    assert len(text.splitlines()) == 39 and text.endswith("and 4,962 more problems")


def test_lists_in_parquet_are_several_findings(root: Path):
    frame = pd.DataFrame(TRUTH, columns=HEADER.split(","))
    for label, expected in ((["A", "B"], "A|B"), (["1"], "1")):
        frame["label"] = pd.Series([label] * len(frame))
        frame.to_parquet(root / "m.parquet")
        found = checked(read_manifest(root / "m.parquet"), Inside(root))
        assert {row.cells["label"] for row in found.rows} == {expected}


def test_a_file_in_two_rows_is_refused_whatever_the_image_ids_are(root: Path):
    text = "\n".join(
        [f"image,{HEADER}", *(f"i{n},{row}" for n, row in enumerate([*ROWS, ROWS[1].replace(",1,", ",0,")]))]
    )
    assert "m.csv:10:4: file: found 'p1.png' again (first in line 3)" in refused(root, text)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("p1.png,m.png,p", None),  # two images of one patient, such as T1 and T2, may share a map
        (
            "r0.png,m.png,r",
            "label_map: found 'm.png' again (first in line 2), expected another than the map of patient 'p'",
        ),
        ("r0.png,./r0.png,r", "label_map: found './r0.png', which is the image itself"),
    ],
)
def test_a_label_map_is_one_patients(root: Path, second: str, message: str | None):
    (root / "m.png").touch()
    found = refused(root, f"file,label_map,patient\np0.png,m.png,p\n{second}\n")
    assert (message in found) if message else not found


@pytest.mark.parametrize("odd", ["\ufeffp0.png", "p0.png\u200b"])
def test_characters_that_nobody_sees_are_no_part_of_a_path(root: Path, odd: str):
    found = read(root, TEXT.replace("p0.png", odd))
    assert (found.problems, table(found)) == ((), TRUTH)
    assert found.notes == ("characters that nobody sees are left out in 1 paths",)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (
            "\n".join(ROWS),
            "the first line seems to be an image; write a header above it, such as file,label,patient",
        ),
        (
            '[{"file": "p0.png", "label": 0}]',
            "JSON: write the table as CSV, for example pandas.read_json(FILE).to_csv",
        ),
        ('{"file": "p0.png"}\n{"file": "p1.png"}', "pandas.read_json(FILE, lines=True).to_csv"),
        (
            "\n".join(f'"{line}"'.replace(",", '" "') for line in TEXT.split()),
            "R: write.csv, not write.table",
        ),
        (HEADER + "\n" + "\n".join(ROWS).replace(",", ";"), "separated by semicolons, unlike the header"),
    ],
)
def test_what_is_no_table_with_commas_is_called_what_it_is(root: Path, content: str, remedy: str):
    assert remedy in refused(root, content)


@pytest.mark.parametrize("index", ["file", "patient", ["patient", "site"]])
def test_an_index_of_pandas_is_a_column(root: Path, index: str | list[str]):
    pd.DataFrame(TRUTH, columns=HEADER.split(",")).set_index(index).to_parquet(root / "m.parquet")
    found = checked(read_manifest(root / "m.parquet"), Inside(root))
    assert (found.problems, table(found)) == ((), TRUTH)
