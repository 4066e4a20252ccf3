"""NegGrad+: climb the loss of the data to forget while descending that of the retained data."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
)
from fedunlearn.federation.procedures import everywhere, recover
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Weigh


@dataclass(frozen=True)
class NegGradPlus:
    """Train everyone on both losses at once, the one to forget with a minus sign.

    The retained images keep the ascent from breaking the model::

        alpha L(w; D_r) - (1 - alpha) L(w; D_f)

    each L being the mean over all images of its kind, at whichever hospitals they are. An epoch is a round: every
    hospital that has images of either kind goes through them once, each image weighed as in this one loss, so that a
    hospital that leaves and has no D_r ascends while the others hold the model.

    Reference:
        "NegGrad+" of Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv 2302.09880,
        where it is a baseline; alpha, epochs and plain SGD as in the authors' notebook for small data
        (`small_scale_unlearning`); for CIFAR-10 they take alpha 0.9999 and 5 epochs.

    Deviations:
        Images of both kinds are shuffled together and weighed; the code pairs a batch of each at every step. Federated:
        an average after every epoch. SGD whatever the training's optimizer: Adam knows no scale, so that alpha would
        mean nothing where a hospital has but one of the two losses. Their epochs of 3 steps at 0.01 are a path (steps
        x learning rate) of 0.3, and so are ours of 8 steps, which 250 images at a hospital make, at 0.004; at 0.01 a
        model that Adam trained gets worse even at alpha 1. As there, no recovery.

    Attributes:
        alpha: weight of the retained images, alpha; 1 is fine-tuning.
        epochs: passes of all hospitals over their images, each followed by an average.
        lr: learning rate in these, eta.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["neggrad_plus"] = "neggrad_plus"
    alpha: Annotated[float, Ge(0), Le(1), Search(0.5, 0.999)] = 0.95
    epochs: Annotated[int, Ge(1), Search(1, 10)] = 10
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-1, log=True)] = 0.004
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        plain = replace(case.training.local, optimizer="sgd", momentum=0.0, weight_decay=0.0)
        once, n_f, n_r = paced(plain, 1, self.lr), sum(case.lost.values()), sum(case.kept.values())
        lose, keep = -(1 - self.alpha) * (n_f + n_r) / n_f, self.alpha * (n_f + n_r) / max(n_r, 1)

        def both(weights: Weights, site: SiteId, seed: int) -> Weigh:
            return Weigh(weights, case.forget, case.retain, once, seed, lose, keep)

        weights = yield from everywhere(case, case.original, self.epochs, both, "forget")
        return (yield from recover(case, weights, self.recovery))
