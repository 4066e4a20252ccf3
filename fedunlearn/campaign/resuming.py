"""What an unfinished run must still be, to go on: the same scenario, data, code, libraries and kinds of machines."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fedunlearn import __version__, files, scenario as scenarios
from fedunlearn.campaign import sources
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.origins import Environment, curve_modules, volumes
from fedunlearn.core import InputError
from fedunlearn.results.runfolder import ABOUT, RunFolder
from fedunlearn.scenario import Engine, Scenario

_MOST = 8  # changes that are told one by one


def note(run: RunFolder, scenario: Scenario, cohort: Cohort, environment: Environment) -> None:
    """Write down what is run."""
    files.write(run.path / ABOUT, files.sealed(_about(scenario, cohort, environment)))


def check(run: RunFolder, scenario: Scenario, cohort: Cohort, environment: Environment) -> None:
    """Make sure that what is to go on is what was begun; engine and `history.limit` may be others.

    Raises:
        InputError: it is not; tells what changed.
    """
    known, found = files.unsealed(run.path / ABOUT), _about(scenario, cohort, environment)
    if changes := list(_changes(known, found)):
        more = [f"and {len(changes) - _MOST} more"] if len(changes) > _MOST else []
        told = "".join(f"\n  {change}" for change in (*changes[:_MOST], *more))
        raise InputError(
            f"cannot go on with {run.path}: since it was begun, something changed:{told}\n"
            "put it back, or start anew in another folder (with --reuse, what did not change is taken from here)"
        )


def same(one: Scenario, other: Scenario) -> bool:
    """Whether two scenarios are the same for a run that goes on."""
    return _what(one) == _what(other)


def advice(run: RunFolder, given: str) -> str:
    """What to do with a run that was stopped; ``given`` are its scenario and options, as a command line has them."""
    return (
        f"{run.path} keeps what was done: go on with `simulate {given} --out {run.path} --resume`, or remove it with "
        f"`discard {run.path}`"
    )


def _about(scenario: Scenario, cohort: Cohort, environment: Environment) -> dict[str, Any]:
    strategies = sorted({type(plan.strategy).__module__ for plan in scenario.strategies})
    modules = (*curve_modules(scenario.model.kind), "fedunlearn.campaign.campaign", *strategies)
    return {
        "scenario": scenarios.to_yaml(_what(scenario)).splitlines(),
        "images": cohort.digest,
        "hospitals, patients and requests": hashlib.sha256(cohort.table.to_csv().encode()).hexdigest(),
        "code": sources.digests(modules),
        "environment": {"fedunlearn": __version__, **environment.told(volumes(cohort))},
    }


def _what(scenario: Scenario) -> Scenario:
    """A scenario without what changes no bit of a result."""
    return replace(scenario, engine=Engine(), history=replace(scenario.history, limit=None))


def _changes(known: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """In words, what is not as it was."""
    for line in difflib.ndiff(known["scenario"], found["scenario"]):
        if line.startswith(("- ", "+ ")):
            yield f"scenario: {line}"
    for what in ("images", "hospitals, patients and requests"):
        if known[what] != found[what]:
            yield f"the data: {what}"
    for part in ("code", "environment"):
        for name in sorted(known[part].keys() | found[part].keys()):
            if known[part].get(name) != found[part].get(name):
                yield _told(part, name, known[part].get(name), found[part].get(name))


def _told(part: str, name: str, before: object, now: object) -> str:
    if part == "code":
        return f"code: {name} {'is new' if before is None else 'is gone' if now is None else 'was edited'}"
    return f"{name}: was {before}, is {now}"
