"""When requests are answered: chains of steps along training, and the moments at which models are compared.

With the independent timeline each request is a chain of its own; with the sequential one all of them are a single
chain, each strategy going on from its own last model. With a calendar each policy is a chain. Along a chain a *step* is
where something changes: what may not be trained on any more, what is unlearned, or that models are compared. Between
steps training goes on. Models are compared at *moments*: right after each unlearning and, if the request came in the
middle of training, once more at its end; with a calendar at its end, and for what is followed over time at *looks*
before. A moment carries the request's id, or the policy's label; in the middle of training it is named ``id@round``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fedunlearn.core import Guarantee, RequestId, SiteId
from fedunlearn.intake.desk import ALL, Entry
from fedunlearn.intake.policies import Release, agenda
from fedunlearn.scenario import Plan, PolicyPlan, Request, Scenario


@dataclass(frozen=True)
class Moment:
    """A point in training at which models are compared.

    Attributes:
        name: the request's id or the policy's label, with ``@round`` in the middle of training.
        request: what models should have forgotten: the newest request.
        earlier: the requests honoured before it.
        without: all requests whose images may not be trained on any more.
        round: rounds trained so far.
        reference: what the models trained again are called that others are compared with (`retrained_name`).
        scored: whether models are judged here; else it is a look.
    """

    name: str
    request: Request
    earlier: tuple[RequestId, ...]
    without: tuple[RequestId, ...]
    round: int
    reference: str
    scored: bool = True


@dataclass(frozen=True)
class Step:
    """A point of a chain at which something changes, or models are compared.

    Attributes:
        id: what it is called in the ledger: the request's id; with a calendar, ``policy@round``.
        round: rounds trained when it comes.
        request: what is unlearned here, maybe several requests as one; None for nothing.
        members: the requests that this is.
        earlier: the requests that were unlearned before.
        without: all requests whose images nobody trains on from here on.
        moment: when models are compared, right after; None for not at all.
    """

    id: str
    round: int
    request: Request | None
    members: tuple[RequestId, ...]
    earlier: tuple[RequestId, ...]
    without: tuple[RequestId, ...]
    moment: Moment | None

    @property
    def name(self) -> str:
        """What models are called here."""
        return self.moment.name if self.moment else self.id

    @property
    def asked(self) -> Request:
        """What is unlearned here, where something is."""
        assert self.request is not None, f"nothing is unlearned at {self.id}"
        return self.request


@dataclass(frozen=True)
class Chain:
    """Steps in their order, of rounds that never fall.

    Attributes:
        steps: at least one.
        policy: whose steps these are, with a calendar.
    """

    steps: tuple[Step, ...]
    policy: PolicyPlan | None = None

    @property
    def label(self) -> str:
        """The policy's; empty without one."""
        return self.policy.label if self.policy else ""

    @property
    def asking(self) -> tuple[Step, ...]:
        """The steps at which something is unlearned."""
        return tuple(step for step in self.steps if step.request)

    @property
    def moments(self) -> tuple[Moment, ...]:
        """Where models are judged, in order; the last one is at the end of training."""
        return tuple(moment for moment in self.looks if moment.scored)

    @property
    def looks(self) -> tuple[Moment, ...]:
        """Where models are compared, judged or not."""
        return tuple(step.moment for step in self.steps if step.moment)

    def serves(self, plan: Plan) -> bool:
        """Whether a strategy serves every request of it; where a policy only ever trains again, no other does."""
        able = all(member in plan.requests for step in self.asking for member in step.members)
        again = self.policy is not None and isinstance(self.policy.policy, Release)
        return able and (not again or plan.strategy.guarantee is Guarantee.EXACT)

    def stretches(self, first: int = 0) -> list[tuple[Step, Step]]:
        """Where training goes on, from step number ``first`` on: from which step to which."""
        pairs = zip(self.steps[first:], self.steps[first + 1 :], strict=False)
        return [(step, following) for step, following in pairs if following.round > step.round]


def chains(scenario: Scenario, entries: Sequence[Entry] = ()) -> tuple[Chain, ...]:
    """The scenario's requests as chains, in scenario order; with a calendar one for each policy.

    Args:
        scenario: whose requests.
        entries: with a calendar, what was decided of each request (`fedunlearn.intake.desk`).
    """
    if scenario.calendar is not None:
        followed = (_followed(scenario, plan, entries) for plan in scenario.policies)
        return tuple(chain for chain in followed if chain.steps)
    if scenario.timeline == "sequential":
        return (_chain(scenario, scenario.requests),) if scenario.requests else ()
    return tuple(_chain(scenario, (request,)) for request in scenario.requests)


