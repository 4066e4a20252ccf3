"""Measures that need work after unlearning: what becomes of a model when somebody trains it a little more.

A model can answer as if it had forgotten and still hold what it learnt. Three probes look for that, in the original, in
the retrained and in every unlearned model, once all of them are there:

- **relearn**: those who hold the images to forget train the model on them until it knows them as well as the original
  did. Who never saw them needs longest. Epochs to a forget loss "within 5 % of the original's" are the relearn time of
  Golatkar et al., "Eternal Sunshine of the Spotless Net", CVPR 2020 (arXiv 1911.04933). Deviations: they train on the
  forgotten images alone, as an attacker who has them would (as do later codes that divide by the retrained model's
  time, the anamnesis index of Chundawat et al., arXiv 2201.05629); epochs are rounds of federated averaging.
- **linear_probe**: the hospitals that remain refit the last layer alone, from the weights it had before training, on
  what they retain. A strategy that only turned the last layer away is undone by that; features that never saw an image
  gain nothing. After Gao et al., "An Illusion of Unlearning?", AISTATS 2026 (arXiv 2604.08271). Deviation: the images
  to forget take no part, since a layer fitted to them knows them whatever the features are.
- **resurgence**: the hospitals that remain train on without what was forgotten, as they would anyway, with the draws
  that training would have had in these rounds. The retrained model's is what training without the data comes to later.

Nothing of this is a strategy's cost: the ledger keeps it as phases of its own. A probe that diverges is lost, and
nothing else. In the middle of training, probes start right after unlearning, at ``id@round``, and at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor

from fedunlearn.campaign.campaign import Campaign
from fedunlearn.campaign.keeping import SignalsFile, ValueFile
from fedunlearn.campaign.timeline import Moment
from fedunlearn.core import Layout, LocalTraining, Procedure, Rota, Select, SiteId, Weights
from fedunlearn.federation.jobs import Divergence, Job, Keeping, Label, Work
from fedunlearn.federation.procedures import fedavg, loss, nothing, signals
from fedunlearn.learning.constraints import Mask
from fedunlearn.learning.local import paced
from fedunlearn.results.signals import blank

WITHIN = 1.05
"""A model has relearnt once its forget loss is at most this many times the original's."""
MOST_EPOCHS = 40
"""Of relearning; who has not got there by then is counted as not having got there."""
RELEARN_PACE = 0.25
"""The learning rate of relearning, constant, relative to training's."""
REFIT_ROUNDS = 2
"""Rounds of refitting the last layer, each of as many local epochs as training has."""
REFIT_PACE = 5.0
"""The learning rate of refitting the last layer, relative to training's."""

T = TypeVar("T")

Signal = Mapping[str, Tensor]


@dataclass(frozen=True)
class Relearnt:
    """How a model learnt again.

    Attributes:
        losses: the forget loss after 0, 1, … epochs; the last one is the first at or below ``goal``, if it got there.
        goal: the loss to come to.
    """

    losses: tuple[float, ...]
    goal: float


@dataclass(frozen=True)
class Subject:
    """A model to probe, as one moment sees it: the same original is another subject at every request.

    Attributes:
        moment: when.
        strategy: its label, or "original" / "retrained".
        seed: the training seed.
        model: the name of its weights.
        original: the name of the original's.
    """

    moment: Moment
    strategy: str
    seed: int
    model: str
    original: str


# ------------------------------------------------------------------------------------------------ the probes


def relearn(
    weights: Weights,
    original: Weights,
    holders: Sequence[SiteId],
    forget: Select,
    local: LocalTraining,
    seed: int,
) -> Procedure[Relearnt]:
    """Train on the images to forget, epoch by epoch, until the loss is `WITHIN` that of ``original``."""
    goal = WITHIN * (yield from loss(original, holders, forget))
    once, losses = paced(local, 1, RELEARN_PACE * local.lr), [(yield from loss(weights, holders, forget))]
    while losses[-1] > goal and len(losses) <= MOST_EPOCHS:
        epoch = len(losses) - 1
        weights = yield from fedavg(weights, holders, forget, once, range(epoch, epoch + 1), seed, "relearn")
        losses.append((yield from loss(weights, holders, forget)))
    return Relearnt(tuple(losses), goal)


