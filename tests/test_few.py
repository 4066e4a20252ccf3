"""How the benchmark of small requests asks, and what it reads from a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from benchmarks.few import scenario, told
from fedunlearn import scenario as scenarios


@pytest.mark.gate
def test_it_asks_for_so_many_patients_each_and_runs_no_strategy(tmp_path: Path) -> None:
    config = scenario((1, 4), tmp_path).config
    assert {one.id: one.patients for one in config.requests} == {
        f"some-{count}": scenarios.Pick(count=count) for count in (1, 4)
    }
    assert config.strategies == () and (len(config.seeds), config.references) == (3, 8)


@pytest.mark.parametrize(
    ("original", "again", "finds", "clears"),
    [("no", "yes", True, True), ("partly", "yes, but", True, False), ("cannot tell", "no", False, False)],
)
def test_it_reads_what_a_run_says_of_models_whose_truth_is_known(
    original: str, again: str, finds: bool, clears: bool
) -> None:
    tables: dict[str, Any] = {
        "requests": {"request": ["some-2", "some-4"], "visible": [True, False], "smallest": [0.25, 2.0]},
        "verdicts": {
            "request": ["some-2", "some-2", "some-4"],
            "strategy": ["original", "retrained_other", "original"],
            "forgotten": [original, again, "yes"],
        },
    }
    run: Any = SimpleNamespace(read_table=lambda name: pd.DataFrame(tables[name.removesuffix(".parquet")]))
    assert told(run, 2) == {"patients": 2, "sees": True, "finds": finds, "clears": clears, "smallest": 0.25}