def looks(scenario: Scenario, linked: Sequence[Chain]) -> tuple[Moment, ...]:
    """With a calendar, where models are compared with the one that was trained without all that is to be forgotten.

    Policies share these models: in the end they are asked to forget the same. Where a policy has done nothing yet, its
    models are the original ones.
    """
    if scenario.calendar is None or not linked:
        return ()
    last, end = linked[0].looks[-1], scenario.training.rounds
    found = ((round, ALL if round == end else f"{ALL}@{round}") for round in scenario.calendar.looked(end))
    return tuple(
        replace(last, name=name, round=round, reference=name, scored=round == end) for round, name in found
    )


def references(scenario: Scenario, linked: Sequence[Chain]) -> int:
    """How many models are trained again to compare with, for each seed."""
    alone = sum(len(chain.moments) for chain in linked if chain.policy is None)
    return alone + len(looks(scenario, linked))


def compared(scenario: Scenario, linked: Sequence[Chain]) -> set[int]:
    """After how many rounds models that follow from the original training begin, or are compared with it."""
    if scenario.calendar is None:
        return {step.round for chain in linked for step in chain.asking}
    return {*(chain.steps[0].round for chain in linked), *(one.round for one in looks(scenario, linked))}


def groups(linked: Sequence[Chain]) -> dict[RequestId, tuple[RequestId, ...]]:
    """By id, the requests that stand for several that are unlearned as one."""
    return {
        step.request.id: step.members
        for chain in linked
        for step in chain.asking
        if step.request and step.members != (step.request.id,)
    }


def _chain(scenario: Scenario, requests: Sequence[Request]) -> Chain:
    end, steps = scenario.training.rounds, list[Step]()
    for i, request in enumerate(requests):
        round = request.after_round or end
        name = request.id if round == end else f"{request.id}@{round}"
        earlier = tuple(other.id for other in requests[:i])
        without = (*earlier, request.id)
        moment = Moment(name, request, earlier, without, round, name)
        steps.append(Step(request.id, round, request, (request.id,), earlier, without, moment))
    if (last := steps[-1]).round < end and last.moment:
        name = last.id
        at_the_end = replace(last.moment, name=name, round=end, reference=name)
        steps.append(Step(name, end, None, (), last.without, last.without, at_the_end))
    return Chain(tuple(steps))


# ------------------------------------------------------------------------------------------------ with a calendar


def _followed(scenario: Scenario, plan: PolicyPlan, entries: Sequence[Entry]) -> Chain:
    """The steps of a policy: what it does at each boundary, and a look at those of the calendar.

    Before the first of them nothing differs from the original training.
    """
    assert scenario.calendar is not None
    end = scenario.training.rounds
    looks = set(scenario.calendar.looked(end))
    turns = {turn.round: turn for turn in agenda(entries, scenario.calendar, plan.policy, end).turns}
    known = {request.id: request for request in scenario.requests}
    accepted = [entry.petition for entry in entries if entry.state == "accepted"]
    whole = Request(ALL, _first(known, [one.id for one in accepted]))
    without = tuple(one.id for one in accepted)
    barred, erased, steps = tuple[RequestId, ...](), tuple[RequestId, ...](), list[Step]()
    for round in sorted({*looks, *turns}):
        turn = turns.get(round)
        if turn is None and not steps:
            continue
        if turn is not None:
            barred = (*barred, *turn.bars)
            for id, request, members in _answered(f"{plan.label}@{round}", turn.erases, known):
                steps.append(Step(id, round, request, members, erased, barred, None))
                erased = (*erased, *members)
        if not steps or steps[-1].round < round:
            steps.append(Step(f"{plan.label}@{round}", round, None, (), erased, barred, None))
        changed = len(steps) > 1 or steps[0].request is not None  # else the model is still the original one
        if round in looks and (changed or round == end):
            at = "" if round == end else f"@{round}"
            name, reference = f"{plan.label}{at}", f"{ALL}{at}"
            moment = Moment(name, whole, (), without, round, reference, scored=round == end)
            steps[-1] = replace(steps[-1], moment=moment)
    return Chain(tuple(steps), plan)


def _answered(
    name: str, ids: Sequence[RequestId], known: Mapping[RequestId, Request]
) -> Iterator[tuple[str, Request, tuple[RequestId, ...]]]:
    """What is unlearned at a boundary, step by step: what it is called, as which request, for which requests.

    Hospitals that leave come first: what others name of their images is gone then, and nobody asks them again.
    """
    others = list[RequestId]()
    for id in ids:
        if known[id].whole_site:
            yield f"{name}-{known[id].site}", known[id], (id,)
        else:
            others.append(id)
    if others:
        yield name, Request(name, _first(known, others)), tuple(others)


def _first(known: Mapping[RequestId, Request], ids: Sequence[RequestId]) -> SiteId:
    """The hospital of the first of some requests."""
    return next((known[id].site for id in ids), "")
