"""What a server and its hospitals exchange: which images, how to train on them, asks and replies."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

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

TOKENS = 1024
"""Numbers that words of a report are given, 0 (no word) among them: fixed, since nothing may be learnt from whoever is
there to find them (`sites.tokens`)."""

Inputs: TypeAlias = "Tensor | Mapping[str, Tensor]"
"""What a network is shown: images (B, C, *spatial) float32; or by name, images (`IMAGE`) and what comes beside each."""
IMAGE = "image"

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
        targets: (N, *places) int64, a class for each place that answers are given for (`Form.places`): one per image,
            a label map per volume, one per finding (`IGNORED` here and there); -1 throughout at the server.
        rows: (N,) int64, the images' row numbers in ``sites.parquet``.
        extra: anything else an objective asks of each image, by name, each (N, ...): a teacher's outputs, say.
        companions: what comes beside each image and is shown to the network with it, by name, each (N, ...): the words
            of a report, int64 in 0 … `TOKENS` - 1, or a table's numbers, float32.
    """

    pixels: Tensor
    targets: Tensor
    rows: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    companions: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def at(self, which: Any) -> Images:
        """Some of them, with all that goes with each: a slice, (n,) their places, or (N,) bool."""
        beside = ({name: x[which] for name, x in of.items()} for of in (self.extra, self.companions))
        return Images(self.pixels[which], self.targets[which], self.rows[which], *beside)


@dataclass(frozen=True)
class Batch:
    """What an objective sees at one step: ``inputs``, what the network is shown, targets (B, ...), rows (B,), extra.

    ``step`` counts the steps of a training from 0, so that an objective can draw anew at each; elsewhere it is 0.
    """

    inputs: Inputs
    targets: Tensor
    rows: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0

    @property
    def image(self) -> Tensor:
        """The images, (B, C, *spatial), whatever comes beside them."""
        return self.inputs[IMAGE] if isinstance(self.inputs, Mapping) else self.inputs

    def showing(self, image: Tensor) -> Batch:
        """The same with other images; what comes beside each stays."""
        beside = self.inputs
        return replace(self, inputs={**beside, IMAGE: image} if isinstance(beside, Mapping) else image)

    def at(self, taken: Callable[[Tensor], Tensor]) -> Batch:
        """Some images of the batch: what ``taken`` takes of inputs, targets, rows and whatever goes with each."""
        inputs = self.inputs
        return Batch(
            {name: taken(x) for name, x in inputs.items()} if isinstance(inputs, Mapping) else taken(inputs),
            taken(self.targets),
            taken(self.rows),
            {name: taken(x) for name, x in self.extra.items()},
            self.step,
        )


@dataclass(frozen=True)
class Companion:
    """What comes beside each image: the shape of one, and whether it is numbers of words (`TOKENS`) or of a table."""

    shape: tuple[int, ...]
    tokens: bool


@dataclass(frozen=True)
class Form:
    """What a network is built for.

    Attributes:
        shape: (C, *spatial) of one image.
        classes: how many an answer chooses among.
        places: what each image has an answer for, and so its targets' shape: () for one class per image, *spatial for
            a class per voxel, (findings,) for several findings that are each absent or present. Outputs are
            (B, classes, *places).
        companions: what comes beside each image, by name.
    """

    shape: tuple[int, ...]
    classes: int
    places: tuple[int, ...] = ()
    companions: Mapping[str, Companion] = field(default_factory=dict)


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

    def stack(self, width: int) -> Any:
        """So many of its kind as one (`fedunlearn.learning.models.stacked.Stack`)."""
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
    """The client half: a frozen dataclass whose fields (values, arrays, other such values) cross a wire.

    One that takes the gradient of each image for itself says so with a class variable, ``each_image = True``: what
    torch loads once for that is no work of the hospital's (`fedunlearn.learning.local.each_gradient`).
    """

    def __call__(self, local: Local) -> Reply:
        """Do the work at one hospital. Same task, same images: same bits."""
        ...


class Stackable(Task, Protocol):
    """A task that may be done as one of a stack: several of a kind at once, at whichever hospitals.

    Those of one training, on as many images each, can be in one. Which others are in it changes no bit of a reply, nor
    does it that there are none.
    """

    @property
    def select(self) -> Select:
        """The images it trains on."""
        ...

    @property
    def training(self) -> LocalTraining:
        """How it trains on them."""
        ...

    @property
    def stack_width(self) -> int:
        """How many are in a stack (`LocalTraining.stack`); 1 if this one is done alone."""
        ...

    @staticmethod
    def together(tasks: Sequence[Any], locals: Sequence[Local]) -> Sequence[Reply]:
        """Do ``tasks``, ``stack_width`` at the most, each at its hospital; all hospitals have one worker's network."""
        ...


Asks = Mapping[SiteId, Task]
"""One round. A `collections.ChainMap` is several rounds at once, one in each of its maps, of models that are beside the
one to be returned: parts of it, or others that it is made with."""
Replies = Mapping[SiteId, Reply]
Procedure = Generator[Asks, Replies, T]
"""The server half: yields whom to ask what, receives the replies in the order asked, returns its result."""


# ------------------------------------------------------------------------------------------ training


Kept = Literal["float32", "bfloat16", "float16"]
"""How the numbers of stored updates are kept: as they are, or in 16 bits (`fedunlearn.federation.rows`)."""
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
        stack: so many trainings of a small network are one, where they are on as many images each
            (`fedunlearn.learning.stacking`); what is rounded otherwise than alone follows from this number, and from
            nothing else. 1 for each by itself.
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
    stack: int = 1


@dataclass(frozen=True)
class Training:
    """Federated training.

    Attributes:
        rounds: how many.
        local: what each hospital that is asked does in each.
        participation: the share of the hospitals that a round asks (`fedunlearn.core.Rota`), in (0, 1].
    """

    rounds: int
    local: LocalTraining
    participation: float = 1.0
