"""Gradient ascent: undo training by climbing the loss of the data to forget, a bounded way."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, recover
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Weigh


@dataclass(frozen=True)
class GradientAscent:
    """Climb the loss of the images to forget by plain SGD with clipped gradients, then repair the model.

    The loss has no upper end, so what bounds the way is its length: a step is never longer than eta c, and a
    holder of n_f images never gets farther from the original weights w_o than all its steps together::

        w <- w + eta * g * min(1, c / |g|), g = grad L(w; batch of D_f)       |w - w_o| <= E ceil(n_f / B) eta c

    The holders' average replaces the model, then the remaining hospitals train on the retained data.

    Reference:
        "GA" of Thudi et al., "Unrolling SGD: Understanding Factors Influencing Machine Unlearning", EuroS&P
        2022, arXiv 2109.13398; as a baseline in Fan et al., "SalUn", ICLR 2024, arXiv 2310.12508. Clipping
        and its values as in Halimi et al., "Federated Unlearning: How to Efficiently Erase a Client in FL?",
        arXiv 2207.05521, whose ball is `pga`'s.

    Deviations:
        Several clipped steps instead of one large one; no momentum and no weight decay, so that the bound
        holds. 5 epochs as in SalUn's README, whose 90 steps at 1e-4 with momentum 0.9 are a path (steps x learning
        rate) of 0.009, or 0.09 with what momentum adds; 250 images at a hospital make 40 steps here, and 0.04.
        Recovery rounds, without which ascent is known to break the model.

    Attributes:
        epochs: passes of the holders over the images to forget, E.
        lr: step length of the ascent, eta.
        clip: largest L2 norm of a gradient, c.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["gradient_ascent"] = "gradient_ascent"
    epochs: Annotated[int, Ge(1), Search(1, 10)] = 5
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-1, log=True)] = 0.001
    clip: Annotated[float, Gt(0)] = 5.0
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        plain = replace(case.training.local, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip=self.clip)
        local = paced(plain, self.epochs, self.lr)

        def ascend(site: SiteId) -> Weigh:
            return Weigh(
                case.original, case.forget, None, local, derive(case.seed, "forget", site), lose=-1.0
            )

        weights = yield from at_holders(case, ascend)
        return (yield from recover(case, weights, self.recovery))
