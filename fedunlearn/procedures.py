"""Reusable procedures and the tasks they ask for: federated averaging, and what methods are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Images,
    Local,
    LocalTraining,
    Procedure,
    Replies,
    Reply,
    RunError,
    Select,
    SiteId,
    Task,
    Weights,
    derive,
)
from fedunlearn.kinds import KINDS, Objective
from fedunlearn.local import Constraint, fit, gradient, outputs, squared_gradients
from fedunlearn.objectives import Distillation, Signed, marked, taught


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
class Gradient:
    """Reply the gradient of the mean loss over the images of ``select``, as arrays by parameter name."""

    weights: Weights
    select: Select
    objective: Objective | None = None

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        return Reply(None, len(images), gradient(local, self.weights, images, self.objective))


@dataclass(frozen=True)
class Relabel:
    """Train ``weights`` on ``forget``'s images under wrong labels and on ``retain``'s under their own.

    Both are shuffled together. ``labels`` seeds the wrong labels, which are drawn once per image
    (`wrong_labels`).
    """

    weights: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int
    labels: int
    constraint: Constraint | None = None

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget, retain = local.images(self.forget), local.images(self.retain)
        wrong = wrong_labels(forget.targets, local.classes, self.labels)
        images = Images(
            torch.cat([forget.pixels, retain.pixels]),
            torch.cat([wrong, retain.targets]),
            torch.cat([forget.rows, retain.rows]),
        )
        new = fit(local, self.weights, images, self.training, self.seed, constraint=self.constraint)
        return Reply(new, len(images))


@dataclass(frozen=True)
class Mask:
    """A constraint: only where ``mask`` is true may a parameter differ from ``reference``, bit for bit."""

    mask: Mapping[str, Tensor]
    reference: Weights

    def __call__(self, parameters: Mapping[str, Tensor]) -> None:
        """See `Constraint`."""
        for name, mask in self.mask.items():
            p = parameters[name]
            p.copy_(torch.where(mask.to(p.device), p, self.reference[name].to(p.device)))


@dataclass(frozen=True)
class Signals:
    """Reply the per-image signal of ``weights`` for ``select``'s images; for scoring, not for unlearning."""

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
        constraint: applied after every local step, and after every average.
    """
    for number in rounds:
        replies = yield {
            site: Fit(weights, select, local, derive(seed, purpose, site, number), constraint=constraint)
            for site in sites
        }
        weights = mean(replies, constraint)
    return weights


def recover(
    case: Case, weights: Weights, rounds: int, local: LocalTraining, constraint: Constraint | None = None
) -> Procedure[Weights]:
    """Some rounds of federated averaging on what may still be used: the repair step of most methods."""
    return fedavg(weights, case.sites, case.retain, local, range(rounds), case.seed, "recover", constraint)


def at_holders(
    case: Case, task: Callable[[SiteId], Task], constraint: Constraint | None = None
) -> Procedure[Weights]:
    """One round at the hospitals that hold images to forget; their average replaces the model."""
    return mean((yield {site: task(site) for site in case.holders}), constraint)


def signals(weights: Weights, sites: Sequence[SiteId]) -> Procedure[Mapping[str, Tensor]]:
    """Every hospital's per-image signal of one model, in the order of ``sites.parquet``."""
    replies = yield {site: Signals(weights, Select(split="all")) for site in sites}
    order = torch.argsort(torch.cat([reply.arrays["rows"] for reply in replies.values()]))
    names = next(iter(replies.values())).arrays
    return {name: torch.cat([reply.arrays[name] for reply in replies.values()])[order] for name in names}


def mean(replies: Replies, constraint: Constraint | None = None) -> dict[str, Tensor]:
    """The replies' weights averaged by image count, in the order asked.

    The ``constraint`` holds for the average too: rounding moves even a number on which all hospitals agree.
    """
    states = [reply.weights for reply in replies.values() if reply.weights is not None]
    average = w.average(states, [reply.count for reply in replies.values()])
    if constraint is not None:
        constraint(average)
    return average


