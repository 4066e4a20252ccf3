"""What people know of requests: read from a file, every problem at its place."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from fedunlearn.core import InputError
from fedunlearn.erasure.facts import Facts, read

REQUESTS = {"some": ["retrained", "puf"], "east-leaves": ["retrained"]}
SITES = ["north", "east"]


def facts(folder: Path, text: str) -> Facts:
    (folder / "facts.yaml").write_text(text, encoding="utf-8")
    return read(folder / "facts.yaml", REQUESTS, SITES)


def test_what_is_written_is_known(tmp_path: Path) -> None:
    known = facts(
        tmp_path,
        "coordinator: 42\ncontrollers: {north: dpo@north.example}\nrequests:\n"
        "  some: {received: 2026-01-05, decision: partly, extended_to: 2026-03-05, extension_told: 2026-01-20,\n"
        "    extension_reason: 40 requests at once, answered: 2026-02-27, remedy: puf}\n",
    )
    one = known.requests["some"]
    assert (known.coordinator, known.processors) == ("42", None)
    assert dict(known.controllers) == {"north": "dpo@north.example"} and list(known.requests) == ["some"]
    assert (one.decision, one.remedy, one.channel) == ("partly", "puf", None)
    assert one.clock.limit == date(2026, 3, 5) and one.clock.late == 0


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("decision: accepted", "nobody says why"),
        ("decision: refused, extension_reason: 40 requests at once", "a refusal is told within the month"),
    ],
)
def test_an_extension_counts_only_with_a_reason_and_not_for_a_refusal(
    tmp_path: Path, rest: str, why: str
) -> None:
    days = "received: 2026-01-05, extended_to: 2026-04-04, extension_told: 2026-01-20, answered: 2026-04-01"
    known = facts(tmp_path, f"requests: {{some: {{{days}, {rest}}}}}\n")
    (told,) = known.requests["some"].clock.objections
    assert told.startswith(why) and known.requests["some"].clock.late == 55


def test_nothing_has_to_be_known(tmp_path: Path) -> None:
    assert facts(tmp_path, "requests: {}\n") == Facts()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- some\n", r":1:1: expected a mapping with `requests`"),
        ("request: {}\n", r":1:1: unknown key 'request', did you mean 'requests'\?"),
        (
            "requests: {som: {}}\n",
            r":1:12: requests: the run has no 'som', did you mean 'some'\?; expected some or",
        ),
        ("requests: 3\n", r":1:11: requests: expected a mapping by name, found '3'"),
        ("controllers: {west: x}\n", r":1:15: controllers: the run has no 'west'"),
        ("controllers: {north: [x]}\n", r":1:22: expected text, found a list"),
        ("requests: {some: {recieved: x}}\n", r":1:19: unknown key 'recieved', did you mean 'received'\?"),
        (
            "requests: {some: {received: 2026-02-30}}\n",
            r":1:29: received: found '2026-02-30', expected a day such as 2026-01-31",
        ),
        ("requests: {some: {answered: 5 May}}\n", r":1:29: answered: found '5 May', expected a day"),
        ("requests: {some: {decision: yes}}\n", r":1:29: decision: expected accepted, partly or refused"),
        (
            "requests: {some: {received: 2026-02-03, answered: 2026-02-02}}\n",
            r":1:51: answered: found 2026-02-02, which is before the request came in, on 2026-02-03",
        ),
        (
            "requests: {some: {received: 9999-12-31, extended_to: 9999-12-31}}\n",
            r":1:29: received: found 9999-12-31, from which nothing can be reckoned; expected 9999-09-30 at",
        ),
        (
            "requests: {some: {received: 2026-01-10, extended_to: 2026-01-20}}\n",
            r":1:54: extended_to: found 2026-01-20, but without an extension it is due on 2026-02-10",
        ),
        (
            "requests: {some: {remedy: pfu}}\n",
            r":1:27: remedy: the run has no models of 'pfu', did you mean 'puf'\?",
        ),
    ],
)
def test_every_problem_is_told_at_its_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError) as error:
        facts(tmp_path, text)
    assert re.search(problem, str(error.value)), str(error.value)


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    text = "requests:\n  some: {received: x, answered: y}\n  other: {}\ncontrollers: {west: x}\n"
    with pytest.raises(InputError) as error:
        facts(tmp_path, text)
    assert [problem.line for problem in error.value.problems] == [4, 2, 2, 3]
