"""Kinds of task: what differs between classifying images and, later, segmenting volumes.

A kind brings the training objective, the per-image signal that is kept for scoring, and (in `fedunlearn.scoring`, by
the kind's name) the measures. Its networks name it. Nothing else asks what a target is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import Batch


class Objective(Protocol):
    """A pure function (module, batch) -> mean loss; a frozen dataclass, so that it can cross a wire in a task."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """The loss, a scalar that can be differentiated."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of class scores (B, classes, *spatial) against targets (B, *spatial)."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        return F.cross_entropy(module(batch.inputs), batch.targets)


@dataclass(frozen=True)
class Kind:
    """One kind of task.

    Attributes:
        name: its name.
        objective: what training minimises.
        signal: (outputs, targets) -> per-image numbers by name, each (N,) or (N, k): all that scoring ever sees.
    """

    name: str
    objective: Objective
    signal: Callable[[Tensor, Tensor], Mapping[str, Tensor]]


def _logits(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    return {"logits": outputs}


KINDS: Mapping[str, Kind] = {"classification": Kind("classification", CrossEntropy(), _logits)}
