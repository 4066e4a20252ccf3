"""CF-k: let the last layers forget by going on without the data, and leave the first ones as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Recovery, Search, Weights
from fedunlearn.federation.procedures import recover
from fedunlearn.learning.constraints import fixed
from fedunlearn.weights import last_layers


@dataclass(frozen=True)
class CFk:
    """Train the last k layers on the retained data, under fixed first ones (catastrophic forgetting).

    What the first layers remember stays, by design; it is `fine_tune` of a part of the network, at most as far from
    the original.

    Reference:
        Goel et al., "Towards Adversarial Evaluations for Inexact Machine Unlearning", arXiv 2201.06640: CF-k.

    Deviations:
        In federated rounds, each hospital training its last layers on what it retains. A layer is a weight of two
        dimensions or more and what follows it. BatchNorm statistics, also of first layers, follow the retained data.

    Attributes:
        k: how many layers, counted from the last; networks with an answer for each modality have several last ones.
        recovery: the rounds on the retained data (`core.Recovery`).
    """

    name: Literal["cf_k"] = "cf_k"
    k: Annotated[int, Ge(1), Search(1, 6)] = 2
    recovery: Recovery = Recovery(rounds=3)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs(stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        names = case.layout.parameters
        last = last_layers(case.original, names, self.k)
        first = fixed(case.original, [name for name in names if name not in last])
        return (yield from recover(case, case.original, self.recovery, first))
