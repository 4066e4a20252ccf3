"""Every strategy on every request: from the original model, along each chain of requests.

A strategy that trains in a way of its own (`Preparing`) does so beside the original training, once for every number of
rounds after which one of its requests arrives, as if training was to end there; from that its unlearning goes on.

A strategy may diverge. It then has a model of NaNs at this moment and at all that follow along its chain; nothing else
is touched by it. What it had in hand at a horizon before stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedunlearn import weights as w
from fedunlearn.campaign.keeping import ModelFile, ValueFile
from fedunlearn.campaign.origins import Origin
from fedunlearn.campaign.stage import Diverged, Stage
from fedunlearn.campaign.timeline import Chain, Moment, Step
from fedunlearn.core import Case, Course, Guarantee, Preparing, RequestId, Select, Strategy, Weights
from fedunlearn.federation.history import keep, union
from fedunlearn.federation.horizons import Horizons
from fedunlearn.federation.jobs import Divergence, Job, Label, Work
from fedunlearn.federation.ledger import Ledger
from fedunlearn.federation.procedures import nothing
from fedunlearn.intake.policies import Budget
from fedunlearn.scenario import Plan
from strategies.retrain import Retrain


@dataclass(frozen=True)
class Walk:
    """One strategy along one chain of requests, with one seed."""

    plan: Plan
    chain: Chain
    seed: int

    def label(self, horizon: int | None = None) -> str:
        """The row that its model has in tables: its last one, or the one in hand at a horizon of unlearning."""
        return self.plan.label if horizon is None else f"{self.plan.label}@{horizon}"

    def name(self, at: Moment | Step, horizon: int | None = None) -> str:
        """What that model is called in files, at a moment or step."""
        return _name(at, self.label(horizon), self.seed)


@dataclass(frozen=True)
class Stand:
    """How far a walk has come.

    Attributes:
        walk: who walks.
        index: at which step of the chain.
        weights: the model in hand; None if it is gone, and what comes of it is known.
        of: its origin.
        prepared: how many bytes of the strategy's own training the server keeps.
        drift: how far unlearning has moved the model since it was last trained again: the sum over its steps of the
            distance moved, as a share of the norm of the weights before.
        never: the requests without whose images the model was trained again, when it last was.
    """

    walk: Walk
    index: int
    weights: Weights | None
    of: Origin
    prepared: int = 0
    drift: float = 0.0
    never: tuple[RequestId, ...] = ()

    @property
    def step(self) -> Step:
        """The step."""
        return self.walk.chain.steps[self.index]


class Unlearning:
    """The jobs of all strategies.

    Args:
        stage: what they share with the references.
        ledger: told how much history each strategy makes the server hold.

    Attributes:
        horizons: to be told of all rounds.
        retrainings: where a policy had models trained again because unlearning had moved them too far.
    """

    def __init__(self, stage: Stage, ledger: Ledger) -> None:
        self.stage, self.ledger = stage, ledger
        self.horizons = Horizons(stage.scenario.horizons, self._reach)
        self.retrainings: list[dict[str, Any]] = []
        self._diverged: list[dict[str, Any]] = []
        self._reached: dict[str, int] = {}  # rounds done, by the name of the model in hand at a horizon

    def jobs(self, weights: Weights, seed: int) -> list[Job[Any]]:
        """Every strategy that goes on from the original training, which ended with ``weights``."""
        stage, found = self.stage, list[Job[Any]]()
        for chain in stage.chains:
            round = chain.steps[0].round
            start = weights if round == stage.rounds else stage.recorders[seed].cut(round)
            of = stage.trained(round, seed)
            for walk in self._walks(chain, seed):
                found += self._at(Stand(walk, 0, start, of))
        return found

    def needs_history(self, seed: int) -> bool:
        """Whether a strategy must still be run that uses what the server stored of the original training."""
        return any(
            union([walk.plan.strategy.needs])
            and not self._known(walk, self.stage.trained(chain.steps[0].round, seed))
            for chain in self.stage.chains
            for walk in self._walks(chain, seed)
        )

    def _walks(self, chain: Chain, seed: int) -> list[Walk]:
        """The strategies that go on from the original training along a chain."""
        plans = [plan for plan in self.stage.plans(chain) if not isinstance(plan.strategy, Preparing)]
        return [Walk(plan, chain, seed) for plan in plans]

    def preparing(self) -> list[tuple[Plan, Preparing, int]]:
        """The plans that train in a way of their own, and for how many rounds each."""
        return [
            (plan, plan.strategy, round)
            for plan in self.stage.scenario.strategies
            if isinstance(plan.strategy, Preparing)
            for round in sorted({chain.steps[0].round for chain in self._served(plan)})
        ]

    def preparations(self) -> list[Job[Any]]:
        """Every strategy that trains in a way of its own, and what follows from that."""
        return [
            self._prepare(plan, strategy, round, seed)
            for plan, strategy, round in self.preparing()
            for seed in self.stage.scenario.seeds
        ]

    def diverged(self) -> list[dict[str, Any]]:
        """Which models are not finite, and where that came about: the manifest's ``diverged`` entry."""
        return sorted(self._diverged, key=lambda entry: (entry["request"], entry["strategy"], entry["seed"]))

    def scored(self, chain: Chain, moment: Moment, seed: int) -> dict[str, Any]:
        """What strategies came to: entries ``strategies`` and ``horizons`` of one of the manifest's ``scored``.

        A model in hand at a horizon comes before the strategy's last one, and is there if any seed was still at work
        then; of the other seeds, the last model stands for it.
        """
        scenario, models, stops = self.stage.scenario, dict[str, str](), dict[str, dict[str, Any]]()
        for plan in self.stage.plans(chain):
            walks = {s: Walk(plan, chain, s) for s in scenario.seeds}
            own = walks[seed]
            for horizon in scenario.horizons:
                if any(walk.name(moment, horizon) in self._reached for walk in walks.values()):
                    rounds = self._reached.get(own.name(moment, horizon))
                    models[own.label(horizon)] = own.name(moment, horizon if rounds is not None else None)
                    stops[own.label(horizon)] = {"of": plan.label, "rounds": rounds}
            models[own.label()] = own.name(moment)
        return {"strategies": models, "horizons": stops}

    # ------------------------------------------------------------------------------------- preparation

    def _served(self, plan: Plan) -> list[Chain]:
        return [chain for chain in self.stage.chains if plan in self.stage.plans(chain)]

    def _prepare(self, plan: Plan, strategy: Preparing, round: int, seed: int) -> Job[Mapping[str, Weights]]:
        walks = [Walk(plan, chain, seed) for chain in self._served(plan) if chain.steps[0].round == round]
        job = self.preparation(plan, strategy, round, seed)
        assert job.work is not None
        origin = job.work.origin

        def then(prepared: Mapping[str, Weights] | None) -> list[Job[Any]]:
            if prepared is None:  # it is gone, and nobody needs it
                stands = [Stand(walk, 0, None, origin) for walk in walks]
            else:
                stored = self.hold(plan, round, seed, prepared)
                stands = [Stand(walk, 0, prepared["model"], origin, stored) for walk in walks]
            return [job for stand in stands for job in self._at(stand)]

        def lost(found: Divergence) -> list[Job[Any]]:
            return [job for walk in walks for job in self._lost(walk, 0, 0, "its own training")(found)]

        known = all(self._known(walk, origin) for walk in walks)
        return replace(job, then=then, diverged=lost, work=replace(job.work, dispensable=known))

    def preparation(
        self, plan: Plan, strategy: Preparing, round: int, seed: int
    ) -> Job[Mapping[str, Weights]]:
        """A strategy's own training of so many rounds, and nothing that follows from it."""
        cohort, select = self.stage.cohort, Select()
        course = Course(
            seed=seed,
            rounds=round,
            initial=self.stage.initial(seed),
            training=self.stage.scenario.training,
            layout=self.stage.layout,
            roster=cohort.sites,
            sites=cohort.sites,
            select=select,
            images=cohort.counts(select),
        )
        origin = self.stage.origins.preparation(strategy, course)
        keeping = ValueFile(f"work/prepared/{plan.label}-{round}-{seed}.safetensors")
        label = prepare_label(self.stage, plan, round, seed)
        return Job(label, strategy.prepare(course), work=Work(keeping, origin))

    def hold(self, plan: Plan, round: int, seed: int, prepared: Mapping[str, Weights]) -> int:
        """Write what it gave beside its model to where its cases find it; the bytes that the server holds for it."""
        return keep(self._prepared(plan, round, seed), prepared)

    def _prepared(self, plan: Plan, round: int, seed: int) -> Path:
        """Where to keep what a strategy's own training gave."""
        return self.stage.scratch / f"prepared-{plan.label}-{round}-{seed}"

    # -------------------------------------------------------------------------------------- along a chain

    def _at(self, stand: Stand) -> list[Job[Any]]:
        """What there is to do at a step: unlearn what it asks for, if the model in hand was trained on any of it."""
        step, cohort = stand.step, self.stage.cohort
        known = step.request is not None and not set(step.members) <= set(stand.never)
        if known and cohort.total(Select(only=step.asked.id, without=step.earlier)):
            return [self._unlearn(stand)]
        return [*self._passed(stand), *self._go_on(stand)]

    def _passed(self, stand: Stand) -> list[Job[Any]]:
        """Where nothing is unlearned, ask for the answers of the model in hand if models are compared there.

        A request costs nothing of whose images others left nothing, or which came in time for what was just trained
        again: nobody is asked.
        """
        walk, step, weights = stand.walk, stand.step, stand.weights
        assert weights is not None, "only a strategy that prepares is without, and unlearns at its first step"
        unasked = Label("unlearn", step.id, walk.plan.label, walk.seed)
        found: list[Job[Any]] = [Job(unasked, nothing())] if step.request else []
        if step.moment is None:
            return found
        if step.request or stand.index == 0:  # else the model that was trained on to here has that name
            self.stage.run.write_weights(walk.name(step), weights)
        return [*found, self._answers(walk, step.moment, weights)]

    def _unlearn(self, stand: Stand) -> Job[Weights]:
        """Unlearn one request."""
        walk, index, step, stage = stand.walk, stand.index, stand.step, self.stage
        strategy = self._strategy(stand)
        label = Label("unlearn", step.id, walk.plan.label, walk.seed)
        asked = stage.rota(stage.cohort.sites, Select()).size
        stored = stage.recorders[walk.seed].stored(strategy.needs, step.round, asked)
        self.ledger.stores(label, stored + stand.prepared)
        case = self.case(replace(walk.plan, strategy=strategy), step, stand.weights or {}, walk.seed)
        work = self._work(walk, index, case, stand.of, strategy)

        def measured(result: Weights | None) -> list[Job[Any]]:
            return stage.curves.jobs(label, walk.name(step), work.origin, stand.weights, result, step.round)

        def then(result: Weights) -> list[Job[Any]]:
            following = [*self._held(walk, step), *measured(result)]
            if step.moment is not None:
                following.append(self._answers(walk, step.moment, result))
            return [*following, *self._go_on(self._moved(stand, strategy, result, work.origin))]

        def lost(found: Divergence) -> list[Job[Any]]:
            others = self._lost(walk, index, index + 1, f"unlearning {step.id}")(found)
            return self._held(walk, step) + measured(None) + others

        return Job(label, strategy.unlearn(case), then, lost, work)

    def _work(self, walk: Walk, index: int, case: Case, of: Origin, strategy: Strategy) -> Work[Weights]:
        """How a request's answer is kept, with the models in hand at horizons; ``of`` is what it is unlearnt from."""
        step = walk.chain.steps[index]
        history = of if isinstance(strategy, Preparing) else self.stage.trained(step.round, walk.seed)
        origin = self.stage.origins.unlearning(strategy, case, of, history)
        horizons = {f"@{h}": ModelFile(walk.name(step, h)).file for h in self.stage.scenario.horizons}
        return Work(ModelFile(walk.name(step)), origin, horizons)

    def _strategy(self, stand: Stand) -> Strategy:
        """The walk's own, or training again where its policy says that the model has drifted too far."""
        policy = stand.walk.chain.policy and stand.walk.chain.policy.policy
        own = stand.walk.plan.strategy
        if not isinstance(policy, Budget) or stand.drift <= policy.drift or own.guarantee is Guarantee.EXACT:
            return own
        walk, step = stand.walk, stand.step
        whose = {"policy": walk.chain.label, "strategy": walk.plan.label, "seed": walk.seed}
        self.retrainings.append({**whose, "round": step.round, "drift": stand.drift})
        return Retrain()

    def _moved(self, stand: Stand, strategy: Strategy, result: Weights, of: Origin) -> Stand:
        """After unlearning: what is in hand, and how far unlearning has moved it since it was last trained again."""
        before, policy = stand.weights, stand.walk.chain.policy
        if strategy.guarantee is Guarantee.EXACT:
            return replace(stand, weights=result, of=of, drift=0.0, never=stand.step.without)
        if before is None or policy is None or not isinstance(policy.policy, Budget):
            return replace(stand, weights=result, of=of)
        names = self.stage.layout.parameters
        way = w.norm(w.subtract(result, before), names) / w.norm(before, names)
        return replace(stand, weights=result, of=of, drift=stand.drift + way)

    def _known(self, walk: Walk, of: Origin) -> bool:
        """Whether all answers along a walk that starts from work of this origin are known."""
        for index, step in enumerate(walk.chain.steps):
            if step.request:
                case = self.case(walk.plan, step, {}, walk.seed)
                work = self._work(walk, index, case, of, walk.plan.strategy)
                if self.stage.store.known(work.keeping.file, work.origin) is None:
                    return False
                of = work.origin
            if index + 1 < len(walk.chain.steps):
                of = self._further(Stand(walk, index, {}, of))[1]
        return True

    def _further(self, stand: Stand) -> tuple[Job[Weights] | None, Origin]:
        """Training on until the next step, None if that is at once; and the origin of what it comes to."""
        walk, step, following = stand.walk, stand.step, stand.walk.chain.steps[stand.index + 1]
        if following.round == step.round:
            return None, stand.of
        name = self.stage.between_name(following, walk.plan.label, walk.seed)
        assert stand.weights is not None
        label = walk.plan.label
        job = self.stage.further(step, following.round, label, name, stand.weights, walk.seed, stand.of)
        return job, job.work.origin if job.work else stand.of

    def _go_on(self, stand: Stand) -> list[Job[Any]]:
        """Train on until the next step, if there is one, and do what there is to do there."""
        walk, index = stand.walk, stand.index + 1
        if index == len(walk.chain.steps):
            return []
        job, origin = self._further(stand)
        if job is None:
            return self._at(replace(stand, index=index))
        lost = self._lost(walk, index, index, f"training on after {stand.step.id}")

        def then(new: Weights) -> list[Job[Any]]:
            return [*job.then(new), *self._at(replace(stand, index=index, weights=new, of=origin))]

        return [replace(job, then=then, diverged=lost)]

    def case(self, plan: Plan, step: Step, weights: Weights, seed: int) -> Case:
        """What ``plan``'s strategy is given to unlearn the request of ``step`` from ``weights``."""
        stage, cohort = self.stage, self.stage.cohort
        request = step.asked
        retain, forget = Select(without=step.without), Select(only=request.id, without=step.earlier)
        sites = stage.remaining(step.without)
        kept, lost = cohort.counts(retain), cohort.counts(forget)
        prepared = self._prepared(plan, step.round, seed)
        return Case(
            request=request.id,
            seed=seed,
            rounds=step.round,
            initial=stage.initial(seed),
            original=weights,
            training=stage.scenario.training,
            layout=stage.layout,
            roster=cohort.sites,
            sites=sites,
            leaver=request.site if request.whole_site else None,
            holders=tuple(site for site, count in lost.items() if count),
            kept={site: kept[site] for site in sites},
            lost={site: count for site, count in lost.items() if count},
            had=cohort.counts(Select()),
            retain=retain,
            forget=forget,
            history=stage.recorders[seed].view(plan.strategy.needs, step.round, prepared),
        )

    # --------------------------------------------------------------------------------- models and losses

    def _answers(self, walk: Walk, moment: Moment, weights: Weights) -> Job[Any]:
        """Ask for the signals of the model that a walk has come to."""
        name, silent = walk.name(moment), self._silent(walk, moment)
        return self.stage.evaluation(name, weights, walk.seed, moment, silent)

    def _reach(self, label: Label, horizon: int, rounds: int, model: Weights | None) -> None:
        """Write the model in hand at a horizon; its signals are asked for when unlearning is over (`_held`)."""
        steps = (step for chain in self.stage.chains for step in chain.asking)
        at = next(step for step in steps if step.id == label.request)
        name = _name(at, f"{label.strategy}@{horizon}", label.seed)
        if model is not None:
            self.stage.run.write_weights(name, model)
        self._reached[name] = rounds

    def _held(self, walk: Walk, step: Step) -> list[Job[Any]]:
        """Ask for the signals of all models that were in hand at horizons."""
        found, moment = list[Job[Any]](), step.moment
        for horizon in self.stage.scenario.horizons:
            name = walk.name(step, horizon)
            if name in self._reached and moment is not None:
                weights, lost = self.stage.run.read_weights(name), self._silent(walk, moment, horizon)
                found.append(self.stage.evaluation(name, weights, walk.seed, moment, lost))
        return found

    def _silent(self, walk: Walk, moment: Moment, horizon: int | None = None) -> Diverged:
        """What to do if a finite model has signals that are not: this model is lost, and no other."""

        def lost(found: Divergence) -> list[Job[Any]]:
            self._note(walk, moment, found, f"in its answers at hospital {found.site}", horizon)
            return []

        return lost

    def _lost(self, walk: Walk, index: int, further: int, doing: str) -> Diverged:
        """What to do if a strategy diverges: all its models from step number ``index`` on are lost.

        Its requests from number ``further`` on cost nothing, and neither does training on: nobody is asked.
        """
        plan, seed, steps = walk.plan, walk.seed, walk.chain.steps

        def lost(found: Divergence) -> list[Job[Any]]:
            for one in (step.moment for step in steps[index:] if step.moment):
                self.stage.run.write_weights(walk.name(one), w.multiply(self.stage.initial(seed), math.nan))
                self._note(walk, one, found, f"{found} of {doing}")
            unasked = [Label("unlearn", one.id, plan.label, seed) for one in steps[further:] if one.request]
            unasked += [Label("continue", one.id, plan.label, seed) for one, _ in walk.chain.stretches(index)]
            return [Job(label, nothing()) for label in unasked]

        return lost

    def _note(
        self, walk: Walk, moment: Moment, found: Divergence, where: str, horizon: int | None = None
    ) -> None:
        whose = {"request": moment.name, "strategy": walk.label(horizon), "seed": walk.seed}
        model = walk.name(moment, horizon)
        self._diverged.append({**whose, "model": model, **asdict(found), "where": where})


def _name(at: Moment | Step, label: str, seed: int) -> str:
    return f"{at.name}-{label}-{seed}"


def prepare_label(stage: Stage, plan: Plan, round: int, seed: int) -> Label:
    """The label of a strategy's own training."""
    when = "" if round == stage.rounds else f"@{round}"
    return Label("prepare", when, plan.label, seed)
