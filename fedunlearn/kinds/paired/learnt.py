"""What training minimises where an image comes with a report or a table, and what is kept of answers.

The network answers three times for each image: by the image alone, by what comes beside it alone, and by both. Each
answer is a class, and each of the three is right if it is the image's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import Batch
from fedunlearn.learning.kinds import Learnt, finite, labelled

PLACES = ("image", "beside", "both")
"""What each answer is given by, in the order of outputs (B, classes, 3)."""


@dataclass(frozen=True)
class EachCrossEntropy:
    """The mean of three cross-entropies, of what is said by the image, by what comes beside it, and by both.

    As the joint training of Chauhan et al., MICCAI 2020 (arXiv 2008.09884) without its term of image and report in one
    space; what is said by both is ours.
    """

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        outputs = module(batch.inputs)
        return F.cross_entropy(outputs, labelled(batch, outputs.shape[1]))


def _scores(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """``image``, ``beside`` and ``both``, (N, classes) each: class scores."""
    return dict(zip(PLACES, outputs.unbind(2), strict=True))


def _rightly(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """``loss`` and ``right``, (N,) each, of what is said by both."""
    both, true = outputs[:, :, -1], targets[:, -1]
    losses = F.cross_entropy(both.double(), true, reduction="none")
    return {"loss": finite(losses), "right": (both.argmax(1) == true).double()}


LEARNT = Learnt(EachCrossEntropy(), _scores, _scores, _rightly)
