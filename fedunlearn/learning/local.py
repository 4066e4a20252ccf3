"""The one local training loop, and the other things a hospital does with a network: gradients and outputs.

A client-side method is an objective, a choice of images and maybe a constraint, handed to `fit`; it is never another
loop. Plain training of several networks at once is the same loop over a stack (`fedunlearn.learning.stacking`).
Everything random comes from the seed a task carries; the global RNG is not touched.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fedunlearn.core import (
    IMAGE,
    Batch,
    Images,
    Inputs,
    Local,
    LocalTraining,
    Network,
    Precision,
    Weights,
    derive,
)
from fedunlearn.learning.augmentation import augmenter
from fedunlearn.learning.curvature import AdaHessian
from fedunlearn.learning.devices import placed, rounding
from fedunlearn.learning.kinds import Objective, Signal, learnt
from fedunlearn.learning.models import features
from fedunlearn.learning.optimizers import SGD, Adam, Optimizer
from fedunlearn.learning.patches import cropper, slid, tiles


class Constraint(Protocol):
    """Puts parameters back where they must be, in place, after every step (SalUn's mask, PGA's ball)."""

    def __call__(self, parameters: Mapping[str, Tensor]) -> None:
        """Change ``parameters`` in place; gradients are off."""
        ...


def fit(
    local: Local,
    weights: Weights,
    images: Images,
    training: LocalTraining,
    seed: int,
    objective: Objective | None = None,
    constraint: Constraint | None = None,
) -> dict[str, Tensor]:
    """Train from ``weights`` on ``images`` and return the new weights.

    Every epoch goes through all images in a fresh order drawn from ``seed``; the last batch may be smaller. The
    optimizer starts empty.

    With ``training.micro_batch`` a batch passes through the network piece by piece: its loss is the mean of the pieces'
    losses, each counted by its images, and so are its gradient and curvature. Of a loss that is a mean over images,
    nothing changes but rounding. Whatever looks at a batch as a whole is shown pieces instead: BatchNorm's statistics,
    and the ceiling of `fedunlearn.learning.objectives.Signed`.

    With ``training.precision`` bfloat16 the network's layers compute in bfloat16 where `torch.autocast` says so, and
    with tf32 a GPU rounds what convolutions and matrix products multiply to 10 bits. The network's outputs, all that is
    made of them, weights, gradients and the optimizer's state are float32. Nothing else here heeds a precision.

    Args:
        local: whose network works.
        weights: where to start.
        images: what to train on; none at all returns the weights as they came.
        training: epochs, batch size, optimizer, augmentation, micro-batches, precision.
        seed: of the order of images, and of what the optimizer, the augmentation and the choice of patches draw.
        objective: what to minimise; the kind's own by default.
        constraint: applied after every step; its tensors are put on the network's device once.
    """
    network = local.network
    network.load(weights)
    if len(images) == 0:
        return network.read()
    loss = objective or learnt(network.kind).objective
    parameters = network.parameters()
    _set(network.module, training=True)
    steps = optimizer(list(parameters.values()), training, seed)
    backward = steps.backward if isinstance(steps, AdaHessian) else _backward
    generator = torch.Generator().manual_seed(seed)
    crop, augment = cropper(network.patch, seed), augmenter(training.augmentation, seed)
    constraint, numbers = placed(constraint, network.device), count()
    with rounding(training.precision):
        for _ in range(training.epochs):
            order = torch.randperm(len(images), generator=generator)
            for batch in map(crop, batches(images, training.batch_size, order)):
                batch = replace(batch, step=next(numbers))
                if augment is not None:
                    batch = batch.showing(augment(batch.image))
                for parameter in parameters.values():
                    parameter.grad = None
                backward(
                    _loss(network, loss, piece, training.precision) * share
                    for piece, share in pieces(batch, training.micro_batch)
                )
                if training.clip is not None:
                    torch.nn.utils.clip_grad_norm_(parameters.values(), training.clip)
                steps.step()
                if constraint is not None:
                    with torch.no_grad():
                        constraint(parameters)
    return network.read()


def gradient(
    local: Local,
    weights: Weights,
    images: Images,
    objective: Objective | None = None,
    batch_size: int | None = None,
) -> dict[str, Tensor]:
    """The gradient of the mean loss over ``images`` at ``weights``: one tensor for every parameter.

    Of a network that trains on patches, the mean over `tiles` that cover each volume.
    """
    network = local.network
    network.load(weights)
    loss = objective or learnt(network.kind).objective
    module, parameters = _set(network.module, training=False), network.parameters()
    total = {name: torch.zeros_like(p, device="cpu") for name, p in parameters.items()}
    for batch in batches(images, batch_size or at_once(images)):
        share, parts = len(batch.rows) / len(images), tiles(batch, network.patch)
        for part in parts:
            found = torch.autograd.grad(loss(module, part), list(parameters.values()))
            for name, g in zip(parameters, found, strict=True):
                total[name].add_(g.cpu(), alpha=share / len(parts))
    return total


def load_each_gradient() -> None:
    """Import what `each_gradient` makes torch import when it is first called: its compiler, a second of work."""
    importlib.import_module("torch._dynamo")


def each_gradient(
    local: Local, weights: Weights, images: Images, objective: Objective | None = None, batch_size: int = 16
) -> Iterator[dict[str, Tensor]]:
    """The gradient of each image's own loss at ``weights``, by batches: (B, ...) for every parameter.

    Of a network that trains on patches, each volume's loss is the mean over `tiles` that cover it.
    """
    network = local.network
    network.load(weights)
    loss = objective or learnt(network.kind).objective
    module, parameters = _set(network.module, training=False), network.parameters()
    values = {name: p.detach() for name, p in parameters.items()}

    def of_one(at: Mapping[str, Tensor], image: Mapping[str, Any]) -> Tensor:
        return loss(_At(module, at), Batch(**image).at(lambda x: x[None]))

    of_each = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0))
    for batch in batches(images, min(batch_size, at_once(images))):
        before = network.passes
        first, *others = tiles(batch, network.patch)
        total = of_each(values, _fields(first))
        for part in others:
            more = of_each(values, _fields(part))
            total = {name: g + more[name] for name, g in total.items()}
        network.passes += (network.passes - before) * (len(batch.rows) - 1)  # vmap shows it one image for all
        yield {name: g / (1 + len(others)) for name, g in total.items()} if others else total


def squared_gradients(
    local: Local, weights: Weights, images: Images, objective: Objective | None = None, batch_size: int = 16
) -> dict[str, Tensor]:
    """The mean over ``images`` of each one's squared gradient at ``weights``: the diagonal empirical Fisher.

    One tensor for every parameter; zeros without images. ``batch_size`` gradients are held at once.
    """
    total = {name: torch.zeros_like(p, device="cpu") for name, p in local.network.parameters().items()}
    for gradients in each_gradient(local, weights, images, objective, batch_size):
        for name, g in gradients.items():
            total[name].add_(g.square().sum(0).cpu(), alpha=1 / len(images))
    return total


def outputs(
    local: Local,
    weights: Weights,
    images: Images,
    batch_size: int | None = None,
    head: str | None = None,
) -> Tensor:
    """The network's outputs for ``images`` in their order, (N, …) float32; with ``head``, its `features` instead.

    A network that trains on patches is slid over each volume; features are the mean over `tiles` that cover it.
    """
    network = local.network
    network.load(weights)
    module = _set(network.module, training=False)

    def shown(batch: Batch) -> Tensor:
        if head is None:
            return slid(module, batch.inputs, network.patch)
        found = [features(module, head, tile.inputs) for tile in tiles(batch, network.patch)]
        return torch.stack(found).mean(0) if len(found) > 1 else found[0]

    with torch.inference_mode():
        parts = [shown(batch).cpu() for batch in batches(images, batch_size or at_once(images))]
    return torch.cat(parts) if parts else torch.empty(0)


def signals(
    local: Local,
    weights: Weights,
    images: Images,
    signal: Signal | None = None,
    batch_size: int | None = None,
    change: Callable[[Batch], Batch] | None = None,
) -> dict[str, Tensor]:
    """The signal of each of ``images``, in their order, by name; no more outputs are held than of one batch.

    Args:
        local: whose network works.
        weights: of the model.
        images: what to show it; none at all have no signal of any name.
        signal: what to keep of outputs; the kind's own by default.
        batch_size: images at once; as many as `at_once` says by default.
        change: what to do to every batch before it is shown.
    """
    network = local.network
    network.load(weights)
    module, kept = _set(network.module, training=False), signal or learnt(network.kind).signal
    parts = list[Mapping[str, Tensor]]()
    with torch.inference_mode():
        for batch in map(change or _as_it_is, batches(images, batch_size or at_once(images))):
            found = kept(slid(module, batch.inputs, network.patch), batch.targets)
            parts.append({name: values.cpu() for name, values in found.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def at_once(images: Images) -> int:
    """How many of ``images`` to pass through a network at once where their number does not matter.

    256, or fewer large ones: no more than a million pixels or voxels (seven volumes of 48 x 64 x 48).
    """
    return max(1, min(256, 2**20 // images.pixels.shape[2:].numel()))


def batches(images: Images, batch_size: int, order: Tensor | None = None) -> Iterator[Batch]:
    """Cut ``images`` (in ``order``, which is on the CPU) into batches, pixels scaled to [-1, 1]."""
    devices = {values.device for values in _columns(images)}
    orders = {} if order is None else {device: order.to(device) for device in devices}
    for start in range(0, len(images), batch_size):
        here = slice(start, start + batch_size)

        def taken(values: Tensor, here: slice = here) -> Tensor:
            # Not values[order[here]], which copies number by number (docs/performance.md).
            return values.index_select(0, orders[values.device][here]) if orders else values[here]

        image, extra = scaled(taken(images.pixels)), {name: taken(x) for name, x in images.extra.items()}
        beside = {name: taken(x) for name, x in images.companions.items()}
        inputs: Inputs = {IMAGE: image, **beside} if beside else image
        yield Batch(inputs, taken(images.targets), taken(images.rows), extra)


def pieces(batch: Batch, at_most: int | None) -> Iterator[tuple[Batch, float]]:
    """Cut ``batch`` into pieces of ``at_most`` images (None: of all), each with its share of the batch's images."""
    size = len(batch.rows)
    for start in range(0, size, at_most or size):
        here = slice(start, start + (at_most or size))
        piece = batch.at(itemgetter(here))
        yield piece, len(piece.rows) / size


