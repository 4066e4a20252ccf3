"""Every scenario file of the project: loads, says how it is run, and is one that `check` would pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedunlearn import scenario as scenarios

FILES = sorted((Path(__file__).parent.parent / "scenarios").rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_and_is_headed_by_its_command(path: Path) -> None:
    scenario = scenarios.read(path)
    assert scenario.name == path.stem
    head = path.read_text().partition("\nname:")[0]
    assert f"python -m fedunlearn simulate {path.relative_to(path.parent.parent)}" in head


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_survives_being_written_out_in_full(path: Path, tmp_path: Path) -> None:
    scenario = scenarios.read(path)
    (tmp_path / "full.yaml").write_text(scenarios.to_yaml(scenario))
    assert scenarios.read(tmp_path / "full.yaml") == scenario


def test_the_scenario_shown_in_the_readme_can_be_read(tmp_path: Path) -> None:
    readme = (FILES[0].parent.parent / "README.md").read_text(encoding="utf-8")
    (tmp_path / "shown.yaml").write_text(
        readme.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8"
    )
    scenario = scenarios.read(tmp_path / "shown.yaml")
    assert [plan.label for plan in scenario.strategies] == ["fine_tune", "federaser", "gentle-puf"]
