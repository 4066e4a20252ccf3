"""Folders are read as what their names and numbers tell; where these do not, somebody is asked."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedunlearn import scenario as scenarios
from fedunlearn.__main__ import app
from fedunlearn.beginning.layouts import Undecided, decided, said
from fedunlearn.core import InputError
from sites.folder.trees import Tree
from tests.beginning.test_beginning import passes_check, picture


def tree(*folders: str, maps: bool = False) -> Tree:
    """One image in each folder, and perhaps its label map."""
    files = tuple(PurePosixPath(folder, "1.png") for folder in folders)
    beside = {file: file.with_name("1_seg.png") for file in files} if maps else {}
    return Tree(files, frozenset(), beside, (), ())


@pytest.mark.parametrize(
    ("folders", "layout"),
    [
        (("ill/p1", "ill/p2", "well/p3"), "class/patient"),
        (
            ("ill/p1", "ill/p2", "well/p1", "well/p2"),
            "class/patient",
        ),  # of both, or numbered anew: it is noted
        (("Viral Pneumonia/1", "COVID/2", "Normal/3"), "class/patient"),
        (("melanoma/anna", "nevus/bob"), "class/patient"),
        (("BI-RADS_3/a", "BI-RADS_4/b"), "class/patient"),
        (("COVID-19/a", "others/b"), "class/patient"),
        (("KL-grade1/a", "KL-grade2/b"), "class/patient"),
        (("ill/p01/study1", "well/p02/study1"), "class/patient"),
        (("north/ill/p1", "north/well/p2", "south/ill/p3"), "site/class/patient"),
        (("north/ill/p1", "south/well/p2"), "site/class/patient"),
        (("north/basophil/p1", "north/platelet/p2", "east/basophil/p1"), "site/class/patient"),
        (("north/A/p1", "north/B/p2", "south/A/p3", "south/B/p4"), "site/class/patient"),
        (("hospital 1/A/p1", "hospital 1/B/p2", "hospital 2/A/p3"), "site/class/patient"),
    ],
)
def test_what_names_and_numbers_tell(folders: tuple[str, ...], layout: str) -> None:
    assert decided(tree(*folders))[0] == layout


TWO = {"class/patient", "site/patient"}


@pytest.mark.parametrize(
    ("folders", "layouts", "words"),
    [
        (
            ("north/p1", "north/p2", "south/p3", "south/p4"),
            TWO,
            "'north', 'south' are hospitals, and 'p1', 'p2'",
        ),
        (("0/p1", "0/p2", "1/p3", "1/p4"), TWO, "'0', '1' are classes"),
        (("a/1", "a/2", "b/1", "b/2"), TWO, "folders of the same names, '1', '2', below several"),
        (("p1/s1", "p2/s2", "p3/s3"), TWO, "The 3 outer ones are many for classes or hospitals"),
        (tuple(f"{n}/{2 * n + k}" for n in range(21) for k in (0, 1)), TWO, "The 21 outer ones are many"),
        (("tumor_1/a", "tumor_1/b", "tumor_2/c", "tumor_2/d"), TWO, "'tumor_1', 'tumor_2' are classes"),
        (
            ("a/anna/s1", "a/bob/s1", "b/anna/s2", "b/bob/s2"),
            TWO | {"site/class/patient"},
            "and others in them",
        ),
        (("a/No1/s1", "b/No2/s2"), TWO | {"site/class/patient"}, "and others in them"),
        (tuple(f"grade{n}/{k}{n}" for n in range(21) for k in "ab"), TWO, "The 21 outer ones are many"),
        (("ill/x", "hospital/y"), TWO, "'hospital', 'ill'"),
        (("a/p1/s1", "a/p2/s1", "b/p1/s2", "b/p2/s2"), TWO | {"site/class/patient"}, "and others in them"),
        (
            ("a/p1/s1", "b/p2/s1"),
            TWO | {"site/class/patient"},
            "'p1', 'p2' classes, and those in them patients",
        ),
        (
            tuple(f"{'ab'[n % 2]}/p{n}/s" for n in range(21)),
            TWO,
            "'a', 'b' are hospitals",
        ),  # too many for classes
        (("benign/adenoma/p1", "malignant/carcinoma/p2"), TWO | {"site/class/patient"}, "others in them"),
    ],
)
def test_what_they_do_not_tell_is_asked_for(folders: tuple[str, ...], layouts: set[str], words: str) -> None:
    with pytest.raises(Undecided) as caught:
        decided(tree(*folders))
    assert set(caught.value.readings) == layouts and words in str(caught.value)
    assert all(f"--layout {layout} if " in str(caught.value) for layout in layouts)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (
            ("north/ill", "north/well", "south/ill", "south/well"),
            "named like classes, below 'north', 'south', and none",
        ),
        (
            ("hospital_A/p1", "hospital_B/p2"),
            "named like hospitals, with patients in them, and nothing that tells",
        ),
        (("clinic 1/p1", "clinic 2/p1"), "named like hospitals, with 'p1' in them, and nothing that tells"),
        (("ill",), "found images with 1 folder above them"),
    ],
)
def test_what_cannot_be_read_without_a_table_is_refused(folders: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        decided(tree(*folders))
    assert not isinstance(caught.value, Undecided) and words in str(caught.value)
    assert "fedunlearn manifest FOLDER" in str(caught.value)


def test_label_maps_tell_what_is_asked_of_images_but_not_what_classes_are_for() -> None:
    assert decided(tree("north/p1", "south/p2", maps=True))[0] == "site/patient"
    with pytest.raises(
        Undecided, match=r"label maps, in folders 'benign', 'malignant' that are named like classes"
    ):
        decided(tree("benign/p1", "malignant/p2", maps=True))


def test_what_was_said_counts_unless_it_tells_no_classes() -> None:
    assert said("class/patient", tree("hospital_A/p1"))[0] == "class/patient"
    assert said("site/patient", tree("a/p1", maps=True))[0] == "site/patient"
    with pytest.raises(InputError, match="manifest FOLDER --layout site/patient"):
        said("site/patient", tree("a/p1"))


# ----------------------------------------------------------------------------------------------- the command


@pytest.fixture
def towns(tmp_path: Path) -> Path:
    """Pictures of 24 patients in two folders, of which nobody can tell whether they are hospitals or classes."""
    for patient in range(24):
        picture(tmp_path / "set" / ("aarhus", "basel")[patient % 2] / f"p{patient:02}" / "1.png", patient)
    return tmp_path


def init(root: Path, *words: str, typed: str | None = None) -> Result:
    options = ["--to", str(root / "s.yaml"), "--hospitals", "3", "--forget", "both", *words]
    return CliRunner().invoke(app, ["init", str(root / "set"), *options], input=typed, catch_exceptions=False)


def test_without_a_terminal_it_is_refused_with_the_options_that_there_are(towns: Path) -> None:
    result = init(towns, "--time", "quick")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and not (towns / "s.yaml").exists()
    assert (
        "--layout class/patient if 'aarhus', 'basel' are classes, and 'p00', 'p01' and 22 more patients"
        in said
    )
    assert "--layout site/patient if 'aarhus', 'basel' are hospitals" in said


def test_the_option_is_followed(towns: Path) -> None:
    scenario = passes_check(towns, init(towns, "--time", "quick", "--layout", "class/patient"), "s.yaml")
    assert scenario.data.layout == "class/patient"  # type: ignore[attr-defined]  # of this source
    result = init(towns, "--to", str(towns / "t.yaml"), "--time", "quick", "--layout", "site/patient")
    assert result.exit_code == 2 and "manifest FOLDER --layout site/patient" in " ".join(
        result.stderr.split()
    )


@pytest.mark.parametrize("data", ["phantom_cells", "m.csv"])
def test_the_option_is_for_folders(tmp_path: Path, data: str) -> None:
    (tmp_path / "m.csv").write_text("file,label,patient\n", encoding="utf-8")
    given = str(tmp_path / data) if data == "m.csv" else data
    result = CliRunner().invoke(
        app, ["init", given, "--layout", "class/patient", "--to", str(tmp_path / "s.yaml")]
    )
    assert result.exit_code == 2 and "is no folder, expected one of images" in " ".join(result.stderr.split())


def test_on_a_terminal_it_asks_once(towns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though images are read once more where there is more time."""
    monkeypatch.setattr("fedunlearn.commands.asking.present", lambda: True)
    result = init(towns, typed="classes\nclass/patient\nnormal\n")
    assert result.exit_code == 0, result.output
    assert "found classes; expected class/patient or site/patient" in result.output
    assert result.output.count("  site/patient: 'aarhus', 'basel' are hospitals") == 1
    assert scenarios.read(towns / "s.yaml").data.layout == "class/patient"  # type: ignore[attr-defined]
