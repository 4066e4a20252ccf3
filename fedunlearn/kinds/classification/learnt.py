"""What training minimises where each image has one class, and what is kept of answers: all class scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import Batch
from fedunlearn.learning.kinds import Learnt, finite, labelled


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of class scores (B, classes, *spatial) against targets (B, *spatial)."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        outputs = module(batch.inputs)
        return F.cross_entropy(outputs, labelled(batch, outputs.shape[1]))


def _logits(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    return {"logits": outputs}


def _rightly(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """``loss`` and ``right``: (N,) each, whether the class of most score is the image's."""
    losses = F.cross_entropy(outputs.double(), targets, reduction="none")
    return {"loss": finite(losses), "right": (outputs.argmax(1) == targets).double()}


def _right(signal: Mapping[str, npt.NDArray[Any]], targets: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = signal["logits"].argmax(axis=1) == targets
    return found


LEARNT = Learnt(CrossEntropy(), _logits, _logits, _rightly, _right)
