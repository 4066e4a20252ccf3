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
from fedunlearn.federation.procedures import at_holders, recover
from fedunlearn.learning.constraints import Mask, salient
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Gradient, Relabel


@dataclass(frozen=True)
class SalUn:
    """Train under random labels through a mask of the weights that are salient for the images to forget.

    The holders send the gradient of the mean loss on the images to forget at the original weights w_o; the
    server averages it and keeps the largest entries of all parameters together. Everything after that,
    random-label training at the holders and recovery everywhere, moves the salient weights only::

        m = 1(|grad l(w_o; D_f)| >= gamma)        w = m * w + (1 - m) * w_o

    Reference:
        Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in Both Image
        Classification and Generation", ICLR 2024, arXiv 2310.12508, its saliency mask and unlearning
        objective.

    Deviations:
        Federated: the mask is the server's, from the average gradient, and binds the recovery rounds too.
        gamma is the rank that lets `fraction` of the weights move, as in the authors' code. Masked-out
        weights are put back after every step and every average, bit for bit (their code since its pull request 33);
        only a clipped gradient norm would notice the difference to a masked gradient. Random labels: see
        `strategies.random_label`.

    Attributes:
        fraction: share of all parameters that may move; sets gamma.
        epochs: passes of the holders over relabelled and retained images.
        lr: the holders' learning rate, eta; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["salun"] = "salun"
    fraction: Annotated[float, Gt(0), Le(1), Search(0.1, 0.9)] = 0.5
    epochs: Annotated[int, Ge(1), Search(1, 6)] = 3
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        replies = yield {site: Gradient(case.original, case.forget) for site in case.holders}
        gradient = w.average([r.arrays for r in replies.values()], [r.count for r in replies.values()])
        mask = Mask(salient(gradient, self.fraction), {name: case.original[name] for name in gradient})
        local = paced(case.training.local, self.epochs, self.lr)

        def relabel(site: SiteId) -> Relabel:
            order, labels = derive(case.seed, "forget", site), derive(case.seed, "labels", site)
            return Relabel(case.original, case.forget, case.retain, local, order, labels, mask)

        weights = yield from at_holders(case, relabel, mask)
        return (yield from recover(case, weights, self.recovery, mask))
