"""How much time a request leaves: Art. 12(3) and (4) of Regulation (EU) 2016/679 (GDPR)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from fedunlearn.deadlines import FURTHER, MONTHS, after


@dataclass(frozen=True)
class Clock:
    """The dates of one request; what nobody has said is None.

    Attributes:
        received: when it came in.
        extended_to: the later date that the person was told.
        told: when the person was told so.
        answered: when it was answered.
        reason: why it was extended.
        refused: whether the answer was no.
    """

    received: date | None = None
    extended_to: date | None = None
    told: date | None = None
    answered: date | None = None
    reason: str | None = None
    refused: bool = False

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
        if not (self.reason or "").strip():
            found.append("nobody says why")
        if self.refused:
            found.append(f"a refusal is told within the month, by {self.due} (Art. 12(4))")
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
