"""The models that all others are compared with: the original, and what training without the data comes to."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pandas as pd

from fedunlearn.campaign import difficulty
from fedunlearn.campaign.keeping import ArrayFile, ModelFile
from fedunlearn.campaign.origins import Origin
from fedunlearn.campaign.stage import Stage
from fedunlearn.campaign.timeline import Chain, Moment, looks
from fedunlearn.core import Every, Needs, Procedure, Select, Weights
from fedunlearn.federation.history import union
from fedunlearn.federation.jobs import Job, Label, Work
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.kinds import Right, learnt

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
            looked = {
                stage.original_name(one.round, seed): one for one in looks(stage.scenario, stage.chains)
            }
            asked: list[Job[Any]] = [
                stage.evaluation(name, model, seed, looked.get(name))
                for name, model in models.items()
                if not looked or name in looked
            ]
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

    @property
    def _rightly(self) -> Right | None:
        """When a model is right about an image, where the kind of task says."""
        return learnt(self.stage.scenario.model.kind).right

    def lessons_known(self, seed: int) -> bool:
        """Whether nothing needs to be asked for `lessons`."""
        if self._rightly is None:
            return True
        file, origin = self._lessons(seed)
        return self.stage.store.known(file, origin) is not None

    def labels(self) -> list[Label]:
        """The labels of all that is trained again, for those who watch, in scenario order."""
        stage, found = self.stage, list[Label]()
        for chain in stage.chains:
            if chain.policy is None:
                # What is trained again for a request goes on only once it is the last one: each is from the start.
                phases = [("retrained", step.id) for step in chain.asking]
                phases += [("continue", s.id) for s, following in chain.stretches() if not following.request]
                found += [
                    Label(p, id, "retrained", seed) for p, id in phases for seed in stage.retrained_seeds
                ]
        shared = looks(stage.scenario, stage.chains)
        for seed in stage.retrained_seeds if shared else ():
            found += [_again(moment, seed) for moment in self._pieces(shared, seed)]
        return found

    def retrained(self) -> list[Job[Any]]:
        """Train without everything that each chain forgets, once for each of its requests, and for the extra seeds.

        Policies of a calendar forget the same in the end, and share what they are compared with.
        """
        stage = self.stage
        shared = looks(stage.scenario, stage.chains)
        alone = [chain for chain in stage.chains if chain.policy is None]
        found: list[Job[Any]] = [
            self._retrained(chain, 0, seed) for chain in alone for seed in stage.retrained_seeds
        ]
        for seed in stage.retrained_seeds if shared else ():
            start, of = stage.initial(seed), stage.origins.nothing(seed)
            found.append(self._piece(self._pieces(shared, seed), 0, start, seed, of))
        return found

    def extra(self) -> list[dict[str, Any]]:
        """Which retrained models there are beyond those of strategies' seeds: the manifest's ``references`` entry."""
        stage = self.stage
        return [
            {"request": moment.name, "seed": seed, "model": stage.retrained_name(moment, seed)}
            for chain in stage.chains
            for moment in chain.moments
            for seed in stage.scenario.extra_seeds
        ]

    def _retrained(self, chain: Chain, index: int, seed: int) -> Job[Weights]:
        """Train without everything the chain forgets up to its request number ``index``, from scratch."""
        stage, step = self.stage, chain.asking[index]
        assert step.moment is not None
        name = stage.retrained_name(step.moment, seed)
        rounds = range(step.round)
        origin = stage.origins.training(stage.remaining(step.without), step.without, rounds, seed)

        def rest(round: int, weights: Weights) -> Procedure[Weights]:
            return stage.train(step.without, rounds[round:], weights, seed)

        def then(result: Weights) -> list[Job[Any]]:
            following: list[Job[Any]] = [stage.evaluation(name, result, seed, step.moment)]
            following += stage.curves.jobs(label, name, origin, stage.initial(seed), result)
            if index + 1 < len(chain.asking):
                return [*following, self._retrained(chain, index + 1, seed)]
            return following + self._to_the_end(chain, result, seed, origin)

        label = Label("retrained", step.id, "retrained", seed)
        work = Work(ModelFile(name), origin)
        return Job(label, rest(0, stage.initial(seed)), then, work=work, restart=rest)

    def _to_the_end(self, chain: Chain, weights: Weights, seed: int, of: Origin) -> list[Job[Any]]:
        """Train on without what the chain forgets, if its last request came before the end, and evaluate that."""
        stage, last, end = self.stage, chain.asking[-1], chain.steps[-1]
        if last is end or end.moment is None:
            return []
        name = stage.retrained_name(end.moment, seed)
        job = stage.further(last, end.round, "retrained", name, weights, seed, of)

        def then(new: Weights) -> list[Job[Any]]:
            return [stage.evaluation(name, new, seed, end.moment), *job.then(new)]

        return [replace(job, then=then)]

    def _pieces(self, shared: tuple[Moment, ...], seed: int) -> tuple[Moment, ...]:
        """Where the training of such a model stops for a look; those that are only judged by have the end alone."""
        return shared if seed in self.stage.scenario.seeds else shared[-1:]

    def _piece(
        self, pieces: tuple[Moment, ...], index: int, weights: Weights, seed: int, of: Origin
    ) -> Job[Weights]:
        """Train such a model up to a look, evaluate it, and go on."""
        stage, moment = self.stage, pieces[index]
        rounds = range(pieces[index - 1].round if index else 0, moment.round)
        name = stage.retrained_name(moment, seed)
        origin = stage.origins.further(stage.remaining(moment.without), moment.without, rounds, seed, of)

        def rest(round: int, weights: Weights) -> Procedure[Weights]:
            return stage.train(moment.without, rounds[round:], weights, seed)

        def then(result: Weights) -> list[Job[Any]]:
            asked: list[Job[Any]] = [stage.evaluation(name, result, seed, moment)]
            if index + 1 == len(pieces):
                return asked
            return [*asked, self._piece(pieces, index + 1, result, seed, origin)]

        work = Work(ModelFile(name), origin)
        return Job(_again(moment, seed), rest(0, weights), then, work=work, restart=rest)

    def lessons(self, weights: Weights, seed: int) -> list[Job[Any]]:
        """Ask how early every image was learnt on the way to ``weights``, where a model can be right about one."""
        stage, rightly = self.stage, self._rightly
        if rightly is None:
            return []

        def then(right: difficulty.Bools) -> list[Job[Any]]:
            self._right[seed] = right
            return []

        history = stage.recorders[seed].view(LESSONS, stage.rounds)
        # The model after a round is the one that the next round starts from.
        models = itertools.chain((history.checkpoint(round) for round in range(1, stage.rounds)), [weights])
        procedure = difficulty.lessons(models, stage.cohort.sites, stage.cohort.targets, rightly)
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


def _again(moment: Moment, seed: int) -> Label:
    """Of training a model again that policies share."""
    return Label("retrained", moment.reference, "retrained", seed)
