"""A few images in the place of many: made so that a network's gradients on both point the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedunlearn.core import Batch, Images, Local, Weights, derive
from fedunlearn.learning.kinds import learnt
from fedunlearn.learning.local import scaled


def picked(images: Images, share: float, seed: int) -> Images:
    """A random ``share`` of each class of ``images``, rounded up, in the order of classes; pixels scaled, rows -1."""
    generator, found = torch.Generator().manual_seed(seed), list[Tensor]()
    for c in sorted(set(images.targets.tolist())):
        of_class = (images.targets == c).nonzero()[:, 0]
        order = torch.randperm(len(of_class), generator=generator).to(of_class.device)
        found.append(of_class[order[: math.ceil(share * len(of_class))]])
    which = torch.cat(found) if found else images.rows[:0]
    return Images(scaled(images.pixels[which]), images.targets[which], torch.full_like(which, -1))


def matched(
    local: Local,
    weights: Weights,
    real: Images,
    small: Images,
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
) -> Images:
    """``small`` after some steps of SGD on its pixels, towards a small `distance` of gradients at ``weights``.

    Zhao et al., "Dataset Condensation with Gradient Matching", ICLR 2021, arXiv 2006.05929, at one network. In each
    step the gradient of each class of ``small`` is compared with that of a random batch of ``real`` images of the
    class; the distances are added up. Momentum is 0.5. BatchNorm is as in use.

    Args:
        local: whose network works.
        weights: where the gradients are taken.
        real: the images to stand for.
        small: those to change; a class that ``real`` does not have stays as it is.
        steps: how many.
        lr: learning rate of pixels.
        batch_size: real images of each class at once, at most.
        seed: of the choice of real images.
    """
    network, objective = local.network, learnt(local.network.kind).objective
    network.load(weights)
    module, parameters = network.module.eval(), list(network.parameters().values())
    pixels = small.pixels.clone().requires_grad_()
    direction: Tensor | None = None
    classes = sorted({*small.targets.tolist()} & {*real.targets.tolist()})

    def slopes(inputs: Tensor, c: int, create_graph: bool) -> Sequence[Tensor]:
        targets = torch.full((len(inputs),), c, device=inputs.device)
        loss = objective(module, Batch(inputs, targets, torch.full_like(targets, -1)))
        return torch.autograd.grad(loss, parameters, create_graph=create_graph)

    for step in range(steps if classes else 0):
        slope = torch.zeros_like(small.pixels)
        for c in classes:
            of_class = (real.targets == c).nonzero()[:, 0]
            generator = torch.Generator().manual_seed(derive(seed, step, c))
            order = torch.randperm(len(of_class), generator=generator).to(of_class.device)[:batch_size]
            aim = slopes(scaled(real.pixels[of_class[order]]), c, create_graph=False)
            here = slopes(pixels[small.targets == c], c, create_graph=True)
            slope += torch.autograd.grad(distance(here, aim), [pixels])[0]
        direction = slope if direction is None else direction.mul_(0.5).add_(slope)
        with torch.no_grad():
            pixels.add_(direction, alpha=-lr)
    return replace(small, pixels=pixels.detach())


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """One minus the cosine of two gradients' parts for each output of each layer, added up.

    An output's part is a row of the first dimension; tensors of one dimension (biases, scales of norms) do not count.
    """
    rows = [(x.flatten(1), y.flatten(1)) for x, y in zip(a, b, strict=True) if x.dim() > 1]
    return torch.stack(
        [(1 - (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1) + 1e-6)).sum() for x, y in rows]
    ).sum()
