"""Rollback: go back to the last weights that the data to forget had not touched, and train again from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from fedunlearn.core import Case, Every, Granularity, Guarantee, Needs, Procedure, Weights
from fedunlearn.federation.procedures import fedavg


@dataclass(frozen=True)
class Rollback:
    """Restore the last checkpoint that the data to forget did not touch, and replay training without them.

    With t_0 the first round that saw an image to forget, and checkpoints of every k-th round::

        w <- w_s,  s = k floor(t_0 / k)          then rounds s, s + 1, …, T - 1 of training on the retained data

    Each hospital and round draws the same random numbers as in training, so that what comes out is the
    retrained model, bit for bit: only the rounds before s are saved. Here every hospital takes part in every
    round, hence t_0 = 0 and the checkpoint is the initial weights, unless the request names no training image
    at all: then nothing was touched, and the original weights are the answer.

    Reference:
        Tao et al., "Communication Efficient and Provable Federated Unlearning", PVLDB 17(5), 2024, arXiv 2401.11018,
        whose recomputation starts from the earliest touched round; client-level rollback as in the framework
        Plato ("fedunlearning").

    Deviations:
        Full participation instead of sampled hospitals and mini-batches, so the saving of both is not to be
        had. Draws are derived from hospital and round, hence no random state has to be stored.

    Attributes:
        every: keep the weights that every k-th round started from, k.
    """

    name: Literal["rollback"] = "rollback"
    every: Annotated[int, Ge(1)] = 2

    guarantee: ClassVar[Guarantee] = Guarantee.EXACT
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The stored checkpoints."""
        return Needs(checkpoints=Every(self.every))

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        return (yield from self.replay(case, first_touched(case)))

    def replay(self, case: Case, touched: int) -> Procedure[Weights]:
        """Train again from the last checkpoint not after round ``touched``; the original if no round was."""
        if touched >= case.rounds:
            return case.original
        rounds = range(touched // self.every * self.every, case.rounds)
        weights = case.history.checkpoint(rounds.start)
        return (yield from fedavg(weights, case.sites, case.retain, case.training.local, rounds, case.seed))


def first_touched(case: Case) -> int:
    """The first round that saw an image to forget; ``case.rounds`` if none did."""
    return 0 if any(case.lost.values()) else case.rounds
