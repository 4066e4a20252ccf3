"""When each policy unlearns what was accepted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest

from fedunlearn.intake.desk import Entry
from fedunlearn.intake.policies import (
    POLICIES,
    Agenda,
    AtOnce,
    Batch,
    Budget,
    Policy,
    Release,
    Turn,
    agenda,
    label,
)
from tests.intake.register import CALENDAR, ROUNDS, decided, leaving, patients

ENTRIES = decided(
    patients("r1", "north", "n0", on="2026-01-05"),  # accepted on 2026-01-08, boundary 1
    patients("r2", "north", "n1", on="2026-01-20"),  # 2026-01-22, boundary 3
    patients("o1", "east", "e0", on="2026-01-20", opt_out=True),
    patients("r3", "north", "nobody", on="2026-01-20"),
    patients("r4", "west", "w-test", on="2026-01-27"),  # 2026-01-29, boundary 4: nothing to unlearn
    leaving("r5", "east", on="2026-06-30"),  # 2026-07-02, boundary 26, the last
)


def turns(policy: Policy, entries: Sequence[Entry] = ENTRIES) -> Agenda:
    return agenda(entries, CALENDAR, policy, ROUNDS)


BARS = {1: ("r1",), 3: ("r2", "o1"), 4: ("r4",), 26: ("r5",)}


@pytest.mark.parametrize("policy", [AtOnce(), Budget(drift=0.1)])
def test_at_once_unlearns_at_acceptance(policy: Policy) -> None:
    assert turns(policy).turns == (
        Turn(1, ("r1",), ("r1",)),
        Turn(3, ("r2", "o1"), ("r2",)),
        Turn(4, ("r4",), ()),
        Turn(26, ("r5",), ("r5",)),
    )
    assert turns(policy).waiting == ()


def test_a_batch_waits_for_its_day() -> None:
    """30 days end on 2026-01-31: the next boundary is 5, on 2026-02-05. 180 days end on 06-30: boundary 26."""
    found = turns(Batch(every=30))
    assert {turn.round: turn.erases for turn in found.turns if turn.erases} == {5: ("r1", "r2"), 26: ("r5",)}
    assert {turn.round: turn.bars for turn in found.turns if turn.bars} == BARS
    assert found.waiting == ()


def test_a_batch_waits_until_it_is_full() -> None:
    found = turns(Batch(size=2))
    assert {turn.round: turn.erases for turn in found.turns if turn.erases} == {3: ("r1", "r2")}
    assert found.waiting == ("r5",)


def test_a_release_waits_for_its_day() -> None:
    """90 days end on 2026-04-01, boundary 13 (04-02). The one after, on 06-30, is at boundary 26."""
    found = turns(Release(every=90))
    assert {turn.round: turn.erases for turn in found.turns if turn.erases} == {13: ("r1", "r2"), 26: ("r5",)}


def test_what_comes_too_late_for_the_last_release_waits() -> None:
    found = turns(Release(every=100))
    assert {turn.round: turn.erases for turn in found.turns if turn.erases} == {15: ("r1", "r2")}
    assert found.waiting == ("r5",)


@pytest.mark.parametrize(
    "policy", [AtOnce(), Batch(every=30), Batch(size=2), Release(every=90), Budget(drift=1)]
)
def test_nobody_is_trained_on_after_acceptance_whatever_the_policy(policy: Policy) -> None:
    assert {turn.round: turn.bars for turn in turns(policy).turns if turn.bars} == BARS


def test_without_requests_nothing_is_done() -> None:
    assert turns(AtOnce(), ()) == Agenda(AtOnce(), ())


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (AtOnce(), "at_once"),
        (Batch(every=30), "batch-30d"),
        (Batch(size=10), "batch-10"),
        (Release(every=180), "release-180d"),
        (Budget(drift=0.1), "budget-0.1"),
    ],
)
def test_a_policy_is_called_what_it_is_set_to(policy: Policy, name: str) -> None:
    assert label(policy) == name and POLICIES[policy.name] is type(policy)


def test_the_calendar_of_these_tests_is_as_said() -> None:
    assert (
        CALENDAR.day(ROUNDS) == date(2026, 7, 2) and [entry.state for entry in ENTRIES].count("accepted") == 5
    )
