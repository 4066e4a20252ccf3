"""Whatever comes in, and however long: nothing is lost, nothing is done twice, no request goes where it may not."""

from __future__ import annotations

import time
from collections import Counter
from datetime import date, timedelta
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fedunlearn.core import RunError
from fedunlearn.intake.arrivals import Kind
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import Limits, decide
from fedunlearn.intake.petition import Petition
from fedunlearn.intake.policies import Agenda, AtOnce, Batch, Budget, Policy, Release, agenda
from fedunlearn.intake.register import Register
from fedunlearn.intake.states import ALLOWED, Event, State, advance, history
from tests.intake.register import CALENDAR, REGISTER, decided, leaving, patients

POLICIES: tuple[Policy, ...] = (
    AtOnce(),
    Batch(every=30),
    Batch(size=3),
    Release(every=60),
    Budget(drift=0.1),
)
STATES: tuple[State, ...] = get_args(State)
EVENTS: tuple[Event, ...] = get_args(Event)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_what_is_not_listed_is_not_allowed(state: State, event: Event) -> None:
    if (state, event) in ALLOWED:
        assert advance(state, event) == ALLOWED[state, event]
    else:
        with pytest.raises(RunError, match=f"a request that is {state} cannot {event}"):
            advance(state, event)


class OneRequest(RuleBasedStateMachine):
    """A request to which anything may happen, beside what must be true of it however it got there."""

    def __init__(self) -> None:
        super().__init__()
        self.state: State = "received"
        self.done = list[Event]()

    @rule(event=st.sampled_from(EVENTS))
    def happens(self, event: Event) -> None:
        try:
            self.state = advance(self.state, event)
        except RunError:
            return
        self.done.append(event)

    @invariant()
    def everything_happens_once_at_most(self) -> None:
        assert not [event for event, count in Counter(self.done).items() if count > 1]

    @invariant()
    def only_what_was_accepted_is_unlearned_or_barred_and_only_that_is_purged(self) -> None:
        order = [event for event in self.done if event != "extend"]
        ways = (
            ["accept", "unlearn", "purge", "record"],
            ["accept", "unlearn", "record"],
            ["accept", "bar", "purge", "record"],
            ["accept", "bar", "record"],
            ["refuse", "record"],
        )
        assert order in [way[: len(order)] for way in ways]

    @invariant()
    def it_can_always_be_recorded_in_the_end(self) -> None:
        left, reached = [self.state], set[State]()
        while left:
            reached.add(one := left.pop())
            left += [
                after for (before, _), after in ALLOWED.items() if before == one and after not in reached
            ]
        assert "recorded" in reached


TestOneRequest = OneRequest.TestCase

whom = st.sampled_from(["n0", "n1", "n2", "n-test", "e0", "e1", "w3", "p-both", "nobody"])


class Year(RuleBasedStateMachine):
    """Requests come in while rounds pass: what was decided stays decided, and every policy does each thing once."""

    def __init__(self) -> None:
        super().__init__()
        self.petitions = list[Petition]()
        self.rounds = 1
        self.limits = Limits(hospitals=2, class_images=1, quota=1)
        self.before = dict[tuple[Policy, int], list[tuple[State, date]]]()

    @property
    def today(self) -> date:
        return CALENDAR.day(self.rounds) + timedelta(days=1)

    @rule(
        id=st.none() | st.sampled_from(["a", "b"]),
        site=st.sampled_from(["north", "east", "west", "south"]),
        kind=st.sampled_from(get_args(Kind)),
        who=st.lists(whom, max_size=2).map(tuple),
        wait=st.integers(0, 6),
    )
    def comes(self, id: str | None, site: str, kind: Kind, who: tuple[str, ...], wait: int) -> None:
        name = id or f"r{len(self.petitions)}"
        images = tuple(f"{one}-{site}-0" for one in who) if kind == "images" else ()
        named = who if kind in ("patients", "opt_out") else ()
        self.petitions.append(Petition(name, self.today + timedelta(days=wait), site, kind, named, images))

    @rule(site=st.sampled_from(["north", "east", "west"]), wait=st.integers(0, 6))
    def leaves_beside_patients(self, site: str, wait: int) -> None:
        """More of one hospital in a month than its quota: some are held back, and then it has left."""
        for kind, who in (("patients", f"{site[0]}0"), ("whole_site", ""), ("patients", f"{site[0]}1")):
            self.comes(None, site, kind, (who,) if who else (), wait)

    @rule(rounds=st.sampled_from([1, 5]))
    @precondition(lambda self: self.rounds < 40)
    def rounds_pass(self, rounds: int) -> None:
        self.rounds += rounds

    @invariant()
    def nothing_is_lost_or_done_twice(self) -> None:
        entries = decide(self.petitions, REGISTER, self.limits, CALENDAR, self.rounds)
        assert [entry.petition for entry in entries] == self.petitions
        for entry in entries:
            assert entry.state == "accepted" or (entry.reason and entry.sentence)
        erasures = sorted(entry.petition.id for entry in entries if entry.erases)
        accepted = sorted(entry.petition.id for entry in entries if entry.state == "accepted")
        assert len(set(accepted)) == len(accepted), "an id is accepted once"
        for policy in POLICIES:
            planned = agenda(entries, CALENDAR, policy, self.rounds)
            assert sorted(_all(planned, "bars")) == accepted
            assert sorted([*_all(planned, "erases"), *planned.waiting]) == erasures
            for number, entry in enumerate(entries):
                told = history(entry, planned, CALENDAR)
                before = self.before.get((policy, number), [])
                assert told[: len(before)] == before, "what has happened has happened"
                assert [day for _, day in told] == sorted(day for _, day in told)
                self.before[policy, number] = told


