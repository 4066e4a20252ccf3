"""Fine-tuning: train on without the data and hope that it fades. The floor every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Recovery, Search, Weights
from fedunlearn.federation.procedures import recover


@dataclass(frozen=True)
class FineTune:
    """Go on training on the retained data only.

    Also called natural forgetting, or continued training: whatever it achieves costs nothing but ordinary
    rounds, so a method is worth its effort only if it does better in as many.

    Reference:
        The baseline "FT" of Fan et al., "SalUn", ICLR 2024, arXiv 2310.12508, Section 5, and "natural" of
        Mora et al., "Federated Unlearning Made Practical", arXiv 2504.05822.

    Deviations:
        A fixed number of rounds: both stop or tune by the retrained model, which nobody has in practice.

    Attributes:
        rounds: rounds of federated averaging, R.
        local_epochs: passes over the retained images in each, E; as in training by default.
        lr: learning rate, eta; as in training by default.
    """

    name: Literal["fine_tune"] = "fine_tune"
    rounds: Annotated[int, Ge(1), Search(1, 6)] = 3
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs()

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        return (yield from recover(case, case.original, Recovery(self.rounds, self.local_epochs, self.lr)))
