"""Max loss: raise the loss of the data to forget to a ceiling, while that of the retained data is lowered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Needs,
    Procedure,
    Recovery,
    Search,
    SiteId,
    Task,
    Weights,
)
from fedunlearn.federation.procedures import beside, recover
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Contrast


@dataclass(frozen=True)
class MaxLoss:
    """Descend on the retained data and ascend on the data to forget in the same rounds, up to a ceiling b.

    At the hospitals that hold D_f, while the others train on::

        min  L(w; D_r) - beta min(L(w; D_f), b)

    A loss has no upper end. Above b, batch by batch, there is no slope any more, so that ascent ends by itself
    instead of running away. About 2 is what a guess costs: log C in cross-entropy over C classes, and of a volume
    up to 1 more in Dice. Where a whole hospital leaves it has no D_r, and b alone holds it.

    Reference:
        Singh et al., "To Forget is to Preserve: Machine Unlearning for 3D Medical Image Segmentation", arXiv
        2606.16180, "Max Loss", its loss mechanic.

    Deviations:
        Our reading of the strategy's name: the paper's losses are not public, and with its 20 and 50 epochs the
        retained volumes are lost as well. The ceiling and recovery rounds (0: none) are ours. Of `neggrad_plus`
        it differs by the ceiling, a fixed weight of D_r, and that everyone takes part.

    Attributes:
        beta: weight of the ascent, beta.
        ceiling: loss beyond which a batch to forget has no slope, b.
        rounds: rounds with ascent.
        lr: the holders' learning rate in these; as in training by default.
        local_epochs: passes over the images in each; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["max_loss"] = "max_loss"
    beta: Annotated[float, Ge(0), Search(0.01, 1, log=True)] = 0.1
    ceiling: Annotated[float, Gt(0), Search(0.5, 4, log=True)] = 2.0
    rounds: Annotated[int, Ge(1), Search(1, 4)] = 1
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.local_epochs)
        ascent = paced(local, lr=self.lr)

        def contrast(weights: Weights, site: SiteId, seed: int) -> Task:
            selects = case.forget, case.retain
            return Contrast(weights, *selects, ascent, seed, self.beta, keep=1.0, ceiling=self.ceiling)

        weights = yield from beside(case, case.original, self.rounds, local, contrast, "max loss")
        return (yield from recover(case, weights, self.recovery))
