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
    retrained model, bit for bit: only the rounds before s are saved. A round saw an image to forget if it asked a
    hospital that held one; where the request leaves fewer hospitals than were asked, none is as in retraining. Where
    every round asks all hospitals, t_0 = 0 and the checkpoint is the initial weights; where few are asked in turn
    (`training.participation`), much may be saved. If nothing was touched, the original weights are the answer.

    Reference:
        Tao et al., "Communication Efficient and Provable Federated Unlearning", PVLDB 17(5), 2024, arXiv 2401.11018,
        whose recomputation starts from the earliest touched round; client-level rollback as in the framework
        Plato ("fedunlearning").

    Deviations:
        No sampled mini-batches, so their saving is not to be had. Draws are derived from hospital and round, hence no
        random state has to be stored, and those after t_0 are training's, not new ones.

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
        return (yield from fedavg(weights, case.rota, case.retain, case.training.local, rounds, case.seed))


def first_touched(case: Case) -> int:
    """The first round that saw an image to forget, or asked others than retraining; ``case.rounds`` if none did."""
    if not any(case.lost.values()):
        return case.rounds
    changed = {site for site, images in case.had.items() if case.kept.get(site) != images}
    as_before = (
        changed.isdisjoint(case.trained(t)) and case.trained(t) == case.turn("train", t)
        for t in range(case.rounds)
    )
    return next((t for t, same in enumerate(as_before) if not same), case.rounds)
