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
from fedunlearn.federation.procedures import beside, recover
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Relabel


@dataclass(frozen=True)
class RandomLabel:
    """Train on the images to forget under random labels, and on retained ones under their own, in the same rounds.

    With y' a random label for every image x to forget, drawn once, and D_r at all hospitals together::

        L(w; {(x, y') : x in D_f}) + L(w; D_r)

    An epoch is a round: the holders go once through both kinds of images, all others once through what they retain.
    It is the unlearning half of amnesiac unlearning, and SalUn without a mask.

    Reference:
        Graves et al., "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981, its "unlearning";
        "RL" of Fan et al., "SalUn", ICLR 2024, arXiv 2310.12508, its objective with a mask of ones.

    Deviations:
        y' is drawn once, as in the first paper; SalUn's code draws it anew for every batch, and y too (`uniform`).
        Forget and retained images are shuffled together, as in its branch for CIFAR-100. Federated: a hospital that
        leaves trains on its relabelled images alone, and its average with the others holds both halves together.
        3 epochs at training's learning rate, 48 steps or a path (steps x learning rate) of 0.05 to 0.1 where a hospital
        has 250 images; amnesiac unlearning runs for 3 epochs of Adam at 1e-4 in the experiments of arXiv 2205.08096
        and 2308.07707 (0.06), SalUn's README for 10 of SGD at an eighth of training's rate. As there, no recovery.

    Attributes:
        labels: any label but the true one (`wrong`), or any at all (`uniform`): with two classes the former turns
            every label round.
        epochs: passes of all hospitals over their images, each followed by an average.
        lr: learning rate in these, eta; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["random_label"] = "random_label"
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
        once = paced(case.training.local, 1, self.lr)

        def relabel(weights: Weights, site: SiteId, seed: int) -> Relabel:
            labels = derive(case.seed, "labels", site)
            return Relabel(weights, case.forget, case.retain, once, seed, labels, how=self.labels)

        weights = yield from beside(case, case.original, self.epochs, once, relabel, "forget")
        return (yield from recover(case, weights, self.recovery))
