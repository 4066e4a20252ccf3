"""FedAU: learn a head that does not know a hospital's images while training, and mix it in when that one leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Course,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Recovery,
    Search,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import fedavg, recover
from fedunlearn.learning.constraints import Mask
from fedunlearn.learning.tasks import Relabel


@dataclass(frozen=True)
class FedAU:
    """Train an auxiliary head at every hospital beside the model, and replace most of the model's head by a leaver's.

    After each round of training every hospital k trains a last layer of its own on the model's features of its
    images, under wrong labels that were drawn once. Before that the head is drawn towards the model's. When k leaves,
    the server takes one linear step and nobody trains::

        W_k <- Fit((1 - gamma) W + gamma W_k; x of k, wrong labels; features fixed)       in every round
        W   <- (1 - alpha) W + alpha W_k                                                  at the request

    Features stay as they are and hold all that they learnt of the leaver: another head finds it again (evaluation
    `linear_probe` asks). That is suppression. The wrong labels turn the head against the true class of every image
    that looks like the leaver's. Where others' do, as hospitals' mostly will, the model loses accuracy everywhere:
    a third of it on phantom cells, until it recovers.

    Reference:
        Gu et al., "Unlearning during Learning: An Efficient Federated Machine Unlearning Method", IJCAI 2024, arXiv
        2405.15474, unlearning of clients; ul_samples_whole_client of the authors' code, with its alpha and gamma (the
        README's command for clients names the mode for classes).

    Deviations:
        Nobody knows beforehand who will leave, so every hospital has a head. In the authors' code one client does,
        known from the start; all of its images carry a trigger, and its features learn under both heads, as they
        cannot at every hospital. Here heads learn on fixed features (their switch fine_tune_mode)
        and start as the model's, so that the model is that of ordinary training, bit for bit. The paper also
        forgets samples and classes that are marked before training: patients who ask later cannot be. A head's round
        counts as a round of its own, of the hospitals that training's asked; one that was never asked has none, and
        leaves the head as it is. We read the paper's abstract and the code. Recovery is an addition.

    Attributes:
        alpha: share of the leaver's head in the new one, alpha.
        gamma: share of its own last head that a hospital's next one starts from, gamma.
        recovery: ordinary rounds afterwards on the retained data (`core.Recovery`); none in the paper.
    """

    name: Literal["fedau"] = "fedau"
    alpha: Annotated[float, Ge(0), Le(1), Search(0.05, 1)] = 0.9
    gamma: Annotated[float, Ge(0), Le(1)] = 0.5
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.SUPPRESSION
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """Its own training, and each hospital's head of it."""
        return Needs(preparation=True, stayers=self.recovery.rounds > 0, each_reply=True)

    def prepare(self, course: Course) -> Procedure[Mapping[str, Weights]]:
        """See `Preparing.prepare`: hospital k's head is kept as ``head-k``."""
        weights, select, local = course.initial, course.select, course.training.local
        untrained, heads = picked(weights, course), dict[SiteId, Weights]()
        for number in range(course.rounds):
            rounds = range(number, number + 1)
            weights = yield from fedavg(weights, course.rota, select, local, rounds, course.seed)
            fixed = {
                name: weights[name] for name in course.layout.parameters if name not in course.layout.head
            }
            constraint = Mask({name: torch.zeros((), dtype=torch.bool) for name in fixed}, fixed)
            tasks = {}
            for site in course.rota.asked(course.seed, "train", number):
                start = {**weights, **mixed(picked(weights, course), heads.get(site, untrained), self.gamma)}
                order, labels = derive(course.seed, "head", site, number), derive(course.seed, "labels", site)
                tasks[site] = Relabel(start, select, None, local, order, labels, constraint)
            replies = yield tasks
            heads |= {site: picked(reply.weights or {}, course) for site, reply in replies.items()}
        return {"model": weights, **{f"head-{site}": head for site, head in heads.items()}}

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        (leaver,), head = case.holders, picked(case.original, case.course)
        if any(leaver in case.trained(number) for number in range(case.rounds)):
            head = mixed(head, case.history.prepared(f"head-{leaver}"), self.alpha)
        return (yield from recover(case, {**case.original, **head}, self.recovery))


def mixed(a: Weights, b: Weights, share: float) -> Weights:
    """(1 - share) a + share b."""
    return w.add(w.multiply(a, 1 - share), b, share)


def picked(weights: Weights, course: Course) -> Weights:
    """The head's entries."""
    return {name: weights[name] for name in course.layout.head}
