"""Reusable procedures: federated averaging, and the rounds that methods are made of."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import (
    Asks,
    Case,
    LocalTraining,
    Procedure,
    Recovery,
    Replies,
    Rota,
    RunError,
    Select,
    SiteId,
    Task,
    Weights,
    derive,
)
from fedunlearn.learning.local import Constraint, paced
from fedunlearn.learning.tasks import Copies, Errors, Fit, Loss, Signals, Still

T = TypeVar("T")


def fedavg(
    weights: Weights,
    sites: Sequence[SiteId] | Rota,
    select: Select,
    local: LocalTraining,
    rounds: range,
    seed: int,
    purpose: str = "train",
    constraint: Constraint | None = None,
) -> Procedure[Weights]:
    """Federated averaging (McMahan et al. 2017, Algorithm 1).

    Args:
        weights: where to start.
        sites: who takes part: in every round, or in turn.
        select: the images each of them uses.
        local: one hospital's work in one round.
        rounds: the numbers of the rounds, so that training can go on where it stopped with the same draws.
        seed: the training seed.
        purpose: names the random draws; training and retraining share "train".
        constraint: applied after every local step, and after every average.
    """
    rota = sites if isinstance(sites, Rota) else Rota(tuple(sites))
    for number in rounds:
        replies = yield {
            site: Fit(weights, select, local, derive(seed, purpose, site, number), constraint=constraint)
            for site in rota.asked(seed, purpose, number)
        }
        weights = mean(replies, constraint)
    return weights


def recover(
    case: Case, weights: Weights, recovery: Recovery, constraint: Constraint | None = None
) -> Procedure[Weights]:
    """Some rounds of federated averaging on what may still be used: the repair step of most methods.

    Of those that remain, as many are asked in each as in training, in turns that all methods share; at a later request
    of a sequence, in others than before.
    """
    local, rounds, purpose = repairing(case, recovery), range(recovery.rounds), case.purpose("recover")
    return fedavg(weights, case.rota, case.retain, local, rounds, case.seed, purpose, constraint)


def repairing(case: Case, recovery: Recovery) -> LocalTraining:
    """A hospital's work in a round of ``recovery``: as in training, but for what is set there."""
    return paced(case.training.local, recovery.local_epochs, recovery.lr)


def together(procedures: Mapping[str, Procedure[T]]) -> Procedure[dict[str, T]]:
    """Run procedures that ask different hospitals side by side, and return their results by name.

    Each step is one round of every procedure that still has one, as a `ChainMap` of these rounds; bits are those of
    running one after the other.

    Raises:
        ValueError: two of them ask the same hospital at once.
    """
    asks: dict[str, Asks] = {}
    results: dict[str, T] = {}

    def step(name: str, replies: Replies | None) -> None:
        try:
            asks[name] = procedures[name].send(replies)  # type: ignore[arg-type]  # the first send must be None
        except StopIteration as stop:
            results[name] = stop.value

    try:
        for name in procedures:
            step(name, None)
        while asks:
            merged = ChainMap(*map(dict, asks.values()))
            if len(merged) < sum(map(len, asks.values())):
                raise ValueError(f"{', '.join(asks)} cannot run together: they ask the same hospital")
            replies, asked = (yield merged), dict(asks)
            asks.clear()
            for name, sites in asked.items():
                step(name, {site: replies[site] for site in sites})
        return {name: results[name] for name in procedures}
    finally:
        for procedure in procedures.values():
            procedure.close()


def at_holders(
    case: Case,
    task: Callable[[SiteId], Task],
    constraint: Constraint | None = None,
    weights: Weights | None = None,
) -> Procedure[Weights]:
    """One round at the hospitals that hold images to forget; their average replaces ``weights``, or the original model.

    BatchNorm's statistics stay as they were. Those of such a round are of images to forget and of few others, tell of
    them without any gradient, and would be the model's if no round followed. New ones of retained images would ask the
    other hospitals, whom methods of this kind do without.
    """
    before = case.original if weights is None else weights
    average = mean((yield {site: task(site) for site in case.holders}), constraint)
    return {**average, **{name: before[name] for name in case.layout.buffers}}


