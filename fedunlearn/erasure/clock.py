"""How much time a request leaves: Art. 12(3) of Regulation (EU) 2016/679 (GDPR)."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date

MONTHS = 1
"""Within which a request is answered."""
FURTHER = 2
"""Months by which that may be extended, "where necessary, taking into account the complexity and number of the
requests"; the person is told so, with the reasons, within the first."""


@dataclass(frozen=True)
class Clock:
    """The dates of one request; what nobody has said is None.

    Attributes:
        received: when it came in.
        extended_to: the later date that the person was told.
        told: when the person was told so.
        answered: when it was answered.
    """

    received: date | None = None
    extended_to: date | None = None
    told: date | None = None
    answered: date | None = None

    @property
    def due(self) -> date | None:
        """The date by which it has to be answered, if nothing extends it."""
        return None if self.received is None else after(self.received, MONTHS)

    @property
    def limit(self) -> date | None:
        """The date by which it has to be answered, with an extension that counts."""
        if self.received is None or self.due is None:
            return None
        if self.extended_to is None or self.objections:
            return self.due
        return self.extended_to

    @property
    def objections(self) -> tuple[str, ...]:
        """Why an extension does not count, in words."""
        if self.extended_to is None or self.received is None or self.due is None:
            return ()
        latest = after(self.received, MONTHS + FURTHER)
        found = []
        if self.extended_to <= self.due:
            found.append(f"it is not later than {self.due}, when an answer is due anyway")
        if self.extended_to > latest:
            found.append(f"it is later than {latest}, the last day that Art. 12(3) allows")
        if self.told is None:
            found.append("nobody says when the person was told")
        elif self.told > self.due:
            found.append(f"the person was told after {self.due}, when the first month was over")
        return tuple(found)

    @property
    def days(self) -> int | None:
        """Days from the day on which it came in until it was answered."""
        if self.received is None or self.answered is None:
            return None
        return (self.answered - self.received).days

    @property
    def late(self) -> int | None:
        """Days by which the answer was late; 0 if it was in time, None if nobody can tell."""
        if self.limit is None or self.answered is None:
            return None
        return max(0, (self.answered - self.limit).days)


def after(day: date, months: int) -> date:
    """The same day so many months on, or the last day of that month if it has no such day.

    So ends a period of months (Regulation (EEC, Euratom) 1182/71, Art. 3(2)(c)). That a last day which is a holiday, a
    Sunday or a Saturday moves on to the next working day (Art. 3(4)) is left out: nobody is late for being early.
    """
    month = day.month - 1 + months
    year, month = day.year + month // 12, month % 12 + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))
