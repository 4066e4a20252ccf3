"""Whether margins are the scenario's, and what is said of them if they are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from fedunlearn.results.margins import changed, origin

WRITTEN = "name: made\nverdict: {margins: {test: 0.05}}\n"


@dataclass(frozen=True)
class Made:
    """What a run says of its scenario and of itself."""

    scenario: str = WRITTEN
    margins: dict[str, float] = field(default_factory=lambda: {"test": 0.05})
    reused: tuple[str, ...] = ()

    def read_text(self, name: str) -> str:
        assert name == "scenario.yaml"
        return self.scenario

    def read_manifest(self) -> dict[str, Any]:
        return {"verdict": {"margins": self.margins}, "reused": self.reused}


@pytest.mark.parametrize("run", [Made(), Made("name: made\n", {"test": 0.03, "patients_over": 0})], ids=str)
def test_margins_of_the_scenario_are_declared_margins(run: Made) -> None:
    assert changed(run) == ""
    assert origin(run) == "Declared in the scenario before anything was run, never fitted to results."


def test_other_margins_are_told_beside_the_scenarios() -> None:
    run = Made(margins={"test": 0.05, "memory_left": 0.6, "patients_over": 2})
    said = (
        "Margins were changed after the run: judged with memory_left 0.6, patients_over 2 instead of the scenario's "
        "memory_left 0.25, patients_over 0."
    )
    assert changed(run) == origin(run) == said


def test_nobody_calls_margins_declared_before_results_that_were_there() -> None:
    """A new scenario with `--reuse` judges an earlier run's models by margins that were written later."""
    run = Made(reused=("puf-some-7",))
    assert changed(run) == "" and "may have been known" in origin(run)