def everywhere(
    case: Case,
    weights: Weights,
    rounds: int,
    task: Callable[[Weights, SiteId, int], Task],
    purpose: str,
    constraint: Constraint | None = None,
) -> Procedure[Weights]:
    """Rounds of all hospitals that hold images, retained or to forget; their average replaces the model each time.

    One that retains nothing gives BatchNorm's statistics back as they were sent (`Still`). Of those who hold nothing to
    forget, some are asked in turn where training does so, and stand for all of them (`present`).

    Args:
        case: the request.
        weights: where to start.
        rounds: how many.
        task: (weights, site, seed) -> what a hospital does.
        purpose: names the random draws.
        constraint: holds after every average.
    """
    for number in range(rounds):
        own = case.purpose(purpose)
        seeds = {site: derive(case.seed, own, site, number) for site in present(case, purpose, number)}
        asks = {site: task(weights, site, seed) for site, seed in seeds.items()}
        if buffers := {name: weights[name] for name in case.layout.buffers}:
            asks |= {site: Still(ask, buffers) for site, ask in asks.items() if not case.kept.get(site)}
        weights = whole_mean(case, (yield asks), constraint)
    return weights


def present(case: Case, purpose: str, number: int) -> tuple[SiteId, ...]:
    """Who is asked in a round of all hospitals that hold images: the holders, and those of the others whose turn it is.

    The holders do not take turns: in the few rounds of a method most would have none, and nothing would be forgotten.
    """
    asked = {*case.holders, *_others(case).asked(case.seed, case.purpose(purpose), number)}
    return tuple(site for site in dict.fromkeys((*case.sites, *case.holders)) if site in asked)


def whole_mean(case: Case, replies: Replies, constraint: Constraint | None = None) -> dict[str, Tensor]:
    """The `mean` of a round of those who are `present`, in which others than the holders stand for all others.

    So the images to forget have the weight in it that they have where every hospital is asked. A server that sees sums
    only needs the two of holders and others.
    """
    others = {site: case.kept[site] for site in _others(case).sites}
    return mean(replies, constraint, standing_for(others, replies))


def standing_for(images: Mapping[SiteId, int], replies: Replies) -> list[float]:
    """The replies' counts, raised for hospitals of ``images`` so that those that replied stand for all of these.

    Of sums and means over hospitals of which some were drawn: the usual estimate of what all would have replied.

    Args:
        images: by hospital, of those that could have been drawn.
        replies: of some of these, whose counts are raised, and maybe of others.
    """
    asked = sum(images[site] for site in replies if site in images)
    factor = sum(images.values()) / asked if asked else 1.0
    return [reply.count * (factor if site in images else 1.0) for site, reply in replies.items()]


def _others(case: Case) -> Rota:
    """The hospitals that remain and hold nothing to forget, in turns."""
    others = (site for site in case.sites if site not in case.holders)
    return Rota.among(others, case.kept, case.training.participation)


def beside(
    case: Case,
    weights: Weights,
    rounds: int,
    local: LocalTraining,
    task: Callable[[Weights, SiteId, int], Task],
    purpose: str,
    constraint: Constraint | None = None,
) -> Procedure[Weights]:
    """Rounds in which the holders do a task of their own while all others train on what they retain (`everywhere`).

    Args:
        case: the request.
        weights: where to start.
        rounds: how many.
        local: the others' work in one round.
        task: (weights, site, seed) -> what a hospital that holds images to forget does.
        purpose: names the random draws.
        constraint: holds after every step of the others, and after every average.
    """

    def own(weights: Weights, site: SiteId, seed: int) -> Task:
        if site in case.holders:
            return task(weights, site, seed)
        return Fit(weights, case.retain, local, seed, constraint=constraint)

    return everywhere(case, weights, rounds, own, purpose, constraint)


def signals(weights: Weights, sites: Sequence[SiteId]) -> Procedure[Mapping[str, Tensor]]:
    """Every hospital's per-image signal of one model, in the order of ``sites.parquet``."""
    return _by_row((yield {site: Signals(weights, Select(split="all")) for site in sites}))


