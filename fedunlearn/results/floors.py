"""Which strategies are not worth their cost: a floor does more for less.

A floor is what needs no thought: to train on without the data (`fine_tune`), or to train again for some of the rounds
(`retrain_short`). It is compared with as it was run, beside the strategies, at the same requests and seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedunlearn.results.overview import FORGOTTEN, USEFUL, Row


def dominated(rows: Sequence[Row], floors: Sequence[str]) -> dict[str, str]:
    """By strategy, the floor that dominates it: of several, the one that leaves least memory.

    A floor does if it costs less, leaves less memory beyond what both intervals allow for, and neither of its answers
    comes after the strategy's. A floor may dominate another.
    """
    found = dict[str, str]()
    standing = sorted((row for row in rows if row.strategy in floors), key=lambda row: row.left.value)
    for row in rows:
        better = next((floor for floor in standing if _does_more_for_less(floor, row)), None)
        if better is not None:
            found[row.strategy] = better.strategy
    return found


def _does_more_for_less(floor: Row, row: Row) -> bool:
    """A comparison with NaN is false: what is not known dominates nothing, and is not dominated."""
    luck = math.hypot(floor.left.half, row.left.half)
    return (
        floor.work < row.work
        and row.left.value - floor.left.value > luck
        and FORGOTTEN[floor.forgotten] <= FORGOTTEN[row.forgotten]
        and USEFUL[floor.useful] <= USEFUL[row.useful]
    )
