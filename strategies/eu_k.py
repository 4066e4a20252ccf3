"""EU-k: train the last layers anew without the data, under the first ones as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Recovery,
    Search,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import recover, redrawn
from fedunlearn.learning.constraints import fixed
from fedunlearn.weights import last_layers


@dataclass(frozen=True)
class EUk:
    """Draw the last k layers anew and train them on the retained data, under fixed first ones (exact unlearning).

    Of the last layers it is exact: nothing of the data to forget is in them but by way of the features, which the
    first layers make as before. `reset_encoder` is its counterpart. The model is at chance until it recovers.

    Reference:
        Goel et al., "Towards Adversarial Evaluations for Inexact Machine Unlearning", arXiv 2201.06640: EU-k.

    Deviations:
        In federated rounds, each hospital training its last layers on what it retains. A layer is a weight of two
        dimensions or more and what follows it. The new draw is the one that training started from with the entries
        of each tensor in random order. BatchNorm statistics, also of first layers, follow the retained data.

    Attributes:
        k: how many layers, counted from the last; networks with an answer for each modality have several last ones.
        recovery: the rounds on the retained data (`core.Recovery`).
    """

    name: Literal["eu_k"] = "eu_k"
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
        untrained = redrawn(case.initial, last, derive(case.seed, "untrained"))
        anew = {name: untrained[name] for name in last}
        return (yield from recover(case, {**case.original, **anew}, self.recovery, first))
