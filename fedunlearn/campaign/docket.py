"""What became of every request of a calendar: who is named by those that came by themselves, and what the desk said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd

from fedunlearn.core import InputError, PatientId, Problem, RequestId, SiteId, derive
from fedunlearn.intake.arrivals import Arrivals, Kind
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import ALL, Entry, State, decide
from fedunlearn.intake.petition import Petition
from fedunlearn.intake.policies import agenda
from fedunlearn.intake.register import Register
from fedunlearn.scenario import Pick, Request, Scenario
from sites.dealing.picking import picked
from sites.dealing.requests import resolve

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Counts:
    """How many requests of a calendar came in, and what became of them.

    Attributes:
        arriving: all of them: those accepted, refused and open together.
        accepted: by what they ask for.
        refused: by reason (`fedunlearn.intake.desk.REASONS`), the most frequent first.
        held: those that a quota held back, accepted later or not.
        open: those without a decision when the last round is over.
    """

    arriving: int
    accepted: Mapping[Kind, int]
    refused: Mapping[str, int]
    held: int
    open: int


@dataclass(frozen=True)
class Docket:
    """What became of every request of a calendar.

    Attributes:
        entries: one for each request, in scenario order.
        masks: for each accepted one, (N,) which images it names, of whatever part; and for `ALL`, those that accepted
            erasures name together.
    """

    entries: tuple[Entry, ...]
    masks: Mapping[RequestId, Array]

    @property
    def accepted(self) -> tuple[Entry, ...]:
        """Those that were accepted, in scenario order."""
        return tuple(entry for entry in self.entries if entry.state == "accepted")

    @property
    def counts(self) -> Counts:
        """How many came in, and what became of them."""
        by_state = {state: [one for one in self.entries if one.state == state] for state in get_args(State)}
        kinds = Counter(one.petition.kind for one in by_state["accepted"])
        return Counts(
            len(self.entries),
            {kind: kinds[kind] for kind in _ASKED},
            dict(Counter(one.reason for one in by_state["refused"]).most_common()),
            sum(one.held is not None for one in self.entries),
            len(by_state["open"]),
        )


def docket(scenario: Scenario, table: pd.DataFrame) -> Docket:
    """Look at what comes in, as the desk does.

    Args:
        scenario: with a calendar.
        table: one row per image, with ``image``, ``patient``, ``site``, ``split``, and ``label`` and ``difficulty``
            where there are.

    Raises:
        InputError: a request is written for patients who cannot be picked so, all of them at their places; or not one
            erasure is accepted, so there is nothing to run.
    """
    calendar = _calendar(scenario)
    petitions, unnamed = _petitions(scenario, table)
    register, rounds = Register(table), scenario.training.rounds
    decided = decide(petitions, register, scenario.limits, calendar, rounds)
    entries = tuple(_explained(entry, unnamed) for entry in decided)
    masks = dict[RequestId, Array]()
    for entry in entries:
        if entry.state == "accepted":
            masks[entry.petition.id] = _mask(entry, len(table))
    erased = [masks[entry.petition.id] for entry in entries if entry.erases]
    if not erased:
        raise InputError(
            [scenario.placed(_nothing(entries), "arrivals" if scenario.arrivals else "requests")]
        )
    erasures = (e for e in entries if e.state == "accepted" and e.petition.kind != "opt_out")
    masks[ALL] = np.logical_or.reduce([masks[entry.petition.id] for entry in erasures])
    return Docket(entries, masks)


def told(kept: Docket, scenario: Scenario) -> Iterator[str]:
    """What comes in, what becomes of it, and when policies unlearn it; a sentence each."""
    calendar, rounds = _calendar(scenario), scenario.training.rounds
    entries, counts = kept.entries, kept.counts
    kinds = ", ".join(f"{number} {_ASKED[kind]}" for kind, number in counts.accepted.items() if number)
    parts = [f"{sum(counts.accepted.values())} accepted ({kinds})"]
    if counts.refused:
        reasons = ", ".join(f"{number} {code}" for code, number in counts.refused.items())
        parts.append(f"{sum(counts.refused.values())} refused ({reasons})")
    if counts.open:
        parts.append(f"{counts.open} held back beyond the end")
    span = f"{calendar.start} to {calendar.day(rounds)}"
    yield f"requests: {counts.arriving} come in, {span}: {', '.join(parts)}"
    for plan in scenario.policies:
        planned = agenda(entries, calendar, plan.policy, rounds)
        days = sum(bool(turn.erases) for turn in planned.turns)
        when = f"unlearns on {days} {'day' if days == 1 else 'days'}" if days else "never unlearns"
        wait = f", {len(planned.waiting)} still wait at the end" if planned.waiting else ""
        yield f"{plan.label}: {when}{wait}"


_ASKED: Mapping[Kind, str] = {
    "patients": "for patients",
    "images": "for single images",
    "whole_site": "to leave",
    "opt_out": "to opt out",
}


def _calendar(scenario: Scenario) -> Calendar:
    if scenario.calendar is None:
        raise ValueError("a docket is kept in a calendar only")
    return scenario.calendar


def _mask(entry: Entry, count: int) -> Array:
    mask = np.zeros(count, dtype=bool)
    mask[list(entry.rows)] = True
    return mask


def _explained(entry: Entry, unnamed: Mapping[RequestId, str]) -> Entry:
    """``entry``; of a request that came by itself when nobody was left for it, with that as the reason."""
    if entry.reason != "malformed" or entry.petition.id not in unnamed:
        return entry
    return replace(entry, reason="nobody_left", sentence=unnamed[entry.petition.id])


def _nothing(entries: Sequence[Entry]) -> Problem:
    told = [f"{e.petition.id}: {e.sentence}" for e in entries if e.state != "accepted" and e.sentence][:3]
    why = f" ({'; '.join(told)})" if told else ""
    return Problem(f"no erasure is accepted that leaves anything to unlearn{why}; add one")


def _petitions(scenario: Scenario, table: pd.DataFrame) -> tuple[list[Petition], dict[RequestId, str]]:
    """All requests as they come to the desk, in scenario order; and why nobody was left for some.

    Raises:
        InputError: one is written for patients who cannot be picked so; all of them, each at its place.
    """
    unnamed, named, problems = dict[RequestId, str](), dict[RequestId, Petition](), list[Problem]()
    for number, request in enumerate(scenario.requests):
        if not request.drawn:
            try:
                named[request.id] = _written(scenario, request, table)
            except InputError as error:
                key = f"requests.{number}.patients"
                problems += [scenario.placed(problem, key) for problem in error.problems]
    if problems:
        raise InputError(problems)
    pool = _Pool(table, {patient for one in named.values() for patient in _whose(one, table)})
    for request in sorted((one for one in scenario.requests if one.drawn), key=_when):
        named[request.id] = _drawn(scenario, request, pool, unnamed)
    return [named[request.id] for request in scenario.requests], unnamed


def _when(request: Request) -> tuple[str, RequestId]:
    return str(request.received), request.id


def _petition(request: Request) -> Petition:
    """A request without those whom it names."""
    if request.received is None:
        raise ValueError(f"request {request.id!r} has no day")
    return Petition(request.id, request.received, request.site, request.asks)


def _written(scenario: Scenario, request: Request, table: pd.DataFrame) -> Petition:
    """A request with whom it names; ids that nobody has are for the desk.

    Raises:
        InputError: those whom it describes cannot be picked.
    """
    petition = replace(_petition(request), images=request.images or ())
    match request.patients:
        case None:
            return petition
        case Pick(fraction=fraction, count=count, pick=pick, by=by):
            rng = np.random.default_rng(derive(scenario.seed, f"request:{request.id}"))
            named = resolve(table, request.site, rng, fraction=fraction, count=count, pick=pick, by=by)
            return replace(petition, patients=named.patients)
        case patients:
            return replace(petition, patients=tuple(patients))


def _whose(petition: Petition, table: pd.DataFrame) -> Iterator[PatientId]:
    """The patients that a request is about, but for a hospital's."""
    yield from petition.patients
    if petition.images:
        yield from table.loc[table["image"].isin(petition.images), "patient"]


