"""The benchmark of intervals: what it shows in a few draws, and its table."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks import intervals


@pytest.mark.gate
def test_an_erratic_strategys_intervals_hold_the_truth() -> None:
    """300 draws of 4 patients, luck 4 times that of retraining: 93 % at least is the aim, less 2 s.e. of 1.5."""
    found = intervals.rows(300, 4, swing=False, models=((3, 8),), strategies=((4.0, 0.0),))
    held = pd.DataFrame(found).groupby("rule")[["mean", "patients"]].mean()
    assert (held.loc["now"] >= 0.90).all(), held
    assert (held.loc["before"] < 0.88).all(), held


@pytest.mark.gate
@pytest.mark.parametrize("swing", [[], ["--swing"]])
def test_its_table_has_a_row_for_all_models_and_strategies(
    capsys: pytest.CaptureFixture[str], swing: list[str]
) -> None:
    """Eight pairs of K and M, twelve strategies; two lines before it, and three that say what is in the columns."""
    intervals.main(["--quick", "--patients", "1", *swing])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["", "1 to forget, 3 draws"]
    assert len(lines) == 2 + 3 + 8 * 12
    assert all(0 <= float(number) <= 100 for number in lines[-1].split()[-15:])
