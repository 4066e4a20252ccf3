"""Patches: a network that trains on a random part of every volume, and is slid over whole ones when it is used.

What a step costs in time, and what the network holds for gradients, goes with the patch then, not with the volume. Half
of the patches are centred on a voxel that is not background, as far as the borders let them, so that small structures
are seen often enough (Isensee et al., "nnU-Net", Nature Methods 2021, do so for a third). Gradients outside training,
and features, are means over tiles that cover each volume. Where a strategy differentiates by the images themselves
(`boundary_shrink`), the network is shown whole volumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from fedunlearn.core import IGNORED, Batch, Inputs, derive

Patch = tuple[int, int, int]
"""Edges in voxels: depth, height, width."""

OVERLAP = 0.25
"""Of neighbouring windows, as a share of an edge, where a network is slid over a volume."""
VOXELS = 2**20
"""At most so many pass through the network at once there."""


@runtime_checkable
class Patched(Protocol):
    """A model's configuration that may ask for patches."""

    @property
    def patch(self) -> Patch | None:
        """The part of a volume to train on; None for all of it."""
        ...


def cropper(patch: Patch | None, seed: int) -> Callable[[Batch], Batch]:
    """What cuts each batch of volumes to random patches, one of every volume, in turn.

    Args:
        patch: what to cut to, no larger than the volumes; None to leave batches as they are.
        seed: the task's; all draws derive from it.
    """
    if patch is None:
        return lambda batch: batch
    generator = torch.Generator().manual_seed(derive(seed, "patch"))
    return lambda batch: cut(batch, corners(batch.targets, patch, generator), patch)


def corners(targets: Tensor, patch: Patch, generator: torch.Generator) -> list[list[int]]:
    """The first voxel of a random patch of each volume: centred on a class above 0, or anywhere, by a coin.

    Args:
        targets: (B, *spatial); a volume without such voxels gets a patch anywhere.
        patch: no larger than the volumes.
        generator: what is drawn comes from here, always as much.
    """
    room = [size - edge for size, edge in zip(targets.shape[1:], patch, strict=True)]
    found = []
    draws = torch.rand(len(targets), 5, generator=generator, dtype=torch.float64)
    for volume, (coin, which, *place) in zip(targets, draws.tolist(), strict=True):
        corner = [int(share * (most + 1)) for share, most in zip(place, room, strict=True)]
        inside = ((volume > 0) & (volume != IGNORED)).nonzero() if coin < 0.5 else ()
        if len(inside):
            centre = inside[int(which * len(inside))].tolist()
            corner = [
                min(max(at - edge // 2, 0), most) for at, edge, most in zip(centre, patch, room, strict=True)
            ]
        found.append(corner)
    return found


def cut(batch: Batch, first: Sequence[Sequence[int]], patch: Patch) -> Batch:
    """The patch of each volume that begins at its ``first`` voxel, of all that lies on the volumes' grid.

    That is inputs, targets, and whatever of ``batch.extra`` ends in the same sizes, such as a teacher's outputs.
    """
    grid = batch.image.shape[2:]

    def cut_out(values: Tensor) -> Tensor:
        if values.dim() <= len(grid) or values.shape[-len(grid) :] != grid:
            return values
        return torch.stack([value[_window(at, patch)] for value, at in zip(values, first, strict=True)])

    extra = {name: cut_out(values) for name, values in batch.extra.items()}
    return replace(batch.showing(cut_out(batch.image)), targets=cut_out(batch.targets), extra=extra)


def tiles(batch: Batch, patch: Patch | None) -> list[Batch]:
    """Patches side by side that cover the volumes, the last ones moved back inside; without any, the batch itself."""
    if patch is None:
        return [batch]
    steps = [_starts(size, edge) for size, edge in zip(batch.image.shape[2:], patch, strict=True)]
    return [cut(batch, [at] * len(batch.rows), patch) for at in product(*steps)]


def slid(predict: Callable[[Inputs], Tensor], inputs: Inputs, patch: Patch | None) -> Tensor:
    """What ``predict`` says of ``inputs``, window by window: the mean where windows overlap, the middle counting most.

    Args:
        predict: from inputs to something on the grid of their images.
        inputs: images (B, C, *spatial); with what comes beside them only where there are no windows.
        patch: size of the windows; None to show all at once.
    """
    if patch is None or not isinstance(inputs, Tensor):
        return predict(inputs)
    from monai.inferers.utils import sliding_window_inference

    at_once = max(1, VOXELS // prod(patch))
    return cast(Tensor, sliding_window_inference(inputs, patch, at_once, predict, OVERLAP, mode="gaussian"))


def _starts(size: int, edge: int) -> Iterator[int]:
    yield from range(0, size - edge, edge)
    yield size - edge


def _window(first: Sequence[int], patch: Patch) -> tuple[object, ...]:
    return (..., *(slice(at, at + edge) for at, edge in zip(first, patch, strict=True)))
