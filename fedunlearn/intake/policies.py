"""When what was accepted is unlearned: at once, in batches, at releases, or at once as long as drift allows.

From acceptance on nobody trains on what a request names, whatever the policy: that is a request's *bar*. A policy says
when the model that still knows it is made to forget. Each is a frozen dataclass whose fields are its settings, found by
its ``name`` like a strategy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from fedunlearn.core import RequestId
from fedunlearn.intake.calendar import Calendar, Days
from fedunlearn.intake.desk import Entry


@dataclass(frozen=True)
class AtOnce:
    """Unlearn every request as soon as it is accepted: nobody waits, and each costs an unlearning of its own."""

    name: Literal["at_once"] = "at_once"


@dataclass(frozen=True)
class Batch:
    """Collect requests, and unlearn those that wait together: fewer unlearnings, but some wait for the others.

    Attributes:
        every: unlearn at the first round's end on or after every so many days, such as 30d.
        size: unlearn as soon as so many wait, instead.
    """

    every: Days | None = None
    size: Annotated[int, Ge(1)] | None = None
    name: Literal["batch"] = "batch"


@dataclass(frozen=True)
class Release:
    """Train anew for every release, without all whom requests name.

    From a request's acceptance until the release the model is not to be used.

    Attributes:
        every: days from release to release, such as 180d.
    """

    every: Days
    name: Literal["release"] = "release"


@dataclass(frozen=True)
class Budget:
    """Unlearn every request at once until the model has drifted too far, then train anew and begin again.

    Attributes:
        drift: the most that all steps of unlearning together may have moved the weights since training, or since they
            were trained anew, relative to their norm. Once they have moved it by more, the next request is answered by
            training anew.
    """

    drift: Annotated[float, Gt(0)]
    name: Literal["budget"] = "budget"


Policy = AtOnce | Batch | Release | Budget

POLICIES: Mapping[str, type[Policy]] = {
    "at_once": AtOnce,
    "batch": Batch,
    "release": Release,
    "budget": Budget,
}
"""Every policy by its name."""


@dataclass(frozen=True)
class Turn:
    """What changes when so many rounds are trained.

    Attributes:
        round: the boundary.
        bars: the requests accepted there, erasures and opt-outs: nobody trains on what they name from now on.
        erases: the erasures unlearned there, in order of acceptance; only those that leave something to unlearn.
    """

    round: int
    bars: tuple[RequestId, ...] = ()
    erases: tuple[RequestId, ...] = ()


@dataclass(frozen=True)
class Agenda:
    """What a policy makes of the stream.

    Attributes:
        policy: which one.
        turns: by boundary, ascending; boundaries at which nothing changes are left out.
        waiting: accepted erasures that no boundary is left for.
    """

    policy: Policy
    turns: tuple[Turn, ...]
    waiting: tuple[RequestId, ...] = ()


def label(policy: Policy) -> str:
    """What a policy is called unless its ``as:`` says otherwise: its name and what it is set to."""
    match policy:
        case Batch(every=None, size=size):
            return f"batch-{size}"
        case Batch(every=every) | Release(every=every):
            return f"{policy.name}-{every}d"
        case Budget(drift=drift):
            return f"budget-{drift:g}"
        case AtOnce():
            return "at_once"


def agenda(entries: Sequence[Entry], calendar: Calendar, policy: Policy, rounds: int) -> Agenda:
    """When what was accepted is barred from training, and when it is unlearned.

    Args:
        entries: what became of each request at the desk; those that were not accepted are passed over.
        calendar: when rounds are over.
        policy: when to unlearn.
        rounds: how many there are.
    """
    accepted = _ordered(entries)
    bars, erases, waiting = dict[int, list[RequestId]](), dict[int, list[RequestId]](), list[Entry]()
    for at, entry in accepted:
        bars.setdefault(at, []).append(entry.petition.id)
    fixed = frozenset(_fixed(calendar, policy, rounds))
    for boundary in range(1, rounds + 1):
        waiting += [entry for at, entry in accepted if at == boundary and entry.erases]
        if waiting and (boundary in fixed or _full(policy, len(waiting))):
            erases[boundary] = [entry.petition.id for entry in waiting]
            waiting = []
    turns = (
        Turn(boundary, tuple(bars.get(boundary, ())), tuple(erases.get(boundary, ())))
        for boundary in sorted({*bars, *erases})
    )
    return Agenda(policy, tuple(turns), tuple(entry.petition.id for entry in waiting))


def _ordered(entries: Iterable[Entry]) -> list[tuple[int, Entry]]:
    """The accepted ones with their boundaries: by boundary, then by day of receipt, then as listed."""
    accepted = [
        (one.boundary, one) for one in entries if one.state == "accepted" and one.boundary is not None
    ]
    return sorted(accepted, key=lambda pair: (pair[0], pair[1].petition.received))


def _fixed(calendar: Calendar, policy: Policy, rounds: int) -> Iterator[int]:
    """The boundaries at which whatever waits is unlearned."""
    match policy:
        case AtOnce() | Budget():
            yield from range(1, rounds + 1)
        case Batch(every=int(every)) | Release(every=int(every)):
            last = rounds * calendar.round // every
            for number in range(1, last + 1):
                yield calendar.boundary(calendar.start + timedelta(days=number * every))


def _full(policy: Policy, waiting: int) -> bool:
    """Whether so many that wait are enough."""
    return isinstance(policy, Batch) and policy.size is not None and waiting >= policy.size