def copies(
    weights: Weights, sites: Sequence[SiteId], selects: tuple[Select, ...]
) -> Procedure[Mapping[str, Tensor]]:
    """What one model answers for changed copies of ``selects``' images at ``sites``, by row, then by copy.

    Args:
        weights: of the model.
        sites: the hospitals, of which one at least has such images.
        selects: the images, none of which is in two of them.
    """
    return _by_row((yield {site: Copies(weights, selects) for site in sites}))


def nothing() -> Procedure[None]:
    """Ask nobody."""
    yield from ()


def _by_row(replies: Replies) -> Mapping[str, Tensor]:
    """All hospitals' arrays by name, in the order of ``rows``; of equal rows, as each hospital has them."""
    arrays = [reply.arrays for reply in replies.values() if reply.count]
    order = torch.argsort(torch.cat([own["rows"] for own in arrays]), stable=True)
    return {name: torch.cat([own[name] for own in arrays])[order] for name in arrays[0]}


def mean(
    replies: Replies, constraint: Constraint | None = None, counts: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """The replies' weights averaged by image count, or by other ``counts``, in the order asked.

    The ``constraint`` holds for the average too: rounding moves even a number on which all hospitals agree.
    """
    states = (reply.weights for reply in replies.values() if reply.weights is not None)
    average = w.average(states, [reply.count for reply in replies.values()] if counts is None else counts)
    if constraint is not None:
        constraint(average)
    return average


def errors(models: Sequence[Weights], sites: Sequence[SiteId], select: Select) -> Procedure[list[float]]:
    """How often each model is wrong on ``select``'s images at ``sites`` together, in [0, 1].

    Raises:
        RunError: there is no such image.
    """
    replies = yield {site: Errors(tuple(models), select) for site in sites}
    counts = [reply.count for reply in replies.values()]
    if not sum(counts):
        raise RunError(
            f"found no {select.split} images at {', '.join(sites)}, expected some to measure errors on: "
            "give validation a share of the data, or choose a setting that does without"
        )
    return [float(x) for x in w.average([reply.arrays for reply in replies.values()], counts)["error"]]


def loss(weights: Weights, sites: Sequence[SiteId], select: Select) -> Procedure[float]:
    """The mean loss of one model on ``select``'s images at ``sites`` together."""
    replies = yield {site: Loss(weights, select) for site in sites}
    counts = [reply.count for reply in replies.values()]
    return float(w.average([reply.arrays for reply in replies.values()], counts)["loss"])


def restarted(case: Case, sites: Sequence[SiteId]) -> Weights:
    """What round 0 makes of the initial weights, by the stored updates of ``sites`` alone; of none, nothing."""
    if not sites:
        return case.initial
    updates = (case.history.update(0, site) for site in sites)
    return w.add(case.initial, w.average(updates, [case.kept[site] for site in sites]))


def redrawn(weights: Weights, names: Iterable[str], seed: int) -> dict[str, Tensor]:
    """``weights`` with the entries of each tensor of ``names`` in random order.

    For the weights that training started from, this is another draw from the same initialisation.
    """
    generator, new = torch.Generator().manual_seed(seed), dict(weights)
    for name in names:
        x = weights[name]
        new[name] = x.flatten()[torch.randperm(x.numel(), generator=generator)].reshape(x.shape)
    return new


def calibrated(stored: Weights, fresh: Weights, groups: Iterable[Sequence[str]]) -> dict[str, Tensor]:
    """As ``fresh``, but the tensors of each group together as long as ``stored``'s: |stored| fresh / |fresh|.

    FedEraser's calibration (arXiv 2012.13891). What ``fresh`` did not move has no direction and stays zero; a
    tensor in no group stays as it is.
    """
    steps = dict(fresh)
    for group in groups:
        length = w.norm(fresh, group)
        scale = w.norm(stored, group) / length if length > 0 else 0.0
        steps |= {name: fresh[name] * scale for name in group}
    return steps