class _Pool:
    """The training patients of each hospital whom no request has named yet."""

    def __init__(self, table: pd.DataFrame, named: set[PatientId]) -> None:
        self.table = table
        own = table[np.asarray(table["split"] == "train", dtype=bool)]
        self._images = {
            (str(site), str(patient)): sorted(rows)
            for (site, patient), rows in own.groupby(["site", "patient"], sort=True)["image"]
        }
        self._named = named

    def patients(self, site: SiteId, several: bool) -> list[PatientId]:
        """Those of ``site``, sorted; those with several training images there, if wanted and there are any."""
        left = {p: len(rows) for (s, p), rows in self._images.items() if s == site and p not in self._named}
        return [p for p in left if left[p] > 1] or [*left] if several else [*left]

    def images(self, site: SiteId, patient: PatientId) -> list[str]:
        """The training images of a patient at a hospital, sorted."""
        return self._images[site, patient]

    def take(self, patient: PatientId) -> None:
        """A request names this one."""
        self._named.add(patient)


def _drawn(scenario: Scenario, request: Request, pool: _Pool, unnamed: dict[RequestId, str]) -> Petition:
    """A request that came by itself, with whom it names: drawn from those of the hospital whom none has named yet."""
    petition = _petition(request)
    if request.whole_site:
        return petition
    arrivals = scenario.arrivals or Arrivals()
    seed = arrivals.seed
    rng = np.random.default_rng(derive(scenario.seed, "arrival", seed, request.id))
    able = pool.patients(request.site, several=request.images is not None)
    if not able:
        unnamed[request.id] = f"every training patient of {request.site!r} was named by another request"
        return petition
    if arrivals.pick == "random":
        patient = able[int(rng.integers(len(able)))]
    else:
        try:
            (patient,) = picked(pool.table, request.site, able, 1, arrivals.pick, rng)
        except InputError as error:
            raise InputError([scenario.placed(one, "arrivals.pick") for one in error.problems]) from None
    pool.take(patient)
    if request.images is None:
        return replace(petition, patients=(patient,))
    images = pool.images(request.site, patient)
    return replace(petition, images=(images[int(rng.integers(len(images)))],))
