"""SCRUB: a student that leaves its teacher on the data to forget and stays with it on the rest."""

from __future__ import annotations

from collections.abc import Sequence
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
    Select,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, errors, mean, recover
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Distil


@dataclass(frozen=True)
class SCRUB:
    """Let a student that starts as the original model, its frozen teacher t, disobey on the data to forget.

    An epoch is a round at the holders that ascends (the first `msteps` epochs only), then one that descends
    at all remaining hospitals::

        max:  KL(t || w; D_f)            min:  gamma L(w; D_r) + alpha KL(t || w; D_r)

    With `rewind` (SCRUB+R) the result is the epoch's model whose error on D_f comes nearest to the last
    model's error on the holders' validation images: not forgotten more than an unseen image is unknown.

    Reference:
        Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv 2302.09880, SCRUB and
        SCRUB+R; values and Adam as in the authors' notebook for small data (`small_scale_unlearning`). For CIFAR-10
        they take gamma 0.99, alpha 0.001, T 4, 3 epochs, 2 of them with max-steps, and SGD.

    Deviations:
        Federated: a pass over a data set is a round at the hospitals that have it; min-steps go on at all
        remaining hospitals, since one that leaves retains nothing. Max-steps of 250 images at a hospital in
        batches of 32 are a path (steps x learning rate) of 0.012, those of 72 of 0.0045, and theirs of 300 in batches
        of 64 of 0.0075; thousands of images want a smaller lr, or the ascent outruns the descent. Their learning
        rate falls to a tenth after 5 epochs and their weight decay is 0.1; here the first stays, and the second is the
        training's. The optimizer starts anew in every pass. As there, no recovery. At the teacher itself the KL has no
        slope: without BatchNorm the first max-pass moves by what rounding leaves of it. All validation images
        of the holders set the rewind's mark; the paper picks some that resemble D_f.

    Attributes:
        gamma: weight of the loss in min-steps, gamma.
        alpha: weight of the KL in min-steps, alpha.
        T: temperature of the KL, T.
        epochs: epochs in all.
        msteps: epochs with max-steps.
        lr: learning rate of both, eta, of Adam whatever the training's optimizer.
        rewind: choose the epoch afterwards (SCRUB+R); needs validation images at the holders.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["scrub"] = "scrub"
    gamma: Annotated[float, Ge(0)] = 1.0
    alpha: Annotated[float, Ge(0), Search(1e-3, 1, log=True)] = 0.5
    T: Annotated[float, Gt(0)] = 2.0
    epochs: Annotated[int, Ge(1), Search(2, 10)] = 10
    msteps: Annotated[int, Ge(0), Search(1, 3)] = 3
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] = 5e-4
    rewind: bool = False
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(replace(case.training.local, optimizer="adam"), 1, self.lr)
        models, student = list[Weights](), case.original
        for epoch in range(self.epochs):
            if epoch < self.msteps:
                away = Distil(student, case.original, case.forget, local, 0, kl=-1.0, T=self.T)
                seeds = {site: derive(case.seed, "max", site, epoch) for site in case.holders}
                asks = {site: replace(away, seed=seed) for site, seed in seeds.items()}
                student = yield from at_holders(case, asks.__getitem__, weights=student)
            stay = Distil(student, case.original, case.retain, local, 0, self.gamma, self.alpha, self.T)
            seeds = {site: derive(case.seed, "min", site, epoch) for site in case.turn("min", epoch)}
            student = mean((yield {site: replace(stay, seed=seed) for site, seed in seeds.items()}))
            models.append(student)
        if self.rewind:
            forget = yield from errors(models, case.holders, case.forget)
            unseen = yield from errors(models[-1:], case.holders, Select(split="val"))
            student = models[nearest(forget, unseen[0])]
        return (yield from recover(case, student, self.recovery))


def nearest(errors: Sequence[float], target: float) -> int:
    """Which of ``errors`` is nearest to ``target``; of equals the last, which has been repaired longest."""
    return min(range(len(errors)), key=lambda i: (abs(errors[i] - target), -i))
