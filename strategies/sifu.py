"""SIFU: go back to the last round that the leaver had hardly influenced, hide the rest under noise, train again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Every,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Search,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import fedavg


@dataclass(frozen=True)
class SIFU:
    """Restart training from the last round whose influence by the leaver u noise can hide.

    w(I, theta^s) is what round s made of theta^s, w(I without u, theta^s) what the same local models make without
    u's. How far they are apart adds up to a bound Psi on how far theta^n is from that of a training without u::

        Psi(n, u) = sum_(s < n) B^(n-s-1) |w(I, theta^s) - w(I without u, theta^s)|
        Psi* = epsilon sigma / sqrt(2 (ln 1.25 - ln delta)),     n = max {n <= T: Psi(n, u) <= Psi*}
        w <- theta^n + N(0, sigma^2 I)           then rounds n, n + 1, …, T - 1 of training on the retained data

    The noisy theta^n is (epsilon, delta)-indistinguishable from the noisy theta^n of a training without u, and the
    rounds that follow keep that. It holds where a round of local training takes two models at most B times as far
    apart as they were: B = 1 is proven for gradient descent in short steps on convex losses. A deep network is
    not convex and Adam is not gradient descent: there, B = 1 is a heuristic, and nothing is certified. Nor is it for
    epsilon > 1, for which this sigma is not proven; with epsilon 10 and delta 0.01 it gives delta 0.04.

    Reference:
        Fraboni et al., "SIFU: Sequential Informed Federated Unlearning for Efficient and Provable Client Unlearning
        in Federated Optimization", AISTATS 2024, arXiv 2211.11656, Psi and Psi*; noise as in the authors' code.

    Deviations:
        Each request meets the training as it was: the paper's tree of restarts, which certifies requests in
        sequence, is not built, so that these are refused: an earlier leaver trained the checkpoints too. A server need
        only keep checkpoints and the numbers Psi; here they are computed from all updates when the request comes, and
        the ledger counts those. At n = 0 nothing was learnt from u and no noise is added (the authors add it), so that
        this is retraining, bit for bit. Nor is it where training without u asks the same hospitals in all earlier
        rounds; where it asks others, Psi is infinite. The rest of the training's rounds follow; the authors stop at an
        accuracy. BatchNorm statistics would tell of u past all noise: the initial weights' are taken, and the rounds
        that follow replace them. The authors' epsilon is 10 and their delta 1 / hospitals. On a network, expect n = 0
        and the cost of retraining: in scenarios of three hospitals of phantom cells Psi(1, u) is 1.6 to 2.0, against
        Psi* = 0.016 here and 0.16 with epsilon 10, and a sigma that hides as much (5 or more) leaves no model.

    Attributes:
        epsilon: of the certificate; at most 1 for it to hold.
        delta: of the certificate.
        sigma: standard deviation of the noise on each parameter.
        B: how many times as far apart one round takes two models at most: 1 (convex), (1 - eta mu)^E (mu-strongly
            convex) or (1 + eta beta)^E (beta-smooth), with E local steps of length eta.
        rounds: rounds after the restart at least, where fewer are left.
    """

    name: Literal["sifu"] = "sifu"
    epsilon: Annotated[float, Gt(0)] = 1.0
    delta: Annotated[float, Gt(0), Le(1)] = 0.01
    sigma: Annotated[float, Ge(0), Search(0.01, 1, log=True)] = 0.05
    B: Annotated[float, Gt(0)] = 1.0
    rounds: Annotated[int, Ge(1), Search(1, 4)] = 1

    guarantee: ClassVar[Guarantee] = Guarantee.CERTIFIED
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """All stored updates and the models they started from, none of which holds an earlier leaver."""
        return Needs(updates=Every(1), checkpoints=Every(1), intact=True)

    @property
    def budget(self) -> float:
        """Psi*, the largest influence that the noise hides."""
        return self.epsilon * self.sigma / math.sqrt(2 * (math.log(1.25) - math.log(self.delta)))

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        n = self.restart(case)
        weights = case.history.checkpoint(n) if n < case.rounds else case.original
        if any(asked != again for asked, again in (turns(case, s) for s in range(n))):
            buffers = {name: case.initial[name] for name in case.layout.buffers}
            weights = {**w.noisy(weights, self.sigma, derive(case.seed, "noise")), **buffers}
        rounds = range(n, max(case.rounds, n + self.rounds))
        return (yield from fedavg(weights, case.rota, case.retain, case.training.local, rounds, case.seed))

    def restart(self, case: Case) -> int:
        """The round to start again from, n; the number of rounds if that is the original model."""
        return max(n for n, influence in enumerate(self.psi(case)) if influence <= self.budget)

    def psi(self, case: Case) -> list[float]:
        """Psi(n, u) of the weights that round n started from, and last of the original weights."""
        psi = [0.0]
        for s in range(case.rounds):
            psi.append(self.B * psi[-1] + influence(case, s))
        return psi


def influence(case: Case, s: int) -> float:
    """How far round ``s``'s average is from one by whom training without the leaver asks, in the L2 norm of parameters.

    Infinite if it asks a hospital whose update of that round nobody has.
    """
    images, (asked, again) = {**case.kept, **case.lost}, turns(case, s)
    if asked == again or not again <= asked:
        return 0.0 if asked == again else math.inf
    updates = {site: case.history.update(s, site) for site in images if site in asked}

    def step(sites: set[SiteId]) -> Weights:
        own = [site for site in updates if site in sites]
        return w.average([updates[site] for site in own], [images[site] for site in own])

    whole = step(asked)
    return w.norm(w.subtract(whole, step(again)) if again else whole, case.layout.parameters)


def turns(case: Case, s: int) -> tuple[set[SiteId], set[SiteId]]:
    """Whom with images round ``s`` asked, and whom it asks in training without the leaver."""
    asked = {site for site in case.trained(s) if case.kept.get(site) or case.lost.get(site)}
    return asked, {site for site in case.turn("train", s) if case.kept[site]}
