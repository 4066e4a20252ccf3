"""The models that all others are compared with: the original, and what training without the data comes to."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

from fedunlearn.campaign import difficulty
from fedunlearn.campaign.stage import Stage
from fedunlearn.campaign.timeline import Chain, moments
from fedunlearn.core import Every, Needs, Select, Weights
from fedunlearn.federation.drive import Job, Label
from fedunlearn.federation.procedures import fedavg

LESSONS = Needs(checkpoints=Every(1))
"""What `fedunlearn.campaign.difficulty` needs of the original training; no strategy is shown or charged it."""


class References:
    """The jobs of the references. They may not diverge: there would be nothing to compare with."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._right: dict[int, difficulty.Bools] = {}

    def jobs(self) -> list[Job[Any]]:
        """The references of every seed, and nothing that goes on from them."""
        return [*(self.original(seed) for seed in self.stage.scenario.seeds), *self.retrained()]

    def original(self, seed: int) -> Job[Weights]:
        """Train with everything, and keep the model wherever a request arrives."""
        stage = self.stage

        def then(weights: Weights) -> list[Job[Any]]:
            following = stage.keep(stage.original_name(stage.rounds, seed), weights, seed)
            for cut in stage.cuts:
                name = stage.original_name(cut, seed)
                following += stage.keep(name, stage.recorders[seed].cut(cut), seed)
            return following

        local, rounds = stage.scenario.training.local, range(stage.rounds)
        procedure = fedavg(stage.initial(seed), stage.cohort.sites, Select(), local, rounds, seed)
        return Job(Label("original", "", "original", seed), procedure, then)

    def retrained(self) -> list[Job[Any]]:
        """Train without everything that each chain forgets, once for each of its requests."""
        stage = self.stage
        return [self._retrained(chain, 0, seed) for chain in stage.chains for seed in stage.scenario.seeds]

    def _retrained(self, chain: Chain, index: int, seed: int) -> Job[Weights]:
        """Train without everything the chain forgets up to ``index``, from scratch."""
        stage, step = self.stage, chain[index]

        def then(result: Weights) -> list[Job[Any]]:
            following = stage.keep(stage.retrained_name(step.moment, seed), result, seed)
            if index + 1 < len(chain):
                return [*following, self._retrained(chain, index + 1, seed)]
            name = stage.retrained_name(moments(stage.scenario, chain)[-1], seed)
            return following + stage.to_the_end(
                chain, "retrained", result, seed, lambda new: stage.keep(name, new, seed)
            )

        procedure = stage.train(step, range(step.round), stage.initial(seed), seed)
        return Job(Label("retrained", step.request.id, "retrained", seed), procedure, then)

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
        return [Job(Label("evaluate", "", f"original@each-round-{seed}", seed), procedure, then)]

    def learnt(self) -> pd.DataFrame | None:
        """How long every image took to be learnt (`fedunlearn.campaign.difficulty`); None if that cannot be told."""
        if not self._right:
            return None
        seeds = {seed: self._right[seed] for seed in self.stage.scenario.seeds}
        return difficulty.table(self.stage.cohort.table["image"].tolist(), seeds)
