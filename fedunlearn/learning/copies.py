"""Slightly changed copies of images: what a lookup table of exact images, or a patch on outputs, does not know.

There are `NUMBER` copies of each image:

0. shifted by one pixel or voxel along every spatial axis, either way; what moves in at the edge repeats it;
1. mirrored along the last axis;
2. under Gaussian noise, whose standard deviation is `NOISE` of the image's own range (brightest minus darkest).

A label map moves with its volume, voxels that nobody says the class of too; what comes beside an image stays. What is
drawn depends on an image's row number and on the copy's number alone: not on a seed of the run, other images, batches
or hospitals.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fedunlearn.core import Batch, derive

NUMBER = 3
"""Copies of each image."""
NOISE = 0.02
"""Standard deviation of the noise, as a share of the image's own range."""


def copied(batch: Batch, number: int) -> Batch:
    """The copies number ``number`` of a batch's images, with their targets; what else travels with them stays.

    Args:
        batch: images (B, C, *spatial), and their targets.
        number: which copy, 0, 1, …, `NUMBER` - 1.
    """
    return (_shifted, _mirrored, _noisy)[number](batch)


def _shifted(batch: Batch) -> Batch:
    image, targets, seeds = batch.image, batch.targets, torch.tensor(_seeds(batch, 0))
    for axis in range(image.dim() - 2):
        forward = ((seeds >> axis) % 2 == 1).to(image.device)
        image = _moved(image, 2 + axis, forward)
        targets = _moved(targets, 1 + axis, forward) if _is_map(batch) else targets
    return replace(batch.showing(image), targets=targets)


def _mirrored(batch: Batch) -> Batch:
    if batch.image.dim() < 3:  # a table's numbers have no sides
        return batch
    targets = batch.targets.flip(-1) if _is_map(batch) else batch.targets
    return replace(batch.showing(batch.image.flip(-1)), targets=targets)


def _noisy(batch: Batch) -> Batch:
    image = batch.image
    noise, generator = torch.empty(image.shape), torch.Generator()
    for own, seed in zip(noise, _seeds(batch, 2), strict=True):
        own.normal_(generator=generator.manual_seed(seed))
    least, most = image.flatten(1).aminmax(dim=1)
    scale = (NOISE * (most - least)).view(-1, *[1] * (image.dim() - 1))
    return batch.showing(image + scale * noise.to(image))


def _is_map(batch: Batch) -> bool:
    """Whether targets lie on the image's grid and move with it."""
    return batch.targets.dim() == batch.image.dim() - 1 > 1


def _seeds(batch: Batch, number: int) -> list[int]:
    """What each image's copy is drawn by."""
    return [derive(0, "copies", row, number) for row in batch.rows.tolist()]


def _moved(values: Tensor, axis: int, forward: Tensor) -> Tensor:
    """``values`` (B, ...) one step further along ``axis`` where ``forward`` (B,) says so, else one step back."""
    rest = values.shape[axis] - 1
    up = torch.cat([values.narrow(axis, 0, 1), values.narrow(axis, 0, rest)], axis)
    down = torch.cat([values.narrow(axis, 1, rest), values.narrow(axis, rest, 1)], axis)
    return torch.where(forward.view(-1, *[1] * (values.dim() - 1)), up, down)
