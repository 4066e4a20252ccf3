"""How far unlearning has come: epochs, and the model in hand at a scenario's horizons.

A horizon is a number of epochs (arXiv 2606.16180 measures after 20 and after 50). Between two rounds a procedure has a
model in hand: the one that it sends to hospitals next. What it sends in a `ChainMap` is beside that (`Asks`).
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Sequence

from fedunlearn.core import Asks, LocalTraining, Procedure, Weights

Reached = Callable[[int, int, Weights], None]
"""Told of (horizon, rounds done, model in hand)."""


def epochs(asks: Asks) -> int:
    """The most passes over its images that anybody is asked to train for in a round; gradients alone are none."""
    trainings = (getattr(task, "training", None) for task in asks.values())
    return max((one.epochs for one in trainings if isinstance(one, LocalTraining)), default=0)


def followed(procedure: Procedure[Weights], horizons: Sequence[int], reached: Reached) -> Procedure[Weights]:
    """``procedure`` itself, while ``reached`` hears of its model at each horizon.

    That is between two rounds, the first time that so many epochs or more are done. A procedure that ends before, or
    right there, has no other model than the one it returns, and nothing is told.

    Args:
        procedure: to follow.
        horizons: in epochs, ascending.
        reached: told at most once of each.
    """
    ahead, done, rounds, replies = list(horizons), 0, 0, None
    try:
        while True:
            try:
                asks = procedure.send(replies)  # type: ignore[arg-type]  # the first send must be None
            except StopIteration as stop:
                result: Weights = stop.value
                return result
            while ahead and done >= ahead[0] and (model := in_hand(asks)) is not None:
                reached(ahead.pop(0), rounds, model)
            replies = yield asks
            done, rounds = done + epochs(asks), rounds + 1
    finally:
        procedure.close()


def in_hand(asks: Asks) -> Weights | None:
    """The one model that a round sends; None if it sends none, or several, or others than the one in hand."""
    if isinstance(asks, ChainMap):
        return None
    sent = {
        id(model): model for task in asks.values() if (model := getattr(task, "weights", None)) is not None
    }
    return next(iter(sent.values())) if len(sent) == 1 else None
