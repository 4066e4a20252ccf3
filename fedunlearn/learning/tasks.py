"""Tasks that methods share: what one hospital does when asked. Training, gradients, importances, signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from fedunlearn.core import (
    Images,
    Local,
    LocalTraining,
    Reply,
    Select,
    Task,
    Weights,
    derive,
)
from fedunlearn.learning.condensing import matched, picked
from fedunlearn.learning.constraints import Ball, distance
from fedunlearn.learning.copies import NUMBER, copied
from fedunlearn.learning.kinds import Objective, learnt, shares
from fedunlearn.learning.labels import Labels, replaced
from fedunlearn.learning.local import Constraint, fit, gradient, outputs, paced, signals, squared_gradients
from fedunlearn.learning.objectives import Distillation, Signed, loss_of, marked, taught, together
from fedunlearn.learning.stacking import Member, fit_together


@dataclass(frozen=True)
class Fit:
    """Train ``weights`` on the images of ``select`` and reply the new weights."""

    weights: Weights
    select: Select
    training: LocalTraining
    seed: int
    objective: Objective | None = None
    constraint: Constraint | None = None

    @property
    def stack_width(self) -> int:
        """See `Stackable`: training as it is, without anything of a method's own."""
        return self.training.stack if self.objective is None and self.constraint is None else 1

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        if self.stack_width > 1:
            [reply] = Fit.together([self], [local])
            return reply
        images = local.images(self.select)
        new = fit(local, self.weights, images, self.training, self.seed, self.objective, self.constraint)
        return Reply(new, len(images))

    @staticmethod
    def together(tasks: Sequence[Fit], locals: Sequence[Local]) -> Sequence[Reply]:
        """See `Stackable`."""
        images = [local.images(task.select) for task, local in zip(tasks, locals, strict=True)]
        members = [Member(task.weights, of, task.seed) for task, of in zip(tasks, images, strict=True)]
        new = fit_together(locals[0].network, members, tasks[0].training)
        return [Reply(weights, len(of)) for weights, of in zip(new, images, strict=True)]


@dataclass(frozen=True)
class FitDrawn:
    """Train ``weights`` on those of ``select``'s images that ``draw`` draws at ``rate`` (`drawn`), as `Fit` does."""

    weights: Weights
    select: Select
    training: LocalTraining
    seed: int
    draw: int
    rate: float

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        images = images.at(drawn(images.rows, self.draw, self.rate))
        return Reply(fit(local, self.weights, images, self.training, self.seed), len(images))


@dataclass(frozen=True)
class Still:
    """Do ``task``, and reply ``buffers``, as they were sent, for the new ones: BatchNorm's tell of its images alone.

    A hospital says so itself, so that the sum over hospitals is still all that the server needs.
    """

    task: Task
    buffers: Weights

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        reply = self.task(local)
        return replace(reply, weights=None if reply.weights is None else {**reply.weights, **self.buffers})


@dataclass(frozen=True)
class Draws:
    """Reply which share of ``select``'s images each of ``draws`` draws at ``rate``, (len(draws),); 0 where None."""

    select: Select
    draws: tuple[int | None, ...]
    rate: float

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        rows = local.images(self.select).rows
        counts = [0 if draw is None else int(drawn(rows, draw, self.rate).sum()) for draw in self.draws]
        shares = torch.tensor(counts, dtype=torch.float64) / max(len(rows), 1)
        return Reply(None, len(rows), {"share": shares})


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
class Fisher:
    """Reply the mean squared gradient of ``select``'s images at ``weights``, as arrays by parameter name."""

    weights: Weights
    select: Select
    each_image: ClassVar[bool] = True

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        return Reply(None, len(images), squared_gradients(local, self.weights, images))


@dataclass(frozen=True)
class Signals:
    """Reply the per-image signal of ``weights`` for ``select``'s images; for scoring, not for unlearning."""

    weights: Weights
    select: Select

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        signal = signals(local, self.weights, images)
        return Reply(None, len(images), {"rows": images.rows.cpu(), **signal})


@dataclass(frozen=True)
class Copies:
    """Reply the brief signal of ``weights`` for each changed copy (`copied`) of ``selects``' images (`Kind.brief`).

    ``rows`` and ``copy`` tell which copy of which image each signal is of. For scoring, not for unlearning.
    """

    weights: Weights
    selects: tuple[Select, ...]

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        brief = learnt(local.network.kind).brief
        asked = [images for images in map(local.images, self.selects) if len(images)]
        parts = [
            {
                "rows": images.rows.cpu(),
                "copy": torch.full((len(images),), number),
                **signals(local, self.weights, images, brief, change=partial(copied, number=number)),
            }
            for images in asked
            for number in range(NUMBER)
        ]
        arrays = {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else ())}
        return Reply(None, sum(map(len, asked)), arrays)


@dataclass(frozen=True)
class Plane:
    """A flat slice of the volume with row number ``row``: its voxels number ``index`` along spatial axis ``axis``."""

    row: int
    axis: int
    index: int


@dataclass(frozen=True)
class Sections:
    """Reply which class ``weights`` gives to each voxel of ``planes``, by row number; for pictures, not for unlearning.

    The network sees the volumes whole; no voxel but those of the planes is replied.
    """

    weights: Weights
    planes: tuple[Plane, ...]

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        every = local.images(Select(split="all"))
        rows = every.rows.tolist()
        which = torch.tensor([rows.index(plane.row) for plane in self.planes], device=every.rows.device)
        images = every.at(which)
        volumes = signals(local, self.weights, images, _predicted)["predicted"]
        cut = {
            str(plane.row): volume.select(plane.axis, plane.index).contiguous()
            for plane, volume in zip(self.planes, volumes, strict=True)
        }
        return Reply(None, len(images), cut)


