"""FedEraser: retrain faster by reusing how far every hospital once moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

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
from fedunlearn.federation.procedures import calibrated, restarted
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Fit


@dataclass(frozen=True)
class FedEraser:
    """Rebuild the model from stored updates of the remaining hospitals, turned around by short training.

    The server kept every hospital's update Delta_k of every Delta_t-th round. From the initial weights, the
    first stored updates are applied as they are: they started from weights that nobody had trained yet. In
    each later stored round the remaining hospitals train from the current weights for E_cal = ceil(r E)
    epochs, which gives fresh updates D_k; the stored ones give the length and the fresh ones the direction::

        U_k = |Delta_k| * D_k / |D_k|            w <- w + sum_k n_k / n * U_k

    Reference:
        Liu et al., "FedEraser: Enabling Efficient Client-Level Data Removal from Federated Learning Models",
        IWQoS 2021, arXiv 2012.13891, Algorithm 1, with the calibration above.

    Deviations:
        |Delta_k| is the length of what hospital k sent; widely copied code takes the distance between two
        averages, and starts from a stored round later than the first, which has seen the data. A D_k of
        length zero has no direction and counts as zero. BatchNorm statistics come from the calibration
        training as they are: they are no step of any length. The average weighs by images, as in training. Where
        rounds ask some hospitals only, a stored round is of those that it asked, without the leaver and any that
        retains nothing; one that asked no others is left out.

    Attributes:
        every: keep the updates of every k-th round, Delta_t.
        r: share of the training's local epochs spent on calibration, r.
        norm: take lengths tensor by tensor, as the public code does, or over the whole model.
    """

    name: Literal["federaser"] = "federaser"
    every: Annotated[int, Ge(1)] = 2
    r: Annotated[float, Gt(0), Le(1), Search(0.2, 1)] = 0.5
    norm: Annotated[Literal["layer", "model"], Search()] = "layer"

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """The stored updates."""
        return Needs(updates=Every(self.every), each_reply=True)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        stored, weights = case.history.update, restarted(case, left(case, 0))
        names = case.layout.parameters
        groups = [names] if self.norm == "model" else [(name,) for name in names]
        local = paced(case.training.local, math.ceil(self.r * case.training.local.epochs))
        for t in range(self.every, case.rounds, self.every):
            if not (sites := left(case, t)):
                continue
            seeds = {site: derive(case.seed, "calibrate", site, t) for site in sites}
            replies = yield {site: Fit(weights, case.retain, local, seed) for site, seed in seeds.items()}
            steps = (
                calibrated(stored(t, site), w.subtract(reply.weights, weights), groups)
                for site, reply in replies.items()
                if reply.weights is not None
            )
            weights = w.add(weights, w.average(steps, [reply.count for reply in replies.values()]))
        return weights


def left(case: Case, t: int) -> list[SiteId]:
    """The hospitals that remain, with images, of those that round ``t`` asked."""
    return [site for site in case.trained(t) if case.kept.get(site)]
