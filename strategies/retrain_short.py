"""Retraining cut short: the floor of every method that trains anew, or repairs at length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Le

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Weights
from fedunlearn.federation.procedures import fedavg


@dataclass(frozen=True)
class RetrainShort:
    """Train again without the data to forget, for a share of the rounds only.

    It draws retraining's random numbers, so it is the retrained model as that was after so many rounds, bit for bit,
    and all of training's where the share is 1. It has never seen the data; what it may lack is the last rounds' gain
    in accuracy. So a method that costs as much is worth its effort only if it does better.

    Reference:
        No paper's own: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
        AISTATS 2017, arXiv 1602.05629, Algorithm 1, on the retained data, stopped early.

    Deviations:
        None. It promises nothing about the distance from the fully retrained model, which is why it is not exact.

    Attributes:
        share: rounds, as a share of those that the original weights were trained for; at least one.
            `tune` does not search it: a floor is set.
    """

    name: Literal["retrain_short"] = "retrain_short"
    share: Annotated[float, Gt(0), Le(1)] = 0.6

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs()

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        rounds = range(max(1, round(self.share * case.rounds)))
        return (
            yield from fedavg(case.initial, case.rota, case.retain, case.training.local, rounds, case.seed)
        )