@dataclass(frozen=True)
class Loss:
    """Reply the mean loss of ``weights`` on ``select``'s images, float64, as the network is in use."""

    weights: Weights
    select: Select

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        if not len(images):
            return Reply(None, 0, {"loss": torch.zeros((), dtype=torch.float64)})
        found = loss_of(outputs(local, self.weights, images), images, learnt(local.network.kind).objective)
        return Reply(None, len(images), {"loss": found})


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
        wrong = [signals(local, weights, images, _wrong)["wrong"].mean() for weights in self.models]
        return Reply(None, len(images), {"error": torch.stack(wrong)})


@dataclass(frozen=True)
class Relabel:
    """Train ``weights`` on ``forget``'s images under other labels and on ``retain``'s under their own.

    Both are shuffled together. ``labels`` seeds the other labels, which are drawn once per image, ``how`` names them
    (`fedunlearn.learning.labels`). ``retain`` None uses ``forget``'s images only.
    """

    weights: Weights
    forget: Select
    retain: Select | None
    training: LocalTraining
    seed: int
    labels: int
    constraint: Constraint | None = None
    how: Labels = "wrong"

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget = local.images(self.forget)
        retain = forget.at(slice(0)) if self.retain is None else local.images(self.retain)
        labels = replaced(self.how, forget.targets, retain.targets, local.classes, self.labels)
        images = together(replace(forget, targets=labels), retain)
        new = fit(local, self.weights, images, self.training, self.seed, constraint=self.constraint)
        return Reply(new, len(images))


@dataclass(frozen=True)
class Weigh:
    """Train ``weights``, ``lose`` and ``keep`` being what an image to forget and a retained one count (`Signed`).

    Both kinds are shuffled together. With the same two numbers at every hospital, the average over hospitals by images
    is a step of one loss of all their images. ``retain`` None uses ``forget``'s images only.
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
        retain = None if self.retain is None else local.images(self.retain)
        images = marked(local.images(self.forget), retain)
        objective = Signed(learnt(local.network.kind).objective, self.lose, self.keep)
        return Reply(fit(local, self.weights, images, self.training, self.seed, objective), len(images))


@dataclass(frozen=True)
class Distil:
    """Train ``weights`` on ``select``'s images towards a small ``loss`` L + ``kl`` KL(teacher || student).

    The teacher's outputs are computed once, as in use (`fedunlearn.learning.local.outputs`); see `Distillation`.
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
        objective = Distillation(learnt(local.network.kind).objective, self.loss, self.kl, self.T)
        return Reply(fit(local, self.weights, images, self.training, self.seed, objective), len(images))


@dataclass(frozen=True)
class Condense:
    """Reply a few images that stand for ``select``'s, as arrays ``pixels`` and ``targets``.

    They are ``small`` after some steps of gradient matching at ``weights`` (`fedunlearn.learning.condensing.matched`);
    without ``small``, a random ``share`` of each class of the real ones is, or Gaussian noise in their place.
    """

    weights: Weights
    select: Select
    small: Weights | None
    share: float
    noise: bool
    steps: int
    lr: float
    batch_size: int
    seed: int

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images, device = local.images(self.select), local.network.device
        small = picked(images, self.share, self.seed) if self.small is None else given(self.small, device)
        if self.small is None and self.noise:
            generator = torch.Generator().manual_seed(derive(self.seed, "noise"))
            pixels = torch.randn(small.pixels.shape, generator=generator).to(small.pixels)
            small = replace(small, pixels=pixels)
        small = matched(local, self.weights, images, small, self.steps, self.lr, self.batch_size, self.seed)
        return Reply(None, len(images), {"pixels": small.pixels.cpu(), "targets": small.targets.cpu()})


@dataclass(frozen=True)
class FitGiven:
    """Train ``weights`` on ``images`` that come with the task (`Condense`), or ``climb`` their loss."""

    weights: Weights
    images: Weights
    training: LocalTraining
    seed: int
    climb: bool = False

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = marked(given(self.images, local.network.device))
        objective = Signed(learnt(local.network.kind).objective, -1.0, 0.0) if self.climb else None
        return Reply(fit(local, self.weights, images, self.training, self.seed, objective), len(images))


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
        objective = Signed(learnt(local.network.kind).objective, -1.0, 0.0)
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


def drawn(rows: Tensor, draw: int, rate: float) -> Tensor:
    """Which images of row numbers (N,) the seed ``draw`` draws, each with probability ``rate``: (N,) bool.

    Every image is drawn by itself: without some of them, the others are drawn as before.
    """
    below = rate * 2**63  # `derive` gives 63 bits
    return torch.tensor([derive(draw, row) < below for row in rows.tolist()], dtype=torch.bool).to(
        rows.device
    )


def given(images: Weights, device: torch.device) -> Images:
    """Images that travelled in a task, on ``device``; their rows, which nobody knows, are -1."""
    pixels, targets = images["pixels"].to(device), images["targets"].to(device)
    return Images(pixels, targets, torch.full_like(targets, -1))


def _predicted(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """The class given most score, (N, *spatial) int64."""
    return {"predicted": outputs.argmax(1)}


def _wrong(outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    """Which share of an image's targets is not given most score, (N,)."""
    wrong = (outputs.argmax(1) != targets) * shares(targets, torch.float32)
    return {"wrong": wrong.reshape(len(targets), -1).mean(1)}
