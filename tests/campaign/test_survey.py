"""What `check` shows of the data, against counts by hand, and about how long a run takes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign import timing
from fedunlearn.campaign.classes import MOST, lacking
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.survey import survey
from fedunlearn.campaign.timing import counted, duration, scoring_seconds, timed
from fedunlearn.core import IGNORED
from fedunlearn.core.held import held
from sites.collection import SEEN
from tests.runs import TINY, write


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("survey")
    return gather(scenarios.read(write(folder, TINY)), folder)


def rows(lines: list[str], header: str) -> dict[str, list[str]]:
    """The rows of the table whose header starts so, by hospital, in cells."""
    start = next(i for i, line in enumerate(lines) if re.match(header, line))
    table = [re.split(r"\s{2,}", line.strip()) for line in lines[start + 1 :]]
    end = next((i for i, cells in enumerate(table) if cells == [""]), len(table))
    return {cells[0]: cells[1:] for cells in table[:end]}


def test_every_hospital_has_a_row_with_what_it_holds(cohort: Cohort) -> None:
    table, found = cohort.table, rows(survey(cohort), r"hospital +patients +images")
    for site in cohort.sites:
        own = table[table["site"] == site]
        parts = [int((own["split"] == part).sum()) for part in ("train", "val", "test")]
        assert found[site] == [f"{n:,}" for n in (own["patient"].nunique(), len(own), *parts)]
    assert found["all"][:2] == [str(table["patient"].nunique()), str(len(table))]


def test_images_are_counted_by_class(cohort: Cohort) -> None:
    found = rows(survey(cohort), r"hospital +0")
    for site in cohort.sites:
        own = cohort.targets[cohort.site == site]
        assert found[site] == [str(int((own == c).sum())) for c in range(cohort.classes)]


def test_a_class_that_a_hospital_does_not_train_on_is_named(tmp_path: Path) -> None:
    """North has the classes 0 and 1, east 0 to 2: three labels of the same images, 2 only at one of them."""
    has = held("classification").has(np.array([0, 1, 0, 1, 2]), 3)
    site = np.array(["north", "north", "east", "east", "east"])
    called = ["class a", "class b", "class c"]
    told = "hospital north trains on no image of class c, which others have"
    assert lacking(has, site, ["north", "east"], called) == [told]
    assert lacking(has[1:], site[1:], ["north", "east"], called) == [
        "hospital north trains on no image of class a, class c, which others have"
    ]


def test_of_many_hospitals_that_lack_something_the_first_are_named_and_the_others_counted() -> None:
    """Each of 23 hospitals trains on one class: 22 of them on 0, the last on 1."""
    site = np.array([f"h{number:02}" for number in range(23)])
    told = lacking(
        np.eye(2, dtype=bool)[(np.arange(23) == 22).astype(int)], site, site.tolist(), ["class 0", "class 1"]
    )
    assert len(told) == MOST + 1
    assert told[MOST - 1] == "hospital h19 trains on no image of class 1, which others have"
    assert told[MOST] == "3 more hospitals lack images of what others have"


def test_a_structure_that_a_hospitals_maps_lack_is_named_and_what_is_ignored_is_none() -> None:
    maps = np.zeros((2, 2, 2), dtype=np.uint8)
    maps[:, 0, 0] = IGNORED, 1
    assert held("segmentation").has(maps, 2).tolist() == [[False, False], [False, True]]


def test_what_hospitals_lack_is_a_note_that_the_run_keeps(tmp_path: Path) -> None:
    site = np.repeat(["north", "east", "west"], 40)
    labels = np.where(site == "west", 0, np.arange(120) % 2)
    pixels = np.random.default_rng(0).integers(0, 255, (120, 28, 28), np.uint8)
    people = np.array([f"p{row // 4:02d}" for row in range(120)])
    columns = {"images": pixels, "labels": labels, "patient_id": people, "site": site}
    arrays: dict[str, Any] = {f"train_{name}": values for name, values in columns.items()}
    np.savez(tmp_path / "d.npz", **arrays)
    changes = ["data={name: npz, path: d.npz}", "sites.partition={name: by_column}"]
    found = gather(scenarios.read(write(tmp_path, TINY), changes), tmp_path)
    assert "hospital west trains on no image of class 1, which others have" in found.notes


def test_files_are_summed_up_by_hospital(cohort: Cohort) -> None:
    count = len(cohort.site)
    first = cohort.site == cohort.sites[0]
    seen = pd.DataFrame(
        {
            "format": np.where(first, "DICOM", "PNG"),
            "size": "64 × 64",
            "low": np.where(first, -1000.0, 0.0),
            "high": np.linspace(200, 255, count),
            "orientation": "",
        },
        columns=list(SEEN),
    )
    found = rows(survey(replace(cohort, seen=seen)), r"hospital +format")
    assert found[cohort.sites[0]][:2] == ["DICOM", "64 × 64"] and "-1000 … " in " ".join(
        found[cohort.sites[0]]
    )
    assert found[cohort.sites[1]][:2] == ["PNG", "64 × 64"]
    assert "PNG" in found["all"][0] and "DICOM" in " ".join(found["all"])


def test_notes_are_listed_and_cannot_reach_a_terminal(cohort: Cohort) -> None:
    assert "notes:" not in survey(replace(cohort, notes=()))
    lines = survey(replace(cohort, notes=("one", "two\n\x1b[31m")))
    assert lines[lines.index("notes:") + 1 :] == ["- one", "- two\\n\\x1b[31m"]


def test_of_many_hospitals_the_first_are_shown_and_the_rest_in_one_row(cohort: Cohort) -> None:
    names = tuple(f"h{number:03d}" for number in range(50))
    site = np.array(names)[np.arange(len(cohort.site)) % 50]
    many = replace(cohort, sites=names, site=site, table=cohort.table.assign(site=site))
    found = rows(survey(many), r"hospital +patients +images")
    assert list(found) == [*names[:20], "30 more", "all"]


# ----------------------------------------------------------------------------------------------------- time


def test_passes_are_counted_as_a_run_makes_them(tmp_path: Path) -> None:
    """Trainings by hand: rounds × epochs × images, for every seed, and again without what each request names."""
    scenario = replace(scenarios.read(write(tmp_path, TINY)), strategies=())
    cohort = gather(scenario, tmp_path)
    train = cohort.split == "train"
    often = scenario.training.rounds * scenario.training.local.epochs * len(scenario.seeds)
    left = sum(int((train & ~cohort.forgotten[request.id]).sum()) for request in scenario.requests)
    assert counted(scenario, cohort).trained == often * (int(train.sum()) + left)


def test_a_timed_step_leaves_no_trace_and_takes_time(tmp_path: Path) -> None:
    import torch

    scenario = scenarios.read(write(tmp_path, TINY))
    cohort = gather(scenario, tmp_path)
    before = torch.get_rng_state()
    found = timed(scenario, cohort)
    assert torch.equal(before, torch.get_rng_state())
    assert found.trained > 0 and found.asked > 0
    assert re.match(r"takes about \d+ (s|minutes) with \d+ workers", duration(scenario, cohort))


def test_what_is_timed_of_a_stack_is_one_trainings_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full stack is stepped through; with a clock that makes each 1 s, an image of 24 takes a 24th of a third."""
    scenario = scenarios.read(write(tmp_path, TINY), ["training.stack=3", "training.batch_size=24"])
    cohort, sizes = gather(scenario, tmp_path), list[int]()
    monkeypatch.setattr(timing, "fit_together", lambda network, members, local: sizes.append(len(members)))
    monkeypatch.setattr(timing, "_median", lambda step: [step(), 1.0][1])
    assert timed(scenario, cohort).trained == 1 / (24 * 3) and sizes == [3]


def test_scoring_takes_as_long_as_there_are_models_and_cores(tmp_path: Path, monkeypatch) -> None:
    """Two seeds of an original, two retrained and five unlearned models: 16, of .14 s and .04 s a thousand images."""
    scenario = scenarios.read(write(tmp_path, TINY), ["engine.workers=64"])
    cohort = gather(scenario, tmp_path)
    expected = 16 * (0.14 + 0.04 * len(cohort.site) / 1000)
    for cores, at_once in ((1, 1), (2, 2), (64, 4)):
        monkeypatch.setattr("fedunlearn.cores.usable", lambda cores=cores: cores)
        assert scoring_seconds(scenario, cohort) == pytest.approx(expected / at_once)
    few = scenarios.read(write(tmp_path, TINY), ["engine.workers=3"])
    assert scoring_seconds(few, cohort) == pytest.approx(expected / 3)
