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
from fedunlearn.federation.procedures import everywhere, recover
from fedunlearn.learning.constraints import fixed
from fedunlearn.learning.local import paced
from fedunlearn.learning.mechanics import Climb


@dataclass(frozen=True)
class MaxLoss:
    """Descend on the retained data and ascend on the data to forget in the same steps, up to a ceiling b.

    Every hospital minimises, each mean over its own images::

        L(w; D_r) - alpha min(L(w; D_f), b)

    A loss has no upper end. Above b, batch by batch, there is no slope any more, so that ascent ends by itself
    instead of running away. About 2 is what a guess costs: log C in cross-entropy over C classes, and of a volume
    up to 1 more in Dice. Where a whole hospital leaves it has no D_r, and b alone holds it.

    Reference:
        Li et al., "Machine Unlearning for Image-to-Image Generative Models", ICLR 2024, arXiv 2402.00351, its
        baseline "Max Loss" (`max_loss` in the authors' code).

    Deviations:
        The ceiling is ours; `ceiling: null` is the reference's. Taken over by Singh et al., arXiv 2606.16180, as its
        names say; that paper's losses could not be read. Path length, averages and recovery as for
        `noisy_label`. Of `neggrad_plus` it differs by the ceiling, a fixed weight of D_r, and that everyone takes part.

    Attributes:
        alpha: weight of the ascent; .1 to .25 there.
        ceiling: loss beyond which a batch to forget has no slope, b; None for none.
        fix_decoder: whether the decoder (of a classifier, its last layer) stays as it is, bit for bit.
        rounds: rounds with ascent.
        lr: learning rate in these; as in training by default.
        local_epochs: passes over the images in each; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["max_loss"] = "max_loss"
    alpha: Annotated[float, Ge(0), Search(0.05, 1, log=True)] = 0.2
    ceiling: Annotated[float, Gt(0), Search(0.5, 4, log=True)] | None = 2.0
    fix_decoder: bool = False
    rounds: Annotated[int, Ge(1), Search(1, 8)] = 3
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.local_epochs, self.lr)
        frozen = fixed(case.original, case.layout.decoder) if self.fix_decoder else None

        def climb(weights: Weights, site: SiteId, seed: int) -> Task:
            of = case.forget, case.retain, local
            return Climb(weights, *of, seed, self.alpha, self.ceiling, frozen)

        weights = yield from everywhere(case, case.original, self.rounds, climb, "max loss", frozen)
        return (yield from recover(case, weights, self.recovery, frozen))