def paced(training: LocalTraining, epochs: int | None = None, lr: float | None = None) -> LocalTraining:
    """``training`` with other epochs and another learning rate, where these are not None."""
    return replace(
        training,
        epochs=training.epochs if epochs is None else epochs,
        lr=training.lr if lr is None else lr,
    )


def scaled(pixels: Tensor) -> Tensor:
    """uint8 pixels 0…255 as float32 in [-1, 1]; float pixels as they are."""
    return pixels.float().div_(127.5).sub_(1.0) if pixels.dtype == torch.uint8 else pixels


def _columns(images: Images) -> Iterator[Tensor]:
    """All that goes with each image."""
    yield from (
        images.pixels,
        images.targets,
        images.rows,
        *images.extra.values(),
        *images.companions.values(),
    )


def _fields(batch: Batch) -> dict[str, Any]:
    """A batch in a form that `torch.func` goes into."""
    return {"inputs": batch.inputs, "targets": batch.targets, "rows": batch.rows, "extra": dict(batch.extra)}


def _set(module: nn.Module, training: bool) -> nn.Module:
    """``module``, in training or in use: torch goes through all of its modules for that, most times for nothing."""
    return module if module.training == training else module.train(training)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def optimizer(parameters: list[Tensor], training: LocalTraining, seed: int) -> Optimizer:
    """What moves ``parameters`` in one task; it starts empty, and draws what it draws from ``seed``."""
    lr, decay = training.lr, training.weight_decay
    match training.optimizer:
        case "sgd":
            return SGD(parameters, lr, training.momentum, decay)
        case "adam":
            return Adam(parameters, lr, decay)
        case "adamw":
            return Adam(parameters, lr, decay, decoupled=True)
        case "adahessian":
            return AdaHessian(parameters, lr, training.hessian_power, decay, derive(seed, "probes"))


def _loss(network: Network, objective: Objective, batch: Batch, precision: Precision) -> Tensor:
    """The objective of ``batch``, layers computing in ``precision``; sums over voxels need outputs in float32."""
    module = network.module
    if precision != "bfloat16":
        return objective(module, batch)
    widened = module.register_forward_hook(lambda module, inputs, outputs: outputs.float())
    with widened, torch.autocast(network.device.type, torch.bfloat16):
        return objective(module, batch)


def _backward(losses: Iterable[Tensor]) -> None:
    """Add up the gradients of ``losses``, each of which is made when the one before is done with."""
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]  # torch says nothing of its types


class _At(nn.Module):
    """A module with other parameters in the place of its own."""

    def __init__(self, module: nn.Module, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.module, self.values = module, parameters

    def forward(self, inputs: Inputs) -> Tensor:
        outputs: Tensor = torch.func.functional_call(self.module, dict(self.values), (inputs,))
        return outputs
