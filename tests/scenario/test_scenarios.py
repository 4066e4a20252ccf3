"""Every scenario file of the project: loads, says how it is run, and passes `check` where its data is at hand."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from fedunlearn import installation, scenario as scenarios
from fedunlearn.scenario import Scenario
from fedunlearn.sweep import cells, checking
from fedunlearn.sweep.cells import Sweep
from sites.folder import Folder
from sites.medmnist import MedMNIST
from sites.mrbrains import MRBrainS
from sites.npz import Npz

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(installation.scenario_files().values())


read = cache(cells.read)


def every(path: Path) -> list[Scenario]:
    """The scenario; of a sweep, every cell."""
    found = read(path)
    return [cell.scenario for cell in found.cells] if isinstance(found, Sweep) else [found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_and_is_headed_by_its_command(path: Path) -> None:
    assert {scenario.name for scenario in every(path)} == {path.stem}
    head = path.read_text(encoding="utf-8").partition("\nname:")[0]
    assert f"python -m fedunlearn simulate {path.relative_to(ROOT)}" in head


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_survives_being_written_out_in_full(path: Path, tmp_path: Path) -> None:
    for scenario in every(path)[:: max(1, len(every(path)) - 1)]:  # of a sweep, the first and the last cell
        (tmp_path / "full.yaml").write_text(scenarios.to_yaml(scenario), encoding="utf-8")
        assert scenarios.read(tmp_path / "full.yaml") == scenario


VOLUMES = ("hippocampus", "brain")
"""In the names of scenarios whose images are volumes: to check one of them takes seconds."""


def _marked(path: Path):
    """Papers' recipes and studies are of the same data as the scenarios beside them."""
    long = any(of in path.stem for of in VOLUMES) or path.parent.name in ("papers", "studies")
    return pytest.param(path, marks=pytest.mark.gate if long else ())


@pytest.mark.data
@pytest.mark.parametrize("path", [_marked(path) for path in FILES], ids=lambda path: path.stem)
def test_it_passes_check_where_its_data_is_at_hand(path: Path) -> None:
    """Of a sweep, the first and the last cell: the smallest and the largest request."""
    root = Path(os.environ.get("FEDUNLEARN_DATA", "nowhere"))
    found = read(path)
    if absent := [
        file for scenario in every(path) for file in _files(scenario) if not (root / file).is_file()
    ]:
        pytest.skip(f"no {absent[0]} in FEDUNLEARN_DATA ({root})")
    some = replace(found, cells=(found.cells[0], found.cells[-1])) if isinstance(found, Sweep) else found
    assert checking.check(some, root).lines


def _files(scenario: Scenario) -> list[str]:
    """The file that the scenario's data is read from; phantoms need none."""
    match scenario.data:
        case MedMNIST(set=name, size=size):
            return [f"{name}.npz" if size == 28 else f"{name}_{size}.npz"]
        case Npz(path=file) | Folder(manifest=str(file)):
            return [file]
        case MRBrainS(path=folder):
            return [f"{folder}/training/1/segm.nii.gz"]
    return []


def test_the_scenario_that_is_shown_can_be_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "scenario.md").read_text(encoding="utf-8")
    (tmp_path / "shown.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    scenario = scenarios.read(tmp_path / "shown.yaml")
    assert [plan.label for plan in scenario.strategies] == ["fine_tune", "federaser", "puf", "puf"]
