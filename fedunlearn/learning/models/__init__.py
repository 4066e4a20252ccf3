"""Networks by name, and the resident network that a worker copies weights into.

Those for a class of each image or of findings are in `images`, for volumes in `volumes`, for pairs in `fusion`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from fedunlearn.core import IMAGE, Form, Inputs, Layout, Weights
from fedunlearn.learning.models.fusion import LateFusion
from fedunlearn.learning.models.images import Mlp, ResNet18, SmallCNN
from fedunlearn.learning.models.pretrained import Pretrained, start
from fedunlearn.learning.models.stacked import Stack
from fedunlearn.learning.models.volumes import Med3D, UNet3D
from fedunlearn.learning.patches import Patched
from fedunlearn.weights import first_difference

__all__ = [
    "MODELS",
    "LateFusion",
    "Med3D",
    "Mlp",
    "Model",
    "Network",
    "ResNet18",
    "SmallCNN",
    "UNet3D",
    "encoded",
    "features",
    "initial_weights",
    "origin",
]


class Model(Protocol):
    """A model's configuration: a frozen dataclass that builds the network for some images."""

    @property
    def name(self) -> str:
        """The name it has in a scenario."""
        ...

    @property
    def kind(self) -> str:
        """The kind of task it is for (`fedunlearn.learning.kinds`)."""
        ...

    @property
    def dimensions(self) -> tuple[int, ...]:
        """What it takes: 2 for images, 3 for volumes, 0 for rows of a table."""
        ...

    @property
    def smallest(self) -> int:
        """The smallest image edge in pixels it accepts; no matter for rows of a table."""
        ...

    def build(self, form: Form) -> nn.Module:
        """A network for images of a form; its weights come from the global RNG."""
        ...


MODELS: Mapping[str, type[Model]] = {
    "small_cnn": SmallCNN,
    "resnet18": ResNet18,
    "mlp": Mlp,
    "late_fusion": LateFusion,
    "unet3d": UNet3D,
    "med3d_resnet50": Med3D,
}


class Network:
    """A network that stays with its worker; weights are copied in and out, it is never rebuilt.

    Attributes:
        module: the torch module.
        layout: what is where in its weights.
        kind: the kind of task it is for.
        patch: the part of a volume that it is shown at a time (`fedunlearn.learning.patches`); None for all of it.
        device: where it computes.
        passes: how many images it was shown so far, each as often as it was shown; of volumes in patches, patches. To
            train on an image, to differentiate its loss or to ask for its outputs is one pass each. Whoever calls the
            module is counted, so nobody has to count.
    """

    def __init__(self, model: Model, form: Form, device: str = "cpu") -> None:
        _keep_freed_memory()
        self.module = model.build(form).to(device)
        self.device = torch.device(device)
        self.kind = model.kind
        self.patch = model.patch if isinstance(model, Patched) else None
        self.layout = _layout(self.module)
        self.passes = 0
        self.module.register_forward_pre_hook(self._count)
        self._state: dict[str, Tensor] = dict(self.module.state_dict(keep_vars=True))
        self._stack: Stack | None = None

    def _count(self, _module: nn.Module, arguments: tuple[Inputs, ...]) -> None:
        [inputs] = arguments
        self.passes += len(inputs[IMAGE] if isinstance(inputs, Mapping) else inputs)

    def load(self, weights: Weights) -> None:
        """Copy ``weights`` in.

        Raises:
            ValueError: names, shapes or dtypes differ from the network's.
        """
        if difference := first_difference(self._state, weights):
            raise ValueError(f"the weights do not fit the network: {difference}")
        with torch.no_grad():
            for name, own in self._state.items():
                own.copy_(weights[name])

    def read(self) -> dict[str, Tensor]:
        """A copy of the weights, on the CPU."""
        return {name: own.detach().to("cpu", copy=True).contiguous() for name, own in self._state.items()}

    def stack(self, width: int) -> Stack:
        """So many of its kind as one, with weights that mean nothing until some are loaded; the last stays.

        Raises:
            ValueError: its layers cannot be stacked.
        """
        if self._stack is None or self._stack.width != width:
            self._stack = Stack(self.module, width)
        return self._stack

    def parameters(self) -> dict[str, Tensor]:
        """The trained tensors themselves, by name."""
        return {name: self._state[name] for name in self.layout.parameters}