def refit(
    weights: Weights,
    initial: Weights,
    layout: Layout,
    sites: Sequence[SiteId] | Rota,
    retain: Select,
    local: LocalTraining,
    seed: int,
) -> Procedure[Weights]:
    """Train the last layer anew from its ``initial`` weights; all else, buffers too, stays bit for bit."""
    frozen = {name: torch.tensor(False) for name in layout.parameters if name not in layout.head}
    start = {**weights, **{name: initial[name] for name in layout.head}}
    quick = paced(local, lr=REFIT_PACE * local.lr)
    new = yield from fedavg(
        start, sites, retain, quick, range(REFIT_ROUNDS), seed, "linear probe", Mask(frozen, weights)
    )
    return {**weights, **{name: new[name] for name in layout.head}}


def answers(procedure: Procedure[Weights], sites: Sequence[SiteId]) -> Procedure[Signal]:
    """What the model that ``procedure`` makes answers for every image of ``sites``."""
    weights = yield from procedure
    return (yield from signals(weights, sites))


# -------------------------------------------------------------------------------------------------- the jobs


class Probing:
    """The probes that a scenario asks for, of all models of a campaign.

    Args:
        campaign: whose models, once it is done.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign, self.stage = campaign, campaign.stage
        wanted = self.stage.scenario.evaluation
        known: Mapping[str, tuple[bool, Callable[[Subject], Job[Any]]]] = {
            "relearn": (wanted.relearn, self._relearn),
            "linear_probe": (wanted.linear_probe, partial(self._answering, "linear_probe", self._refit)),
            "resurgence": (
                wanted.resurgence_rounds > 0,
                partial(self._answering, "resurgence", self._train_on),
            ),
        }
        self._probes = {name: job for name, (is_wanted, job) in known.items() if is_wanted}
        self._relearnt: list[tuple[Subject, Relearnt]] = []
        self._diverged: list[dict[str, Any]] = []

    def procedures(self) -> list[Label]:
        """The labels of all probes, for those who watch."""
        return [_label(probe, subject) for subject in self._subjects() for probe in self._probes]

    def jobs(self) -> list[Job[Any]]:
        """The first probe of every model; the others follow one by one, so that few models are held at once."""
        return [job for subject in self._subjects() for job in self._next(subject, tuple(self._probes))]

    def write(self) -> None:
        """Write how relearning went: ``probes/relearn.parquet``, one row per model and epoch."""
        if "relearn" not in self._probes:
            return
        rows = [
            (subject.moment.name, subject.strategy, subject.seed, epoch, value, found.goal)
            for subject, found in self._relearnt
            for epoch, value in enumerate(found.losses)
        ]
        columns = ["request", "strategy", "seed", "epoch", "loss", "goal"]
        table = pd.DataFrame(rows, columns=columns).sort_values(columns[:4], ignore_index=True)
        self.stage.run.write_table("probes/relearn.parquet", table)

    def summary(self) -> dict[str, Any]:
        """What the manifest says of them: which, how, and which diverged."""
        return {
            "names": list(self._probes),
            "within": WITHIN,
            "most_epochs": MOST_EPOCHS,
            "relearn_pace": RELEARN_PACE,
            "refit_rounds": REFIT_ROUNDS,
            "refit_pace": REFIT_PACE,
            "resurgence_rounds": self.stage.scenario.evaluation.resurgence_rounds,
            "diverged": sorted(self._diverged, key=lambda entry: [str(value) for value in entry.values()]),
        }

    # ------------------------------------------------------------------------------------------- pieces

    def _subjects(self) -> Iterator[Subject]:
        for moment, entry, models in self.campaign.models():
            for strategy, model in models.items():
                if strategy not in entry["horizons"]:
                    yield Subject(moment, strategy, entry["seed"], model, entry["original"])

    def _next(self, subject: Subject, probes: Sequence[str]) -> list[Job[Any]]:
        """The first of ``probes``, followed by the others; a model that diverged itself is not probed."""
        if any(entry["model"] == subject.model for entry in self.campaign.unlearning.diverged()):
            return [Job(_label(probe, subject), nothing()) for probe in probes]
        if not probes:
            return []
        job, others = self._probes[probes[0]](subject), probes[1:]

        def then(result: Any) -> list[Job[Any]]:
            job.then(result)
            return self._next(subject, others)

        def lost(found: Divergence) -> list[Job[Any]]:
            about = {"request": subject.moment.name, "strategy": subject.strategy, "seed": subject.seed}
            self._diverged.append({"probe": probes[0], **about, **asdict(found), "where": str(found)})
            if job.diverged is not None:
                job.diverged(found)
            return self._next(subject, others)

        return [replace(job, then=then, diverged=lost)]

    def _relearn(self, subject: Subject) -> Job[Any]:
        stage, moment, run = self.stage, subject.moment, self.stage.run
        forget = Select(only=moment.request.id, without=moment.earlier)
        holders = [site for site, count in stage.cohort.counts(forget).items() if count]
        weights, original = run.read_weights(subject.model), run.read_weights(subject.original)
        local = stage.scenario.training.local

        def then(found: Relearnt) -> list[Job[Any]]:
            self._relearnt.append((subject, found))
            return []

        return Job(
            _label("relearn", subject),
            relearn(weights, original, holders, forget, local, subject.seed),
            then,
            lambda _: then(Relearnt((math.nan,), math.nan)),
            self._work("relearn", subject, ValueFile(f"{_file('relearn', subject)}.safetensors")),
        )

    def _answering(
        self, probe: str, make: Callable[[Subject], Procedure[Weights]], subject: Subject
    ) -> Job[Any]:
        """Keep what the model made of ``subject`` answers: NaN throughout if it diverges."""
        run, file = self.stage.run, f"{_file(probe, subject)}.parquet"

        def lost(_: Divergence) -> list[Job[Any]]:
            like = run.read_table(f"signals/{subject.model}.parquet")
            run.write_table(file, blank(like))
            return []

        procedure = answers(make(subject), self.stage.cohort.sites)
        work = self._work(probe, subject, SignalsFile(file))
        return Job(_label(probe, subject), procedure, diverged=lost, work=work)

    def _work(self, probe: str, subject: Subject, keeping: Keeping[T]) -> Work[T]:
        stage, moment = self.stage, subject.moment
        selects = {
            "forget": Select(only=moment.request.id, without=moment.earlier),
            "retain": Select(without=moment.without),
        }
        settings = {
            "seed": subject.seed,
            "round": moment.round,
            "rounds": stage.scenario.evaluation.resurgence_rounds,
            "sites": list(stage.remaining(moment.without)),
        }
        weights, original = (stage.run.read_weights(name) for name in (subject.model, subject.original))
        return Work(keeping, stage.origins.probe(probe, weights, original, selects, settings))

    def _refit(self, subject: Subject) -> Procedure[Weights]:
        stage, without = self.stage, subject.moment.without
        return refit(
            stage.run.read_weights(subject.model),
            stage.initial(subject.seed),
            stage.layout,
            stage.rota(stage.remaining(without), Select(without=without)),
            Select(without=without),
            stage.scenario.training.local,
            subject.seed,
        )

    def _train_on(self, subject: Subject) -> Procedure[Weights]:
        stage, moment = self.stage, subject.moment
        rounds = range(moment.round, moment.round + stage.scenario.evaluation.resurgence_rounds)
        return fedavg(
            stage.run.read_weights(subject.model),
            stage.rota(stage.remaining(moment.without), Select(without=moment.without)),
            Select(without=moment.without),
            stage.scenario.training.local,
            rounds,
            subject.seed,
        )


def _file(probe: str, subject: Subject) -> str:
    """Where what came of a probe is kept, without an ending."""
    return f"probes/{probe}/{subject.moment.name}/{subject.strategy}-{subject.seed}"


def _label(probe: str, subject: Subject) -> Label:
    return Label(f"probe {probe}", subject.moment.name, subject.strategy, subject.seed)
