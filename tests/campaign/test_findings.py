"""Images with several findings as hospitals hold them: dealt and picked by their rarest one, told by each."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.classes import lacking
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.estimate import estimate
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.survey import draw, survey
from fedunlearn.core import IGNORED, InputError
from fedunlearn.core.held import held
from fedunlearn.kinds.multilabel.held import NONE, UNKNOWN, rarest, told
from fedunlearn.scenario import Scenario
from sites.dealing.patients import patients_of

NAMES = ("effusion", "mass", "hernia")
TEXT = """\
name: findings
seeds: [1]
engine: {name: inline, workers: 1}
data: {name: npz, path: x.npz, findings: [effusion, mass, hernia]}
sites: {names: [north, east], partition: {name: label_skew, alpha: 0.5}}
model: {name: small_cnn, kind: multilabel}
training: {rounds: 1, local_epochs: 1}
requests:
  - {id: rare, site: north, patients: {count: 2, pick: rare_class}}
  - {id: scarce, site: north, patients: {count: 2, pick: scarce_elsewhere}}
  - {id: named, site: north, patients: {count: 1, by: {rarest_finding: mass}}}
  - {id: leave, site: east, whole_site: true}
strategies: [{name: fine_tune, rounds: 1}]
"""


def arrays() -> dict[str, Any]:
    """180 images of 60 patients; a third has an effusion, a fifth a mass, a twentieth a hernia, some unknown."""
    rng = np.random.default_rng(0)
    findings = (rng.random((180, 3)) < (1 / 3, 1 / 5, 1 / 20)).astype(np.int64)
    findings[rng.random((180, 3)) < 0.05] = -1
    return {
        "train_images": rng.integers(0, 255, (180, 28, 28), np.uint8),
        "train_labels": findings,
        "train_patient_id": np.array([f"p{row // 3:02d}" for row in range(180)]),
        "train_findings": np.array(["theirs"] * 180),
    }


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    file = tmp_path_factory.mktemp("findings") / "s.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return scenarios.read(file)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, scenario: Scenario) -> Cohort:
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "x.npz", **arrays())
    return gather(scenario, folder)


def test_the_table_tells_what_is_present_what_nobody_knows_and_the_rarest(cohort: Cohort):
    assert (cohort.kind, cohort.names, cohort.classes, cohort.labels) == ("multilabel", NAMES, 2, None)
    table = cohort.table
    for row, target in enumerate(cohort.targets):
        has = [name for name, one in zip(NAMES, target, strict=True) if one == 1]
        other = UNKNOWN if IGNORED in target else NONE
        assert table["findings"][row] == ("|".join(has) or other)
        assert table["unknown"][row] == "|".join(
            n for n, one in zip(NAMES, target, strict=True) if one == IGNORED
        )
        assert table["rarest_finding"][row] == (has[-1] if has else other)  # named from frequent to rare
    assert "label" not in table
    assert (table["data_findings"] == "theirs").all()  # a column of the data with our name
    assert any("the data's column findings is kept as data_findings" in note for note in cohort.notes)


def test_hospitals_differ_in_their_findings_and_parts_are_alike(cohort: Cohort):
    has = cohort.targets == 1
    shares = np.array([has[cohort.site == site].mean(axis=0) for site in cohort.sites])
    assert np.abs(shares[0] - shares[1]).max() > 0.1  # Dirichlet shares of each rarest finding's patients
    patients = patients_of(cohort.table, rarest(cohort.targets))
    label = patients.label[patients.member]
    here = cohort.site == max(cohort.sites, key=lambda site: (cohort.site == site).sum())
    for stratum in np.unique(label[here]):
        own = here & (label == stratum)
        if own.sum() >= 24:  # images of three a patient: no share is off by more than one patient or two
            assert abs((cohort.split[own] == "train").mean() - 0.6) < 0.25


def test_rare_findings_are_picked_and_named(scenario: Scenario, cohort: Cohort):
    table = cohort.table
    here = (table["site"] == "north") & (table["split"] == "train")
    sizes = table[here]["rarest_finding"].value_counts()

    def size(patient: str) -> int:
        return int(sizes[table[here & (table["patient"] == patient)]["rarest_finding"].mode().min()])

    picked = set(table[here & cohort.forgotten["rare"]]["patient"])
    others = set(table[here]["patient"]) - picked
    assert max(map(size, picked)) <= min(map(size, others))
    assert "mass" in set(table[cohort.forgotten["named"]]["rarest_finding"])
    requests = {one.id: cohort.summary(one) for one in scenario.requests}
    assert "of the rarest finding" in requests["rare"]
    assert "of the finding that others have fewest of" in requests["scarce"]
    assert "training images" in requests["leave"]


def test_images_that_may_have_a_finding_are_dealt_picked_and_named_apart(scenario: Scenario, tmp_path: Path):
    """Of every fourth patient's images one finding is known to be absent, and nothing else is."""
    made, doubt = arrays(), np.arange(180) // 3 % 4 == 0
    made["train_labels"][doubt] = [0, -1, -1]
    made["train_labels"][~doubt] = np.abs(made["train_labels"][~doubt])
    np.savez(tmp_path / "x.npz", **made)
    found = gather(scenario, tmp_path)
    by = found.table["rarest_finding"]
    assert int((by == UNKNOWN).sum()) == int(doubt.sum()) and (by == NONE).any()
    assert set(found.table["patient"][by == UNKNOWN]).isdisjoint(found.table["patient"][by != UNKNOWN])
    assert not (by[found.forgotten["rare"]] == UNKNOWN).any()
    assert {*found.split[by == UNKNOWN]} == {"train", "val", "test"}
    (tmp_path / "s.yaml").write_text(TEXT, encoding="utf-8")
    named = f"requests.0.patients={{count: 1, by: {{rarest_finding: {UNKNOWN}}}}}"
    asked = gather(scenarios.read(tmp_path / "s.yaml", [named]), tmp_path)
    assert (asked.table["rarest_finding"][asked.forgotten["rare"]] == UNKNOWN).all()


