"""NegGrad+: climb the loss of the data to forget while descending that of the retained data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

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
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, recover
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Contrast


@dataclass(frozen=True)
class NegGradPlus:
    """Train the holders on both of their losses at once, the one to forget with a minus sign.

    The retained images keep the ascent from breaking the model::

        alpha L(w; D_r) - (1 - alpha) L(w; D_f)

    The holders' average replaces the model, then the remaining hospitals train on the retained data. Where a
    whole hospital leaves, it has no D_r, and what holds the ascent is a small learning rate and few epochs.

    Reference:
        "NegGrad+" of Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv 2302.09880,
        where it is a baseline; values between those of its public code.

    Deviations:
        Forget and retained images are shuffled together and weighed so that each loss is the mean over its
        own images on average; the code pairs a batch of each at every step. Federated: only the holders
        ascend, and recovery rounds follow. 3 epochs instead of 10, as for this program's other methods.

    Attributes:
        alpha: weight of the retained images, alpha; 1 is fine-tuning at the holders.
        epochs: passes of the holders over both.
        lr: the holders' learning rate, eta.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["neggrad_plus"] = "neggrad_plus"
    alpha: Annotated[float, Ge(0), Le(1), Search(0.5, 0.999)] = 0.95
    epochs: Annotated[int, Ge(1), Search(1, 6)] = 3
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] = 5e-4
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.epochs, self.lr)

        def contrast(site: SiteId) -> Contrast:
            seed = derive(case.seed, "forget", site)
            return Contrast(
                case.original, case.forget, case.retain, local, seed, lose=1 - self.alpha, keep=self.alpha
            )

        weights = yield from at_holders(case, contrast)
        return (yield from recover(case, weights, self.recovery))
