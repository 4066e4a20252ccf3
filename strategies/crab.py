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
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Search,
    Seen,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import calibrated, restarted
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Fit


@dataclass(frozen=True)
class Crab:
    """Rebuild the model as FedEraser does, from a selection of training's history.

    In each window of rounds, those P of them are kept that changed the global model most; of each, the updates of those
    X of all hospitals that point most as the model went. From the initial weights, the first round's updates are
    applied as they are; in each later round t the kept hospitals, without the leaver, train from the current weights
    for ceil(r E) epochs, and their fresh updates D_k are made as long as the stored ones, tensor by tensor::

        change_t = sum_l KL(softmax(w_t,l) || softmax(w_t+1,l))          the last dimension of each tensor l
        like_k = cos(Delta_k^t, w_t+1 - w_t)
        w <- w + sum_k n_k / n |Delta_k^t| D_k / |D_k|

    Reference:
        Jiang et al., "Towards Efficient and Certified Recovery from Poisoning Attacks in Federated Learning",
        IEEE TIFS 2025, arXiv 2401.08216, selective storage and recovery; values as in the authors' code.

    Deviations:
        Windows are of equal length: the authors close one when the training loss fell by a tenth, and hospitals here
        report no loss while they train. All of round 0 is kept, since the adaptive rollback goes to the initial
        weights, the only ones that a hospital of every round did not touch; the code has none, and calibrates from
        models that the leaver has trained. It compares whole models where like_k compares updates, and rounds
        shares down, where one of three hospitals may be nobody. X is of those asked. BatchNorm's statistics are new.

    Attributes:
        window: rounds among which to choose, the first window of all starting with round 0.
        P: share of a window's rounds that are used, rounded up.
        X: share of the hospitals used in such a round, rounded up; a round whose chosen retain nothing is left out.
        r: share of the training's local epochs spent on calibration.
    """

    name: Literal["crab"] = "crab"
    window: Annotated[int, Ge(1)] = 5
    P: Annotated[float, Gt(0), Le(1)] = 0.6
    X: Annotated[float, Gt(0), Le(1)] = 0.7
    r: Annotated[float, Gt(0), Le(1), Search(0.2, 1)] = 0.5

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """What was chosen of the updates."""
        return Needs(updates=Important(self.window, self.P, self.X), each_reply=True)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        stored, chosen = case.history.update, case.history.chosen
        tensors = [(name,) for name in case.layout.parameters]
        weights = restarted(case, [site for site in chosen(0) if case.kept.get(site)])
        local = paced(case.training.local, math.ceil(self.r * case.training.local.epochs))
        for t in range(1, case.rounds):
            if not (sites := [site for site in case.sites if case.kept[site] and site in chosen(t)]):
                continue
            seeds = {site: derive(case.seed, "calibrate", site, t) for site in sites}
            replies = yield {site: Fit(weights, case.retain, local, seed) for site, seed in seeds.items()}
            steps = (
                calibrated(stored(t, site), w.subtract(reply.weights, weights), tensors)
                for site, reply in replies.items()
                if reply.weights is not None
            )
            weights = w.add(weights, w.average(steps, [reply.count for reply in replies.values()]))
        return weights


@dataclass(frozen=True)
class Important:
    """A `Choice`: in a window, the P of its rounds that changed the model most, of these the X of hospitals like it."""

    window: int
    P: float
    X: float

    def chosen(self, first: int, rounds: Sequence[Seen]) -> list[list[SiteId]]:
        """See `Choice.chosen`. Round 0 stands apart: all of it is kept."""
        if first == 0:
            return [list(rounds[0].updates), *self.chosen(1, rounds[1:])]
        most = largest([change(seen) for seen in rounds], self.P)
        return [self.sites(seen) if i in most else [] for i, seen in enumerate(rounds)]

    def sites(self, seen: Seen) -> list[SiteId]:
        """The hospitals that went as the model did."""
        way, sites = step(seen), list(seen.updates)
        return [sites[i] for i in largest([cosine(seen.updates[site], way) for site in sites], self.X)]


def step(seen: Seen) -> Weights:
    """How the global model moved in a round."""
    return w.average(seen.updates.values(), list(seen.images.values()))


def change(seen: Seen) -> float:
    """How much a round changed the weights that it started from, as a divergence."""
    moved = step(seen)
    models = ((x.double(), (x + moved[name]).double()) for name, x in seen.sent.items())
    logs = ((a.log_softmax(-1), b.log_softmax(-1)) for a, b in models)
    return sum(float((p.exp() * (p - q)).sum()) for p, q in logs)


def cosine(a: Weights, b: Weights) -> float:
    """Of the angle between two updates; 0 if one of them is zero."""
    x, y = (torch.cat([x.flatten().double() for x in update.values()]) for update in (a, b))
    return float(torch.cosine_similarity(x, y, 0))


def largest(values: Sequence[float], share: float) -> list[int]:
    """Where the ``share`` of ``values``, rounded up, that are largest are, in order; of equals, the earlier."""
    return sorted(sorted(range(len(values)), key=lambda i: -values[i])[: math.ceil(share * len(values))])
