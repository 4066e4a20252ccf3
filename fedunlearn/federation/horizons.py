"""How far unlearning has come: epochs, and the model in hand at a scenario's horizons.

A horizon is a number of epochs (arXiv 2606.16180 measures after 20 and after 50). Between two rounds a procedure has a
model in hand: the one that it sends to hospitals next. What it sends in a `ChainMap` is beside that (`Asks`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedunlearn.core import Asks, LocalTraining, Weights
from fedunlearn.federation.drive import in_hand
from fedunlearn.federation.jobs import Label, Round

Reached = Callable[[Label, int, int, Weights | None], None]
"""Told whose model is in hand, at which horizon, after how many rounds, and the model; None if it was told before."""


def epochs(asks: Asks) -> int:
    """The most passes over its images that anybody is asked to train for in a round; gradients alone are none."""
    trainings = (getattr(task, "training", None) for task in asks.values())
    return max((one.epochs for one in trainings if isinstance(one, LocalTraining)), default=0)


@dataclass
class _Progress:
    """How far one procedure has come, the horizons that are still ahead of it, and those told, each with its rounds."""

    ahead: list[int]
    rounds: int = 0
    epochs: int = 0
    told: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Horizons:
    """Watches unlearning (`fedunlearn.federation.jobs.Watcher`) and tells of the model in hand at each horizon, once.

    That is between two rounds, the first time that so many epochs or more are done. A procedure that ends before, or
    right there, has no other model than the one it returns, and nothing is told.

    Attributes:
        horizons: in epochs, ascending.
        reached: who is told.
    """

    horizons: Sequence[int]
    reached: Reached
    _progress: dict[Label, _Progress] = field(default_factory=dict)

    def round(self, round: Round) -> None:
        """See `Watcher`."""
        if round.label.phase != "unlearn":
            return
        far = self._progress.setdefault(round.label, _Progress(list(self.horizons)))
        model = in_hand(round.asks)
        while far.ahead and far.epochs >= far.ahead[0] and model is not None:
            self.reached(round.label, horizon := far.ahead.pop(0), far.rounds, model)
            far.told.append((horizon, far.rounds))
        far.rounds, far.epochs = far.rounds + 1, far.epochs + epochs(round.asks)

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""

    @property
    def name(self) -> str:
        """See `Remembering`."""
        return "horizons"

    def known(self, label: Label) -> object:
        """See `Remembering`: the horizons told, each with its rounds."""
        return self._progress[label].told if label in self._progress and self.horizons else None

    def recall(self, label: Label, known: Sequence[tuple[int, int]] | None) -> None:
        """See `Remembering`: of a procedure that ended."""
        for horizon, rounds in known or ():
            self.reached(label, horizon, rounds, None)
