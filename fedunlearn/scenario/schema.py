"""What a scenario is made of: frozen dataclasses, also the schema of its YAML (`fedunlearn.scenario.typed`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from fedunlearn.core import (
    Augmentation,
    Kept,
    LocalTraining,
    PatientId,
    Precision,
    Problem,
    RequestId,
    SiteId,
    Strategy,
    Training,
)
from fedunlearn.intake.arrivals import Arrivals, Choice, Kind
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import Limits
from fedunlearn.intake.policies import Policy
from fedunlearn.learning.models import Model
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.yaml.tree import Place
from sites.collection import Source
from sites.dealing.partitions import Partition

LARGEST_SEED = 2**63 - 1
Seed = Annotated[int, Ge(0), Le(LARGEST_SEED)]


@dataclass(frozen=True)
class Engine:
    """What the run works on.

    Attributes:
        name: flower, or inline for this process alone.
        workers: processes that play hospitals; None for one for every CPU core, or inline on a GPU for just one. If
            given, no more models than that are scored at once.
        gpus_per_client: share of a GPU that a worker of flower takes, at most one whole; 0 to work on the CPU.
        device: what inline works on, cpu or cuda.
        address: of a Ray cluster to join; None to start one here.
        timeout: seconds a hospital may take for one task.
        wait: seconds to wait for room on a cluster that others use.
        retries: how often a failed task is tried again.
    """

    name: Literal["flower", "inline"] = "flower"
    workers: Annotated[int, Ge(1)] | None = None
    gpus_per_client: Annotated[float, Ge(0)] = 0.0
    device: Literal["cpu", "cuda"] = "cpu"
    address: str | None = None
    timeout: Annotated[float, Gt(0)] = 600.0
    wait: Annotated[float, Ge(0)] = 600.0
    retries: Annotated[int, Ge(0)] = 0

    @property
    def elsewhere(self) -> bool:
        """Whether hospitals work on a cluster that is there already; as Ray, it heeds $RAY_ADDRESS."""
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        return self.name == "flower" and address != "local"

    @property
    def on_gpu(self) -> bool:
        """Whether hospitals work on GPUs."""
        return self.gpus_per_client > 0 if self.name == "flower" else self.device != "cpu"


@dataclass(frozen=True)
class Shares:
    """Shares of a hospital's images, dealt by patient; together 1.

    Attributes:
        train: for training.
        val: for validation.
        test: for measuring models on patients that none was trained on.
        proxy: given to the server, without labels; see `fedunlearn.core.Needs.proxy_examples`.
    """

    train: Annotated[float, Gt(0), Le(1)]
    val: Annotated[float, Gt(0), Le(1)]
    test: Annotated[float, Gt(0), Le(1)]
    proxy: Annotated[float, Ge(0), Le(1)] = 0.0


@dataclass(frozen=True)
class Official:
    """Parts as the data has them, instead of shares (`sites.dealing.split.official`); written ``{from: COLUMN}``.

    Attributes:
        column: of the data's table, with train, val and test.
    """

    column: str

    @property
    def proxy(self) -> float:
        """No image is given to the server."""
        return 0.0


@dataclass(frozen=True)
class SitesConfig:
    """The hospitals and who gets which images.

    Attributes:
        names: the hospitals, in the order their weights are summed in.
        partition: how patients are dealt to hospitals.
        split: shares of each hospital's images, or where the data tells the part of each image.
    """

    names: tuple[SiteId, ...]
    partition: Partition
    split: Shares | Official = Shares(0.6, 0.1, 0.3)


@dataclass(frozen=True)
class Pick:
    """Patients to pick from the hospital's training patients (`sites.dealing.picking`).

    Attributes:
        fraction: the share to pick.
        count: how many to pick, instead.
        pick: which ones: at random, the hardest or easiest by the data's ``difficulty``, those of the hospital's
            rarest class, or of the class of which other hospitals have fewest.
        by: only patients whose images have these values, by column of ``sites.parquet``; all of those if neither
            ``fraction`` nor ``count`` is given. Values are text.
    """

    fraction: Annotated[float, Gt(0), Le(1)] | None = None
    count: Annotated[int, Ge(1)] | None = None
    pick: Choice = "random"
    by: Mapping[str, str] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class Request:
    """A hospital's wish to have patients, single images or itself forgotten, or a patient's not to be used any more.

    Attributes:
        id: its name in reports and file names.
        site: the hospital that asks.
        patients: ids, or how to draw them; None if it is about images or the whole hospital.
        images: ids of single images; None if it is about patients or the whole hospital.
        whole_site: the whole hospital leaves.
        after_round: arrives when so many rounds are trained; None for after training, and in a calendar.
        received: the day on which it comes in, in a calendar; None without one.
        kind: erasure, or opt_out: from now on nobody trains on the patients' images, and nothing is unlearned.
        drawn: it is one of `Scenario.arrivals`, so its patient, or image (``images`` is empty then), is drawn when the
            data is there.
    """

    id: RequestId
    site: SiteId
    patients: tuple[PatientId, ...] | Pick | None = None
    images: tuple[str, ...] | None = None
    whole_site: bool = False
    after_round: Annotated[int, Ge(1)] | None = None
    received: date | None = None
    kind: Literal["erasure", "opt_out"] = "erasure"
    drawn: bool = field(default=False, metadata={"key": ""})

    @property
    def asks(self) -> Kind:
        """What it asks for, as the desk says it."""
        if self.kind == "opt_out":
            return "opt_out"
        if self.whole_site:
            return "whole_site"
        return "patients" if self.images is None else "images"

    @property
    def named(self) -> int:
        """Of patients, images and the whole hospital, how many it names: one, if it is clear."""
        return (self.patients is not None) + (self.images is not None) + self.whole_site


@dataclass(frozen=True)
class PolicyPlan:
    """A policy of a calendar.

    Attributes:
        policy: when what was accepted is unlearned.
        label: its name in reports and file names (key ``as``; made of its name and settings by default).
    """

    policy: Policy
    label: str


@dataclass(frozen=True)
class Tuned:
    """What finding a strategy's settings cost, as ``tune`` writes it; reported beside the strategy's own cost.

    Attributes:
        trials: settings tried.
        site_seconds: the hospitals' work for them, training and evaluation.
        images: passes of one image through a network.
        bytes: sent to and received from the hospitals.
    """

    trials: Annotated[int, Ge(1)]
    site_seconds: Annotated[float, Ge(0)]
    images: Annotated[int, Ge(0)]
    bytes: Annotated[int, Ge(0)]


@dataclass(frozen=True)
class Plan:
    """A strategy and what it is run for.

    Attributes:
        strategy: the method with its hyper-parameters.
        label: its name in reports and file names (key ``as``; the strategy's name by default).
        requests: the requests it serves, in scenario order; in a calendar all erasures, or none if it cannot forget
            one of them.
        tuned: what finding its hyper-parameters cost; None where nobody tuned them.
    """

    strategy: Strategy
    label: str
    requests: tuple[RequestId, ...]
    tuned: Tuned | None = None


@dataclass(frozen=True)
class Evaluation:
    """What is done only to judge by, besides the references.

    Attributes:
        shadows: how many models to train on random halves of the training patients, in complementary pairs
            (`fedunlearn.campaign.shadows`).
        cache: where they are kept for other runs; None for the per-user cache.
        relearn: count how soon each model knows again what it was asked to forget (`fedunlearn.campaign.probing`).
        linear_probe: refit each model's last layer on frozen features, and measure it again.
        resurgence_rounds: train each model on for so many rounds, without what was forgotten, and measure it again;
            0 for not at all.
        canary: of every hospital that leaves as a whole, the share of training patients whose images are given a wrong
            label, which only a model trained on them can know.
        slices: of volumes with label maps, keep slices of a few, and draw what all models make of them
            (`fedunlearn.campaign.slices`).
        copies: ask every model about slightly changed copies of the images to forget and of held-out ones too
            (`fedunlearn.learning.copies`).
        curves: measure the model in hand after every round on some images to forget and on validation images
            (`fedunlearn.campaign.curves`).
        pictures: of images with one class each, keep a few of those to forget, and draw what all models say of them
            (`fedunlearn.campaign.pictures`): pixels of these patients then stay in the run folder.
        costs: of classes, what it costs to take an image of one (row) for another (column), 0 where they are the same;
            None for 1 each. Of the measure `test_risk`; nothing is trained by it.
    """

    shadows: Annotated[int, Ge(0)] = 0
    cache: Path | None = None
    relearn: bool = False
    linear_probe: bool = False
    resurgence_rounds: Annotated[int, Ge(0)] = 0
    canary: Annotated[float, Ge(0), Le(1)] = 0.0
    slices: bool = True
    copies: bool = True
    curves: bool = True
    pictures: bool = False
    costs: tuple[tuple[Annotated[float, Ge(0)], ...], ...] | None = None


@dataclass(frozen=True)
class HistoryConfig:
    """How the server stores what strategies use of training.

    Attributes:
        precision: how the numbers of hospitals' updates are kept: as they are, or in half of the room as bfloat16, or
            as float16 with a scale for each tensor. Sums over rounds and checkpoints are kept as they are.
        limit: the most that it may take on disk, in GB (1e9 bytes), for all seeds together; None for what there is
            room for. A run that would take more is refused before it begins.
    """

    precision: Kept = "float32"
    limit: Annotated[float, Gt(0)] | None = None


@dataclass(frozen=True)
class Retention:
    """What a run with a calendar keeps, once it is over, of what knew those who were forgotten since.

    Attributes:
        models: keep every model that was in hand on the way, not just those at the end.
    """

    models: bool = False


@dataclass(frozen=True)
class Verdict:
    """What verdicts are made with. It changes what is said of models, never a model.

    Attributes:
        margins: how much worse than retraining an unlearned model may be.
    """

    margins: Margins = field(default_factory=Margins)


@dataclass(frozen=True)
class Scenario:
    """Everything a run depends on.

    Attributes:
        name: its name, and that of the run folder.
        seeds: the training seeds; every seed trains, retrains and unlearns.
        engine: what the run works on.
        data: where images come from.
        sites: the hospitals.
        seed: of partition, split and picked patients: the same images whatever the training seed.
        model: the network.
        training: how it is trained.
        requests: what is to be forgotten.
        strategies: how.
        timeline: each request alone, or all of them one after the other.
        horizons: in epochs, ascending: what a strategy has in hand then is scored beside its last model
            (`fedunlearn.federation.horizons`).
        evaluation: what is trained only to judge by.
        references: how many retrained models each request is judged by, at least one for every seed; None for just
            these. Those beyond have seeds of their own (`extra_seeds`), for which nothing else is trained.
        verdict: what verdicts are made with.
        history: how the server stores what strategies use of training.
        retention: what is kept of the way, with a calendar.
        calendar: gives rounds and requests dates; None if requests come after rounds.
        arrivals: where requests come from that nobody wrote down; they are among ``requests``.
        policies: when what was accepted is unlearned, each by itself; of a calendar at least one.
        limits: what is refused or held back, in a calendar.
        places: where each value was written, by dotted path in the YAML (``requests.0.site``).
    """

    name: str
    seeds: tuple[int, ...]
    engine: Engine
    data: Source
    sites: SitesConfig
    seed: int
    model: Model
    training: Training
    requests: tuple[Request, ...]
    strategies: tuple[Plan, ...]
    timeline: Literal["independent", "sequential"] = "independent"
    horizons: tuple[int, ...] = ()
    evaluation: Evaluation = Evaluation()
    references: int | None = None
    verdict: Verdict = Verdict()
    history: HistoryConfig = HistoryConfig()
    retention: Retention = Retention()
    calendar: Calendar | None = None
    arrivals: Arrivals | None = None
    policies: tuple[PolicyPlan, ...] = ()
    limits: Limits = field(default_factory=Limits)
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)

    @property
    def extra_seeds(self) -> tuple[int, ...]:
        """The training seeds of retrained models alone: those that follow the largest of ``seeds``."""
        first, extra = max(self.seeds) + 1, (self.references or 0) - len(self.seeds)
        return tuple(range(first, first + extra))

    def placed(self, problem: Problem, key: str) -> Problem:
        """``problem`` at the place of ``key``, or of the nearest part around it; as it is if it has a place."""
        place = nearest(self.places, key)
        if problem.file is not None or place is None:
            return problem
        return replace(problem, file=place.file, line=place.line, column=place.column)


def nearest(places: Mapping[str, Place], key: str) -> Place | None:
    """The place of ``key``, or of the nearest part around it that was written."""
    while key and key not in places:
        key = key.rpartition(".")[0]
    return places.get(key)


# ------------------------------------------------------------------- as written, where that is different


@dataclass(frozen=True)
class TopKeys:
    """The plain keys of a scenario's top level."""

    name: str
    seeds: tuple[Seed, ...]
    seed: Seed = 0
    timeline: Literal["independent", "sequential"] = "independent"
    horizons: tuple[Annotated[int, Ge(1)], ...] = ()
    references: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True)
