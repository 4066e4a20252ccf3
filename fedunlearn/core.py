"""The vocabulary every other module speaks: sites, asks and replies, needs, cases, errors.

Read this file first. It holds words only: no training, no files, no network.

Errors (exit codes of the command line in brackets)::

    FedunlearnError
    ├── InputError [2]        what the user gave cannot be used; carries every problem found, nothing was run
    ├── RunError [1]          the run could not go on
    │   └── SiteError [1]     a hospital failed, hung or answered something that cannot be used
    └── UndeclaredNeed [1]    a strategy touched what it had not declared

Being told to stop is no error: `Interrupted` [128 + the signal's number] is a KeyboardInterrupt.
"""

from __future__ import annotations

import enum
import hashlib
import signal
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from annotated_types import Ge, Gt

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SiteId = str
RequestId = str
PatientId = str
SERVER: SiteId = "server"
"""Under this id, which no hospital may have, a procedure asks the server itself for work on images that it owns, or
that training left with it and that come with the task."""

IGNORED = 255
"""In label maps, of voxels that nobody says the class of. It is no class: they count in no loss of labels and in no
measure but the distance between surfaces, where they are background to model and labels alike."""

Weights = Mapping[str, "Tensor"]
"""A model's state by name, parameters and buffers, on the CPU. Never changed in place."""

T = TypeVar("T")


# ---------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Select:
    """Which images of a hospital a task is about.

    Attributes:
        only: just the images this request names; None for all of them.
        without: leave out the images these requests name, at every hospital that holds them.
        split: the part of the hospital's images, by patient; "proxy" are those it gave to the server, and the only
            ones that `SERVER` has.
    """

    only: RequestId | None = None
    without: tuple[RequestId, ...] = ()
    split: Literal["train", "val", "test", "proxy", "all"] = "train"


@dataclass(frozen=True)
class Images:
    """Some images of one hospital.

    Attributes:
        pixels: (N, C, *spatial) uint8, or float32 already scaled.
        targets: (N, ...) int64; one class per image, or a label map per volume (`IGNORED` here and there); -1
            throughout at the server.
        rows: (N,) int64, the images' row numbers in ``sites.parquet``.
        extra: anything else an objective asks of each image, by name, each (N, ...): a teacher's outputs, say.
    """

    pixels: Tensor
    targets: Tensor
    rows: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.rows.shape[0])


@dataclass(frozen=True)
class Batch:
    """What an objective sees at one step: ``inputs`` (B, C, *spatial) float32, targets (B, ...), rows (B,), extra.

    ``step`` counts the steps of a training from 0, so that an objective can draw anew at each; elsewhere it is 0.
    """

    inputs: Tensor
    targets: Tensor
    rows: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0


class Network(Protocol):
    """A network that a worker has; weights are copied in and out (`fedunlearn.learning.models.Network`)."""

    module: torch.nn.Module
    device: torch.device
    layout: Layout
    kind: str
    patch: tuple[int, int, int] | None
    passes: int

    def load(self, weights: Weights) -> None:
        """Copy ``weights`` in."""
        ...

    def read(self) -> dict[str, Tensor]:
        """A copy of the weights, on the CPU."""
        ...

    def parameters(self) -> dict[str, Tensor]:
        """The trained tensors themselves, by name."""
        ...


class Local(Protocol):
    """A hospital's side of a task, or the server's own: a name, images, a network to work on."""

    @property
    def site(self) -> SiteId:
        """The hospital's name, or `SERVER`."""
        ...

    @property
    def network(self) -> Network:
        """The worker's network; its weights are whatever the last task left there."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes of the scenario's data."""
        ...

    def images(self, select: Select) -> Images:
        """The images that ``select`` names, in the order of ``sites.parquet``, on the network's device."""
        ...


# -------------------------------------------------------------------------------------- ask and reply


