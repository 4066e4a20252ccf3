"""FATS: train on small random draws, so that a request often finds few rounds that its data ever touched, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from fedunlearn.core import (
    Case,
    Course,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import mean
from fedunlearn.learning.tasks import Draws, FitDrawn


@dataclass(frozen=True)
class FATS:
    """Train each round with K hospitals on a random part of their images; go back only to where the data was drawn.

    Training itself is done in this way, before any request. In round t the K hospitals take part that a hash of
    (seed, hospital, t) puts first, and of their images each one whose own hash of (seed, hospital, t, row) falls
    below the rate p. The server keeps the weights every round started from and how many images each one drew::

        w_{t+1} <- sum_k n_kt / n_t Fit(w_t; images that hospital k drew in round t)
        t_0 = the first round that drew an image to forget, or in which a leaving hospital took part
        w <- w_{t_0}, then rounds t_0 … T - 1 on what is retained; without such a round w_T stays as it is

    No image's draw depends on which others there are, and a hospital that leaves gives its place to the next in the
    order of that round alone. Rounds before t_0 are therefore those of this way of training without the data, bit for
    bit and not in distribution only; so is the result. Holders report how many of their retained images each round
    draws: it drew one to forget where these are fewer than at the time. The data to forget are not read again.

    When it pays: a round touches m images of one of N hospitals with probability q = K/N (1 - (1 - p)^m), and T rounds
    leave them alone with (1 - q)^T. With the defaults, N = 3 and T = 5, that is 2 % for one image and 0.4 % for 72,
    and half a round is saved on average. With K = 2 of N = 10, p = 0.05 and T = 20, the four images of one patient
    were never touched with 47 %. So it pays for single patients, many hospitals and rounds, and a low rate. That
    costs accuracy, which scores show: they compare with ordinary training without the data, as for every strategy.

    Reference:
        Tao et al., "Communication Efficient and Provable Federated Unlearning", PVLDB 17, 2024, arXiv 2401.11018:
        TV-stable training with few hospitals and few samples, recomputation from the earliest touched round.

    Deviations:
        Images are drawn once a round, each for itself, and epochs go over them as in the scenario's training; the
        authors draw a batch of fixed size for every local step. After t_0, draws are those of training, not new
        ones. K is set here, whatever share the scenario's rounds ask. Averages weigh by the images drawn. The default
        rate suits a handful of rounds and hospitals.

    Attributes:
        participation: hospitals that take part in a round, K; all if there are fewer.
        rate: probability that one of their images does, p; with all hospitals, 1 is ordinary training.
    """

    name: Literal["fats"] = "fats"
    participation: Annotated[int, Ge(1)] = 2
    rate: Annotated[float, Gt(0), Le(1)] = 0.8

    guarantee: ClassVar[Guarantee] = Guarantee.EXACT
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Its own training, every round's weights of it, and how many images were drawn."""
        return Needs(preparation=True)

    def prepare(self, course: Course) -> Procedure[Mapping[str, Weights]]:
        """See `Preparing.prepare`: round t's weights are kept as ``t``, numbers of images drawn as ``drawn``."""
        return (yield from self.train(course, course.initial, 0))

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        touched = yield from self.touched(case)
        if not touched.any():
            return case.original
        first = int(touched.nonzero()[0])
        return (yield from self.train(case.course, case.history.prepared(str(first)), first))["model"]

    def train(self, course: Course, weights: Weights, first: int) -> Procedure[dict[str, Weights]]:
        """Train from round ``first`` on; what the server keeps of it."""
        kept: dict[str, Weights] = {}
        drawn = {site: torch.full((course.rounds,), -1) for site in course.sites}
        for number in range(first, course.rounds):
            kept[str(number)] = weights
            replies = yield {
                site: FitDrawn(
                    weights,
                    course.select,
                    course.training.local,
                    derive(course.seed, "train", site, number),
                    derive(course.seed, "draw", site, number),
                    self.rate,
                )
                for site in self.chosen(course, number)
            }
            for site, reply in replies.items():
                drawn[site][number] = reply.count
            if some := {site: reply for site, reply in replies.items() if reply.count}:
                weights = mean(some)  # those who drew nothing have nothing to say, not even in a counter
        return {**kept, "drawn": drawn, "model": weights}

    def chosen(self, course: Course, number: int) -> list[SiteId]:
        """The hospitals that take part in a round: the first of an order that does not depend on who is there."""
        order = sorted(course.sites, key=lambda site: derive(course.seed, "take part", site, number))
        return [site for site in course.sites if site in order[: self.participation]]

    def touched(self, case: Case) -> Procedure[Tensor]:
        """Which rounds the data to forget touched, (T,) bool."""
        before = case.history.prepared("drawn")  # -1 where a hospital did not take part
        rounds = torch.arange(case.rounds)
        touched = rounds < 0 if case.leaver is None else before[case.leaver] >= 0
        if holders := [site for site in case.holders if site in case.sites]:
            replies = yield {site: self.recount(case, site, before[site].tolist()) for site in holders}
            now = torch.stack([reply.count * reply.arrays["share"] for reply in replies.values()]).sum(0)
            touched = touched | (now.round() < sum(before[site].clamp(min=0) for site in holders))
        return touched

    def recount(self, case: Case, site: SiteId, before: list[int]) -> Draws:
        """Ask a hospital what the rounds in which it took part draw of its retained images."""
        draws = (derive(case.seed, "draw", site, t) if n >= 0 else None for t, n in enumerate(before))
        return Draws(case.retain, tuple(draws), self.rate)
