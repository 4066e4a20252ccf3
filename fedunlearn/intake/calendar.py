"""Rounds with dates: when each is over, and when the desk meets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated

from annotated_types import Ge, Le

LONGEST = 3660
"""Days that a round, or whatever else a calendar counts in days, may take: ten years."""

Days = Annotated[int, Ge(1), Le(LONGEST), "days"]
"""A time in whole days; scenarios write it as ``7d``."""


@dataclass(frozen=True)
class Calendar:
    """Which day it is when so many rounds are trained: *boundary* b is after b rounds, 0 is the start.

    Attributes:
        start: the day on which the first round begins.
        round: days that one takes, such as 7d.
        looks: days between looks at what models remember and are good for, such as 30d.
    """

    start: date
    round: Days = 7
    looks: Days = 30

    def day(self, boundary: int) -> date:
        """The day on which ``boundary`` rounds are trained."""
        return self.start + timedelta(days=boundary * self.round)

    def boundary(self, day: date) -> int:
        """The first boundary on or after ``day``; at least 1, since from the start on the first round is under way."""
        return max(1, math.ceil((day - self.start).days / self.round))

    def looked(self, rounds: int) -> tuple[int, ...]:
        """The boundaries nearest to every ``looks`` days, ascending, and the last one.

        One that comes less than half of that before the last is left out.
        """
        latest = rounds - self.looks / self.round / 2
        near = (
            max(1, math.floor(number * self.looks / self.round + 0.5))
            for number in range(1, rounds * self.round // self.looks + 1)
        )
        return (*sorted({boundary for boundary in near if boundary <= latest}), rounds)
