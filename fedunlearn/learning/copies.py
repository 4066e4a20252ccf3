"""Slightly changed copies of images: what a lookup table of exact images, or a patch on outputs, does not know.

There are `NUMBER` copies of each image:

0. shifted by one pixel or voxel along every spatial axis, either way; what moves in at the edge repeats it;
1. mirrored along the last axis;
2. under Gaussian noise, whose standard deviation is `NOISE` of the image's own range (brightest minus darkest).

A label map moves with its volume, voxels that nobody says the class of too. What is drawn depends on an image's row
number and on the copy's number alone: not on a seed of the run, other images, batches or hospitals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor

from fedunlearn.core import Batch, derive

NUMBER = 3
"""Copies of each image."""
NOISE = 0.02
"""Standard deviation of the noise, as a share of the image's own range."""


def copied(batch: Batch, number: int) -> Batch:
    """The copies number ``number`` of a batch's images, with their targets; what else travels with them stays.

    Args:
        batch: images (B, C, *spatial), and one class each or label maps (B, *spatial).
        number: which copy, 0, 1, …, `NUMBER` - 1.
    """
    return (_shifted, _mirrored, _noisy)[number](batch)


def _shifted(batch: Batch) -> Batch:
    axes = batch.inputs.dim() - 2
    forward = _drawn(batch, 0, lambda rng: torch.randint(2, (axes,), generator=rng)).bool()
    inputs, targets = batch.inputs, batch.targets
    for axis, here in enumerate(forward.to(inputs.device).T):
        inputs = _moved(inputs, 2 + axis, here)
        targets = _moved(targets, 1 + axis, here) if targets.dim() > 1 else targets
    return replace(batch, inputs=inputs, targets=targets)


def _mirrored(batch: Batch) -> Batch:
    targets = batch.targets.flip(-1) if batch.targets.dim() > 1 else batch.targets
    return replace(batch, inputs=batch.inputs.flip(-1), targets=targets)


def _noisy(batch: Batch) -> Batch:
    inputs = batch.inputs
    noise = _drawn(batch, 2, lambda rng: torch.randn(inputs.shape[1:], generator=rng))
    axes = tuple(range(1, inputs.dim()))
    scale = NOISE * (inputs.amax(axes, keepdim=True) - inputs.amin(axes, keepdim=True))
    return replace(batch, inputs=inputs + scale * noise.to(inputs))


def _drawn(batch: Batch, number: int, draw: Callable[[Generator], Tensor]) -> Tensor:
    """What is drawn for each image by itself, (B, ...)."""
    seeds = (derive(0, "copies", row, number) for row in batch.rows.tolist())
    return torch.stack([draw(torch.Generator().manual_seed(seed)) for seed in seeds])


def _moved(values: Tensor, axis: int, forward: Tensor) -> Tensor:
    """``values`` (B, ...) one step further along ``axis`` where ``forward`` (B,) says so, else one step back."""
    length = values.shape[axis]
    places = torch.arange(length, device=values.device)
    up, down = (values.index_select(axis, (places + step).clamp(0, length - 1)) for step in (-1, 1))
    return torch.where(forward.view(-1, *[1] * (values.dim() - 1)), up, down)
