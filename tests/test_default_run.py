"""The benchmark of the default run tells where a run's time goes."""

from __future__ import annotations

import math
import subprocess
import sys

import pandas as pd
import pytest

from benchmarks import default_run
from benchmarks.default_run import Contestant, Outcome


@pytest.mark.gate
def test_every_part_of_a_run_takes_its_time() -> None:
    # In a process of its own: it takes in whatever children are left.
    command = [sys.executable, default_run.__file__, "--quick"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    _, heading, _, row, same = printed.strip().splitlines()
    names, cells = ([cell.strip() for cell in line.strip("| ").split("|")] for line in (heading, row))
    found = dict(zip(names, cells, strict=False))
    parts = {part: float(found[f"{part} s"]) for part in default_run.PARTS}
    assert all(parts[part] > 0 for part in ("start", "train", "score", "page")) and parts["end"] >= 0
    assert float(found["CPU s"]) > 1
    assert (
        0 < float(found["busy %"]) <= 105
    )  # of all cores; clocks of processes tick in hundredths of a second
    assert same.endswith("yes.")


@pytest.mark.parametrize(("value", "same"), [(0.5, "yes"), (math.nextafter(0.5, 1), "NO")])
def test_two_outcomes_that_differ_are_told(
    capsys: pytest.CaptureFixture[str], value: float, same: str
) -> None:
    """In the last bit of one value, in any turn."""
    parts = dict.fromkeys(default_run.PARTS, 1.0)
    first, other = (
        Outcome(5.0, 4.0, 0.9, parts, pd.DataFrame({"value": [0.25, one]})) for one in (0.5, value)
    )
    here, there = (Contestant("inline", default_run.ROOT, name) for name in ("now", "before"))
    default_run.show([here, there], [{here: first, there: first}, {here: first, there: other}])
    assert capsys.readouterr().out.endswith(
        f"All came to the same scores.parquet, but for seconds: {same}.\n"
    )
