"""A stream follows from its seed alone, and has the rates that were asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, strategies as st

from fedunlearn.intake.arrivals import Arrivals, Kinds, expand
from fedunlearn.intake.calendar import Calendar

CALENDAR = Calendar(date(2026, 1, 1), 7)
SITES = ("north", "east", "west")
MIXED = Kinds(patient=0.9, image=0.05, whole_site=0.05)


def test_nothing_comes_of_no_kind() -> None:
    nothing = Kinds(patient=0.0)
    assert expand(Arrivals(kinds=nothing), Calendar(date(2026, 1, 1)), 52, ("north", "east")) == ()


def test_the_same_seed_brings_the_same_stream() -> None:
    process = Arrivals(kinds=MIXED, seed=3)
    assert expand(process, CALENDAR, 52, SITES) == expand(process, CALENDAR, 52, SITES)
    assert expand(process, CALENDAR, 52, SITES) != expand(replace(process, seed=4), CALENDAR, 52, SITES)


def test_a_longer_calendar_goes_on_with_the_same_stream() -> None:
    short, long = (expand(Arrivals(seed=3), CALENDAR, rounds, SITES) for rounds in (26, 52))
    assert len(short) < len(long) and long[: len(short)] == short


def test_a_poisson_process_has_its_mean_and_its_spread() -> None:
    """Of 400 years at 40 a year the mean is 40 ± 4 standard errors of 0.32 (52 weeks are 364 days), the variance about
    as large: its standard error is about 40 sqrt(2 / 400) = 2.8."""
    counts = [len(expand(Arrivals(per_year=40, seed=seed), CALENDAR, 52, SITES)) for seed in range(400)]
    mean = sum(counts) / 400
    variance = sum((count - mean) ** 2 for count in counts) / 399
    assert abs(mean - 40 * 364 / 365) < 4 * 0.32
    assert abs(variance - 40) < 4 * 2.8


def test_a_regular_process_is_even() -> None:
    stream = expand(Arrivals(process="regular", per_year=36.5), CALENDAR, 52, SITES)
    days = [(one.received - CALENDAR.start).days for one in stream]
    assert days == list(range(5, 364, 10))


def test_kinds_and_hospitals_come_as_often_as_weighed() -> None:
    """Of some 10,000 a share of 1/4 is met within 4 standard errors of 0.0043."""
    kinds = Kinds(patient=2, image=1, opt_out=1)
    process = Arrivals(per_year=10_000, kinds=kinds, sites={"north": 3, "west": 1}, seed=1)
    stream = expand(process, CALENDAR, 52, SITES)
    shares = {kind: count / len(stream) for kind, count in Counter(one.kind for one in stream).items()}
    assert shares == {
        "patients": pytest.approx(0.5, abs=0.02),
        "images": pytest.approx(0.25, abs=0.018),
        "opt_out": pytest.approx(0.25, abs=0.018),
    }
    where = Counter(one.site for one in stream)
    assert set(where) == {"north", "west"} and where["north"] / len(stream) == pytest.approx(0.75, abs=0.018)


def test_a_hospital_that_asks_to_leave_asks_no_more_and_the_last_one_stays() -> None:
    stream = expand(Arrivals(per_year=400, kinds=Kinds(patient=1, whole_site=1)), CALENDAR, 52, SITES)
    leaving = [one.site for one in stream if one.kind == "whole_site"]
    assert len(leaving) == len(set(leaving)) == 2
    for number, one in enumerate(stream):
        if one.kind == "whole_site":
            assert one.site not in [later.site for later in stream[number + 1 :]]
    assert len(stream) > 300


def test_where_nothing_else_comes_the_last_one_leaves_too() -> None:
    stream = expand(Arrivals(per_year=400, kinds=Kinds(whole_site=1)), CALENDAR, 52, SITES)
    assert sorted(one.site for one in stream) == sorted(SITES)


@given(
    st.builds(
        Arrivals,
        st.sampled_from(["poisson", "regular"]),
        st.floats(1, 2000),
        st.builds(Kinds, *[st.floats(0.1, 5)] * 4),
        st.none() | st.fixed_dictionaries({"north": st.floats(0.1, 3)}),
        st.integers(0, 2**63 - 1),
    ),
    st.integers(1, 60),
)
def test_every_stream_is_in_order_and_in_time(process: Arrivals, rounds: int) -> None:
    stream = expand(process, CALENDAR, rounds, SITES)
    days = [one.received for one in stream]
    assert days == sorted(days)
    assert all(CALENDAR.start <= day < CALENDAR.day(rounds) for day in days)
    assert [one.id for one in stream] == sorted({one.id for one in stream})
