"""The month that a request leaves, and what extends it."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from fedunlearn.deadlines import FURTHER, LATEST, MONTHS, after
from fedunlearn.erasure.clock import Clock


@pytest.mark.parametrize(
    ("day", "months", "expected"),
    [
        ("2026-01-05", 1, "2026-02-05"),
        ("2026-01-31", 1, "2026-02-28"),  # no such day: the last one of the month
        ("2028-01-31", 1, "2028-02-29"),
        ("2026-12-15", 1, "2027-01-15"),
        ("2026-11-30", 3, "2027-02-28"),
        ("2026-02-28", 1, "2026-03-28"),  # not the last day: the same one
    ],
)
def test_a_month_ends_with_the_same_day(day: str, months: int, expected: str) -> None:
    assert after(date.fromisoformat(day), months) == date.fromisoformat(expected)


WHY = "40 requests at once"


def test_from_the_latest_day_all_deadlines_can_be_reckoned() -> None:
    """And from no later one."""
    assert after(LATEST, MONTHS + FURTHER) == date(9999, 12, 30)
    with pytest.raises(ValueError, match="10000"):
        after(LATEST + timedelta(1), MONTHS + FURTHER)


def clock(reason: str | None = WHY, refused: bool = False, /, **days: str) -> Clock:
    own = {name: date.fromisoformat(day) for name, day in days.items()}
    return Clock(**own, reason=reason, refused=refused)


def test_an_answer_is_late_by_the_days_after_the_month() -> None:
    assert clock(received="2026-01-05", answered="2026-02-05").late == 0
    late = clock(received="2026-01-05", answered="2026-02-08")
    assert (late.late, late.days, late.due) == (3, 34, date(2026, 2, 5))


def test_an_extension_counts_if_the_person_was_told_in_time_and_why() -> None:
    extended = clock(
        received="2026-01-05", extended_to="2026-04-05", told="2026-02-05", answered="2026-04-06"
    )
    assert extended.objections == () and extended.late == 1


@pytest.mark.parametrize(
    ("days", "why"),
    [
        ({"extended_to": "2026-04-06", "told": "2026-02-05"}, "later than 2026-04-05"),
        ({"extended_to": "2026-03-05", "told": "2026-02-06"}, "told after 2026-02-05"),
        ({"extended_to": "2026-03-05"}, "nobody says when"),
        ({"extended_to": "2026-02-05", "told": "2026-01-20"}, "not later than 2026-02-05, when"),
    ],
)
def test_an_extension_that_does_not_count_says_why(days: dict[str, str], why: str) -> None:
    extended = clock(received="2026-01-05", answered="2026-03-01", **days)
    assert [why in one for one in extended.objections] == [True]
    assert extended.late == (date(2026, 3, 1) - date(2026, 2, 5)).days == 24


@pytest.mark.parametrize("reason", [None, "", " "])
def test_an_extension_without_a_reason_does_not_count(reason: str | None) -> None:
    """Art. 12(3): the person is told "together with the reasons for the delay"."""
    days = {"received": "2026-01-05", "extended_to": "2026-04-05", "told": "2026-01-20"}
    extended = clock(reason, answered="2026-03-01", **days)
    assert extended.objections == ("nobody says why",)
    assert (extended.limit, extended.late) == (date(2026, 2, 5), 24)


def test_a_refusal_is_not_extended() -> None:
    """Art. 12(4): of the reasons for not taking action the person is told within one month of receipt."""
    days = {"received": "2026-01-05", "extended_to": "2026-04-04", "told": "2026-01-20"}
    refused = clock(WHY, True, answered="2026-04-01", **days)
    assert refused.objections == ("a refusal is told within the month, by 2026-02-05 (Art. 12(4))",)
    assert (
        refused.limit == date(2026, 2, 5) and refused.late == (date(2026, 4, 1) - date(2026, 2, 5)).days == 55
    )
    assert clock(answered="2026-04-01", **days).late == 0
    both = clock(None, True, answered="2026-02-05", **days)
    assert len(both.objections) == 2 and both.late == 0


def test_nothing_is_reckoned_from_days_that_nobody_said() -> None:
    assert (Clock().due, Clock().limit, Clock().days, Clock().late, Clock().objections) == (None,) * 4 + ((),)
    assert clock(received="2026-01-05").late is None and clock(answered="2026-01-05").days is None
