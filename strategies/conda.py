"""ConDa: dampen the weights that the leaving hospital moved more than the others did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le

from fedunlearn.core import (
    Case,
    Cumulative,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Recovery,
    Search,
    Weights,
)
from fedunlearn.federation.procedures import recover


@dataclass(frozen=True)
class ConDa:
    """Contribution dampening: shrink what is the leaver's own work, on the server; no hospital does any work.

    Hospital k's contribution to a weight adds up, over rounds, how far the hospital's model was from the initial one.
    Where the others contributed little beside the leaver u, the weight is dampened::

        c_k = sum_t |w_k^t - w^0|,   rho = mean_(k != u) c_k / c_u
        w <- w * min(lambda rho, upper)        where rho < cutoff

    Reference:
        Chundawat et al., "ConDa: Fast Federated Unlearning with Contribution Dampening", arXiv 2410.04144, the
        ratio of contributions and the dampening; contributions and values as in the authors' code and README.

    Deviations:
        The code calls its function with the leaver and the others exchanged, which dampens what the
        *others* made; here the ratio is the paper's. Among few hospitals few weights have a ratio below 0.5, since
        every model is far from the initial one: it keeps the model, and forgets little. ``updates`` is our
        addition, c_k = |sum_t Delta_k^t|: where a hospital's updates cancel, c_k is small, so that many more ratios
        are, and a cutoff of 0.5 wrecks the model. BatchNorm statistics are no contributions and stay as they are; the
        code dampens them too. Recovery rounds are an addition; the paper has none.

    Attributes:
        cutoff: weights with a smaller ratio of contributions are dampened.
        dampening: factor on the ratio, lambda.
        upper: largest factor on a dampened weight.
        contribution: of what c_k is: the distances from the initial weights, or the hospital's own updates.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["conda"] = "conda"
    cutoff: Annotated[float, Ge(0), Search(0.1, 1, log=True)] = 0.5
    dampening: Annotated[float, Gt(0), Search(0.25, 1)] = 0.5
    upper: Annotated[float, Ge(0), Le(1), Search(0.25, 1)] = 0.5
    contribution: Cumulative = "distances"
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """Every hospital's contributions, added up."""
        return Needs(cumulative=self.contribution, stayers=self.recovery.rounds > 0, everyone=True)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        (leaver,), history = case.holders, case.history
        theirs = [history.cumulative(site) for site in case.sites]
        own, weights = history.cumulative(leaver), dict(case.original)
        for name in case.layout.parameters:
            contributed = torch.stack([added[name].abs() for added in theirs]).mean(0)
            # A weight that nobody moved is 0/0, which is not below any cutoff.
            ratio = contributed / own[name].abs()
            dampened = weights[name] * (self.dampening * ratio).clamp(max=self.upper)
            weights[name] = torch.where(ratio < self.cutoff, dampened, weights[name])
        return (yield from recover(case, weights, self.recovery))
