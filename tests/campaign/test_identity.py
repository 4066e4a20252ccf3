"""What a scenario makes of ids, labels and parts that the data writes in its own way."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError
from tests.runs import TINY, write

NFD = unicodedata.normalize("NFD", "Müller")
SITES = "sites={names: [a, b], partition: {name: by_column}}"
DATA = "data={name: folder, manifest: m.csv}"


def cohort(root: Path, people: list[tuple[str, str, str]], header: str = "split", *overrides: str) -> Cohort:
    """Two images, of two classes, of every (patient, site, value of another column)."""
    rows = [f"file,label,patient,site,{header}"]
    for number, (patient, site, other) in enumerate(people):
        for label in (0, 1):
            pixels = np.random.default_rng(2 * number + label).integers(0, 255, (28, 28), np.uint8)
            Image.fromarray(pixels).save(root / f"{number}-{label}.png")
            rows.append(f"{number}-{label}.png,{label},{patient},{site},{other}")
    (root / "m.csv").write_text("\n".join(rows), encoding="utf-8")
    text = (
        TINY.replace("names: [north, east, west]", "names: [a, b]").replace("east", "b").replace("north", "a")
    )
    return gather(scenarios.read(write(root, text), [DATA, SITES, *overrides]), root)


def people(name: str = "p{}") -> list[tuple[str, str, str]]:
    parts = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    return [(name.format(n) if site == "a" else f"q{n}", site, parts[n]) for site in "ab" for n in range(10)]


def test_a_split_of_the_data_is_kept_beside_ours_or_used(tmp_path: Path):
    anew = cohort(tmp_path, people())
    assert list(anew.table.columns).count("split") == 1
    assert anew.table["data_split"].tolist() == [part for _, _, part in people() for _ in (0, 1)]
    assert any("`split: {from: split}` would use the data's own" in note for note in anew.notes)
    used = cohort(tmp_path, people(), "split", "sites.split={from: split}")
    assert used.split.tolist() == [part for _, _, part in people() for _ in (0, 1)]
    assert "data_split" not in used.table.columns and not any("anew" in note for note in used.notes)


@pytest.mark.parametrize("column", ["forgotten_by", "canary", "difficulty"])
def test_columns_of_our_names_crash_nothing_and_are_there_once(tmp_path: Path, column: str):
    found = cohort(tmp_path, people(), column, "evaluation.canary=0.5").table
    assert not found.columns.duplicated().any()
    kept = column if column == "difficulty" else f"data_{column}"
    assert found[kept].tolist() == [part for _, _, part in people() for _ in (0, 1)]


@pytest.mark.parametrize("name", ["Müller {}", NFD + " {}", " M\u00fc\u200bller {}"])
def test_a_request_finds_a_patient_however_the_two_are_written(tmp_path: Path, name: str):
    wish = f"requests=[{{id: r, site: a, patients: ['{NFD} 1', 'Müller 0']}}]"
    found = cohort(tmp_path, people(name), "age", wish, "strategies=[]", "sites.split={from: age}")
    assert set(found.table.loc[found.forgotten["r"], "patient"]) == {"Müller 0", "Müller 1"}


def test_a_near_twin_that_a_request_leaves_is_noted(tmp_path: Path):
    some = people()
    some[1] = ("P0", "a", "train")
    wish = "requests=[{id: r, site: a, patients: [P0]}]"
    notes = cohort(tmp_path, some, "x", wish, "strategies=[]", "sites.split={from: x}").notes
    assert any(
        "'P0' (2) and 'p0' (2)" in note and "forgetting one leaves the other" in note for note in notes
    )
    assert any("request 'r': it names 'P0' but not 'p0'" in note for note in notes)


def test_a_single_class_is_refused(tmp_path: Path):
    cells = [f"{n}.png,normal,p{n},{'ab'[n % 2]}" for n in range(20)]
    (tmp_path / "m.csv").write_text("\n".join(["file,label,patient,site", *cells]))
    for n in range(20):
        Image.fromarray(np.full((28, 28), n, np.uint8)).save(tmp_path / f"{n}.png")
    wish = "requests=[{id: r, site: a, patients: {count: 1}}]"
    read = scenarios.read(write(tmp_path), [DATA, SITES, wish, "strategies=[]"])
    with pytest.raises(
        InputError, match=r"all images have one label \('normal'\), expected at least two classes"
    ):
        gather(read, tmp_path)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("{from: }", "from: expected the name of a column"),
        ("{from: [a]}", "from: expected the name of a column"),
        ("{from: split, train: 0.5}", "unknown key 'train'; expected from"),
        ("{form: split}", "unknown key 'form'"),
    ],
)
def test_a_split_that_cannot_be_read_is_told(tmp_path: Path, split: str, words: str):
    with pytest.raises(InputError, match=words):
        scenarios.read(write(tmp_path), [f"sites.split={split}"])


def test_an_official_split_is_written_as_it_was_read(tmp_path: Path):
    read = scenarios.read(write(tmp_path), ["sites.split={from: fold}"])
    text = scenarios.to_yaml(read)
    assert 'split: {from: "fold"}' in text
    assert scenarios.read(write(tmp_path, text)) == read


def test_patients_at_several_hospitals_are_noted(tmp_path: Path):
    both = [(f"p{n}", site, part) for _, site, part in people()[::10] for n, part in enumerate(["train"] * 6)]
    notes = cohort(tmp_path, both, "x").notes
    assert any(
        note.startswith(
            "6 patients have images at several hospitals ('p0' at a and b; 'p1' at a and b; 'p2' at"
        )
        for note in notes
    )
    assert not any("several hospitals" in note for note in cohort(tmp_path, people()).notes)