def initial_weights(model: Model, form: Form, seed: int) -> dict[str, Tensor]:
    """The weights that training with ``seed`` starts from; the global RNG is left as it was found.

    Of a model that names a file of pre-trained weights, those where they fit (`fedunlearn.learning.models.pretrained`).

    Raises:
        InputError: that file cannot be used.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = Network(model, form).read()
    return start(model, weights)[0] if isinstance(model, Pretrained) and model.weights else weights


def origin(model: Model, form: Form) -> str:
    """Where training starts, in words: what of a file of pre-trained weights fits; empty if it starts untrained.

    Raises:
        InputError: the file cannot be used.
    """
    if not isinstance(model, Pretrained) or model.weights is None:
        return ""
    with torch.device("meta"):
        untrained = model.build(form).state_dict()
    return start(model, untrained)[1]


def features(module: nn.Module, head: str, inputs: Inputs) -> Tensor:
    """What the last layer is given for ``inputs``, (B, features); of a map or a volume, the mean over positions.

    Args:
        module: the network; it may be training, and gradients flow.
        head: a parameter of the last layer, by name: any of `Layout.head`.
        inputs: as the module takes them.
    """
    given = list[Tensor]()
    layer = module.get_submodule(head.rpartition(".")[0])
    hook = layer.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    try:
        module(inputs)
    finally:
        hook.remove()
    return given[0].flatten(2).mean(2) if given[0].dim() > 2 else given[0]


@contextmanager
def encoded(module: nn.Module, head: str) -> Iterator[list[Tensor]]:
    """Collect what the decoder is given in every pass within, in the order of the forward pass.

    That is the encoder's output; of a U-Net the output of each of its levels, skips and bottleneck; of a network
    without an encoder of its own the input of the last layer. Gradients flow.

    Args:
        module: the network.
        head: a parameter of the last layer, by name: any of `Layout.head`.
    """
    seen = list[Tensor]()
    encoder: nn.Module | None = getattr(module, "encoder", None)
    with ExitStack() as hooks:
        if encoder is None:
            last = module.get_submodule(head.rpartition(".")[0])
            hooks.enter_context(last.register_forward_pre_hook(lambda _, given: seen.append(given[0])))
        else:
            for level in encoder if isinstance(encoder, nn.ModuleList) else [encoder]:
                hooks.enter_context(level.register_forward_hook(lambda _, given, made: seen.append(made)))
        yield seen


def _keep_freed_memory() -> None:
    """Let glibc keep what one step frees for the next one.

    By default it may hand activations back to the kernel after every step, whose pages then fault in again: up to a
    seventh of a step's time. Freeing one block of nearly 32 MB, the most it learns from, makes it keep twice as much
    (mallopt(3), M_MMAP_THRESHOLD). Elsewhere this does nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def _layout(module: nn.Module) -> Layout:
    """What is where; the order is that of registration, which our networks keep equal to the forward pass."""
    shapes = {name: p.dim() for name, p in module.named_parameters()}
    parameters = tuple(shapes)
    first = max(parameters, key=lambda name: min(shapes[name], 3))  # the first of those with most dimensions
    last = parameters[-1].rpartition(".")[0]
    head = tuple(name for name in parameters if name.rpartition(".")[0] == last)
    decoder = tuple(name for name in parameters if name.startswith("decoder."))
    return Layout(
        parameters=parameters,
        buffers=tuple(name for name in module.state_dict() if name not in shapes),
        first=first,
        head=head,
        decoder=decoder or head,
    )