@dataclass(frozen=True)
class Reply:
    """A hospital's answer to a task.

    Attributes:
        weights: the model after local work, same names, shapes and dtypes as sent; None if the task returns none.
        count: how many images the answer speaks for (n_k, the weight of its average).
        arrays: anything else, by name.
    """

    weights: Weights | None
    count: int
    arrays: Mapping[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """The client half: a frozen dataclass whose fields (values, arrays, other such values) cross a wire."""

    def __call__(self, local: Local) -> Reply:
        """Do the work at one hospital. Same task, same images: same bits."""
        ...


Asks = Mapping[SiteId, Task]
"""One round. A `collections.ChainMap` is several rounds at once, one in each of its maps, of models that are beside the
one to be returned: parts of it, or others that it is made with."""
Replies = Mapping[SiteId, Reply]
Procedure = Generator[Asks, Replies, T]
"""The server half: yields whom to ask what, receives the replies in the order asked, returns its result."""


# ------------------------------------------------------------------------------------------ training


Augmentation = Literal["none", "flips_crops", "trivial_augment"]
"""How the images of every training batch are changed at random (`fedunlearn.learning.augmentation`)."""
Precision = Literal["float32", "tf32", "bfloat16"]
"""What a network computes in while it trains (`fedunlearn.learning.local.fit`); its weights are float32 in any case."""


@dataclass(frozen=True)
class LocalTraining:
    """One hospital's work in one round.

    Attributes:
        epochs: passes over the images (E).
        batch_size: images per step (B).
        optimizer: made anew every round, so no hospital keeps optimizer state that remembers.
        lr: learning rate (eta).
        momentum: of SGD; ignored by the others.
        weight_decay: L2 coefficient (decoupled for adamw and adahessian).
        clip: largest L2 norm of a step's gradient; None for no limit.
        hessian_power: power of the curvature that divides a step of adahessian; ignored by the others.
        augmentation: random changes of every batch, of 2D images only.
        micro_batch: at most so many images of a batch pass through the network at once, and a step is still one of
            the batch (`fedunlearn.learning.local.fit`); None for the whole batch.
        precision: tf32 and bfloat16 are for GPUs, and for training alone (`fedunlearn.learning.local.fit`): answers,
            importances and gradients that a method asks for are float32's. With bfloat16, what layers keep for
            gradients takes half the memory.
    """

    epochs: int = 1
    batch_size: int = 32
    optimizer: Literal["sgd", "adam", "adamw", "adahessian"] = "adam"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float | None = None
    hessian_power: float = 1.0
    augmentation: Augmentation = "none"
    micro_batch: int | None = None
    precision: Precision = "float32"


@dataclass(frozen=True)
class Training:
    """Federated training: ``rounds`` rounds of ``local`` work, every hospital in every round."""

    rounds: int
    local: LocalTraining


@dataclass(frozen=True)
class Layout:
    """What is where in a model's weights.

    Attributes:
        parameters: trained tensors, in the order of the forward pass.
        buffers: the rest (BatchNorm statistics, counters).
        first: the weight (not bias) of the first convolution, or of the first linear layer.
        head: the parameters of the last layer.
        decoder: those that turn features into scores; of a network without such a part, the head.
    """

    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    first: str
    head: tuple[str, ...]
    decoder: tuple[str, ...]

    @property
    def encoder(self) -> tuple[str, ...]:
        """The parameters that make features: all but the decoder's."""
        return tuple(name for name in self.parameters if name not in self.decoder)


# ------------------------------------------------------------------------------------------ strategy


class Leaver(enum.Enum):
    """Whether the data to forget may still be used while forgetting."""

    GONE = "gone"
    ONLINE = "online"


class Granularity(enum.Enum):
    """What a strategy can forget."""

    PATIENTS = "patients"
    SITE = "site"


class Guarantee(enum.Enum):
    """What a strategy promises about its result.

    EXACT: the weights of training without the data, bit for bit. CERTIFIED: within a stated (epsilon, delta) of them,
    under a stated assumption. EMPIRICAL: nothing but what scores show. SUPPRESSION: the weights still hold the data,
    and what is added to them hides it.
    """

    EXACT = "exact"
    CERTIFIED = "certified"
    EMPIRICAL = "empirical"
    SUPPRESSION = "suppression"


@dataclass(frozen=True)
class Search:
    """Where ``tune`` looks for a hyper-parameter's value, written beside its range in its annotation.

    Attributes:
        low, high: the ends, both included; None for a choice, all of whose values are tried.
        log: look evenly over orders of magnitude.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Recovery:
    """How a model is repaired after forgetting: ordinary rounds of training on what is retained.

    Attributes:
        rounds: rounds of federated averaging, R; 0 for none.
        local_epochs: passes over the retained images in each, E; None for as many as in training.
        lr: learning rate, eta; None for training's.
    """

    rounds: Annotated[int, Ge(0), Search(0, 4)] = 2
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None


@dataclass(frozen=True)
class Every:
    """Every k-th round: 0, k, 2k, … (rounds count from 0)."""

    k: int

    def __contains__(self, round: int) -> bool:
        return round % self.k == 0


@dataclass(frozen=True)
class Last:
    """The last round before the request, whatever its number: any round may turn out to be that one."""

    def __contains__(self, round: int) -> bool:
        return True


@dataclass(frozen=True)
class Seen:
    """One round of training as the server saw it.

    Attributes:
        sent: the trained tensors of the global weights that it started from.
        updates: every hospital's update of these (local - global).
        images: how many images each trained on.
    """

    sent: Weights
    updates: Mapping[SiteId, Weights]
    images: Mapping[SiteId, int]


class Choice(Protocol):
    """Chooses while training goes on, when nobody knows who will leave, which updates the server keeps.

    A frozen dataclass of settings.
    """

    @property
    def window(self) -> int:
        """Of so many rounds it chooses at once, when the last of them is over: 0 to window - 1, then the next."""
        ...

    def chosen(self, first: int, rounds: Sequence[Seen]) -> Sequence[Sequence[SiteId]]:
        """For each of ``rounds``, the first of which has number ``first``: the hospitals whose updates are kept.

        The last window is shorter where training ends, or a request comes, before it is over.
        """
        ...


Cumulative = Literal["updates", "distances"]
"""What a server adds up over rounds for each hospital: its updates, or how far its model is from the initial weights,
weight by weight and without sign, sum_t |w_k^t - w^0|."""


@dataclass(frozen=True)
class Needs:
    """What a strategy uses beyond the original weights, declared once.

    Attributes:
        updates: every hospital's update (local - global) of these rounds, or those that a `Choice` chose.
        cumulative: every hospital's sum over all rounds, and of what.
        checkpoints: the global weights that these rounds started from.
        proxy_examples: the fewest unlabelled images that the server must own; 0 if it is not asked to work on any.
        leaver: ONLINE if the images to forget are used once more.
        stayers: whether the hospitals that remain do any work.
        class_labels: whether targets must be one class per image.
        each_reply: whether the server must see each hospital's reply; else the sum over those asked is enough.
        preparation: whether it trains in a way of its own, before any request comes, and keeps what it needs
            (`Preparing`).
    """

    updates: Every | Last | Choice | None = None
    cumulative: Cumulative | None = None
    checkpoints: Every | None = None
    proxy_examples: int = 0
    leaver: Leaver = Leaver.GONE
    stayers: bool = True
    class_labels: bool = False
    each_reply: bool = False
    preparation: bool = False

    @property
    def secure_aggregation(self) -> bool:
        """Whether it works where the server only ever sees sums over the hospitals asked, in training too.

        Of a single hospital that is asked alone, the sum is its own reply.
        """
        return not (self.each_reply or self.updates is not None or self.cumulative is not None)


class History(Protocol):
    """What the server kept of training, as far as the strategy declared it."""

    def update(self, round: int, site: SiteId) -> Weights:
        """``site``'s update of ``round``: its weights minus the weights it was sent."""
        ...

    def chosen(self, round: int) -> tuple[SiteId, ...]:
        """The hospitals whose update of ``round`` the declared `Choice` kept, in its order."""
        ...

    def cumulative(self, site: SiteId) -> Weights:
        """The sum over all rounds of what the strategy declared, for ``site``."""
        ...

    def checkpoint(self, round: int) -> Weights:
        """The global weights that ``round`` started from."""
        ...

    def prepared(self, name: str) -> Weights:
        """What the strategy's own training kept under ``name`` (`Preparing.prepare`)."""
        ...


@dataclass(frozen=True)
class Course:
    """Training, as a strategy that has a way of its own for it meets it.

    Attributes:
        seed: the training seed; every random draw derives from it by `derive`.
        rounds: how many rounds to train.
        initial: where to start.
        training: how the scenario trains.
        layout: what is where in the weights.
        roster: every hospital that was there at first, in scenario order: whatever the strategy derives from
            these stays as it is when one of them leaves.
        sites: the hospitals that take part, in scenario order.
        select: what may be trained on.
        images: how many images that is at each hospital of ``sites``.
    """

    seed: int
    rounds: int
    initial: Weights
    training: Training
    layout: Layout
    roster: tuple[SiteId, ...]
    sites: tuple[SiteId, ...]
    select: Select
    images: Mapping[SiteId, int]


@dataclass(frozen=True)
class Case:
    """One request as a strategy meets it.

    Attributes:
        request: the request's id.
        seed: the training seed; every random draw derives from it by `derive`.
        rounds: how many rounds the original weights were trained for.
        initial: the weights training started from.
        original: the weights that must forget; of a strategy that prepares, those of its own training.
        training: how they were trained.
        layout: what is where in the weights.
        roster: every hospital that was there at first, in scenario order.
        sites: the hospitals that remain, in scenario order: the only ones a whole-site request lets one ask
            (the leaver too, where the strategy declares ONLINE).
        leaver: the hospital that leaves as a whole, or None.
        holders: the hospitals that hold images to forget, in scenario order.
        kept: training images each remaining hospital retains.
        lost: training images to forget at each holder.
        retain: selects what may still be trained on.
        forget: selects what is to be forgotten.
        history: what was kept of training, as declared.
    """

    request: RequestId
    seed: int
    rounds: int
    initial: Weights
    original: Weights
    training: Training
    layout: Layout
    roster: tuple[SiteId, ...]
    sites: tuple[SiteId, ...]
    leaver: SiteId | None
    holders: tuple[SiteId, ...]
    kept: Mapping[SiteId, int]
    lost: Mapping[SiteId, int]
    retain: Select
    forget: Select
    history: History

    @property
    def course(self) -> Course:
        """The training that should have been: on what is retained, with the hospitals that remain."""
        return Course(
            self.seed,
            self.rounds,
            self.initial,
            self.training,
            self.layout,
            self.roster,
            self.sites,
            self.retain,
            self.kept,
        )

    @property
    def proxy(self) -> Select:
        """Selects what `SERVER` may still use of its unlabelled images: whoever is forgotten takes theirs back."""
        return replace(self.retain, split="proxy")


class Strategy(Protocol):
    """An unlearning method: a frozen dataclass whose fields are its hyper-parameters and its YAML."""

    guarantee: ClassVar[Guarantee]
    granularity: ClassVar[frozenset[Granularity]]

    @property
    def name(self) -> str:
        """The name it has in a scenario."""
        ...

    @property
    def needs(self) -> Needs:
        """What it uses; it may depend on its hyper-parameters."""
        ...

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """Turn the original weights into unlearned ones."""
        ...


@runtime_checkable
class Preparing(Strategy, Protocol):
    """A strategy that needs training itself to be done in its own way (`Needs.preparation`).

    EXACT means for it: ``unlearn(case)`` is the ``model`` of ``prepare(case.course)``, bit for bit. Scores compare it
    with the scenario's retrained reference like any other: they show what its way of training costs as well.
    """

    def prepare(self, course: Course) -> Procedure[Mapping[str, Weights]]:
        """Train; return what the server keeps by name: ``model``, the trained weights, and whatever else it needs."""
        ...


# --------------------------------------------------------------------------------------------- seeds


def derive(seed: int, *purpose: str | int) -> int:
    """A seed of 63 bits for one purpose, the same on every machine and in every process.

    The purpose never names a procedure: training and retraining draw the same numbers for the same
    hospital and round, so that retraining without a request is training, bit for bit.
    """
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


# -------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with the input, with its place where it has one (lines and columns count from 1)."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" if place else self.message


class FedunlearnError(Exception):
    """The root of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class InputError(FedunlearnError):
    """What was given cannot be used. Every problem that could be found is in ``problems``; nothing was run.

    Its text has so many lines at most that a terminal still shows the first.
    """

    exit_code = 2
    SHOWN: ClassVar[int] = 38
    """Problems that the text tells; of the others, how many there are."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = (Problem(problems),) if isinstance(problems, str) else tuple(problems)
        left = len(self.problems) - self.SHOWN
        told = [str(problem) for problem in self.problems[: self.SHOWN]]
        super().__init__("\n".join([*told, *([f"and {left:,} more problems"] if left > 0 else [])]))


class RunError(FedunlearnError):
    """The run could not go on."""


class SiteError(RunError):
    """A hospital failed: it raised, did not answer in time, or answered something that cannot be used."""

    def __init__(
        self, site: SiteId, reason: str, procedure: str = "", round: int | None = None, machine: str = ""
    ) -> None:
        self.site, self.reason, self.procedure, self.round = site, reason, procedure, round
        self.machine = machine
        where = f" in {procedure}" if procedure else ""
        when = f", round {round + 1}" if round is not None else ""
        place = f" on machine {machine!r}" if machine else ""
        who = "the server" if site == SERVER else f"hospital {site!r}"
        super().__init__(f"{who} failed{where}{when}{place}: {reason}")


class UndeclaredNeed(FedunlearnError):
    """A strategy used something its `needs` do not declare."""


class Interrupted(KeyboardInterrupt):
    """A signal told the process to stop (`fedunlearn.interrupts`).

    No `FedunlearnError`, so that nothing that deals with errors takes it for one: it unwinds whatever runs.

    Attributes:
        signal: which one.
        exit_code: what the process ends with, as a shell would say it: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, number: int, text: str = "") -> None:
        self.signal = signal.Signals(number)
        self.exit_code = 128 + number
        super().__init__(text or f"interrupted ({self.signal.name})")