def test_check_counts_each_finding_by_hospital(cohort: Cohort, tmp_path: Path):
    lines = survey(cohort)
    start = lines.index("images with a finding:")
    assert lines[start + 1].split() == ["finding", "north", "east", "all", "unknown"]
    for row, name in enumerate(NAMES):
        own = cohort.targets[:, row]
        counts = [int((own[cohort.site == site] == 1).sum()) for site in cohort.sites]
        told = re.split(r"\s{2,}", lines[start + 2 + row].strip())
        assert told == [name, *map(str, counts), str(sum(counts)), str(int((own == IGNORED).sum()))]
    nothing = (cohort.targets == 0).all(axis=1)
    assert lines[start + 5].split()[-1] == str(int(nothing.sum()))
    others = (cohort.targets != 1).all(axis=1) & ~nothing
    assert others.any() and lines[start + 6].split()[0] == "unknown"
    assert lines[start + 6].split()[-1] == str(int(others.sum()))
    known = replace(cohort, targets=np.where(cohort.targets == IGNORED, 0, cohort.targets))
    assert not any(line.startswith("unknown") for line in survey(known))
    many = replace(cohort, sites=tuple(f"s{number}" for number in range(7)))
    assert "finding  all  unknown" in re.sub(r" +", "  ", "\n".join(survey(many)))
    draw(cohort, "x", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_finding_that_a_hospital_does_not_train_on_is_named():
    targets = np.array([[1, 0], [0, IGNORED], [0, 1], [1, 1]], np.uint8)
    has = held("multilabel").has(targets, 2)
    assert has.tolist() == [[True, False], [False, False], [False, True], [True, True]]
    assert held("multilabel").one == "finding"
    site = np.array(["north", "north", "east", "east"])
    assert lacking(has, site, ["north", "east"], ["finding a", "finding b"]) == [
        "hospital north trains on no image of finding b, which others have"
    ]


def test_answers_of_each_finding_are_counted_on_disk(scenario: Scenario, cohort: Cohort):
    """Two scores of 4 bytes for each of three findings and image, and some more for the file."""
    disk, single = (
        estimate(scenario, one).disk["signals"]
        for one in (cohort, replace(cohort, targets=cohort.targets[:, :1]))
    )
    assert disk > single and (disk - single) % (2 * 4 * 2) == 0


def test_a_model_for_another_kind_is_told_what_to_write(tmp_path: Path):
    np.savez(tmp_path / "x.npz", **arrays())
    (tmp_path / "s.yaml").write_text(TEXT, encoding="utf-8")
    for change, advice in (
        (
            "model={name: small_cnn}",
            "is for classification, but the data is for multilabel: write kind: multilabel",
        ),
        ("model={name: unet3d}", "is for segmentation, but the data is for multilabel: name another model"),
    ):
        with pytest.raises(InputError, match=advice):
            gather(scenarios.read(tmp_path / "s.yaml", [change]), tmp_path)


def test_what_is_dealt_by(cohort: Cohort):
    targets = np.array([[0, 255], [1, 1], [0, 0], [255, 255]], np.uint8)
    assert told(targets, ("a", "b")) == {
        "findings": [UNKNOWN, "a|b", NONE, UNKNOWN],
        "unknown": ["b", "", "", "a|b"],
        "rarest_finding": [UNKNOWN, "a", NONE, UNKNOWN],
    }
    dealt = held("multilabel").strata
    numbers, names = dealt(targets, ("a", "b")) or ((), ())
    assert list(numbers) == [3, 1, 0, 3] and list(names) == [NONE, "a", "b", UNKNOWN]
    numbers, names = dealt(targets[1:3], ("a", "b")) or ((), ())
    assert list(numbers) == [1, 0] and list(names) == [NONE, "a", "b"]  # as if there were no such word
    assert rarest(np.zeros((0, 3), np.uint8)).tolist() == []


def test_images_of_which_nothing_is_known_are_left_out_and_counted(scenario: Scenario, tmp_path: Path):
    """What a model answers to them is neither right nor wrong: kept, an attack would take them for known by heart."""
    own = arrays()
    own["train_labels"][[3, 50, 51]] = -1
    np.savez(tmp_path / "x.npz", **own)
    found = gather(scenario, tmp_path)
    kept = np.delete(np.arange(180), [3, 50, 51])
    assert np.array_equal(found.targets == 1, own["train_labels"][kept] == 1)
    assert np.array_equal(found.pixels[:, 0], own["train_images"][kept])
    assert found.table["patient"].tolist() == own["train_patient_id"][kept].tolist()
    assert "left out: 3 of 180 images, of which no finding is known" in found.notes