class TrainingKeys:
    """``training`` as written: one flat mapping (see `Training` and `LocalTraining`)."""

    rounds: Annotated[int, Ge(1)]
    participation: Annotated[float, Gt(0), Le(1)] = 1.0
    local_epochs: Annotated[int, Ge(1)] = 1
    batch_size: Annotated[int, Ge(1)] = 32
    optimizer: Literal["sgd", "adam", "adamw", "adahessian"] = "adam"
    lr: Annotated[float, Gt(0)] = 2e-3
    momentum: Annotated[float, Ge(0), Le(1)] = 0.9
    weight_decay: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Gt(0)] | None = None
    hessian_power: Annotated[float, Ge(0), Le(1)] = 1.0
    augmentation: Augmentation = "none"
    micro_batch: Annotated[int, Ge(1)] | None = None
    precision: Precision = "float32"
    stack: Annotated[int, Ge(1)] = 1

    def training(self) -> Training:
        """The same in the words of `fedunlearn.core`."""
        local = LocalTraining(
            epochs=self.local_epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            clip=self.clip,
            hessian_power=self.hessian_power,
            augmentation=self.augmentation,
            micro_batch=self.micro_batch,
            precision=self.precision,
            stack=self.stack,
        )
        return Training(self.rounds, local, self.participation)


def as_written(training: Training) -> TrainingKeys:
    """``training`` as the YAML writes it."""
    local = training.local
    return TrainingKeys(
        rounds=training.rounds,
        participation=training.participation,
        local_epochs=local.epochs,
        batch_size=local.batch_size,
        optimizer=local.optimizer,
        lr=local.lr,
        momentum=local.momentum,
        weight_decay=local.weight_decay,
        clip=local.clip,
        hessian_power=local.hessian_power,
        augmentation=local.augmentation,
        micro_batch=local.micro_batch,
        precision=local.precision,
        stack=local.stack,
    )
