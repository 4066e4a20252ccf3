"""PGA: the leaving hospital climbs its loss, but stays in a ball around the model of the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Last,
    Leaver,
    Needs,
    Procedure,
    Recovery,
    Search,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import mean, recover, redrawn
from fedunlearn.learning.constraints import Ball
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Ascent

INITS = 10


@dataclass(frozen=True)
class PGA:
    """Projected gradient ascent by the leaver from the reference model w_ref, then recovery by the others.

    w_u is the leaver's own model of the last round and p its share of the images. The reference is the average
    of the other hospitals' last models; the ball's radius delta is their distance to untrained models w_i::

        w_ref = w_T + p / (1 - p) (w_T - w_u)             = (K w_T - w_u) / (K - 1) for equal shares
        delta^2 = radius * mean_i |w_ref - w_i|^2
        w <- P(w + eta grad L(w; D_u)),  P the projection to |w - w_ref| <= delta
        until |w - w_u| > stop * |w_ref - w_u|, or for E epochs

    Reference:
        Halimi et al., "Federated Unlearning: How to Efficiently Erase a Client in FL?", ICML 2022 workshop,
        arXiv 2207.05521, Algorithm 1; other values as in the authors' notebook.

    Deviations:
        The notebook looks after every step whether |w - w_u|^2 > 2.2, where |w_ref - w_u|^2 is 0.45: hence stop, in
        distances of the reference from w_u. It halts after 8 steps of at most 5 epochs, long before its ball of 1/3
        binds, with two thirds of the accuracy left. Here the distance is looked at after each epoch, when momentum
        starts anew, and it is the ball that binds. On phantom cells 8 steps lead farther, as does the notebook's own
        stop, after 25: the model is at chance until it recovers, which two rounds manage from a ball of 0.01, and
        not from one of 1/3. Another untrained model is the initial one with the entries of each tensor in random
        order. All lengths are of parameters: BatchNorm statistics stay the original's until recovery replaces them.

    Attributes:
        radius: share of the mean squared distance to an untrained model, which makes delta^2.
        stop: how many times farther from the leaver's model than the reference is, at most.
        epochs: passes over the images to forget at most, E.
        lr: step length of the ascent, eta.
        momentum: of the ascent.
        clip: largest L2 norm of a gradient.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["pga"] = "pga"
    radius: Annotated[float, Gt(0), Search(1e-3, 0.5, log=True)] = 0.01
    stop: Annotated[float, Gt(0)] = 2.2
    epochs: Annotated[int, Ge(1), Search(1, 6)] = 5
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-1, log=True)] = 0.01
    momentum: Annotated[float, Ge(0), Le(1)] = 0.9
    clip: Annotated[float, Gt(0)] = 5.0
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """The updates of the last round, and the images to forget once more."""
        return Needs(updates=Last(), leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0, everyone=True)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        (leaver,) = case.holders
        own, reference = references(case)
        local = paced(case.training.local, self.epochs, self.lr)
        local = replace(local, optimizer="sgd", momentum=self.momentum, weight_decay=0.0, clip=self.clip)
        ball, seed = Ball(reference, self.delta(case, reference)), derive(case.seed, "forget", leaver)
        farthest = self.stop * w.norm(w.subtract(reference, own), case.layout.parameters)
        replies = yield {leaver: Ascent(reference, case.forget, local, seed, ball, own, farthest)}
        weights = {**mean(replies), **{name: case.original[name] for name in case.layout.buffers}}
        return (yield from recover(case, weights, self.recovery))

    def delta(self, case: Case, reference: Weights) -> float:
        """The ball's radius."""
        names, seed = case.layout.parameters, case.seed
        inits = [redrawn(case.initial, names, derive(seed, "untrained", i)) for i in range(INITS)]
        squares = [w.norm(w.subtract(reference, init), names) ** 2 for init in inits]
        return float((self.radius * sum(squares) / INITS) ** 0.5)


def references(case: Case) -> tuple[Weights, Weights]:
    """The leaver's own model of the last round, and what the others' models of that round make without it."""
    (leaver,), last, images = case.holders, case.rounds - 1, {**case.kept, **case.lost}
    updates = {site: case.history.update(last, site) for site in images}
    step = w.average(list(updates.values()), list(images.values()))
    own = w.add(w.subtract(case.original, step), updates[leaver])
    share = images[leaver] / sum(images.values())
    reference = w.add(case.original, w.subtract(case.original, own), share / (1 - share))
    return own, {**reference, **{name: case.original[name] for name in case.layout.buffers}}
