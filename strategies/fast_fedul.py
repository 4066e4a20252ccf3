"""Fast-FedUL: take the leaver's updates back, round by round, and what the others made of them; nobody trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from fedunlearn import weights as w
from fedunlearn.core import Case, Every, Granularity, Guarantee, Needs, Procedure, Recovery, Search, Weights
from fedunlearn.federation.procedures import recover


@dataclass(frozen=True)
class FastFedUL:
    """Add to the model an estimate of how far training without the leaver would have come from it.

    D_t is that distance after t rounds. In each it changes by the leaver's own update, and by the skew: from weights
    that lie D_t elsewhere, the others' updates would have differed too, by alpha |D_t| at most if updates are
    alpha-Lipschitz in the weights. Nobody computes that; it is taken to lie along D_t. With p the leaver's share of
    a round's images (0 if that did not ask it), Delta the model's update of the round and Delta_u the leaver's::

        code:    D_t+1 = (1 - alpha (1 - p)) D_t - p Delta_u
        paper:   D_t+1 = (1 + alpha) D_t + p / (1 - p) (Delta - Delta_u)
        w <- w_T + D_T,                            D_0 = 0

    The code's form is exact where every hospital's update is alpha (c_k - w), towards an optimum c_k of its own, and
    those who remain keep their shares of the average. The paper's gives them the leaver's share too, as retraining
    does; it is exact where updates are alpha (w - c_k) and lead away, and its factors grow with every round.

    Reference:
        Huynh et al., "Fast-FedUL: A Training-Free Federated Unlearning with Provable Skew Resilience", ECML-PKDD
        2024, arXiv 2405.18040: Algorithm 2 of its supplement, and compute_unlearn_term of the authors' code.

    Deviations:
        Paper and code differ in the sign of the skew and in the others' shares; the code made the experiments, so its
        form is the default, with the alpha of its command (MNIST, 51 rounds, 7 of 25 clients a round; the supplement
        recommends 0.05 to 0.1). Of the paper's text we read the supplement only. The server keeps every update;
        theirs keeps the 5 largest of each round's 7. BatchNorm statistics are no updates and stay as they are. Where
        one of few hospitals leaves, much of the model goes with it (on phantom cells a fifth of its accuracy), until it
        recovers. Recovery rounds are an addition; the paper has none.

    Attributes:
        alpha: Lipschitz coefficient of the others' updates, alpha.
        form: whose recursion.
        recovery: ordinary rounds afterwards on the retained data (`core.Recovery`); none in the paper.
    """

    name: Literal["fast_fedul"] = "fast_fedul"
    alpha: Annotated[float, Ge(0), Le(1), Search(0.01, 0.11)] = 0.07
    form: Annotated[Literal["code", "paper"], Search()] = "code"
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """All stored updates: of the leaver alone, but nobody knows who that will be."""
        return Needs(updates=Every(1), stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        away, names = self.away(case), case.layout.parameters
        weights = {**case.original, **{name: case.original[name] + away[name] for name in names}}
        return (yield from recover(case, weights, self.recovery))

    def away(self, case: Case) -> Weights:
        """D_T, of every weight."""
        (leaver,), all_images, stored = case.holders, {**case.kept, **case.lost}, case.history.update
        away: Weights = w.multiply(case.original, 0.0)
        for t in range(case.rounds):
            asked = set(case.trained(t))
            images = {site: count for site, count in all_images.items() if count and site in asked}
            if not images:  # in a sequential timeline: those that it asked have lost all images
                continue
            own = stored(t, leaver) if leaver in images else w.multiply(away, 0.0)
            p = images.get(leaver, 0) / sum(images.values())
            if p == 1:  # without the leaver there is no such round
                away = w.subtract(away, own)
            elif self.form == "code":
                away = w.add(w.multiply(away, 1 - self.alpha * (1 - p)), own, -p)
            else:
                everyone = w.average((stored(t, site) for site in images), list(images.values()))
                away = w.add(w.multiply(away, 1 + self.alpha), w.subtract(everyone, own), p / (1 - p))
        return away
