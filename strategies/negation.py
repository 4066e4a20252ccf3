"""NoT: turn the first layer upside down, then let the retained data repair the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Recovery, Weights
from fedunlearn.federation.procedures import recover


@dataclass(frozen=True)
class Negation:
    """Multiply the weights of the first layer by -1, then fine-tune on the retained data.

    The negated layer breaks what later layers learnt to rely on, while the weights stay a good place to start
    from: the retained data rebuild what they need, and nothing rebuilds the rest. Neither history nor the
    data to forget is used.

    Reference:
        Khalil et al., "NoT: Federated Unlearning via Weight Negation", CVPR 2025, arXiv 2503.05657: negate,
        then fine-tune.

    Deviations:
        A fixed number of recovery rounds; the paper's layer choice is fixed to its default, the first
        convolution (its weight, not its bias). The model is at chance until it recovers, as it must be with its
        features turned round. No official code was found.

    Attributes:
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["negation"] = "negation"
    recovery: Recovery = Recovery(rounds=3)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs(stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        first = case.layout.first
        negated = {**case.original, first: -case.original[first]}
        return (yield from recover(case, negated, self.recovery))
