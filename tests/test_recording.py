"""What the manifest says of requests is what the desk said: log, tables and records then tell the same."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from fedunlearn.erasure import years as records
from fedunlearn.intake.desk import Entry, Limits
from fedunlearn.intake.petition import Petition
from fedunlearn.intake.policies import AtOnce, Batch, Policy, Release, agenda
from fedunlearn.intake.states import history
from fedunlearn.recording import _entry
from fedunlearn.scoring.evidence.year import Year, year
from fedunlearn.scoring.years.answers import answers
from tests.intake.register import CALENDAR, REGISTER, ROUNDS, decided, images, leaving, patients

POLICIES: dict[str, Policy] = {"at_once": AtOnce(), "batch": Batch(every=45), "release": Release(every=60)}
ENDS = {"received": "open", "extended": "open", "accepted": "waiting"}
"""What tables call a state that a request is left in."""


def manifest(entries: tuple[Entry, ...]) -> dict[str, Any]:
    """What a run would write down of requests and policies, without any model."""
    plans = {label: agenda(entries, CALENDAR, policy, ROUNDS) for label, policy in POLICIES.items()}
    return {
        "calendar": {"start": str(CALENDAR.start), "days": CALENDAR.round, "rounds": ROUNDS, "looks": []},
        "docket": [_entry(entry, REGISTER.table) for entry in entries],
        "policies": [
            {
                "label": label,
                "name": plan.policy.name,
                "strategies": [],
                "turns": [
                    {"round": one.round, "bars": one.bars, "erases": one.erases, "steps": []}
                    for one in plan.turns
                ],
                "waiting": plan.waiting,
            }
            for label, plan in plans.items()
        ],
        "looks": [],
    }


def of(written: dict[str, Any]) -> tuple[Year, records.Year]:
    """The same, as scores read it, and as records do."""
    found = year(written)
    assert found is not None
    docket = {one["id"]: one for one in written["docket"]}
    return found, records.Year(written, CALENDAR, docket, {}, {}, {}, keeps=False)


def all_of(site: str) -> tuple[str, ...]:
    own = REGISTER.table.query(f"site == '{site}' and split == 'train'")
    return tuple(sorted(set(own["patient"])))


def test_who_leaves_once_all_patients_were_erased_is_barred_and_waits_for_nothing() -> None:
    """West's four patients of two images are asked about first; its images for testing go with it."""
    entries = decided(patients("all", "west", *all_of("west")), leaving("left", "west", on="2026-02-03"))
    scored, recorded = of(manifest(entries))
    assert [(one.images, one.unlearns) for one in scored.docket] == [(8, True), (0, False)]
    for policy in scored.policies:
        left = answers(scored, policy)[1]
        assert (left.state, left.days, left.late(1)) == ("barred", 2, 0)
    assert records.answerable(recorded, "all") == ""
    assert records.answerable(recorded, "left") == records.EARLIER
    assert recorded.judged["at_once"] == (1, 0)
    told = records._until(recorded, recorded.manifest["policies"][0], "left")
    assert told.startswith("nobody trains on the images since 2026-02-05") and "in use" not in told


def test_who_was_in_no_training_is_told_from_whom_earlier_requests_had() -> None:
    entries = decided(patients("unseen", "north", "n-test"), images("test", "east", "e-test-east-0"))
    _, recorded = of(manifest(entries))
    assert {records.answerable(recorded, id) for id in recorded.docket} == {records.UNTRAINED}


WEST = [*all_of("west")]
some = st.lists(st.sampled_from(["n0", "n1", "n-test", *WEST, "p-both", "nobody"]), max_size=3)
kinds = st.sampled_from(["patients", "images", "opt_out", "whole_site"])
coming = st.tuples(st.sampled_from(["north", "west"]), kinds, some | st.just(WEST), st.integers(0, 180))


@pytest.mark.parametrize("quota", [None, 1])
@given(came=st.lists(coming, max_size=12))
def test_log_table_and_record_call_the_end_of_every_request_the_same(
    came: list[tuple[str, Any, list[str], int]], quota: int | None
) -> None:
    petitions = [
        Petition(
            f"r{number}",
            CALENDAR.start + timedelta(days=day),
            site,
            kind,
            tuple(who) if kind in ("patients", "opt_out") else (),
            tuple(f"{one}-{site}-0" for one in who) if kind == "images" else (),
        )
        for number, (site, kind, who, day) in enumerate(came)
    ]
    entries = decided(*petitions, limits=Limits(hospitals=1, class_images=0, quota=quota))
    scored, recorded = of(manifest(entries))
    assert [one.unlearns for one in scored.docket] == [one.erases for one in entries]
    assert [not records.answerable(recorded, one.petition.id) for one in entries] == [
        one.erases for one in entries
    ]
    for policy in scored.policies:
        plan = agenda(entries, CALENDAR, POLICIES[policy.label], ROUNDS)
        for entry, answer in zip(entries, answers(scored, policy), strict=True):
            state, day = history(entry, plan, CALENDAR)[-1]
            assert answer.state == ENDS.get(state, state)
            assert answer.answered == (None if state in ENDS else day)
