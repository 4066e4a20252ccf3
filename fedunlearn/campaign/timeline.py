"""When requests arrive: chains of requests along training, and the moments at which models are compared.

With the independent timeline each request is a chain of its own; with the sequential one all of them are a single
chain, each strategy going on from its own last model. Along a chain, models are compared at *moments*: right after each
unlearning and, if the request came in the middle of training, once more at its end. A moment carries the request's id;
in the middle of training it is named ``id@round``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedunlearn.core import RequestId
from fedunlearn.scenario import Request, Scenario


@dataclass(frozen=True)
class Moment:
    """A point in training at which models are compared.

    Attributes:
        name: the request's id, or ``id@round`` in the middle of training.
        request: the newest request.
        earlier: the requests honoured before it.
        round: rounds trained so far.
    """

    name: str
    request: Request
    earlier: tuple[RequestId, ...]
    round: int

    @property
    def without(self) -> tuple[RequestId, ...]:
        """All requests honoured at this moment."""
        return (*self.earlier, self.request.id)


@dataclass(frozen=True)
class Step:
    """One request of a chain.

    Attributes:
        request: the request.
        earlier: the requests honoured before it.
        round: rounds trained when it arrives.
        moment: right after unlearning.
    """

    request: Request
    earlier: tuple[RequestId, ...]
    round: int
    moment: Moment

    @property
    def without(self) -> tuple[RequestId, ...]:
        """All requests honoured once this one is."""
        return (*self.earlier, self.request.id)


Chain = tuple[Step, ...]


def chains(scenario: Scenario) -> tuple[Chain, ...]:
    """The scenario's requests as chains, in scenario order."""
    if scenario.timeline == "sequential":
        return (_chain(scenario, scenario.requests),) if scenario.requests else ()
    return tuple(_chain(scenario, (request,)) for request in scenario.requests)


def moments(scenario: Scenario, chain: Chain) -> tuple[Moment, ...]:
    """All moments of a chain, in order; the last one is at the end of training."""
    last, end = chain[-1], scenario.training.rounds
    inner = tuple(step.moment for step in chain)
    return inner if last.round == end else (*inner, Moment(last.request.id, last.request, last.earlier, end))


def stretches(scenario: Scenario, chain: Chain) -> list[tuple[Step, int]]:
    """Where training goes on after unlearning: the request, and the round up to which."""
    ends = [*(step.round for step in chain), scenario.training.rounds][1:]
    return [(step, end) for step, end in zip(chain, ends, strict=True) if end > step.round]


def _chain(scenario: Scenario, requests: Sequence[Request]) -> Chain:
    end, steps = scenario.training.rounds, []
    for i, request in enumerate(requests):
        round = request.after_round or end
        name = request.id if round == end else f"{request.id}@{round}"
        earlier = tuple(other.id for other in requests[:i])
        steps.append(Step(request, earlier, round, Moment(name, request, earlier, round)))
    return tuple(steps)
