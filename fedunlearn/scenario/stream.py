"""What must hold of a calendar, of what comes in it and of its policies: (dotted key, message) pairs."""

from __future__ import annotations

from collections.abc import Iterator

from fedunlearn.core import Guarantee
from fedunlearn.deadlines import LATEST
from fedunlearn.intake.desk import ALL
from fedunlearn.intake.policies import Release
from fedunlearn.scenario.draft import MOST, Draft, Finding, twice
from fedunlearn.scenario.plans import RESERVED, outside, unsuited
from fedunlearn.scenario.schema import Request
from fedunlearn.scenario.typed import listed, meant


def stream_findings(draft: Draft) -> Iterator[Finding]:
    """All that is wrong with requests' days, and with what brings them."""
    for i, request in draft.requests.items():
        yield from _dates(draft, f"requests.{i}", request)
    if draft.dated:
        yield from _calendar(draft)
        yield from _arrivals(draft)
        yield from _names(draft)
        yield from _strategies(draft)


def _calendar(draft: Draft) -> Iterator[Finding]:
    if draft.calendar is not None and draft.training is not None and draft.end is None:
        span = f"{draft.training.rounds:,} rounds of {draft.calendar.round} days"
        yield "calendar", f"{span} end after {LATEST}, the last day that has a deadline; shorten them"


def _dates(draft: Draft, key: str, request: Request) -> Iterator[Finding]:
    """A day in a calendar, and none without."""
    if not draft.dated:
        advice = "add one, such as calendar: {start: 2026-01-01, round: 7d}, or remove this"
        if request.received is not None:
            yield f"{key}.received", f"days need a `calendar`: {advice}"
        if request.kind == "opt_out":
            yield f"{key}.kind", f"an opt-out bars later use, which takes a `calendar`: {advice}"
        return
    if request.kind == "opt_out" and request.patients is None:
        yield key, f"request {request.id!r} is an opt-out, which is for patients: name them, or remove `kind`"
    if request.after_round is not None:
        advice = "write `received: 2026-02-03` instead"
        yield f"{key}.after_round", f"in a calendar requests come on a day, not after a round: {advice}"
    elif request.received is None:
        yield key, f"request {request.id!r} has no day: add `received`, such as received: 2026-02-03"
    if request.received is not None and draft.calendar is not None and draft.end is not None:
        first, last = draft.calendar.start, draft.end
        if not first <= request.received <= last:
            expected = f"expected {first} to {last}, when the last round is over"
            yield f"{key}.received", f"found {request.received}, {expected}"


def _arrivals(draft: Draft) -> Iterator[Finding]:
    process = draft.arrivals
    if process is None:
        return
    if not any(vars(process.kinds).values()):
        yield "arrivals.kinds", "no kind has a weight above 0, so nothing would come: give one a weight"
    if process.sites is not None:
        names = () if draft.sites is None else draft.sites.names
        for site in process.sites:
            if names and site not in names:
                known = f"expected {listed(names)} (sites.names)"
                yield f"arrivals.from.{site}", f"unknown site {site!r}{meant(site, names)}; {known}"
        if not any(process.sites.values()):
            yield (
                "arrivals.from",
                "no hospital has a weight above 0, so nothing would come: give one a weight",
            )
    if draft.expected is not None and draft.expected > MOST:
        advice = "lower it"
        yield (
            "arrivals.per_year",
            f"about {draft.expected:,.0f} requests would come, at most {MOST:,}: {advice}",
        )
    elif draft.end is not None and draft.complete and not draft.requests and not draft.drawn:
        advice = "raise per_year, or take another seed"
        yield "arrivals", f"no request would come until {draft.end}: {advice}"


def _names(draft: Draft) -> Iterator[Finding]:
    """Policies and requests have names of their own: both are what models are told apart by."""
    labels = {f"policies.{i}": plan.label for i, plan in draft.policies.items()}
    yield from twice(((f"{key}.as", label) for key, label in labels.items()), "policy label")
    for key, label in labels.items():
        if label.casefold() in (*RESERVED, ALL):
            yield f"{key}.as", f"the label {label!r} is used by every table; choose another with `as: …`"
    taken = {**dict.fromkeys((r.id for r in draft.drawn), "a request of `arrivals`"), ALL: "all together"}
    taken |= {label: "a policy" for label in labels.values()}
    for i, request in draft.requests.items():
        if request.id in taken:
            yield (
                f"requests.{i}.id",
                f"the name {request.id!r} is that of {taken[request.id]}; choose another",
            )


def _strategies(draft: Draft) -> Iterator[Finding]:
    """Every policy finds a strategy that can forget whatever comes; release, one that trains anew."""
    entries = draft.entries
    if not draft.complete:
        return
    able = [
        entry
        for entry in entries.values()
        if unsuited(entry.strategy, entry.label) is None
        and outside(entry.strategy, entry.label, draft.stream) is None
    ]
    if not able:
        why = "a calendar needs a strategy that can forget all that comes"
        reasons = (
            outside(entry.strategy, entry.label, draft.stream)
            for entry in entries.values()
            if unsuited(entry.strategy, entry.label) is None
        )
        told = "".join(f"; {reason}" for _, reason in filter(None, reasons))
        yield "strategies", f"{why}, and there is none: add one such as {{name: fine_tune}}{told}"
    for i, plan in draft.policies.items():
        if isinstance(plan.policy, Release) and not any(
            entry.strategy.guarantee is Guarantee.EXACT for entry in able
        ):
            why = "release trains anew, so it is run with an exact strategy alone, and there is none"
            yield f"policies.{i}", f"{why}: add {{name: retrain}} to `strategies`"