def wrong_labels(labels: Tensor, classes: int, seed: int) -> Tensor:
    """For every label another one, uniform over the ``classes - 1`` others."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randint(1, classes, labels.shape, generator=generator)
    return (labels + offsets.to(labels.device)) % classes


def paced(training: LocalTraining, epochs: int | None = None, lr: float | None = None) -> LocalTraining:
    """``training`` with other epochs and another learning rate, where these are not None."""
    return replace(
        training,
        epochs=training.epochs if epochs is None else epochs,
        lr=training.lr if lr is None else lr,
    )


@dataclass(frozen=True)
class Contrast:
    """Train ``weights`` towards a small ``keep`` L(retain) - ``lose`` L(forget), L being the kind's own loss.

    Each L is the mean over its own images; both are shuffled together. ``retain`` None uses ``forget``'s images only.
    """

    weights: Weights
    forget: Select
    retain: Select | None
    training: LocalTraining
    seed: int
    lose: float
    keep: float = 0.0

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget = local.images(self.forget)
        images = marked(forget, None if self.retain is None else local.images(self.retain))
        n, m = len(forget), len(images) - len(forget)
        objective = Signed(
            KINDS[local.network.kind].objective,
            -self.lose * (n + m) / max(n, 1),
            self.keep * (n + m) / max(m, 1),
        )
        new = fit(local, self.weights, images, self.training, self.seed, objective)
        return Reply(new, len(images))


@dataclass(frozen=True)
class Distil:
    """Train ``weights`` on ``select``'s images towards a small ``loss`` L + ``kl`` KL(teacher || student).

    The teacher's outputs are computed once, as in use (`fedunlearn.local.outputs`); see `Distillation`.
    """

    weights: Weights
    teacher: Weights
    select: Select
    training: LocalTraining
    seed: int
    loss: float = 0.0
    kl: float = 1.0
    T: float = 1.0

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        images = taught(images, outputs(local, self.teacher, images))
        objective = Distillation(KINDS[local.network.kind].objective, self.loss, self.kl, self.T)
        return Reply(fit(local, self.weights, images, self.training, self.seed, objective), len(images))


@dataclass(frozen=True)
class Errors:
    """Reply how often each of ``models`` is wrong on ``select``'s images: the share of targets not given most score."""

    models: tuple[Weights, ...]
    select: Select

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        if not len(images):
            return Reply(None, 0, {"error": torch.zeros(len(self.models))})
        targets = images.targets.cpu()
        wrong = [
            (outputs(local, weights, images).argmax(1) != targets).float().mean() for weights in self.models
        ]
        return Reply(None, len(images), {"error": torch.stack(wrong)})


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


@dataclass(frozen=True)
class Fisher:
    """Reply the mean squared gradient of ``select``'s images at ``weights``, as arrays by parameter name."""

    weights: Weights
    select: Select

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        return Reply(None, len(images), squared_gradients(local, self.weights, images))


def redrawn(weights: Weights, names: Iterable[str], seed: int) -> dict[str, Tensor]:
    """``weights`` with the entries of each tensor of ``names`` in random order.

    For the weights that training started from, this is another draw from the same initialisation.
    """
    generator, new = torch.Generator().manual_seed(seed), dict(weights)
    for name in names:
        x = weights[name]
        new[name] = x.flatten()[torch.randperm(x.numel(), generator=generator)].reshape(x.shape)
    return new


@dataclass(frozen=True)
class Ball:
    """A constraint: no farther than ``radius`` from ``center``, over all parameters together."""

    center: Weights
    radius: float

    def __call__(self, parameters: Mapping[str, Tensor]) -> None:
        """See `Constraint`."""
        away = distance(parameters, self.center)
        if away > self.radius:
            for name, p in parameters.items():
                center = self.center[name].to(p.device)
                p.copy_(center + (p - center) * (self.radius / away))


@dataclass(frozen=True)
class Ascent:
    """Climb the loss of ``select``'s images inside ``ball`` until farther than ``farthest`` from ``own``."""

    weights: Weights
    select: Select
    training: LocalTraining
    seed: int
    ball: Ball
    own: Weights
    farthest: float

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = marked(local.images(self.select))
        objective = Signed(KINDS[local.network.kind].objective, -1.0, 0.0)
        once, weights = paced(self.training, 1), self.weights
        for epoch in range(self.training.epochs):
            seed = derive(self.seed, "epoch", epoch)
            weights = fit(local, weights, images, once, seed, objective, self.ball)
            if (
                distance({name: weights[name] for name in local.network.parameters()}, self.own)
                > self.farthest
            ):
                break
        return Reply(weights, len(images))


def distance(parameters: Mapping[str, Tensor], other: Weights) -> float:
    """The L2 distance of ``parameters`` from those of the same names in ``other``."""
    return w.norm({name: p.detach() - other[name].to(p.device) for name, p in parameters.items()})


def calibrated(stored: Weights, fresh: Weights, names: Iterable[str]) -> dict[str, Tensor]:
    """As ``fresh``, but each tensor of ``names`` as long as ``stored``'s: FedEraser's |stored| fresh / |fresh|.

    A tensor that ``fresh`` did not move has no direction and stays zero.
    """
    steps = dict(fresh)
    for name in names:
        length = w.norm(fresh, (name,))
        steps[name] = fresh[name] * (w.norm(stored, (name,)) / length if length > 0 else 0.0)
    return steps
