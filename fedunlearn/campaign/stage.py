"""What all jobs of a run work with: hospitals, folder, names, and the pieces that several jobs are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.copying import copied
from fedunlearn.campaign.curves import Curves
from fedunlearn.campaign.keeping import CopiesFile, ModelFile, SignalsFile
from fedunlearn.campaign.origins import Origin, Origins
from fedunlearn.campaign.timeline import Chain, Moment, Step
from fedunlearn.core import Layout, Procedure, RequestId, Rota, Select, SiteId, Weights, derive
from fedunlearn.federation.history import Recorder
from fedunlearn.federation.jobs import Divergence, Job, Label, Work
from fedunlearn.federation.procedures import copies, fedavg, signals
from fedunlearn.learning.models import initial_weights
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.store import Store
from fedunlearn.scenario import Plan, Scenario


def cut_name(round: int, seed: int) -> str:
    """What the original model is called at a round in the middle of training after which a request arrives."""
    return f"original@{round}-{seed}"


Diverged = Callable[[Divergence], list[Job[Any]]]


@dataclass(frozen=True)
class Stage:
    """What all jobs of a run share. Models are written to the run folder as they come; none is kept in memory.

    Attributes:
        scenario: what to run.
        cohort: the hospitals and what each request names.
        store: where models and signals go, and what is there already.
        origins: what determines them.
        scratch: where history goes while the run lasts.
        chains: the requests, as they follow from one another.
        layout: what is where in the model's weights.
        recorders: by seed, the history of the original training.
        cuts: the rounds in the middle of training after which requests arrive.
        curves: how models do, round by round.
    """

    scenario: Scenario
    cohort: Cohort
    store: Store
    origins: Origins
    scratch: Path
    chains: tuple[Chain, ...]
    layout: Layout
    recorders: Mapping[int, Recorder]
    cuts: tuple[int, ...]
    curves: Curves

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return self.store.run

    @property
    def rounds(self) -> int:
        """How many rounds training has."""
        return self.scenario.training.rounds

    @property
    def retrained_seeds(self) -> tuple[int, ...]:
        """The seeds of retrained models: those of all else, and those of further ones to compare with."""
        return (*self.scenario.seeds, *self.scenario.extra_seeds)

    def initial(self, seed: int) -> Weights:
        """The weights that training with ``seed`` starts from."""
        cohort = self.cohort
        return initial_weights(self.scenario.model, cohort.form, derive(seed, "initial"))

    def original(self, step: Step, seed: int) -> Weights:
        """The model that ``step`` unlearns from, once it is trained."""
        return self.run.read_weights(self.original_name(step.round, seed))

    def remaining(self, without: Sequence[RequestId]) -> tuple[SiteId, ...]:
        """The hospitals that still take part once these requests are honoured."""
        ids = set(without)
        gone = {r.site for r in self.scenario.requests if r.whole_site and r.id in ids}
        return tuple(site for site in self.cohort.sites if site not in gone)

    def plans(self, chain: Chain) -> tuple[Plan, ...]:
        """The strategies that serve every request of ``chain``."""
        return tuple(plan for plan in self.scenario.strategies if chain.serves(plan))

    def rota(self, sites: Sequence[SiteId], select: Select) -> Rota:
        """Who of ``sites`` is asked in which round of training on what ``select`` names."""
        return Rota.among(sites, self.cohort.counts(select), self.scenario.training.participation)

    # -------------------------------------------------------------------------------------------- names

    def original_name(self, round: int, seed: int) -> str:
        """What the original model after ``round`` rounds is called."""
        return f"original-{seed}" if round == self.rounds else cut_name(round, seed)

    def retrained_name(self, moment: Moment, seed: int) -> str:
        """What the retrained model of ``moment`` is called."""
        return f"retrained-{moment.reference}-{seed}"

    def between_name(self, step: Step, label: str, seed: int) -> str:
        """What a model that was trained on since the step before, up to ``step``, is called."""
        return f"before-{step.name}-{label}-{seed}" if step.request else f"{step.name}-{label}-{seed}"

    # ------------------------------------------------------------------------------------------- origins

    def trained(self, round: int, seed: int) -> Origin:
        """The origin of the original model after ``round`` rounds."""
        return self.origins.training(self.cohort.sites, (), range(round), seed)

    # -------------------------------------------------------------------------------------------- pieces

    def train(
        self, without: Sequence[RequestId], rounds: range, weights: Weights, seed: int
    ) -> Procedure[Weights]:
        """Train without what these requests name, with the hospitals that remain."""
        select = Select(without=tuple(without))
        rota = self.rota(self.remaining(without), select)
        return fedavg(weights, rota, select, self.scenario.training.local, rounds, seed)

    def further(
        self, step: Step, end: int, label: str, name: str, weights: Weights, seed: int, of: Origin
    ) -> Job[Weights]:
        """Train on from the round of ``step`` without what is barred from there on; what follows measures that.

        Args:
            step: where training goes on from.
            end: the number of the round to stop before.
            label: the row in tables of whoever is trained.
            name: what the model is called then.
            weights: where to start.
            seed: the training seed.
            of: the origin of ``weights``.
        """

        def rest(round: int, weights: Weights) -> Procedure[Weights]:
            return self.train(step.without, range(step.round + round, end), weights, seed)

        rounds = range(step.round, end)
        origin = self.origins.further(self.remaining(step.without), step.without, rounds, seed, of)
        whose = Label("continue", step.id, label, seed)

        def then(new: Weights) -> list[Job[Any]]:
            return self.curves.jobs(whose, name, origin, weights, new, step.round)

        return Job(whose, rest(0, weights), then, work=Work(ModelFile(name), origin), restart=rest)

    def evaluation(
        self,
        name: str,
        weights: Weights,
        seed: int,
        moment: Moment | None = None,
        diverged: Diverged | None = None,
    ) -> Job[Mapping[str, Tensor]]:
        """Ask every hospital for the signal of a model that is written; then for copies, if that is wanted.

        Args:
            name: what the model is called.
            weights: the model.
            seed: the training seed.
            moment: when it is compared; None for any (`fedunlearn.campaign.copying.copied`). Of a look nobody asks for
                copies.
            diverged: what to do if its signals are not finite; None if that must stop the run.
        """
        work = Work(SignalsFile(f"signals/{name}.parquet"), self.origins.answers(weights))
        following = self._copies(name, weights, seed, moment, diverged is not None)
        procedure = signals(weights, self.cohort.sites)
        return Job(Label("evaluate", "", name, seed), procedure, lambda _: following, diverged, work)

    def _copies(
        self, name: str, weights: Weights, seed: int, moment: Moment | None, may_diverge: bool
    ) -> list[Job[Any]]:
        """Ask for a model's signals for changed copies; if they are not finite, `Campaign.blank` writes blank ones."""
        asked = copied(self.scenario, self.cohort, moment)
        if asked is None:
            return []
        keeping = CopiesFile(f"copies/{name}.parquet", pd.Index(self.cohort.table["image"]))
        work = Work(keeping, self.origins.copies(weights, asked.sites, asked.selects))
        procedure = copies(weights, asked.sites, asked.selects)
        lost: Diverged | None = (lambda found: []) if may_diverge else None
        return [Job(Label("evaluate", "", f"{name}@copies", seed), procedure, diverged=lost, work=work)]