def _all(planned: Agenda, what: str) -> list[str]:
    return [one for turn in planned.turns for one in getattr(turn, what)]


TestYear = Year.TestCase
TestYear.settings = settings(max_examples=40, stateful_step_count=30)


def test_the_states_of_an_erasure_in_a_batch_that_was_held_back_first() -> None:
    limits = Limits(hospitals=1, class_images=0, quota=1)
    entries = decided(patients("r1", "north", "n0"), patients("r2", "north", "n1"), limits=limits)
    planned = agenda(entries, CALENDAR, Batch(every=45), 26)
    assert [(state, str(day)) for state, day in history(entries[1], planned, CALENDAR)] == [
        ("received", "2026-01-05"),
        ("extended", "2026-01-08"),
        ("accepted", "2026-02-05"),
        ("unlearned", "2026-02-19"),  # 45 days end on 2026-02-15
    ]


def test_the_states_of_one_that_was_held_back_until_its_hospital_had_left() -> None:
    limits = Limits(hospitals=1, class_images=0, quota=1)
    entries = decided(
        patients("r1", "north", "n0"), leaving("r2", "north"), patients("r3", "north", "n1"), limits=limits
    )
    assert (entries[2].state, entries[2].reason, entries[2].held) == ("refused", "left", 1)
    planned = agenda(entries, CALENDAR, AtOnce(), 26)
    assert [(state, str(day)) for state, day in history(entries[2], planned, CALENDAR)] == [
        ("received", "2026-01-05"),
        ("extended", "2026-01-08"),
        ("refused", "2026-02-05"),
    ]


def test_the_states_of_others() -> None:
    entries = decided(
        patients("r1", "north", "n0", opt_out=True),
        patients("r2", "north", "nobody"),
        patients("r3", "north", "n-test"),
        leaving("r4", "north", on="2026-06-30"),
    )
    planned = agenda(entries, CALENDAR, Release(every=100), 26)
    assert [[state for state, _ in history(entry, planned, CALENDAR)] for entry in entries] == [
        ["received", "accepted", "barred"],
        ["received", "refused"],
        ["received", "accepted", "barred"],  # there is nothing to unlearn
        ["received", "accepted"],  # no release is left
    ]


def test_a_thousand_requests_are_none_lost_and_none_twice_in_two_seconds() -> None:
    """Patients of three hospitals, many unknown, of another hospital, asked twice, or sent again."""
    rng, calendar, rounds = np.random.default_rng(5), Calendar(date(2026, 1, 1), 7), 52
    people = [f"p{number}" for number in range(900)]
    table = pd.DataFrame(
        {
            "image": [f"{one}-{i}" for one in people for i in range(3)],
            "patient": np.repeat(people, 3),
            "site": np.repeat([("north", "east", "west")[i % 3] for i in range(900)], 3),
            "split": np.repeat(["train" if i % 4 else "test" for i in range(900)], 3),
            "label": rng.integers(0, 5, 2700),
        }
    )
    petitions = [_random(rng, people) for _ in range(1000)]
    petitions[3] = Petition("r3", date(2026, 7, 1), "west", "whole_site")
    start = time.process_time()  # others may use the machine
    entries = decide(petitions, Register(table), Limits(quota=20), calendar, rounds)
    plans = [agenda(entries, calendar, policy, rounds) for policy in POLICIES]
    told = [[history(entry, planned, calendar) for entry in entries] for planned in plans]
    assert time.process_time() - start < 2
    assert [entry.petition for entry in entries] == petitions
    outcomes = Counter(entry.reason or entry.state for entry in entries)
    assert {"accepted", "replayed", "duplicate", "elsewhere", "unknown_patient", "malformed", "left"} <= set(
        outcomes
    )
    accepted = [entry.petition.id for entry in entries if entry.state == "accepted"]
    assert len(set(accepted)) == len(accepted) > 300
    erased = {row for e in entries if e.erases for row in e.rows if table["split"][row] == "train"}
    assert sum(entry.images for entry in entries if entry.erases) == len(erased), (
        "every image is unlearned once"
    )
    for planned, states in zip(plans, told, strict=True):
        done = _all(planned, "erases")
        assert sorted([*done, *planned.waiting]) == sorted(e.petition.id for e in entries if e.erases)
        ends = {one: states[number][-1][0] for number, one in enumerate(petitions)}
        assert set(ends.values()) <= {"received", "extended", "accepted", "barred", "unlearned", "refused"}


def _random(rng: np.random.Generator, people: list[str]) -> Petition:
    """A request that may be anything: two in three are as they should be."""
    number, kind = int(rng.integers(2000)), ("patients", "patients", "opt_out", "images", "whole_site")
    asked: Kind = kind[int(rng.integers(4))]  # type: ignore[assignment]  # one of the texts above
    who = int(rng.integers(930))
    site = ("north", "east", "west")[who % 3 if rng.random() < 0.9 else int(rng.integers(3))]
    patient = people[who] if who < 900 else f"stranger{who}"
    day = date(2026, 1, 1) + timedelta(days=int(rng.integers(364)))
    images = (f"{patient}-{int(rng.integers(3))}",) if asked == "images" else ()
    named = (patient,) if asked in ("patients", "opt_out") else ()
    if rng.random() < 0.05:
        named, images = (), ()
    return Petition(f"r{number}", day, site, asked, named, images)
