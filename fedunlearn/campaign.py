"""Everything a scenario trains, retrains and unlearns, as jobs that follow from one another.

Every seed trains the original model once; what follows from it runs along chains of requests (`timeline`).

A strategy that trains in a way of its own (`Preparing`) does so beside the original training, once for every number of
rounds after which one of its requests arrives, as if training was to end there; from that its unlearning goes on.

A strategy may diverge. It then has a model of NaNs at this moment and at all that follow along its chain; nothing else
is touched by it. The references may not: there would be nothing to compare with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from fedunlearn import difficulty, weights as w
from fedunlearn.cohort import Cohort
from fedunlearn.core import (
    Case,
    Course,
    Every,
    Layout,
    Needs,
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
from fedunlearn.scenario import Plan, Scenario
from fedunlearn.timeline import Chain, Moment, Step, chains, moments

Diverged = Callable[[Divergence], list[Job[Any]]]

LESSONS = Needs(checkpoints=Every(1))
"""What evaluation needs of the original training, for `fedunlearn.difficulty`; no strategy is shown or charged it."""


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
        self._right: dict[int, difficulty.Bools] = {}
        self.layout: Layout = Network(scenario.model, cohort.shape, cohort.classes).layout
        needs = (*union(plan.strategy.needs for plan in scenario.strategies), LESSONS)
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
            *self._retrainings(),
            *(
                self._prepare(plan, strategy, round, seed)
                for plan, strategy, round in self._preparing()
                for seed in seeds
            ),
        ]

    def references(self) -> list[Job[Any]]:
        """The original and retrained models of every seed, and no strategy."""
        return [*(self._original(seed, unlearn=False) for seed in self.scenario.seeds), *self._retrainings()]

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

    def original(self, step: Step, seed: int) -> Weights:
        """The model that ``step`` unlearns from, once it is trained."""
        return self.run.read_weights(self._original_name(step.round, seed))

    def retrained_name(self, step: Step, seed: int) -> str:
        """What the retrained model to compare ``step`` with is called, right after unlearning."""
        return f"retrained-{step.moment.name}-{seed}"

    def _original(self, seed: int, unlearn: bool = True) -> Job[Weights]:
        def then(weights: Weights) -> list[Job[Any]]:
            end = self.scenario.training.rounds
            following = self._keep(self._original_name(end, seed), weights, seed)
            for cut in self.cuts:
                following += self._keep(self._original_name(cut, seed), self.recorders[seed].cut(cut), seed)
            if not unlearn:
                return following
            return following + self._unlearnings(weights, seed) + self._lessons(weights, seed)

        training = self.scenario.training
        procedure = fedavg(
            self.initial(seed), self.cohort.sites, Select(), training.local, range(training.rounds), seed
        )
        return Job(Label("original", "", "original", seed), procedure, then)

    def _lessons(self, weights: Weights, seed: int) -> list[Job[Any]]:
        """Ask how early every image was learnt, where images have one class each."""
        if self.cohort.targets.ndim > 1:
            return []

        def then(right: difficulty.Bools) -> list[Job[Any]]:
            self._right[seed] = right
            return []

        rounds = self.scenario.training.rounds
        history = self.recorders[seed].view(LESSONS, rounds)
        # The model after a round is the one that the next round starts from.
        models = itertools.chain((history.checkpoint(round) for round in range(1, rounds)), [weights])
        procedure = difficulty.lessons(models, self.cohort.sites, self.cohort.targets)
        return [Job(Label("evaluate", "", f"original@each-round-{seed}", seed), procedure, then)]

    def learnt(self) -> pd.DataFrame | None:
        """How long every image took to be learnt (`fedunlearn.difficulty`); None if that cannot be told."""
        if not self._right:
            return None
        seeds = {seed: self._right[seed] for seed in self.scenario.seeds}
        return difficulty.table(self.cohort.table["image"].tolist(), seeds)

    def _unlearnings(self, weights: Weights, seed: int) -> list[Job[Any]]:
        """Every strategy that goes on from the original training."""
        end, found = self.scenario.training.rounds, list[Job[Any]]()
        for chain in self.chains:
            start = weights if chain[0].round == end else self.recorders[seed].cut(chain[0].round)
            plans = [p for p in self._plans(chain) if not isinstance(p.strategy, Preparing)]
            found += [self._unlearn(plan, chain, 0, start, seed) for plan in plans]
        return found

    # ----------------------------------------------------------------------------------- the references

    def _retrainings(self) -> list[Job[Any]]:
        return [self._retrained(chain, 0, seed) for chain in self.chains for seed in self.scenario.seeds]

    def _retrained(self, chain: Chain, index: int, seed: int) -> Job[Weights]:
        """Train without everything the chain forgets up to ``index``, from scratch."""
        step = chain[index]

        def then(result: Weights) -> list[Job[Any]]:
            following = self._keep(self.retrained_name(step, seed), result, seed)
            if index + 1 < len(chain):
                return [*following, self._retrained(chain, index + 1, seed)]
            name = f"retrained-{step.request.id}-{seed}"
            return following + self._to_the_end(
                chain, "retrained", result, seed, lambda new: self._keep(name, new, seed)
            )

        procedure = self._train(step, range(step.round), self.initial(seed), seed)
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
        served = [chain for chain in self.chains if chain[0].round == round and plan in self._plans(chain)]

        def then(prepared: Mapping[str, Weights]) -> list[Job[Any]]:
            stored = keep(self._prepared(plan, round, seed), prepared)
            return [self._unlearn(plan, chain, 0, prepared["model"], seed, stored) for chain in served]

        def lost(found: Divergence) -> list[Job[Any]]:
            each = [self._lost(plan, chain, 0, 0, "its own training", seed) for chain in served]
            return [job for one in each for job in one(found)]

        sites, select = self.cohort.sites, Select()
        course = Course(
            seed=seed,
            rounds=round,
            initial=self.initial(seed),
            training=self.scenario.training,
            layout=self.layout,
            roster=sites,
            sites=sites,
            select=select,
            images={site: self.cohort.count(site, select) for site in sites},
        )
        return Job(self._prepare_label(plan, round, seed), strategy.prepare(course), then, lost)

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
        case = self.case(plan, step, weights, seed)

        def then(result: Weights) -> list[Job[Any]]:
            following = self._unlearned(plan, step.moment, result, seed)
            if index + 1 == len(chain):
                return following + self._finish(plan, chain, result, seed)
            return following + self._go_on(plan, chain, index, result, seed)

        doing = f"unlearning {step.request.id}"
        lost = self._lost(plan, chain, index, index + 1, doing, seed)
        return Job(label, plan.strategy.unlearn(case), then, lost)

    def _go_on(self, plan: Plan, chain: Chain, index: int, weights: Weights, seed: int) -> list[Job[Any]]:
        """Train on until the next request arrives, then unlearn it."""
        step, following = chain[index], chain[index + 1]
        if following.round == step.round:
            return [self._unlearn(plan, chain, index + 1, weights, seed)]
        label = Label("continue", step.request.id, plan.label, seed)
        procedure = self._train(step, range(step.round, following.round), weights, seed)
        doing = f"training on after {step.request.id}"
        lost = self._lost(plan, chain, index + 1, index + 1, doing, seed)
        return [Job(label, procedure, lambda new: [self._unlearn(plan, chain, index + 1, new, seed)], lost)]

    def _finish(self, plan: Plan, chain: Chain, weights: Weights, seed: int) -> list[Job[Any]]:
        last, end = moments(self.scenario, chain)[-1], len(chain)
        lost = self._lost(plan, chain, end, end, f"training on after {chain[-1].request.id}", seed)
        return self._to_the_end(
            chain, plan.label, weights, seed, lambda new: self._unlearned(plan, last, new, seed), lost
        )

    def _unlearned(self, plan: Plan, moment: Moment, weights: Weights, seed: int) -> list[Job[Any]]:
        """Keep a strategy's model. It may be finite and its signals not: then this moment is lost, and no other."""

        def lost(found: Divergence) -> list[Job[Any]]:
            self._note(plan, moment, seed, found, f"in its answers at hospital {found.site}")
            return []

        return self._keep(_name(moment, plan, seed), weights, seed, lost)

    def _lost(self, plan: Plan, chain: Chain, moment: int, step: int, doing: str, seed: int) -> Diverged:
        """What to do if a strategy diverges: all moments from number ``moment`` on are lost.

        Its requests from number ``step`` on cost nothing: nobody is asked.
        """

        def lost(found: Divergence) -> list[Job[Any]]:
            for one in moments(self.scenario, chain)[moment:]:
                self.run.write_weights(_name(one, plan, seed), w.multiply(self.initial(seed), math.nan))
                self._note(plan, one, seed, found, f"{found} of {doing}")
            unasked = [Label("unlearn", one.request.id, plan.label, seed) for one in chain[step:]]
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
        sites, select = self.remaining(step.without), Select(without=step.without)
        return fedavg(weights, sites, select, self.scenario.training.local, rounds, seed)

    def case(self, plan: Plan, step: Step, weights: Weights, seed: int) -> Case:
        """What ``plan``'s strategy is given to unlearn the request of ``step`` from ``weights``."""
        retain, forget = Select(without=step.without), Select(only=step.request.id, without=step.earlier)
        sites = self.remaining(step.without)
        lost = {site: self.cohort.count(site, forget) for site in self.cohort.sites}
        return Case(
            request=step.request.id,
            seed=seed,
            rounds=step.round,
            initial=self.initial(seed),
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

    def remaining(self, without: Sequence[RequestId]) -> tuple[SiteId, ...]:
        """The hospitals that still take part once these requests are honoured."""
        gone = {r.site for r in self.scenario.requests if r.whole_site and r.id in without}
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

    def initial(self, seed: int) -> Weights:
        """The weights that training with ``seed`` starts from."""
        return initial_weights(
            self.scenario.model, self.cohort.shape, self.cohort.classes, derive(seed, "initial")
        )

    def _original_name(self, round: int, seed: int) -> str:
        return f"original-{seed}" if round == self.scenario.training.rounds else f"original@{round}-{seed}"


def _name(moment: Moment, plan: Plan, seed: int) -> str:
    return f"{moment.name}-{plan.label}-{seed}"
