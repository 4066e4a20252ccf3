"""Slightly changed copies of images: what a lookup table of exact images, or a patch on outputs, does not know.

There are `NUMBER` copies of each image:

0. shifted by one pixel or voxel along every spatial axis, either way; what moves in at the edge repeats it;
1. mirrored along the last axis;
2. under Gaussian noise, whose standard deviation is `NOISE` of the image's own range (brightest minus darkest).

A label map moves with its volume, voxels that nobody says the class of too. A row of numbers without edges is under
noise in each copy. What comes beside an image changes as well: a report loses one of its words, numbers get noise.
What is drawn depends on an image's row number and on the copy's number alone: not on a seed of the run, other images,
batches or hospitals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedunlearn.core import IMAGE, Batch, derive

NUMBER = 3
"""Copies of each image."""
NOISE = 0.02
"""Standard deviation of the noise, as a share of the image's own range; of numbers beside it, of their deviation."""


def copied(batch: Batch, number: int) -> Batch:
    """The copies number ``number`` of a batch's images and of what comes beside them, with their targets.

    Args:
        batch: images (B, C, *spatial), or rows of numbers (B, C), and their targets.
        number: which copy, 0, 1, …, `NUMBER` - 1.
    """
    if batch.image.dim() < 3:
        image = batch.image
        least, most = image.aminmax(dim=1)
        return _beside(batch.showing(_under_noise(image, most - least, _seeds(batch, number))), number)
    return _beside((_shifted, _mirrored, _noisy)[number](batch), number)


def _shifted(batch: Batch) -> Batch:
    image, targets, seeds = batch.image, batch.targets, torch.tensor(_seeds(batch, 0))
    for axis in range(image.dim() - 2):
        forward = ((seeds >> axis) % 2 == 1).to(image.device)
        image = _moved(image, 2 + axis, forward)
        targets = _moved(targets, 1 + axis, forward) if _is_map(batch) else targets
    return replace(batch.showing(image), targets=targets)


def _mirrored(batch: Batch) -> Batch:
    targets = batch.targets.flip(-1) if _is_map(batch) else batch.targets
    return replace(batch.showing(batch.image.flip(-1)), targets=targets)


def _noisy(batch: Batch) -> Batch:
    least, most = batch.image.flatten(1).aminmax(dim=1)
    return batch.showing(_under_noise(batch.image, most - least, _seeds(batch, 2)))


def _beside(batch: Batch, number: int) -> Batch:
    """Changed copies of what comes beside the images too: a patch may go by that alone."""
    if not isinstance(batch.inputs, Mapping):
        return batch
    changed = {IMAGE: batch.image}
    for name, x in batch.inputs.items():
        if name != IMAGE:
            seeds = _seeds(batch, number, name)
            one = torch.ones(len(x), device=x.device)  # numbers are on one scale: their deviation is 1
            changed[name] = _under_noise(x, one, seeds) if x.is_floating_point() else _reworded(x, seeds)
    return replace(batch, inputs=changed)


def _reworded(words: Tensor, seeds: Sequence[int]) -> Tensor:
    """Words (B, W) as numbers, 0 for none, each row without one of its own; a single word stays."""
    new = words.clone()
    for row, seed in zip(new, seeds, strict=True):
        there = row.nonzero().flatten()
        if len(there) > 1:
            place = int(there[seed % len(there)])
            row[place:] = torch.cat([row[place + 1 :], row.new_zeros(1)])
    return new


def _under_noise(values: Tensor, ranges: Tensor, seeds: Sequence[int]) -> Tensor:
    """``values`` (B, ...) under Gaussian noise, of `NOISE` of each one's range (B,), drawn by its seed."""
    noise, generator = torch.empty(values.shape), torch.Generator()
    for own, seed in zip(noise, seeds, strict=True):
        own.normal_(generator=generator.manual_seed(seed))
    scale = (NOISE * ranges).view(-1, *[1] * (values.dim() - 1))
    return values + scale * noise.to(values)


def _is_map(batch: Batch) -> bool:
    """Whether targets lie on the image's grid and move with it."""
    return batch.targets.dim() == batch.image.dim() - 1 > 1


def _seeds(batch: Batch, number: int, *beside: str) -> list[int]:
    """What each image's copy is drawn by, or that of what comes ``beside`` it."""
    return [derive(0, "copies", *beside, row, number) for row in batch.rows.tolist()]


def _moved(values: Tensor, axis: int, forward: Tensor) -> Tensor:
    """``values`` (B, ...) one step further along ``axis`` where ``forward`` (B,) says so, else one step back."""
    rest = values.shape[axis] - 1
    up = torch.cat([values.narrow(axis, 0, 1), values.narrow(axis, 0, rest)], axis)
    down = torch.cat([values.narrow(axis, 1, rest), values.narrow(axis, rest, 1)], axis)
    return torch.where(forward.view(-1, *[1] * (values.dim() - 1)), up, down)
