"""What mistakes cost: from a scenario by way of the manifest to a measure, and refused where it does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedunlearn import files, scenario as scenarios
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError, RunError
from fedunlearn.scoring.evidence.reading import read
from tests.runs import run, write

COSTS = [[0 if true == given else 1 + 2 * true for given in range(8)] for true in range(8)]


@pytest.mark.gate
def test_costs_of_a_scenario_are_what_the_risk_is_made_of(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        f"evaluation.costs={COSTS}",
        "seeds=[1]",
        "strategies=[]",
        "requests=[{id: some, site: north, patients: {count: 2}}]",
    )
    assert done.read_manifest()["costs"] == COSTS
    scores = done.read_table("scores.parquet")
    here = (
        (scores["strategy"] == "original") & (scores["measure"] == "test_risk") & (scores["group"] == "all")
    )
    table, logits = (done.read_table(f"{name}.parquet") for name in ("sites", "signals/original-1"))
    test = (table["split"] == "test").to_numpy()
    answers = zip(table["label"][test], logits.to_numpy()[test].argmax(axis=1), strict=True)
    (found,) = scores[here].to_dict("records")
    assert found["value"] == pytest.approx(np.mean([COSTS[true][given] for true, given in answers]))
    assert found["low"] < found["value"] < found["high"]
    manifest = done.read_manifest()
    for costs, expected in (({"costs": [[0, 1], [1, 0]]}, "expected 8 rows of 8 numbers"), ({}, "")):
        others = {name: value for name, value in manifest.items() if name != "costs"}
        (done.path / "manifest.json").write_bytes(files.sealed({**others, **costs}))
        if expected:
            with pytest.raises(RunError, match=expected):
                read(done.path)
        else:
            assert read(done.path).costs is None, "as in the manifests of older runs"


def test_costs_of_more_classes_than_the_data_has_are_refused_before_training(tmp_path: Path) -> None:
    scenario = scenarios.read(write(tmp_path), ["evaluation={costs: [[0, 1], [5, 0]]}"])
    with pytest.raises(InputError) as caught:
        gather(scenario, tmp_path)
    assert [problem.message for problem in caught.value.problems] == [
        "found costs of 2 classes, but the data has 8: write one row and one column for each"
    ]


def test_costs_are_not_of_volumes(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="costs are of classes of images, but model 'unet3d' is for segmentation"
    ):
        scenarios.read(write(tmp_path), ["evaluation={costs: [[0, 1], [5, 0]]}", "model={name: unet3d}"])
