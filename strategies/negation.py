"""NoT: turn the first layer upside down, then let the retained data repair the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Search, Weights
from fedunlearn.federation.procedures import recover
from fedunlearn.learning.local import paced


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
        convolution (its weight, not its bias). No official code was found.

    Attributes:
        recovery_rounds: rounds of federated averaging after the negation, R.
        local_epochs: passes over the retained images in each, E; as in training by default.
        lr: learning rate of the recovery, eta; as in training by default.
    """

    name: Literal["negation"] = "negation"
    recovery_rounds: Annotated[int, Ge(0), Search(1, 4)] = 3
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs(stayers=self.recovery_rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        first = case.layout.first
        negated = {**case.original, first: -case.original[first]}
        local = paced(case.training.local, self.local_epochs, self.lr)
        return (yield from recover(case, negated, self.recovery_rounds, local))
