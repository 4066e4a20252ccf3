"""Random labels: teach the model something wrong about the data to forget."""

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
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, recover
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Relabel


@dataclass(frozen=True)
class RandomLabel:
    """Train on the images to forget under random wrong labels, and on retained ones under their own.

    Every image to forget gets one label y' != y, uniform over the other classes, once. The holders' average
    replaces the model, then all remaining hospitals repair it by ordinary rounds on the retained data. It is
    the unlearning half of amnesiac unlearning, and SalUn without a mask.

    Reference:
        Graves et al., "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981, its "unlearning";
        "RL" of Fan et al., "SalUn", ICLR 2024, arXiv 2310.12508, its objective with a mask of ones.

    Deviations:
        Federated: only the holders train on relabelled images. y' never equals y and is drawn once, as in the
        paper; SalUn's code draws it anew for every batch and may hit y. Forget and retain images are shuffled
        together, as in its CIFAR-100 branch.

    Attributes:
        epochs: passes of the holders over relabelled and retained images.
        lr: the holders' learning rate, eta; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["random_label"] = "random_label"
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
        local = paced(case.training.local, self.epochs, self.lr)

        def relabel(site: SiteId) -> Relabel:
            order, labels = derive(case.seed, "forget", site), derive(case.seed, "labels", site)
            return Relabel(case.original, case.forget, case.retain, local, order, labels)

        weights = yield from at_holders(case, relabel)
        return (yield from recover(case, weights, self.recovery))
