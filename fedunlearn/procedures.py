"""Reusable procedures and the tasks they ask for: federated averaging and what unlearning methods are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Local,
    LocalTraining,
    Procedure,
    Replies,
    Reply,
    Select,
    SiteId,
    Task,
    Weights,
    derive,
)
from fedunlearn.kinds import KINDS, Objective
from fedunlearn.local import Constraint, fit, outputs
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """Train ``weights`` on the images of ``select`` and reply the new weights."""

    weights: Weights
    select: Select
    training: LocalTraining
    seed: int
    objective: Objective | None = None
    constraint: Constraint | None = None

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        new = fit(local, self.weights, images, self.training, self.seed, self.objective, self.constraint)
        return Reply(new, len(images))


@dataclass(frozen=True)
class Signals:
    """Reply the per-image signal of ``weights`` for the images of ``select``; for scoring, not for unlearning."""

    weights: Weights
    select: Select

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        signal = KINDS[local.network.kind].signal(outputs(local, self.weights, images), images.targets.cpu())
        return Reply(None, len(images), {"rows": images.rows.cpu(), **signal})


def fedavg(
    weights: Weights,
    sites: Sequence[SiteId],
    select: Select,
    local: LocalTraining,
    rounds: range,
    seed: int,
    purpose: str = "train",
    constraint: Constraint | None = None,
) -> Procedure[Weights]:
    """Federated averaging (McMahan et al. 2017, Algorithm 1), every hospital in every round.

    Args:
        weights: where to start.
        sites: who takes part.
        select: the images each of them uses.
        local: one hospital's work in one round.
        rounds: the numbers of the rounds, so that training can go on where it stopped with the same draws.
        seed: the training seed.
        purpose: names the random draws; training and retraining share "train".
        constraint: applied after every local step.
    """
    for number in rounds:
        replies = yield {
            site: Fit(weights, select, local, derive(seed, purpose, site, number), constraint=constraint)
            for site in sites
        }
        weights = mean(replies)
    return weights


def recover(
    case: Case, weights: Weights, rounds: int, local: LocalTraining, constraint: Constraint | None = None
) -> Procedure[Weights]:
    """Some rounds of federated averaging on what may still be used: the repair step of most methods."""
    return fedavg(weights, case.sites, case.retain, local, range(rounds), case.seed, "recover", constraint)


def at_holders(case: Case, task: Callable[[SiteId], Task]) -> Procedure[Weights]:
    """One round at the hospitals that hold images to forget; their average replaces the model."""
    return mean((yield {site: task(site) for site in case.holders}))


def signals(weights: Weights, sites: Sequence[SiteId]) -> Procedure[Mapping[str, Tensor]]:
    """Every hospital's per-image signal of one model, in the order of ``sites.parquet``."""
    replies = yield {site: Signals(weights, Select(split="all")) for site in sites}
    order = torch.argsort(torch.cat([reply.arrays["rows"] for reply in replies.values()]))
    names = next(iter(replies.values())).arrays
    return {name: torch.cat([reply.arrays[name] for reply in replies.values()])[order] for name in names}


def mean(replies: Replies) -> dict[str, Tensor]:
    """The replies' weights averaged by image count, in the order asked."""
    states = [reply.weights for reply in replies.values() if reply.weights is not None]
    return w.average(states, [reply.count for reply in replies.values()])


def paced(training: LocalTraining, epochs: int, lr: float | None = None) -> LocalTraining:
    """``training`` with other epochs and, unless None, another learning rate."""
    return replace(training, epochs=epochs, lr=training.lr if lr is None else lr)
