"""What `check` shows of the data, against counts by hand, and about how long a run takes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.cohort import Cohort, gather
from fedunlearn.campaign.survey import lacking, survey
from fedunlearn.campaign.timing import counted, duration, timed
from fedunlearn.core import IGNORED
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


def test_a_class_that_a_hospital_does_not_train_on_is_named(cohort: Cohort) -> None:
    assert not lacking(cohort)
    first = cohort.sites[0]
    there = (cohort.site == first) & (cohort.targets == 2) & (cohort.split == "train")
    without = replace(cohort, targets=np.where(there, 1, cohort.targets))
    told = f"hospital {first} trains on no image of class {cohort.names[2]}, which others have."
    assert lacking(without) == [told] and f"- {told}" in survey(without)


def test_a_structure_that_a_hospitals_maps_lack_is_named_and_what_is_ignored_is_none(cohort: Cohort) -> None:
    first = cohort.sites[0]
    maps = np.zeros((len(cohort.site), 2, 2), dtype=np.uint8)
    maps[:, 0, 0] = np.where(cohort.site == first, IGNORED, 1)
    found = lacking(replace(cohort, targets=maps, classes=2))
    assert found == [
        f"hospital {first} trains on no image of structure {cohort.names[1]}, which others have."
    ]


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
    assert "notes:" not in survey(cohort)
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
