"""Days, deadlines and days of waiting, by hand and against slow versions."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from fedunlearn.deadlines import after
from fedunlearn.scoring.evidence.reading import read
from fedunlearn.scoring.evidence.year import Entry, Year
from fedunlearn.scoring.years.answers import Answer, answers, table, waited
from tests.scoring.made import make_run, pick
from tests.scoring.years.made import year

START = date(2026, 1, 1)
END = date(2026, 12, 31)
OFFSETS = st.integers(0, 364)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Year:
    found = read(year(tmp_path_factory.mktemp("made") / "run", seeds=(7,), scored=False).path).year
    assert found is not None
    return found


def answer(received: date, accepted: date | None = None, answered: date | None = None) -> Answer:
    entry = Entry("r", "north", "patients", received, "accepted", 1, "", "", "", 4)
    return Answer(entry, "unlearned" if answered else "waiting", accepted, answered, END)


def test_a_row_for_every_policy_and_request(made: Year):
    """Round b ends on 1 January + 7 b days; the batch comes after round 9, on 5 March."""
    found = table(made)
    batch: list[dict[Any, Any]] = pick(found, policy="batch-60d").to_dict("records")
    known = [row for row in batch if row["days"] == row["days"]]
    assert {row["request"]: (row["state"], row["days"], row["late"], row["late_three"]) for row in known} == {
        "r1": ("unlearned", 54, 23, 0),  # 10 January to 5 March; due on 10 February
        "r2": ("unlearned", 44, 13, 0),
        "r3": ("refused", 0, 0, 0),  # told so on 22 January, the day that it came
        "r4": ("unlearned", 13, 0, 0),
        "r5": ("barred", 4, 0, 0),
    }
    assert batch[0]["due"] == pd.Timestamp("2026-02-10")
    others = [row for row in batch if row not in known]
    assert [(row["request"], row["state"], row["late"]) for row in others] == [
        ("r6", "waiting", 0),
        ("r7", "open", 0),
    ]
    assert [pd.isna(row["accepted"]) for row in others] == [False, True]
    assert all(pd.isna(row["answered"]) for row in others)
    at_once = pick(found, policy="at_once")
    assert at_once["days"].dropna().tolist() == [5, 2, 0, 6, 4, 3] and not at_once["late"].any()


def test_days_on_which_anybody_waits_count_once(made: Year):
    """r1 waits from 15 January to 5 March, r2 and r4 within that, r6 from 2 April to the end on 23 April."""
    at_once, batch = (answers(made, policy) for policy in made.policies)
    assert waited(at_once, made.end) == 0
    assert waited(batch, made.end) == 49 + 21
    assert waited(batch, made.day(8)) == 42


def test_who_was_not_trained_on_is_answered_once_accepted(made: Year):
    """As an opt-out is: nothing is to be unlearned, so no policy keeps anybody waiting."""
    docket = tuple(replace(one, images=0) if one.id == "r6" else one for one in made.docket)
    batch = replace(made.policies[1], waiting=())
    found = {one.entry.id: one for one in answers(replace(made, docket=docket), batch)}
    assert (found["r6"].state, found["r6"].days) == ("barred", 3)
    assert waited(found.values(), made.end) == 49


def test_what_was_never_answered_is_late_by_the_days_to_the_end():
    one = answer(date(2026, 9, 30))
    assert (one.late(1), one.late(3)) == (62, 1)  # due on 30 October, and on 30 December
    assert answer(date(2026, 12, 1)).late(1) == 0  # not yet due


@given(OFFSETS, OFFSETS)
def test_late_is_what_comes_after_the_day_that_is_due(received: int, took: int):
    came, answered = START + timedelta(received), START + timedelta(received + took)
    one = answer(came, came, answered)
    assert one.days == took
    assert (one.late(1) == 0) == (answered <= after(came, 1))
    assert one.late(1) >= one.late(3) >= 0
    assert one.late(1) in (0, (answered - one.due).days)


@given(st.lists(st.tuples(OFFSETS, st.one_of(st.none(), OFFSETS))), OFFSETS)
def test_waiting_is_counted_day_by_day(spans: list[tuple[int, int | None]], until: int):
    found = [
        answer(
            START,
            START + timedelta(begins),
            None if ends is None else START + timedelta(max(begins, ends)),
        )
        for begins, ends in spans
    ]
    slow = set[int]()
    for begins, ends in spans:
        slow |= set(range(begins, min(364 if ends is None else max(begins, ends), until)))
    assert waited(found, START + timedelta(until)) == len(slow)


def test_a_run_without_a_calendar_has_no_year(tmp_path: Path):
    assert read(make_run(tmp_path / "run", seeds=(7,))).year is None
