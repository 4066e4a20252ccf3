"""SSD: dampen the weights that matter more for the data to forget than for all data, and train nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
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
from fedunlearn.federation.procedures import recover, standing_for
from fedunlearn.learning.tasks import Fisher


@dataclass(frozen=True)
class SSD:
    """Selective synaptic dampening: shrink, once, what the images to forget need more than all images do.

    The importance of a weight is its diagonal empirical Fisher information, the mean over images of the squared
    gradient of one image's loss: F_f over the images to forget, F over all training images, these included::

        w <- w min(lambda F / F_f, 1)   where F_f > alpha F,   else w

    Nothing is random. The hospitals send importances, and the server dampens; nobody trains. Of n images n_f to
    forget, alpha is by default such that log(1 + 100 n_f / n) in a hundred weights are selected, those of largest
    F_f / F.

    Reference:
        Foster et al., "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening", AAAI
        2024, arXiv 2308.07707, its selection and dampening equations; alpha as in the code of the same authors'
        adaptive variant, Schoepf et al., arXiv 2402.10098.

    Deviations:
        Gradients are squared image by image, as in the paper; the authors' code squares those of batches.
        So F_f / F never exceeds n / n_f, and an alpha above it selects nothing: theirs of 10 is for a class or 100
        images of 50,000, where n / n_f is 100 or more, and here a third of all images may leave. Hence the adaptive
        rule, which asks for a share instead. The adaptive variant's F is of retained images, which selects the same
        weights. Federated: a mean of the hospitals' importances by images is that over all images. BatchNorm
        statistics are no weights and stay. As there, no recovery.

    Attributes:
        alpha: how many times more important a weight must be to be selected, alpha; by default as said above.
        lam: strength of the dampening, lambda: the larger, the weaker.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["ssd"] = "ssd"
    alpha: Annotated[float, Gt(0), Search(0.5, 5, log=True)] | None = None
    lam: Annotated[float, Gt(0), Search(0.1, 2, log=True)] = 1.0
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more, and one pass over the others."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        forget = yield {site: Fisher(case.original, case.forget) for site in case.holders}
        retain = yield {site: Fisher(case.original, case.retain) for site in case.turn("retain", 0)}
        lost, kept = [reply.count for reply in forget.values()], standing_for(case.kept, retain)
        needed = importance([*forget.values()], lost)
        every = importance([*forget.values(), *retain.values()], [*lost, *kept])
        n_f, n_r = sum(case.lost.values()), sum(case.kept.values())
        adaptive = selecting(needed, every, log(1 + 100 * n_f / (n_f + n_r)) / 100)
        alpha = adaptive if self.alpha is None else self.alpha
        weights = dampened(case.original, needed, every, alpha, self.lam)
        return (yield from recover(case, weights, self.recovery))


def importance(replies: Sequence[Reply], images: Sequence[float]) -> dict[str, Tensor]:
    """The hospitals' importances in the mean over so many images of each."""
    return w.average([reply.arrays for reply in replies], images)


def selecting(forget: Mapping[str, Tensor], every: Mapping[str, Tensor], share: float) -> float:
    """The alpha that selects ``share`` of all weights: of F_f / F as large a quantile."""
    ratio = torch.cat([(f / every[name]).flatten() for name, f in forget.items()])
    ratio = ratio[~ratio.isnan()]  # of weights that no image needs
    return float(ratio.kthvalue(max(1, round((1 - share) * len(ratio)))).values)


def dampened(
    weights: Weights, forget: Mapping[str, Tensor], every: Mapping[str, Tensor], alpha: float, lam: float
) -> dict[str, Tensor]:
    """``weights`` after one dampening by the importances ``forget`` (F_f) and ``every`` (F), given by parameter."""
    result = dict(weights)
    for name, f in forget.items():
        factor = (lam * every[name] / f).clamp(max=1.0)  # 0 / 0 is not selected
        result[name] = torch.where(f > alpha * every[name], weights[name] * factor, weights[name])
    return result
