from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fedunlearn.results.floors import dominated
from fedunlearn.results.overview import Row, Value
from fedunlearn.results.sentences import notes
from fedunlearn.results.summary import WIDTH, lines, markdown
from tests.results.test_summary import MADE, ROW

FLOOR = replace(ROW, strategy="retrain-60", work=1000.0, left=Value(0.1, 0.03))
POOR = replace(
    ROW, strategy="poor", work=2000.0, left=Value(0.2, 0.04)
)  # 0.1 apart, of 0.05 that luck allows


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (POOR, {"poor": "retrain-60"}),
        (replace(POOR, work=999.0), {}),  # it is cheaper
        (replace(POOR, work=1000.0), {}),
        (replace(POOR, left=Value(0.149, 0.04)), {}),  # it may be luck
        (replace(POOR, left=Value(0.151, 0.04)), {"poor": "retrain-60"}),
        (replace(POOR, left=Value()), {}),
        (replace(POOR, forgotten="no", useful="worse"), {"poor": "retrain-60"}),
    ],
)
def test_a_floor_dominates_what_costs_more_and_leaves_more(row: Row, expected: dict[str, str]) -> None:
    assert dominated([row, FLOOR], ["retrain-60"]) == expected
    assert dominated([row, FLOOR], []) == {}


@pytest.mark.parametrize(
    "floor",
    [
        replace(FLOOR, forgotten="too much"),  # it knows less than it should
        replace(FLOOR, useful="worse"),
        replace(FLOOR, work=math.nan),
        replace(FLOOR, left=Value(0.1, math.nan)),
    ],
)
def test_a_floor_that_is_worse_or_unknown_dominates_nothing(floor: Row) -> None:
    assert dominated([POOR, floor], ["retrain-60"]) == {}


def test_of_several_floors_that_which_leaves_least_is_named_and_one_may_dominate_another() -> None:
    better = replace(FLOOR, strategy="retrain-40", work=900.0, left=Value(-0.1, 0.03))
    rows, floors = [POOR, FLOOR, better], ["retrain-60", "retrain-40"]
    assert dominated(rows, floors) == {"poor": "retrain-40", "retrain-60": "retrain-40"}


def test_table_and_notes_say_who_is_dominated() -> None:
    made = replace(MADE, rows=(FLOOR, POOR), floors=("retrain-60",))
    texts = [line.plain for line in lines(made)]
    assert any(text.startswith("poor †") for text in texts)
    assert any(text.startswith("retrain-60 ") and "†" not in text for text in texts)
    assert all(len(text) <= WIDTH for text in texts)
    (said,) = [text for text in notes(made) if text.startswith("Dominated")]
    assert said.endswith(": poor by retrain-60.")
    assert any(line.startswith("| poor † ") for line in markdown(made))
    assert not any("ominated" in text for text in notes(replace(made, floors=())))
