"""SSD: dampen the weights that matter more for the data to forget than for all data, and train nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Needs,
    Procedure,
    Recovery,
    Reply,
    Search,
    Weights,
)
from fedunlearn.federation.procedures import recover
from fedunlearn.learning.tasks import Fisher


@dataclass(frozen=True)
class SSD:
    """Selective synaptic dampening: shrink, once, what the images to forget need more than all images do.

    The importance of a weight is its diagonal empirical Fisher information, the mean over images of the squared
    gradient of one image's loss: F_f over the images to forget, F over all training images, these included::

        w <- w min(lambda F / F_f, 1)   where F_f > alpha F,   else w

    Nothing is random. The hospitals send importances, and the server dampens; nobody trains. Then ordinary
    rounds on the retained data repair what all images needed as well.

    Reference:
        Foster et al., "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening", AAAI
        2024, arXiv 2308.07707, its selection and dampening equations.

    Deviations:
        Gradients are squared image by image, as in the paper; the authors' code squares those of batches.
        So F_f / F never exceeds the number of all images over that of images to forget, and an alpha above
        it, as their 10 is when a third of the data leaves, would select nothing: hence 2. Federated: a mean
        of the hospitals' importances by images is that over all images. BatchNorm statistics are no weights
        and stay. Recovery rounds; the paper has none (set 0).

    Attributes:
        alpha: how many times more important a weight must be to be selected, alpha.
        lam: strength of the dampening, lambda: the larger, the weaker.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["ssd"] = "ssd"
    alpha: Annotated[float, Gt(0), Search(0.5, 5, log=True)] = 2.0
    lam: Annotated[float, Gt(0), Search(0.1, 2, log=True)] = 1.0
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more, and one pass over the others."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        forget = yield {site: Fisher(case.original, case.forget) for site in case.holders}
        retain = yield {site: Fisher(case.original, case.retain) for site in case.sites}
        every = [*forget.values(), *retain.values()]
        weights = dampened(
            case.original, importance([*forget.values()]), importance(every), self.alpha, self.lam
        )
        return (yield from recover(case, weights, self.recovery))


def importance(replies: Sequence[Reply]) -> dict[str, Tensor]:
    """The hospitals' importances in the mean over all their images."""
    return w.average([reply.arrays for reply in replies], [reply.count for reply in replies])


def dampened(
    weights: Weights, forget: Mapping[str, Tensor], every: Mapping[str, Tensor], alpha: float, lam: float
) -> dict[str, Tensor]:
    """``weights`` after one dampening by the importances ``forget`` (F_f) and ``every`` (F), given by parameter."""
    result = dict(weights)
    for name, f in forget.items():
        factor = (lam * every[name] / f).clamp(max=1.0)  # 0 / 0 is not selected
        result[name] = torch.where(f > alpha * every[name], weights[name] * factor, weights[name])
    return result
