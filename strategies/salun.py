"""SalUn: random labels, but only the weights that matter for the data to forget may move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fedunlearn import weights as w
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
from fedunlearn.federation.procedures import beside, recover
from fedunlearn.learning.constraints import Mask, salient
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Gradient, Relabel


@dataclass(frozen=True)
class SalUn:
    """Train under random labels through a mask of the weights that are salient for the images to forget.

    The holders send the gradient of the mean loss on the images to forget at the original weights w_o; the
    server averages it and keeps the largest entries of all parameters together. Everything after that, the rounds
    under random labels and the recovery if there is any, moves the salient weights only::

        m = 1(|grad l(w_o; D_f)| >= gamma)        w = m * w + (1 - m) * w_o

    Reference:
        Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in Both Image
        Classification and Generation", ICLR 2024, arXiv 2310.12508, its saliency mask and unlearning
        objective.

    Deviations:
        Federated: the mask is the server's, from the average gradient, and binds every hospital. gamma is the rank
        that lets `fraction` of the weights move, as in the authors' code. Masked-out weights are put back after every
        step and every average, bit for bit (their code since its pull request 33); only a clipped gradient norm would
        notice the difference to a masked gradient. Labels, rounds, and no recovery: see `strategies.random_label`.
        3 epochs at training's learning rate; theirs are 10 of SGD at 0.013, where training's rate was 0.1 (their
        README's example): 1.3 epochs at training's.

    Attributes:
        fraction: share of all parameters that may move; sets gamma.
        labels: any label but the true one, or any at all, as in the authors' code.
        epochs: passes of all hospitals over their images, each followed by an average.
        lr: learning rate in these, eta; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["salun"] = "salun"
    fraction: Annotated[float, Gt(0), Le(1), Search(0.1, 0.9)] = 0.5
    labels: Annotated[Literal["wrong", "uniform"], Search()] = "wrong"
    epochs: Annotated[int, Ge(1), Search(1, 6)] = 3
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        replies = yield {site: Gradient(case.original, case.forget) for site in case.holders}
        gradient = w.average([r.arrays for r in replies.values()], [r.count for r in replies.values()])
        mask = Mask(salient(gradient, self.fraction), {name: case.original[name] for name in gradient})
        once = paced(case.training.local, 1, self.lr)

        def relabel(weights: Weights, site: SiteId, seed: int) -> Relabel:
            labels = derive(case.seed, "labels", site)
            return Relabel(weights, case.forget, case.retain, once, seed, labels, mask, self.labels)

        weights = yield from beside(case, case.original, self.epochs, once, relabel, "forget", mask)
        return (yield from recover(case, weights, self.recovery, mask))
