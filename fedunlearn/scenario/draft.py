"""As much of a scenario as could be read, and what rules say of it: (dotted key, message) pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from fedunlearn.core import RequestId, Strategy, Training
from fedunlearn.deadlines import LATEST
from fedunlearn.intake.arrivals import YEAR, Arrival, Arrivals, expand
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import Limits
from fedunlearn.learning.models import Model
from fedunlearn.scenario.schema import (
    Engine,
    Evaluation,
    HistoryConfig,
    Pick,
    PolicyPlan,
    Request,
    Retention,
    SitesConfig,
    TopKeys,
    Tuned,
    Verdict,
)
from sites.collection import Source

Finding = tuple[str, str]

MOST = 100_000
"""Requests that may come by themselves."""


@dataclass(frozen=True)
class Entry:
    """A strategy as listed; ``wanted`` are the requests it is restricted to, None for all it can do."""

    strategy: Strategy
    label: str
    wanted: tuple[RequestId, ...] | None
    tuned: Tuned | None = None


@dataclass(frozen=True)
class Draft:
    """As much of a scenario as could be read; list items by their position, None for a part that could not.

    Attributes:
        requests: those that were written.
        complete: every request could be read.
        dated: whether there is a calendar, read or not.
    """

    top: TopKeys | None
    engine: Engine | None
    data: Source | None
    sites: SitesConfig | None
    model: Model | None
    training: Training | None
    requests: Mapping[int, Request]
    complete: bool
    entries: Mapping[int, Entry]
    evaluation: Evaluation | None
    verdict: Verdict | None
    history: HistoryConfig | None
    retention: Retention | None
    dated: bool
    calendar: Calendar | None
    arrivals: Arrivals | None
    policies: Mapping[int, PolicyPlan]
    limits: Limits | None

    @property
    def sequential(self) -> bool:
        """Whether requests come one after the other."""
        return self.top is not None and self.top.timeline == "sequential"

    @property
    def end(self) -> date | None:
        """The day on which the last round is over; None where no answer to a request of that day could be due."""
        if self.calendar is None or self.training is None:
            return None
        try:
            end = self.calendar.day(self.training.rounds)
        except OverflowError:
            return None
        return end if end <= LATEST else None

    @property
    def expected(self) -> float | None:
        """How many requests come by themselves, about; None where that cannot be told."""
        if self.calendar is None or self.arrivals is None or self.end is None:
            return None
        return self.arrivals.per_year * (self.end - self.calendar.start).days / YEAR

    @cached_property
    def drawn(self) -> tuple[Request, ...]:
        """The requests that come by themselves; none where that cannot be told."""
        few = self.expected is not None and self.expected <= MOST
        if not (self.calendar and self.arrivals and self.sites and self.training and few):
            return ()
        stream = expand(self.arrivals, self.calendar, self.training.rounds, self.sites.names)
        return tuple(map(_request, stream))

    @property
    def stream(self) -> tuple[Request, ...]:
        """All requests: those that were written, then those that come by themselves."""
        return (*self.requests.values(), *self.drawn)


def _request(arrival: Arrival) -> Request:
    """What came in, without whom it names: that is drawn when the data is there."""
    return Request(
        arrival.id,
        arrival.site,
        patients=Pick(count=1) if arrival.kind in ("patients", "opt_out") else None,
        images=() if arrival.kind == "images" else None,
        whole_site=arrival.kind == "whole_site",
        received=arrival.received,
        kind="opt_out" if arrival.kind == "opt_out" else "erasure",
        drawn=True,
    )


def twice(
    values: Iterable[tuple[str, str]], noun: str, advice: str = "; each must be unique"
) -> Iterator[Finding]:
    """Of (key, value) pairs, those whose value came before."""
    seen = set()
    for key, value in values:
        if value in seen:
            yield key, f"the {noun} {value!r} is used twice{advice}"
        seen.add(value)
