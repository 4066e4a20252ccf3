"""Retraining from scratch: the only exact method, and what all others are measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Weights
from fedunlearn.federation.procedures import fedavg


@dataclass(frozen=True)
class Retrain:
    """Train again from the same initial weights, without the data to forget.

    Every hospital and round draws the same random numbers as in training, so the result differs from the
    original model by the data alone; without a request it is the original model, bit for bit.

    Reference:
        McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS
        2017, arXiv 1602.05629, Algorithm 1, on the retained data.

    Deviations:
        None.
    """

    name: Literal["retrain"] = "retrain"

    guarantee: ClassVar[Guarantee] = Guarantee.EXACT
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs()

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        rounds = range(case.rounds)
        return (
            yield from fedavg(case.initial, case.rota, case.retain, case.training.local, rounds, case.seed)
        )
