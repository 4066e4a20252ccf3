"""Rounds have dates."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, strategies as st

from fedunlearn.intake.calendar import Calendar

START = date(2026, 1, 1)
calendars = st.builds(
    Calendar, st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.integers(1, 90), st.integers(1, 400)
)


def test_a_boundary_is_the_day_on_which_so_many_rounds_are_trained() -> None:
    assert Calendar(START, round=7).day(0) == START
    assert Calendar(START, round=7).day(5) == date(2026, 2, 5)  # 35 days: 30 of January left, and 5


@pytest.mark.parametrize(
    ("day", "boundary"),
    [
        ("2025-06-01", 1),
        ("2026-01-01", 1),  # the first round is under way
        ("2026-01-08", 1),  # the day itself still counts
        ("2026-01-09", 2),
        ("2026-12-31", 52),
    ],
)
def test_a_day_belongs_to_the_next_boundary(day: str, boundary: int) -> None:
    assert Calendar(START, round=7).boundary(date.fromisoformat(day)) == boundary


@given(calendars, st.integers(1, 500))
def test_every_boundary_is_its_days_own(calendar: Calendar, boundary: int) -> None:
    assert calendar.boundary(calendar.day(boundary)) == boundary


def test_looks_are_about_as_far_apart_as_wanted() -> None:
    """30 days are 4.3 rounds, 60 are 8.6; the one after 360 days, 51.4, is too near to the end, 52."""
    assert Calendar(START, 7, 30).looked(52) == (4, 9, 13, 17, 21, 26, 30, 34, 39, 43, 47, 52)
    assert Calendar(START, 7, 365).looked(52) == (52,)
    assert Calendar(START, 30, 7).looked(3) == (1, 2, 3)


@given(calendars, st.integers(1, 200))
def test_looks_ascend_to_the_last_round(calendar: Calendar, rounds: int) -> None:
    looks = calendar.looked(rounds)
    assert list(looks) == sorted(set(looks)) and looks[0] >= 1 and looks[-1] == rounds
