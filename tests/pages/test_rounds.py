"""Round by round: what the table shows where seeds know different rounds, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fedunlearn.pages import facts, listing
from fedunlearn.pages.tables import Number
from fedunlearn.results.held import Held
from tests.pages import made
from tests.results.test_frames import curve


def test_a_row_is_of_the_same_round_in_all_seeds() -> None:
    whole = [curve("good", s, r, s + r) for s in (7, 8) for r in (0, 1, 2)]
    ends = [curve("good", 9, 0, 9), {**curve("good", 9, 2, 11), "step": 1}]
    found = listing.rounds(pd.DataFrame([*whole, *ends]), "r")
    assert found is not None
    (first,), (last,) = (row[3].parts for row in found.rows)
    assert isinstance(first, Number) and isinstance(last, Number)
    assert (first.value, first.source) == (8, "curves 0,3,6 value mean")
    assert (last.value, last.source) == (10, "curves 2,5,7 value mean")


@pytest.mark.gate
def test_it_is_said_where_only_start_and_end_are_known(tmp_path: Path) -> None:
    one = {"phase": "unlearn", "request": "some", "strategy": "two\nlines", "seed": 7}
    ends = [one, {**one, "seed": 8}, {**one, "phase": "original", "request": ""}]
    held = Held(made.folder(tmp_path / "run", ends_only=ends))
    assert facts._ends_only(held, "some") == (
        r"Only start and end are known of two\nlines (unlearning), training: taken from an earlier run.",
    )
    assert facts._ends_only(held, "east-leaves") == (
        "Only start and end are known of training: taken from an earlier run.",
    )
