"""What a kind of task brings to training (`fedunlearn.kinds`): the objective, and what of each answer is kept.

Networks name their kind. Nothing else asks what a target is: for each place (`fedunlearn.core.Form.places`) a class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedunlearn.core import IGNORED, Batch
from fedunlearn.core.kinds import brought
from fedunlearn.learning.kernels import on_cpu


class Objective(Protocol):
    """A pure function (module, batch) -> mean loss; a frozen dataclass, so that it can cross a wire in a task."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """The loss, a scalar that can be differentiated."""
        ...


Signal = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""(outputs, targets) -> numbers of each image by name."""

Right = Callable[[Mapping[str, npt.NDArray[Any]], npt.NDArray[Any]], npt.NDArray[np.bool_]]
"""(signal by name, targets) -> (N,) whether a model is right about each image."""


@dataclass(frozen=True)
class Learnt:
    """What a kind of task brings to training.

    Attributes:
        objective: what training minimises.
        signal: (outputs, targets) -> per-image numbers by name, each (N,) or (N, k): all that scoring ever sees. It
            is given some images at a time.
        brief: of the signal, what tells how sure a model is of the right answer, in less time.
        glance: of each image, ``loss``, cross-entropy in nats or -1 where it is not finite, and what the quality of
            answers follows from, in less time than the signal.
        right: of the signal, whether a model is right about an image, by which is told how early it was learnt; None
            where answers are too many to be all right.
    """

    objective: Objective
    signal: Signal
    brief: Signal
    glance: Signal
    right: Right | None = None


def learnt(kind: str) -> Learnt:
    """What a kind brings to training.

    Raises:
        KeyError: there is no kind of this name.
    """
    found: Learnt = brought(kind, "learnt", "LEARNT")
    return found


def highest(outputs: Tensor) -> Tensor:
    """Of scores (N, classes, *spatial) the class with the highest, the first of several: (N, *spatial) int64.

    As ``argmax``, which takes seven times as long for volumes on a CPU.
    """
    return outputs.max(1).indices


def finite(losses: Tensor) -> Tensor:
    """``losses``, -1 where they are not finite: a model may be lost later, and is looked at until then."""
    return torch.where(losses.isfinite(), losses, -1.0)


def labelled(batch: Batch, classes: int) -> Tensor:
    """The targets of ``batch``, looked at: a GPU that meets a label that is no class is lost to its process.

    There only the first step of a training is looked at, since the GPU must be waited for: hospitals' own labels are
    known to be classes (`sites.hospital.Federation.write`), and images without labels, the server's, have none in any
    step. On a CPU every step is; of images with one class each torch itself does so.

    Raises:
        IndexError: some are no class, as torch has it on the CPU.
    """
    targets = batch.targets
    if (targets.dim() == 1 if on_cpu(targets) else batch.step) or wrapped(targets) or not targets.numel():
        return targets
    if _are_classes(targets, classes) or _are_classes(known := filled(targets), classes):
        return targets
    found = sorted(set(known[(known < 0) | (known >= classes)].tolist()))[:5]
    raise IndexError(
        f"found labels {found}, expected classes 0 to {classes - 1}: the server's images have no labels"
    )


def _are_classes(labels: Tensor, classes: int) -> bool:
    """Whether ``labels`` are, seen in one pass: .003 of the CPU time of a step of `unet3d`."""
    least, most = labels.aminmax()
    return bool((least >= 0) & (most < classes))  # at once: a GPU is waited for


def ignored(targets: Tensor) -> Tensor:
    """Which voxels of label maps (N, *spatial) are `IGNORED`, bool; of images with one class each (N,), none."""
    return targets == IGNORED if targets.dim() > 1 else torch.zeros_like(targets, dtype=torch.bool)


def relabelled(targets: Tensor, labels: Tensor) -> Tensor:
    """``labels`` in the place of ``targets``, but what is `IGNORED` stays so; both (N, ...)."""
    return torch.where(ignored(targets), targets, labels)


def filled(targets: Tensor) -> Tensor:
    """``targets`` with class 0 where they are `IGNORED`, to be used as indices; what comes of these must not count."""
    return targets.masked_fill(ignored(targets), 0)


def shares(targets: Tensor, dtype: torch.dtype) -> Tensor:
    """What each voxel (or image) counts in the mean over its volume: 1, or if some are `IGNORED`, 0 and more; (N, ...).

    The mean of values times these is the mean of the values that count.
    """
    known = (~ignored(targets)).reshape(len(targets), -1)
    each = known.shape[1] / known.sum(1, keepdim=True).clamp(min=1).double()
    return (known.to(dtype) * each.to(dtype)).view_as(targets)


def mean(values: Tensor) -> Tensor:
    """(N,) of each image."""
    return values.flatten(1).mean(1)


def wrapped(values: Tensor) -> bool:
    """Whether `torch.func` is at work, for which a tensor stands for many."""
    return torch._C._functorch.is_functorch_wrapped_tensor(values)
