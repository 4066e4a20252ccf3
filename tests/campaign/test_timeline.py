"""Chains of steps: what is barred, unlearned and compared when, worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.timeline import Chain, chains, compared, groups, looks, references
from fedunlearn.intake.desk import ALL, Entry
from fedunlearn.intake.petition import Petition
from fedunlearn.intake.policies import Batch
from fedunlearn.scenario import PolicyPlan
from tests import runs

# Six rounds of a week from 1 January: boundaries 1 to 6 are 8, 15, 22, 29 January, 5 and 12 February.
YEAR = """
name: year
seeds: [1]
engine: {name: inline}
data: {name: phantom_cells, images: 200}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 6}
calendar: {start: 2026-01-01, round: 7d, looks: 14d}
requests:
  - {id: a, site: north, patients: {count: 1}, received: 2026-01-13}
  - {id: b, site: east, whole_site: true, received: 2026-01-20}
  - {id: c, site: west, patients: {count: 1}, received: 2026-01-22}
  - {id: o, site: west, patients: {count: 1}, received: 2026-01-28, kind: opt_out}
policies: [{name: at_once}, {name: batch, every: 21d}, {name: release, every: 42d}]
strategies: [{name: retrain}, {name: fine_tune}]
"""
BOUNDARIES = {"a": 2, "b": 3, "c": 3, "o": 4}


@pytest.fixture
def year(tmp_path: Path) -> scenarios.Scenario:
    return scenarios.read(runs.write(tmp_path, YEAR))


def entries(scenario: scenarios.Scenario) -> tuple[Entry, ...]:
    """All of them accepted at their first boundary."""
    return tuple(
        Entry(
            Petition(one.id, one.received, one.site, one.asks),  # type: ignore[arg-type]  # all have a day
            "accepted",
            BOUNDARIES[one.id],
            images=0 if one.asks == "opt_out" else 5,
        )
        for one in scenario.requests
    )


def told(chain: Chain) -> list[tuple[str, int, tuple[str, ...], str, str]]:
    """Step by step: its id, its round, what is unlearned, what was before, and what nobody trains on any more."""
    return [
        (step.id, step.round, step.members, " ".join(step.earlier), " ".join(step.without))
        for step in chain.steps
    ]


def test_each_policy_is_a_chain_of_steps(year: scenarios.Scenario) -> None:
    """At once at 2 and 3, a hospital before patients; every 21 days at 3 and 6; at the release of 12 February, 6."""
    at_once, batch, release = chains(year, entries(year))
    assert [chain.label for chain in (at_once, batch, release)] == ["at_once", "batch-21d", "release-42d"]
    assert told(at_once) == [
        ("at_once@2", 2, ("a",), "", "a"),
        ("at_once@3-east", 3, ("b",), "a", "a b c"),
        ("at_once@3", 3, ("c",), "a b", "a b c"),
        ("at_once@4", 4, (), "a b c", "a b c o"),
        ("at_once@6", 6, (), "a b c", "a b c o"),
    ]
    assert told(batch) == [
        ("batch-21d@2", 2, (), "", "a"),
        ("batch-21d@3-east", 3, ("b",), "", "a b c"),
        ("batch-21d@3", 3, ("a", "c"), "b", "a b c"),
        ("batch-21d@4", 4, (), "b a c", "a b c o"),
        ("batch-21d@6", 6, (), "b a c", "a b c o"),
    ]
    assert [step.members for step in release.asking] == [("b",), ("a", "c")]
    assert [step.round for step in release.asking] == [6, 6]


def test_models_are_compared_at_looks_and_judged_at_the_end(year: scenarios.Scenario) -> None:
    """Looks are every 14 days, at boundaries 2, 4 and 6; at 2 only the first policy has a model of its own."""
    linked = chains(year, entries(year))
    for chain in linked:
        early = [(f"{chain.label}@2", False)] if chain.label == "at_once" else []
        assert [(look.name, look.scored) for look in chain.looks] == [
            *early,
            (f"{chain.label}@4", False),
            (chain.label, True),
        ]
        assert [moment.name for moment in chain.moments] == [chain.label]
        assert {look.request.id for look in chain.looks} == {ALL}
        assert {look.without for look in chain.looks} == {("a", "b", "c", "o")}
    shared = looks(year, linked)
    assert [(one.reference, one.round) for one in shared] == [(f"{ALL}@2", 2), (f"{ALL}@4", 4), (ALL, 6)]
    assert references(year, linked) == 3
    assert compared(year, linked) == {2, 4, 6}


def test_requests_that_are_unlearned_together_have_a_name(year: scenarios.Scenario) -> None:
    """The batch's patients; a single one has its step's name too, a hospital its own."""
    found = groups(chains(year, entries(year)))
    assert found["batch-21d@3"] == ("a", "c")
    assert found["at_once@2"] == ("a",)
    assert "b" not in found


def test_training_goes_on_between_steps_of_different_rounds(year: scenarios.Scenario) -> None:
    at_once = chains(year, entries(year))[0]
    assert [(a.id, b.id) for a, b in at_once.stretches()] == [
        ("at_once@2", "at_once@3-east"),
        ("at_once@3", "at_once@4"),
        ("at_once@4", "at_once@6"),
    ]


def test_a_release_takes_exact_strategies_alone(year: scenarios.Scenario) -> None:
    served = {
        chain.label: [plan.label for plan in year.strategies if chain.serves(plan)]
        for chain in chains(year, entries(year))
    }
    assert served == {
        "at_once": ["retrain", "fine_tune"],
        "batch-21d": ["retrain", "fine_tune"],
        "release-42d": ["retrain"],
    }


def test_a_policy_that_never_unlearns_bars_and_is_compared(year: scenarios.Scenario) -> None:
    """A batch of ten that never fills: nobody trains on what was accepted, and the models of all strategies are one."""
    few = replace(year, policies=(PolicyPlan(Batch(size=10), "batch-10"),))
    [chain] = chains(few, entries(few))
    assert not chain.asking
    assert [" ".join(step.without) for step in chain.steps] == ["a", "a b c", "a b c o", "a b c o"]
    assert [moment.name for moment in chain.moments] == ["batch-10"]
    assert all(chain.serves(plan) for plan in few.strategies)


def test_what_is_accepted_on_the_last_day_alone_leaves_the_original_model(year: scenarios.Scenario) -> None:
    late = [replace(entry, boundary=6) for entry in entries(year)[:1]]
    few = replace(year, policies=(PolicyPlan(Batch(size=10), "batch-10"),))
    [chain] = chains(few, late)
    assert [(step.id, step.round, step.name) for step in chain.steps] == [("batch-10@6", 6, "batch-10")]


def test_without_any_that_is_accepted_there_is_no_chain(year: scenarios.Scenario) -> None:
    refused = tuple(replace(entry, state="refused", boundary=None) for entry in entries(year))
    assert chains(year, refused) == ()
    assert looks(year, ()) == ()
