"""LoTUS: a teacher that is as unsure of the data to forget as it is of images it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Local,
    LocalTraining,
    Needs,
    Procedure,
    Recovery,
    Reply,
    Search,
    Select,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, errors, recover
from fedunlearn.learning.local import fit, outputs, paced
from fedunlearn.learning.objectives import SoftLabels, drawn, marked, softly

MARGIN = 0.01
"""How far below the unseen images' accuracy that of the forget images may fall: then enough is forgotten."""


@dataclass(frozen=True)
class LoTUS:
    """Teach the original model's own outputs, softened on the images to forget, sampled on the retained ones.

    With z the original model's scores of an image and g fresh Gumbel noise, the student w, which starts as the
    original, descends the cross-entropy to t, which is KL(t || w) but for a constant::

        t = softmax((z + g) / tau)  on D_f        t = onehot(argmax(z + g))  on some of D_r
        tau = exp(alpha (acc(w; D_f) - acc(w_o; D_v)))

    An epoch is a round at the holders, before which tau is set anew; they stop as soon as the student's accuracy
    on D_f is `MARGIN` below the original's on their validation images D_v.

    Reference:
        Spartalis et al., "LoTUS: Large-Scale Machine Unlearning with a Taste of Uncertainty", CVPR 2025, arXiv
        2503.18314; loss, temperature, margin, share and order of steps as in the authors' code, alpha as in its
        script for ten classes and a small network (2 in the others), epochs as in that for ViT.

    Deviations:
        Federated: holders average after every epoch, a hospital that leaves has no retained images to teach, and
        recovery rounds follow (0: none, as in the paper). The training's optimizer and learning rate instead of
        AdamW at 1e-4, at which a hospital's few steps make little way: in ten epochs the accuracy on the images
        to forget falls from 1.0 to 0.90 or 0.95. The optimizer starts anew in every epoch. For a whole hospital
        D_v are its own validation images too, not acc = 0 as for a whole class.

    Attributes:
        alpha: steepness of the temperature, alpha.
        retained: share of the retained images that are taught too, drawn once.
        epochs: passes of the holders over both, at most.
        lr: the holders' learning rate; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["lotus"] = "lotus"
    alpha: Annotated[float, Ge(0), Search(1, 16, log=True)] = 8.0
    retained: Annotated[float, Ge(0), Le(1), Search(0.1, 1)] = 0.3
    epochs: Annotated[int, Ge(1), Search(1, 10)] = 3
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
        local, student = paced(case.training.local, 1, self.lr), case.original
        (unseen,) = yield from errors([case.original], case.holders, Select(split="val"))
        for epoch in range(self.epochs):
            (forget,) = yield from errors([student], case.holders, case.forget)
            gap = unseen - forget  # of the accuracies, which are one minus the errors
            if gap <= -MARGIN:
                break
            tau = exp(self.alpha * gap)
            asks = {
                site: Soften(
                    *(student, case.original, case.forget, case.retain, self.retained, tau, local),
                    *(derive(case.seed, "forget", site, epoch), derive(case.seed, "retained", site)),
                )
                for site in case.holders
            }
            student = yield from at_holders(case, asks.__getitem__, weights=student)
        return (yield from recover(case, student, self.recovery))


@dataclass(frozen=True)
class Soften:
    """Train ``weights`` on ``forget``'s images and some of ``retain``'s (`drawn`) towards ``teacher``'s `lessons`."""

    weights: Weights
    teacher: Weights
    forget: Select
    retain: Select
    share: float
    tau: float
    training: LocalTraining
    seed: int
    drawn: int

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget, retain = local.images(self.forget), local.images(self.retain)
        images = marked(forget, drawn(retain, self.share, self.drawn))
        scores, noise = outputs(local, self.teacher, images), derive(self.seed, "gumbel")
        images = softly(images, lessons(scores, len(forget), self.tau, noise))
        return Reply(fit(local, self.weights, images, self.training, self.seed, SoftLabels()), len(images))


def lessons(scores: Tensor, forget: int, tau: float, seed: int) -> Tensor:
    """Softmax of ``scores`` under Gumbel noise, the first ``forget`` at temperature ``tau``, the others at zero."""
    noise = torch.empty_like(scores).exponential_(generator=torch.Generator().manual_seed(seed)).log()
    noisy = scores - noise
    hard = torch.zeros_like(noisy).scatter(1, noisy.argmax(1, keepdim=True), 1.0)
    return torch.cat([torch.softmax(noisy[:forget] / tau, 1), hard[forget:]])
