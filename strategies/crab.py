"""Crab: retrain faster from stored updates, but only from the rounds and hospitals that mattered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Every,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Search,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import calibrated
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Fit


@dataclass(frozen=True)
class Crab:
    """Rebuild the model as FedEraser does, from a selection of training's history.

    In each window of rounds, those P of them count that changed the global model most; in each such round, those
    X of all hospitals whose updates point most as the model went. Nobody knows then who will leave: the leaver's
    are passed over later. From the initial weights, the updates of the first round are applied as they are; in
    each chosen round t the chosen hospitals train from the current weights for ceil(r E) epochs, and their fresh
    updates D_k are made as long as the stored ones, tensor by tensor::

        change_t = sum_l KL(softmax(w_t,l) || softmax(w_t+1,l))          the last dimension of each tensor l
        like_k = cos(Delta_k^t, w_t+1 - w_t)
        w <- w + sum_k n_k / n |Delta_k^t| D_k / |D_k|

    Reference:
        Jiang et al., "Towards Efficient and Certified Recovery from Poisoning Attacks in Federated Learning",
        IEEE TIFS 2025, arXiv 2401.08216, selective storage and recovery; values as in the authors' code.

    Deviations:
        Windows are of equal length: the authors close one when the training loss fell by a tenth, and hospitals
        here report no loss while they train. The choice is computed when the request comes, from what training
        showed: until then the server holds everything, and the ledger counts that. The paper's holds what was chosen:
        about P X of the updates. The adaptive rollback goes to the initial weights, the only ones that a hospital of
        every round did not touch; the code has none, and calibrates from models that the leaver has trained. It
        compares whole models where like_k compares updates, and rounds shares down, where one of three hospitals may
        be nobody. BatchNorm statistics are the calibration's.

    Attributes:
        window: rounds among which to choose.
        P: share of a window's rounds that are used, rounded up.
        X: share of the hospitals used in such a round, rounded up; a round that chose the leaver alone is left out.
        r: share of the training's local epochs spent on calibration.
    """

    name: Literal["crab"] = "crab"
    window: Annotated[int, Ge(1)] = 5
    P: Annotated[float, Gt(0), Le(1), Search(0.4, 1)] = 0.6
    X: Annotated[float, Gt(0), Le(1), Search(0.5, 1)] = 0.7
    r: Annotated[float, Gt(0), Le(1), Search(0.2, 1)] = 0.5

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """All stored updates, and the models they started from."""
        return Needs(updates=Every(1), checkpoints=Every(1), each_reply=True)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        stored = case.history.update
        first = (stored(0, site) for site in case.sites)
        weights = w.add(case.initial, w.average(first, [case.kept[site] for site in case.sites]))
        tensors = [(name,) for name in case.layout.parameters]
        local = paced(case.training.local, math.ceil(self.r * case.training.local.epochs))
        for t in self.rounds(case):
            if not (sites := self.sites(case, t)):
                continue
            replies = yield {
                site: Fit(weights, case.retain, local, derive(case.seed, "calibrate", site, t))
                for site in sites
            }
            steps = (
                calibrated(stored(t, site), w.subtract(reply.weights, weights), tensors)
                for site, reply in replies.items()
                if reply.weights is not None
            )
            weights = w.add(weights, w.average(steps, [reply.count for reply in replies.values()]))
        return weights

    def rounds(self, case: Case) -> list[int]:
        """The rounds to use after the first, in order."""
        rounds, names, chosen = range(1, case.rounds), case.layout.parameters, list[int]()
        for start in range(0, len(rounds), self.window):
            window = rounds[start : start + self.window]
            changes = [change(case.history.checkpoint(t), step(case, t), names) for t in window]
            chosen += [window[i] for i in largest(changes, self.P)]
        return chosen

    def sites(self, case: Case, t: int) -> list[SiteId]:
        """Those of the hospitals chosen in round ``t`` that remain, in scenario order."""
        way, names = step(case, t), case.layout.parameters
        trained = [site for site in case.roster if site in case.kept or site in case.lost]
        alike = [cosine(case.history.update(t, site), way, names) for site in trained]
        return [trained[i] for i in largest(alike, self.X) if trained[i] in case.sites]


def step(case: Case, t: int) -> Weights:
    """How the global model moved in round ``t``."""
    images = {**case.kept, **case.lost}
    return w.average((case.history.update(t, site) for site in images), list(images.values()))


def change(before: Weights, step: Weights, names: Sequence[str]) -> float:
    """How much ``step`` changed the weights ``before``, as a divergence."""
    total = 0.0
    for name in names:
        p, q = (torch.log_softmax(x.double(), -1) for x in (before[name], before[name] + step[name]))
        total += float((p.exp() * (p - q)).sum())
    return total


def cosine(a: Weights, b: Weights, names: Sequence[str]) -> float:
    """Of the angle between two updates; 0 if one of them is zero."""
    x, y = (torch.cat([update[name].flatten().double() for name in names]) for update in (a, b))
    return float(torch.cosine_similarity(x, y, 0))


def largest(values: Sequence[float], share: float) -> list[int]:
    """Where the ``share`` of ``values``, rounded up, that are largest are, in order; of equals, the earlier."""
    return sorted(sorted(range(len(values)), key=lambda i: -values[i])[: math.ceil(share * len(values))])
