"""The models that all others are compared with: the original, and what training without the data comes to."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

from fedunlearn.campaign import difficulty
from fedunlearn.campaign.keeping import ArrayFile, ModelFile
from fedunlearn.campaign.origins import Origin
from fedunlearn.campaign.stage import Stage
from fedunlearn.campaign.timeline import Chain, moments
from fedunlearn.core import Every, Needs, Procedure, Select, Weights
from fedunlearn.federation.history import union
from fedunlearn.federation.jobs import Job, Label, Work
from fedunlearn.federation.procedures import fedavg

LESSONS = Needs(checkpoints=Every(1))
"""What `fedunlearn.campaign.difficulty` needs of the original training; no strategy is shown or charged it."""


class References:
    """The jobs of the references. They may not diverge: there would be nothing to compare with."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._right: dict[int, difficulty.Bools] = {}

    def jobs(self) -> list[Job[Any]]:
        """The references of every seed, with the history that strategies need, and nothing that goes on from them."""
        history = bool(union(plan.strategy.needs for plan in self.stage.scenario.strategies))
        return [*(self.original(seed, history) for seed in self.stage.scenario.seeds), *self.retrained()]

    def original(self, seed: int, history: bool) -> Job[Weights]:
        """Train with everything, and keep the model wherever a request arrives.

        Args:
            seed: the training seed.
            history: whether anybody needs what the server stores of it; then a known result alone is not enough.
        """
        stage, recorder = self.stage, self.stage.recorders[seed]
        cuts = {cut: stage.original_name(cut, seed) for cut in stage.cuts}

        def rest(round: int, weights: Weights) -> Procedure[Weights]:
            rounds, rota = range(round, stage.rounds), stage.rota(stage.cohort.sites, Select())
            return fedavg(weights, rota, Select(), stage.scenario.training.local, rounds, seed)

        def then(weights: Weights) -> list[Job[Any]]:
            models = {stage.original_name(stage.rounds, seed): weights}
            models |= {name: recorder.cut(cut) for cut, name in cuts.items()}
            asked: list[Job[Any]] = [stage.evaluation(name, model, seed) for name, model in models.items()]
            own = stage.original_name(stage.rounds, seed)
            return [*asked, *stage.curves.jobs(label, own, origin, stage.initial(seed), weights)]

        keeping, origin = (
            ModelFile(stage.original_name(stage.rounds, seed)),
            stage.trained(stage.rounds, seed),
        )
        beside = {f"@{cut}": ModelFile(name).file for cut, name in cuts.items()}
        known = stage.store.known(keeping.file, origin)
        missing = history or (known is not None and not beside.keys() <= known.files.keys())
        work = Work(keeping, origin, beside, again=missing and not recorder.complete)
        label = Label("original", "", "original", seed)
        return Job(label, rest(0, stage.initial(seed)), then, work=work, restart=rest)

    def lessons_known(self, seed: int) -> bool:
        """Whether nothing needs to be asked for `lessons`."""
        if self.stage.cohort.targets.ndim > 1:
            return True
        file, origin = self._lessons(seed)
        return self.stage.store.known(file, origin) is not None

    def retrained(self) -> list[Job[Any]]:
        """Train without everything that each chain forgets, once for each of its requests, and for the extra seeds."""
        stage = self.stage
        return [self._retrained(chain, 0, seed) for chain in stage.chains for seed in stage.retrained_seeds]

    def extra(self) -> list[dict[str, Any]]:
        """Which retrained models there are beyond those of strategies' seeds: the manifest's ``references`` entry."""
        stage = self.stage
        return [
            {"request": moment.name, "seed": seed, "model": stage.retrained_name(moment, seed)}
            for chain in stage.chains
            for moment in moments(stage.scenario, chain)
            for seed in stage.scenario.extra_seeds
        ]

    def _retrained(self, chain: Chain, index: int, seed: int) -> Job[Weights]:
        """Train without everything the chain forgets up to ``index``, from scratch."""
        stage, step = self.stage, chain[index]
        name = stage.retrained_name(step.moment, seed)
        rounds = range(step.round)
        origin = stage.origins.training(stage.remaining(step.without), step.without, rounds, seed)

        def rest(round: int, weights: Weights) -> Procedure[Weights]:
            return stage.train(step, rounds[round:], weights, seed)

        def then(result: Weights) -> list[Job[Any]]:
            following: list[Job[Any]] = [stage.evaluation(name, result, seed, step.moment)]
            following += stage.curves.jobs(label, name, origin, stage.initial(seed), result)
            if index + 1 < len(chain):
                return [*following, self._retrained(chain, index + 1, seed)]
            last = stage.retrained_name(moments(stage.scenario, chain)[-1], seed)
            return following + stage.to_the_end(chain, "retrained", last, result, seed, origin)

        label = Label("retrained", step.request.id, "retrained", seed)
        work = Work(ModelFile(name), origin)
        return Job(label, rest(0, stage.initial(seed)), then, work=work, restart=rest)

    def lessons(self, weights: Weights, seed: int) -> list[Job[Any]]:
        """Ask how early every image was learnt on the way to ``weights``, where images have one class each."""
        stage = self.stage
        if stage.cohort.targets.ndim > 1:
            return []

        def then(right: difficulty.Bools) -> list[Job[Any]]:
            self._right[seed] = right
            return []

        history = stage.recorders[seed].view(LESSONS, stage.rounds)
        # The model after a round is the one that the next round starts from.
        models = itertools.chain((history.checkpoint(round) for round in range(1, stage.rounds)), [weights])
        procedure = difficulty.lessons(models, stage.cohort.sites, stage.cohort.targets)
        file, origin = self._lessons(seed)
        label = Label("evaluate", "", f"original@each-round-{seed}", seed)
        return [Job(label, procedure, then, work=Work(ArrayFile(file), origin))]

    def _lessons(self, seed: int) -> tuple[str, Origin]:
        """Where the answers to `lessons` are kept, and their origin."""
        stage = self.stage
        return f"difficulty/original-{seed}.npy", stage.origins.lessons(stage.trained(stage.rounds, seed))

    def learnt(self) -> pd.DataFrame | None:
        """How long every image took to be learnt (`fedunlearn.campaign.difficulty`); None if that cannot be told."""
        if not self._right:
            return None
        seeds = {seed: self._right[seed] for seed in self.stage.scenario.seeds}
        return difficulty.table(self.stage.cohort.table["image"].tolist(), seeds)
