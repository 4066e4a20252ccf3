"""Everything a scenario trains, retrains and unlearns, as jobs that follow from one another.

Every seed trains the original model once. Requests form chains: with the independent timeline each request is a
chain of its own; with the sequential one all of them are a single chain, each strategy going on from its own last
model. Along a chain, models are compared at *moments*: right after each unlearning and, if the request came in the
middle of training, once more at its end. A moment carries the request's id; in the middle of training it is named
``id@round``.

A strategy that trains in a way of its own (`Preparing`) does so beside the original training, once for every number of
rounds after which one of its requests arrives, as if training was to end there; from that its unlearning goes on.

A strategy may diverge. It then has a model of NaNs at this moment and at all that follow along its chain; nothing else
is touched by it. The references may not: there would be nothing to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedunlearn import weights as w
from fedunlearn.cohort import Cohort
from fedunlearn.core import (
    Case,
    Course,
    Layout,
    Preparing,
    Procedure,
    RequestId,
    Select,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.drive import Divergence, Job, Label
from fedunlearn.history import Recorder, keep, union
from fedunlearn.ledger import Ledger
from fedunlearn.models import Network, initial_weights
from fedunlearn.procedures import fedavg, nothing, signals
from fedunlearn.runfolder import RunFolder
from fedunlearn.scenario import Plan, Request, Scenario


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
Diverged = Callable[[Divergence], list[Job[Any]]]


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


def _chain(scenario: Scenario, requests: Sequence[Request]) -> Chain:
    end, steps = scenario.training.rounds, []
    for i, request in enumerate(requests):
        round = request.after_round or end
        name = request.id if round == end else f"{request.id}@{round}"
        earlier = tuple(other.id for other in requests[:i])
        steps.append(Step(request, earlier, round, Moment(name, request, earlier, round)))
    return tuple(steps)


class Campaign:
    """The jobs of a scenario. Models are written to the run folder as they come; none is kept in memory.

    Args:
        scenario: what to run.
        cohort: the hospitals and what each request names.
        run: where models and signals go.
        scratch: where history goes while the run lasts.
        ledger: told how much history each strategy makes the server hold.
    """

    def __init__(
        self, scenario: Scenario, cohort: Cohort, run: RunFolder, scratch: Path, ledger: Ledger
    ) -> None:
        self.scenario, self.cohort, self.run, self.ledger = scenario, cohort, run, ledger
        self.scratch = scratch
        self.chains = chains(scenario)
        self._diverged: list[dict[str, Any]] = []
        self.layout: Layout = Network(scenario.model, cohort.shape, cohort.classes).layout
        needs = union(plan.strategy.needs for plan in scenario.strategies)
        cuts = sorted(
            {step.round for chain in self.chains for step in chain if step.round < scenario.training.rounds}
        )
        self.recorders = {
            seed: Recorder(scratch / f"history-{seed}", Label("original", "", "original", seed), needs, cuts)
            for seed in scenario.seeds
        }
        self.cuts = tuple(cuts)

    def jobs(self) -> list[Job[Any]]:
        """Where to start: every seed's original model, then all else that waits for nothing."""
        seeds = self.scenario.seeds
        return [
            *(self._original(seed) for seed in seeds),
            *(self._retrained(chain, 0, seed) for chain in self.chains for seed in seeds),
            *(
                self._prepare(plan, strategy, round, seed)
                for plan, strategy, round in self._preparing()
                for seed in seeds
            ),
        ]

    def procedures(self) -> list[Label]:
        """The labels of all procedures to come, in scenario order (for those who watch)."""
        labels = [Label("original", "", "original", seed) for seed in self.scenario.seeds]
        labels += [
            self._prepare_label(plan, round, seed)
            for plan, _, round in self._preparing()
            for seed in self.scenario.seeds
        ]
        for chain in self.chains:
            labels += [
                Label("retrained", s.request.id, "retrained", seed)
                for s in chain
                for seed in self.scenario.seeds
            ]
            for plan in self._plans(chain):
                labels += [
                    Label("unlearn", s.request.id, plan.label, seed)
                    for s in chain
                    for seed in self.scenario.seeds
                ]
        return labels

    def scored(self) -> list[dict[str, Any]]:
        """Which models to compare at which moment: the manifest's ``scored`` entry."""
        return [
            {
                "request": moment.name,
                "seed": seed,
                "original": self._original_name(moment.round, seed),
                "retrained": f"retrained-{moment.name}-{seed}",
                "strategies": {plan.label: _name(moment, plan, seed) for plan in self._plans(chain)},
            }
            for chain in self.chains
            for moment in moments(self.scenario, chain)
            for seed in self.scenario.seeds
        ]

    def diverged(self) -> list[dict[str, Any]]:
        """Which strategies' models are not finite, and where that came about: the manifest's ``diverged`` entry."""
        return sorted(self._diverged, key=lambda entry: (entry["request"], entry["strategy"], entry["seed"]))

    def blank(self) -> None:
        """Write signals for the models of `diverged` once all others are there: the original's, emptied of numbers."""
        originals = {(entry["request"], entry["seed"]): entry["original"] for entry in self.scored()}
        for entry in self.diverged():
            like = self.run.read_table(f"signals/{originals[entry['request'], entry['seed']]}.parquet")
            blank = pd.DataFrame(math.nan, like.index, like.columns, dtype="float32")
            self.run.write_table(f"signals/{entry['model']}.parquet", blank)

    # ------------------------------------------------------------------------------------ the original

    def _original(self, seed: int) -> Job[Weights]:
        def then(weights: Weights) -> list[Job[Any]]:
            end = self.scenario.training.rounds
            following = self._keep(self._original_name(end, seed), weights, seed)
            for cut in self.cuts:
                following += self._keep(self._original_name(cut, seed), self.recorders[seed].cut(cut), seed)
            for chain in self.chains:
                start = weights if chain[0].round == end else self.recorders[seed].cut(chain[0].round)
                following += [
                    self._unlearn(plan, chain, 0, start, seed)
                    for plan in self._plans(chain)
                    if not isinstance(plan.strategy, Preparing)
                ]
            return following

        training = self.scenario.training
        procedure = fedavg(
            self._initial(seed), self.cohort.sites, Select(), training.local, range(training.rounds), seed
        )
        return Job(Label("original", "", "original", seed), procedure, then)

    # ----------------------------------------------------------------------------------- the references

    def _retrained(self, chain: Chain, index: int, seed: int) -> Job[Weights]:
        """Train without everything the chain forgets up to ``index``, from scratch."""
        step = chain[index]

        def then(result: Weights) -> list[Job[Any]]:
            following = self._keep(f"retrained-{step.moment.name}-{seed}", result, seed)
            if index + 1 < len(chain):
                return [*following, self._retrained(chain, index + 1, seed)]
            name = f"retrained-{step.request.id}-{seed}"
            return following + self._to_the_end(
                chain, "retrained", result, seed, lambda new: self._keep(name, new, seed)
            )

        procedure = self._train(step, range(step.round), self._initial(seed), seed)
        return Job(Label("retrained", step.request.id, "retrained", seed), procedure, then)

    # ----------------------------------------------------------------------------------- the strategies

    def _preparing(self) -> list[tuple[Plan, Preparing, int]]:
        """The plans that train in a way of their own, and for how many rounds each."""
        return [
            (plan, plan.strategy, round)
            for plan in self.scenario.strategies
            if isinstance(plan.strategy, Preparing)
            for round in sorted({chain[0].round for chain in self.chains if plan in self._plans(chain)})
        ]

    def _prepare(self, plan: Plan, strategy: Preparing, round: int, seed: int) -> Job[Mapping[str, Weights]]:
        def then(prepared: Mapping[str, Weights]) -> list[Job[Any]]:
            stored = keep(self._prepared(plan, round, seed), prepared)
            return [
                self._unlearn(plan, chain, 0, prepared["model"], seed, stored)
                for chain in self.chains
                if chain[0].round == round and plan in self._plans(chain)
            ]

        sites, select = self.cohort.sites, Select()
        course = Course(
            seed=seed,
            rounds=round,
            initial=self._initial(seed),
            training=self.scenario.training,
            layout=self.layout,
            roster=sites,
            sites=sites,
            select=select,
            images={site: self.cohort.count(site, select) for site in sites},
        )
        return Job(self._prepare_label(plan, round, seed), strategy.prepare(course), then)

    def _prepare_label(self, plan: Plan, round: int, seed: int) -> Label:
        when = "" if round == self.scenario.training.rounds else f"@{round}"
        return Label("prepare", when, plan.label, seed)

    def _prepared(self, plan: Plan, round: int, seed: int) -> Path:
        """Where to keep what a strategy's own training gave."""
        return self.scratch / f"prepared-{plan.label}-{round}-{seed}"

    def _unlearn(
        self, plan: Plan, chain: Chain, index: int, weights: Weights, seed: int, prepared: int = 0
    ) -> Job[Weights]:
        """``prepared`` is how many bytes of the strategy's own training the server keeps."""
        step, needs = chain[index], plan.strategy.needs
        label = Label("unlearn", step.request.id, plan.label, seed)
        stored = self.recorders[seed].stored(needs, step.round, len(self.cohort.sites))
        self.ledger.stores(label, stored + prepared)
        case = self._case(plan, step, weights, seed)

        def then(result: Weights) -> list[Job[Any]]:
            following = self._unlearned(plan, step.moment, result, seed)
            if index + 1 == len(chain):
                return following + self._finish(plan, chain, result, seed)
            return following + self._go_on(plan, chain, index, result, seed)

        return Job(label, plan.strategy.unlearn(case), then, self._lost(plan, chain, index, index, seed))

    def _go_on(self, plan: Plan, chain: Chain, index: int, weights: Weights, seed: int) -> list[Job[Any]]:
        """Train on until the next request arrives, then unlearn it."""
        step, following = chain[index], chain[index + 1]
        if following.round == step.round:
            return [self._unlearn(plan, chain, index + 1, weights, seed)]
        label = Label("continue", step.request.id, plan.label, seed)
        procedure = self._train(step, range(step.round, following.round), weights, seed)
        lost = self._lost(plan, chain, index, index + 1, seed)
        return [Job(label, procedure, lambda new: [self._unlearn(plan, chain, index + 1, new, seed)], lost)]

    def _finish(self, plan: Plan, chain: Chain, weights: Weights, seed: int) -> list[Job[Any]]:
        last, index = moments(self.scenario, chain)[-1], len(chain) - 1
        lost = self._lost(plan, chain, index, index + 1, seed)
        return self._to_the_end(
            chain, plan.label, weights, seed, lambda new: self._unlearned(plan, last, new, seed), lost
        )

    def _unlearned(self, plan: Plan, moment: Moment, weights: Weights, seed: int) -> list[Job[Any]]:
        """Keep a strategy's model. It may be finite and its signals not: then this moment is lost, and no other."""

        def lost(found: Divergence) -> list[Job[Any]]:
            self._note(plan, moment, seed, found, f"in its answers at hospital {found.site}")
            return []

        return self._keep(_name(moment, plan, seed), weights, seed, lost)

    def _lost(self, plan: Plan, chain: Chain, index: int, first: int, seed: int) -> Diverged:
        """What to do if a strategy diverges while it unlearns the request of ``index``, or trains on after it.

        All moments from ``first`` on are lost. Requests after ``index`` cost nothing: nobody is asked.
        """

        def lost(found: Divergence) -> list[Job[Any]]:
            doing = "unlearning" if first == index else "training on after"
            for moment in moments(self.scenario, chain)[first:]:
                self.run.write_weights(_name(moment, plan, seed), w.multiply(self._initial(seed), math.nan))
                self._note(plan, moment, seed, found, f"{found} of {doing} {chain[index].request.id}")
            unasked = [Label("unlearn", step.request.id, plan.label, seed) for step in chain[index + 1 :]]
            return [Job(label, nothing()) for label in unasked]

        return lost

    def _note(self, plan: Plan, moment: Moment, seed: int, found: Divergence, where: str) -> None:
        name = _name(moment, plan, seed)
        whose = {"request": moment.name, "strategy": plan.label, "seed": seed, "model": name}
        self._diverged.append({**whose, **asdict(found), "where": where})

    # ------------------------------------------------------------------------------------------- pieces

    def _to_the_end(
        self,
        chain: Chain,
        who: str,
        weights: Weights,
        seed: int,
        then: Callable[[Weights], Iterable[Job[Any]]],
        diverged: Diverged | None = None,
    ) -> list[Job[Any]]:
        """Train on to the end without what was forgotten, if the last request came before it."""
        step, end = chain[-1], self.scenario.training.rounds
        if step.round == end:
            return []
        procedure = self._train(step, range(step.round, end), weights, seed)
        return [Job(Label("continue", step.request.id, who, seed), procedure, then, diverged)]

    def _train(self, step: Step, rounds: range, weights: Weights, seed: int) -> Procedure[Weights]:
        """Train without what the chain forgets up to ``step``."""
        sites, select = self._remaining(step), Select(without=step.without)
        return fedavg(weights, sites, select, self.scenario.training.local, rounds, seed)

    def _case(self, plan: Plan, step: Step, weights: Weights, seed: int) -> Case:
        retain, forget = Select(without=step.without), Select(only=step.request.id, without=step.earlier)
        sites = self._remaining(step)
        lost = {site: self.cohort.count(site, forget) for site in self.cohort.sites}
        return Case(
            request=step.request.id,
            seed=seed,
            rounds=step.round,
            initial=self._initial(seed),
            original=weights,
            training=self.scenario.training,
            layout=self.layout,
            roster=self.cohort.sites,
            sites=sites,
            leaver=step.request.site if step.request.whole_site else None,
            holders=tuple(site for site, count in lost.items() if count),
            kept={site: self.cohort.count(site, retain) for site in sites},
            lost={site: count for site, count in lost.items() if count},
            retain=retain,
            forget=forget,
            history=self.recorders[seed].view(
                plan.strategy.needs, step.round, self._prepared(plan, step.round, seed)
            ),
        )

    def _remaining(self, step: Step) -> tuple[SiteId, ...]:
        """The hospitals that still take part once ``step`` is honoured."""
        gone = {r.site for r in self.scenario.requests if r.whole_site and r.id in step.without}
        return tuple(site for site in self.cohort.sites if site not in gone)

    def _keep(
        self, name: str, weights: Weights, seed: int, diverged: Diverged | None = None
    ) -> list[Job[Any]]:
        """Write a model now, and ask every hospital for its signal."""
        self.run.write_weights(name, weights)
        label = Label("evaluate", "", name, seed)
        return [Job(label, signals(weights, self.cohort.sites), self._writer(name), diverged)]

    def _writer(self, name: str) -> Callable[[Any], list[Job[Any]]]:
        def then(result: Any) -> list[Job[Any]]:
            self.run.write_signals(name, result)
            return []

        return then

    def _plans(self, chain: Chain) -> tuple[Plan, ...]:
        return tuple(
            p for p in self.scenario.strategies if all(step.request.id in p.requests for step in chain)
        )

    def _initial(self, seed: int) -> Weights:
        return initial_weights(
            self.scenario.model, self.cohort.shape, self.cohort.classes, derive(seed, "initial")
        )

    def _original_name(self, round: int, seed: int) -> str:
        return f"original-{seed}" if round == self.scenario.training.rounds else f"original@{round}-{seed}"


def _name(moment: Moment, plan: Plan, seed: int) -> str:
    return f"{moment.name}-{plan.label}-{seed}"
