"""What training minimises where each image has several findings, and what is kept of answers: each finding's score.

An answer chooses between two classes, absent and present, for each finding. Findings that nobody says anything of are
`fedunlearn.core.IGNORED`: they count in no loss and in no measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import IGNORED, Batch
from fedunlearn.learning.kinds import Learnt, finite, highest, labelled, shares


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """The mean over images of the mean over an image's known findings of the binary cross-entropy.

    Of scores (B, 2, findings), it is that of their difference z, present less absent: ``log(1 + exp(z)) - y z``. An
    image of which nothing is known has no loss.
    """

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        outputs = module(batch.inputs)
        return _losses(outputs, labelled(batch, outputs.shape[1])).mean()


def _losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """(N,) the mean over the known findings of each image."""
    losses = F.cross_entropy(outputs, targets, reduction="none", ignore_index=IGNORED)
    return (losses * shares(targets, losses.dtype)).mean(1)


def _scores(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """``logit`` (N, findings), of present, and ``target`` (N, findings): 1 present, 0 absent, -1 unknown."""
    return {
        "logit": outputs[:, 1] - outputs[:, 0],
        "target": torch.where(targets == IGNORED, -1, targets).to(torch.int8),
    }


def _brief(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """``loss`` (N,), as `BinaryCrossEntropy` has it of each image."""
    return {"loss": _losses(outputs.double(), targets)}


def _rightly(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """``loss`` (N,) and ``right`` (N,): which share of an image's known findings is rightly said absent or present."""
    right = (highest(outputs) == targets) * shares(targets, torch.float64)
    return {"loss": finite(_losses(outputs.double(), targets)), "right": right.mean(1)}


def _right(signal: Mapping[str, npt.NDArray[Any]], targets: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether all known findings of an image are rightly said absent or present."""
    rightly = ((signal["logit"] > 0) == (targets == 1)) | (targets == IGNORED)
    found: npt.NDArray[np.bool_] = rightly.all(axis=1)
    return found


LEARNT = Learnt(BinaryCrossEntropy(), _scores, _brief, _rightly, _right)
