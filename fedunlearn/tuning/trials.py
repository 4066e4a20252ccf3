"""The trials of every strategy, many at once over one federation.

A strategy's trials come one after the other, since each is chosen by what the earlier ones gave. Different strategies'
trials, and the requests of one trial, run side by side. A strategy that trains in a way of its own does so once, before
its trials, as the scenario has it: what is searched has no part in that (`fedunlearn.contract`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from torch import Tensor

from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.timeline import Step
from fedunlearn.core import SERVER, Preparing, RequestId, Strategy, Weights, derive
from fedunlearn.federation import wire
from fedunlearn.federation.jobs import Divergence, Job, Label, Round
from fedunlearn.federation.procedures import nothing, signals
from fedunlearn.scenario import Plan
from fedunlearn.scenario.space import space, suggest
from fedunlearn.scoring.evidence import Answers
from fedunlearn.tuning.judge import Judge


@dataclass(frozen=True)
class Budget:
    """What every strategy may spend, alike.

    Attributes:
        trials: settings to try, that of the scenario among them.
        site_seconds: no new trial once so much of the hospitals' work is spent; None for no such limit. With one,
            the result depends on the machine's speed.
    """

    trials: int
    site_seconds: float | None = None


@dataclass(frozen=True)
class Trial:
    """One setting of one strategy, and what came of it.

    Attributes:
        label: the strategy's (`fedunlearn.tuning.rehearsal.names`).
        number: from 0, which is the setting that the scenario has.
        strategy: the setting.
        distance: from retraining, the mean over requests (`Judge.distance`); infinite if it diverged.
        site_seconds, images, bytes: what it cost, training and evaluation.
    """

    label: str
    number: int
    strategy: Strategy
    distance: float
    site_seconds: float
    images: int
    bytes: int


@dataclass(eq=False)
class _Running:
    """A trial under way."""

    name: str
    plan: Plan
    number: int
    suggestion: optuna.trial.Trial | None
    distances: dict[RequestId, float] = field(default_factory=dict)
    site_seconds: float = 0.0
    images: int = 0
    bytes: int = 0


class Trials:
    """Makes the jobs of all trials and keeps what came of them. It watches the driver, to see what they cost.

    Args:
        campaign: the rehearsal, whose original and retrained models are there already.
        judge: compares.
        budget: of every strategy.
        seed: of the choice of settings.
        names: of the campaign's strategies, each once.
    """

    def __init__(
        self, campaign: Campaign, judge: Judge, budget: Budget, seed: int, names: Sequence[str]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._campaign, self._judge, self._budget = campaign, judge, budget
        plans = zip(names, campaign.stage.scenario.strategies, strict=True)
        self._plans = {name: plan for name, plan in plans if space(type(plan.strategy))}
        self._studies = {name: _study(derive(seed, "tune", name)) for name in self._plans}
        self._steps: Mapping[RequestId, Step] = {
            step.asked.id: step for chain in campaign.stage.chains for step in chain.asking
        }
        self._retrained: dict[RequestId, Answers | None] = {}
        self._prepared: dict[tuple[str, int], Weights] = {}  # models of own trainings, by label and rounds
        self._running: dict[str, _Running] = {}
        self._named = {
            (plan.label, request): name for name, plan in self._plans.items() for request in plan.requests
        }
        self.done: dict[str, list[Trial]] = {name: [] for name in self._plans}

    def preparations(self) -> list[Job[Any]]:
        """The own trainings of strategies that have one, from which their trials start.

        If one diverges, all trials of its strategy are infinitely far.
        """
        return [
            self._prepare(plan, strategy, round)
            for plan, strategy, round in self._campaign.unlearning.preparing()
            if plan in self._plans.values()
        ]

    def labels(self) -> list[Label]:
        """The labels of all trials, for those who watch."""
        seed = self._campaign.stage.scenario.seeds[0]
        return [
            Label("tune", request, plan.label, seed)
            for plan in self._plans.values()
            for request in plan.requests
            for _ in range(self._budget.trials)
        ]

    def jobs(self) -> list[Job[Any]]:
        """The first trial of every strategy: the setting that the scenario has."""
        return [
            job for name, plan in self._plans.items() for job in self._start(name, plan, plan.strategy, None)
        ]

    # --------------------------------------------------------------------------------------- as a watcher

    def round(self, round: Round) -> None:
        """See `Watcher`: what it cost, training and evaluation alike, as the ledger counts it."""
        running = self._running[self._named[round.label.strategy, round.label.request]]
        sites, known = [site for site in round.asks if site != SERVER], dict[int, int]()
        running.site_seconds += sum(round.answers[site].seconds for site in sites)
        running.images += sum(answer.images for answer in round.answers.values())
        running.bytes += sum(wire.size(round.asks[site], known) + round.received[site] for site in sites)

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""

    # --------------------------------------------------------------------------------------------- pieces

    def _start(
        self, name: str, plan: Plan, strategy: Strategy, suggestion: optuna.trial.Trial | None
    ) -> list[Job[Any]]:
        plan = dataclasses.replace(plan, strategy=strategy)
        number = len(self.done[name])
        running = _Running(name, plan, number, suggestion)
        self._running[name] = running
        return [self._unlearn(running, self._steps[request]) for request in plan.requests]

    def _prepare(self, plan: Plan, strategy: Preparing, round: int) -> Job[Any]:
        unlearning, seed = self._campaign.unlearning, self._campaign.stage.scenario.seeds[0]

        def then(prepared: Mapping[str, Weights]) -> list[Job[Any]]:
            unlearning.hold(plan, round, seed, prepared)
            self._prepared[plan.label, round] = prepared["model"]
            return []

        job = unlearning.preparation(plan, strategy, round, seed)
        return dataclasses.replace(job, then=then, diverged=lambda _: [])

    def _original(self, plan: Plan, step: Step) -> Weights | None:
        """What a trial starts from; None if the strategy's own training diverged."""
        if isinstance(plan.strategy, Preparing):
            return self._prepared.get((plan.label, step.round))
        return self._campaign.stage.original(step, self._campaign.stage.scenario.seeds[0])

    def _unlearn(self, running: _Running, step: Step) -> Job[Any]:
        seed = self._campaign.stage.scenario.seeds[0]
        request, sites = step.asked.id, self._campaign.stage.cohort.sites
        label = Label("tune", request, running.plan.label, seed)
        original = self._original(running.plan, step)
        if original is None:
            return Job(label, nothing(), lambda _: self._judged(running, request, math.inf))
        case = self._campaign.unlearning.case(running.plan, step, original, seed)

        def then(weights: Weights) -> list[Job[Any]]:
            def judged(found: Mapping[str, Tensor]) -> list[Job[Any]]:
                return self._judged(running, request, self._distance(step, found))

            evaluation = dataclasses.replace(label, phase="evaluate")
            return [Job(evaluation, signals(weights, sites), judged, diverged)]

        def diverged(_: Divergence) -> list[Job[Any]]:
            return self._judged(running, request, math.inf)

        return Job(label, running.plan.strategy.unlearn(case), then, diverged)

    def _distance(self, step: Step, found: Mapping[str, Tensor]) -> float:
        request = step.asked.id
        if request not in self._retrained:
            assert step.moment is not None
            name = self._campaign.stage.retrained_name(step.moment, self._campaign.stage.scenario.seeds[0])
            self._retrained[request] = self._judge.reference(request, name)
        retrained, answers = self._retrained[request], self._judge.answers(request, found)
        return (
            math.inf
            if retrained is None or answers is None
            else self._judge.distance(request, retrained, answers)
        )

    def _judged(self, running: _Running, request: RequestId, distance: float) -> list[Job[Any]]:
        """One request of a trial is judged; once all are, choose the next trial."""
        running.distances[request] = distance
        name, study, plan = running.name, self._studies[running.name], running.plan
        if len(running.distances) < len(plan.requests):
            return []
        # In their order, not in that in which they came: sums round.
        mean = sum(running.distances[one] for one in plan.requests) / len(plan.requests)
        spent = running.site_seconds, running.images, running.bytes
        self.done[name].append(Trial(name, running.number, plan.strategy, mean, *spent))
        if running.suggestion is not None:
            failed = optuna.trial.TrialState.FAIL if math.isinf(mean) else None
            study.tell(running.suggestion, None if failed else mean, state=failed)
        if self._exhausted(name):
            return []
        suggestion = study.ask()
        return self._start(name, plan, suggest(suggestion, plan.strategy), suggestion)

    def _exhausted(self, name: str) -> bool:
        done, limit = self.done[name], self._budget.site_seconds
        spent = sum(trial.site_seconds for trial in done)
        return len(done) >= self._budget.trials or (limit is not None and spent >= limit)


def _study(seed: int) -> optuna.Study:
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32)
    return optuna.create_study(sampler=sampler)
