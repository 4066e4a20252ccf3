"""Several trainings at once, on a `fedunlearn.learning.models.stacked.Stack`: seeds, references, shadows, hospitals.

It is the loop of `fedunlearn.learning.local.fit` with the networks of a stack side by side, and for each of them the
same images in the same order, the same loss and the same optimizer. What differs is how sums are rounded, and that
follows from the width of the stack alone: a stack with fewer trainings than places is filled up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

import torch
from torch import Tensor, nn

from fedunlearn.core import Batch, Images, LocalTraining, Network, Weights
from fedunlearn.learning.augmentation import augmenter
from fedunlearn.learning.kinds import Objective, learnt
from fedunlearn.learning.local import optimizer, scaled
from fedunlearn.learning.models.stacked import Stack


@dataclass(frozen=True)
class Member:
    """One training of a stack.

    Attributes:
        weights: where it starts.
        images: what it trains on.
        seed: of what it draws.
    """

    weights: Weights
    images: Images
    seed: int


def fit_together(
    network: Network, members: Sequence[Member], training: LocalTraining
) -> list[dict[str, Tensor]]:
    """Train several networks like ``network`` at once and return the new weights of each.

    Each minimises the kind's own objective. ``training`` has no precision but float32, no micro-batches, and not
    AdaHessian, whose curvature is of one loss.

    Args:
        network: one like those to be trained; it keeps their stack, and counts the passes.
        members: ``training.stack`` at the most; all have as many images.
        training: how each is trained.

    Raises:
        ValueError: there are too many, or their images differ in number.
    """
    sizes = {len(member.images) for member in members}
    if len(members) > training.stack or len(sizes) != 1:
        raise ValueError(
            f"{len(members)} trainings on {sorted(sizes)} images are no stack of {training.stack}"
        )
    if sizes == {0}:
        return [{name: value.clone() for name, value in member.weights.items()} for member in members]
    # Whose places nobody has are taken by the first once more: what is there matters to nobody else.
    filled = [*members, *[members[0]] * (training.stack - len(members))]
    stack, objective = network.stack(training.stack), learnt(network.kind).objective
    stack.load([member.weights for member in filled])
    parameters = list(stack.parameters.values())
    steps = optimizer(parameters, training, members[0].seed)
    for batch in _batches(filled, training):
        for parameter in parameters:
            parameter.grad = None
        _loss(stack, objective, batch).backward()  # type: ignore[no-untyped-call]  # torch says nothing of its types
        if training.clip is not None:
            _clip(parameters, training.clip)
        steps.step()
    network.passes += training.epochs * sum(len(member.images) for member in members)
    return [stack.read(place) for place in range(len(members))]


def _batches(members: Sequence[Member], training: LocalTraining) -> Iterator[Batch]:
    """What all are shown step by step, each what `fedunlearn.learning.local.fit` shows it.

    Inputs are (B, members, C, *spatial); all else has the members one after the other.
    """
    generators = [torch.Generator().manual_seed(member.seed) for member in members]
    changes = [augmenter(training.augmentation, member.seed) for member in members]
    every, numbers = [member.images for member in members], count()
    for _ in range(training.epochs):
        orders = [torch.randperm(len(of), generator=g) for of, g in zip(every, generators, strict=True)]
        for picks in zip(*(torch.split(order, training.batch_size) for order in orders), strict=True):
            shown = [of.pixels.index_select(0, pick) for of, pick in zip(every, picks, strict=True)]
            shown = [
                x if change is None else change(scaled(x)) for x, change in zip(shown, changes, strict=True)
            ]
            targets = torch.cat(
                [of.targets.index_select(0, pick) for of, pick in zip(every, picks, strict=True)]
            )
            rows = torch.cat([of.rows.index_select(0, pick) for of, pick in zip(every, picks, strict=True)])
            yield Batch(scaled(torch.stack(shown, 1)), targets, rows, step=next(numbers))


def _loss(stack: Stack, objective: Objective, batch: Batch) -> Tensor:
    """The sum of all networks' losses: none has a gradient for another's weights.

    An objective of a kind with an answer for each image is the mean over images of what each one's answer costs, and so
    the mean over networks of theirs.
    """
    outputs = stack(batch.image).flatten(0, 1)
    return objective(cast(nn.Module, _Says(outputs)), batch) * stack.width


@dataclass(frozen=True)
class _Says:
    """In the place of a network, of which an objective asks for nothing but its outputs."""

    outputs: Tensor

    def __call__(self, inputs: object) -> Tensor:
        return self.outputs


@torch.no_grad()
def _clip(parameters: Sequence[Tensor], most: float) -> None:
    """Shorten each network's gradient to an L2 norm of ``most``, as `torch.nn.utils.clip_grad_norm_` does."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    factors = (most / (norms + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(factors.view(-1, *[1] * (g.dim() - 1)))
