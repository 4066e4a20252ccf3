"""When every request was answered, by policy, against the month that Art. 12(3) GDPR leaves (`fedunlearn.deadlines`).

An answer is there on the date of its boundary, which is the day on which it was reckoned: how long unlearning itself
takes is a cost, not a delay. A refusal is an answer too. An opt-out, and whatever names nothing that was trained on, or
nothing that earlier requests left, is answered once it is accepted: from then on nobody trains on its images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd

from fedunlearn.core import RequestId
from fedunlearn.deadlines import FURTHER, MONTHS, after
from fedunlearn.scoring.evidence.year import Entry, Policy, Year

COLUMNS = (
    "policy",
    "request",
    "kind",
    "site",
    "received",
    "state",
    "reason",
    "accepted",
    "answered",
    "days",
    "due",
    "late",
    "late_three",
)


@dataclass(frozen=True)
class Answer:
    """What became of one request under one policy.

    Attributes:
        entry: the request.
        state: "open" (the desk has not met since), "refused", "waiting" (accepted), "unlearned", or "barred", where
            there was nothing to unlearn.
        accepted: when it was, if it was.
        answered: when; None if it was not before the year ended.
        end: the last day.
    """

    entry: Entry
    state: str
    accepted: date | None
    answered: date | None
    end: date

    @property
    def days(self) -> float:
        """From the day on which it came in until it was answered; NaN where it was not."""
        return float("nan") if self.answered is None else float((self.answered - self.entry.received).days)

    @property
    def due(self) -> date:
        """The last day on which an answer is in time."""
        return after(self.entry.received, MONTHS)

    def late(self, months: int) -> int:
        """Days by which the answer came later than so many months; of one that is missing, by the end of the year."""
        return max(0, ((self.answered or self.end) - after(self.entry.received, months)).days)


def answers(year: Year, policy: Policy) -> list[Answer]:
    """Every request of the docket under a policy."""
    unlearned = policy.answered
    barred = {request: turn.round for turn in policy.turns for request in turn.bars}
    return [_answer(year, entry, unlearned, barred) for entry in year.docket]


def _answer(
    year: Year, entry: Entry, unlearned: Mapping[RequestId, int], barred: Mapping[RequestId, int]
) -> Answer:
    decided = None if entry.boundary is None else year.day(entry.boundary)
    if entry.state != "accepted":
        return Answer(entry, entry.state, None, decided if entry.state == "refused" else None, year.end)
    done, state = (unlearned, "unlearned") if entry.unlearns else (barred, "barred")
    if entry.id not in done:
        return Answer(entry, "waiting", decided, None, year.end)
    return Answer(entry, state, decided, year.day(done[entry.id]), year.end)


def waited(found: Iterable[Answer], until: date) -> int:
    """Days before ``until`` on which anything accepted waited to be unlearned."""
    spans = sorted(
        (one.accepted, min(one.answered or one.end, until))
        for one in found
        if one.entry.unlearns and one.accepted is not None and one.accepted < until
    )
    days, reached = 0, date.min
    for begins, ends in spans:
        days += max(0, (ends - max(begins, reached)).days)
        reached = max(reached, ends)
    return days


def table(year: Year) -> pd.DataFrame:
    """The content of ``calendar.parquet``: a row for every policy and request."""
    rows = [
        (
            policy.label,
            one.entry.id,
            one.entry.kind,
            one.entry.site,
            one.entry.received,
            one.state,
            one.entry.reason,
            one.accepted,
            one.answered,
            one.days,
            one.due,
            one.late(MONTHS),
            one.late(MONTHS + FURTHER),
        )
        for policy in year.policies
        for one in answers(year, policy)
    ]
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in ("received", "accepted", "answered", "due"):
        found[column] = dates(found[column])
    return found.astype({"days": "float64", "late": "int64", "late_three": "int64"})


def dates(days: Iterable[date | None]) -> pd.Series:
    """Dates as a column."""
    texts: list[Any] = [None if day is None or pd.isna(day) else day.isoformat() for day in days]
    return pd.Series(pd.to_datetime(texts, format="ISO8601")).astype("datetime64[ms]")
