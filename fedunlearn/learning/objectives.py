"""What client-side methods minimise beside a kind's own loss, and how their images are put together.

An objective tells the images of a batch apart by what travels beside them in `Batch.extra`: ``forget``, (B,) bool, or
what frozen models make of each image, computed once: ``teacher``, outputs, or ``soft``, class probabilities. The mark
``forget`` is on the CPU, whatever the device: who asks which images a batch holds must not wait for a GPU. None of them
asks what a target is, so outputs are compared at all voxels, at those too whose labels are `core.IGNORED`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import Batch, Images, Inputs, derive
from fedunlearn.learning.kinds import Objective
from fedunlearn.learning.models import features


@dataclass(frozen=True)
class Signed:
    """``forget`` times the loss of the images to forget plus ``retain`` times that of the others.

    The mean over a batch: a part of b of the batch's B images counts b / B times its factor, so that the gradient of
    a random batch is right on average, whatever it happens to hold. The parts pass through the network one by one.
    Beyond ``ceiling`` the loss of a batch's images to forget counts as ``ceiling``, and has no slope. Of a batch that
    passes through the network in pieces (`fedunlearn.core.LocalTraining.micro_batch`), each piece's does. Images to
    forget may have a loss of their own, ``instead``.
    """

    loss: Objective
    forget: float
    retain: float
    ceiling: float | None = None
    instead: Objective | None = None

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        marked = batch.extra["forget"]
        parts = [
            (self.forget, marked, self.instead or self.loss, self.ceiling),
            (self.retain, ~marked, self.loss, None),
        ]
        terms = [
            factor * float(which.float().mean()) * _capped(loss(module, part(batch, which)), ceiling)
            for factor, which, loss, ceiling in parts
            if bool(which.any())
        ]
        return torch.stack(terms).sum()


def _capped(loss: Tensor, ceiling: float | None) -> Tensor:
    return loss if ceiling is None else loss.clamp(max=ceiling)


@dataclass(frozen=True)
class Distillation:
    """``share`` times the kind's own loss plus ``kl`` T^2 KL(teacher || module), T being the temperature.

    The teacher's outputs are ``extra["teacher"]``, shaped as the module's. A negative ``kl`` leads away from it. On top
    comes ``guard`` times the mean squared difference of the outputs themselves.
    """

    loss: Objective
    share: float = 0.0
    kl: float = 1.0
    T: float = 1.0
    guard: float = 0.0

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        student = module(batch.inputs)
        total = self.kl * divergence(batch.extra["teacher"], student, self.T)
        if self.guard:
            total = total + self.guard * F.mse_loss(student, batch.extra["teacher"])
        return total + self.share * self.loss(Known(student), batch) if self.share else total


@dataclass(frozen=True)
class SoftLabels:
    """Cross-entropy of class scores against ``extra["soft"]``, class probabilities (B, classes, ...) of their shape.

    It is KL(soft || module) plus the entropy of the labels, which has no slope. Labels that are sure of one class
    give the ordinary cross-entropy.
    """

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        return F.cross_entropy(module(batch.inputs), batch.extra["soft"])


@dataclass(frozen=True)
class Contrastive:
    """Cross-entropy of two similarities over tau, to ``extra["down"]`` (the right one) and ``extra["original"]``.

    Both hold the features, (B, features), of a frozen model; a similarity is a cosine, ``head`` as in `features`.
    """

    head: str
    tau: float

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        h = features(module, self.head, batch.inputs)
        down, original = (F.cosine_similarity(h, batch.extra[name]) for name in ("down", "original"))
        return F.softplus((original - down) / self.tau).mean()


@dataclass(frozen=True)
class Noise:
    """Gaussian noises of images, by row and number: the same in every batch and every epoch.

    The deviation of each is uniform in [``min_sigma``, ``max_sigma``]. A patch of a volume has noise of its own, at the
    volume's deviation.
    """

    seed: int
    min_sigma: float
    max_sigma: float

    def __call__(self, inputs: Tensor, rows: Tensor, number: int) -> Tensor:
        """The noise of this ``number`` for the images of ``rows``, (B,), shaped as their ``inputs``."""
        return torch.stack([self._of_one(inputs.shape[1:], row, number) for row in rows.tolist()]).to(inputs)

    def _of_one(self, shape: torch.Size, row: int, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(self.seed, row, number))
        sigma = torch.empty(()).uniform_(self.min_sigma, self.max_sigma, generator=generator)
        return sigma * torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class Sensitivity:
    """|f(x) - g(x + xi)| / |xi|, in the mean over a batch's images x and ``samples`` noises xi of each.

    f(x) are the module's outputs, g(x + xi) are ``extra["teacher"]``, (B, samples, ...), or if absent what f makes of
    x + xi now, without a slope of its own: f(x) moves towards its surroundings, and these do not come towards it.
    """

    noise: Noise
    samples: int

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        here, known = module(batch.inputs), batch.extra.get("teacher")
        quotients = []
        for number in range(self.samples):
            xi = self.noise(batch.image, batch.rows, number)
            near = (
                _still(module, batch.showing(batch.image + xi).inputs) if known is None else known[:, number]
            )
            quotients.append((here - near).flatten(1).norm(dim=1) / xi.flatten(1).norm(dim=1))
        return torch.stack(quotients).mean()


def _still(module: nn.Module, inputs: Inputs) -> Tensor:
    """What ``module`` makes of ``inputs``, as a constant."""
    with torch.no_grad():
        outputs: Tensor = module(inputs)
    return outputs


class Known(nn.Module):
    """A module whose outputs are there already: two losses of one pass."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs: Inputs) -> Tensor:
        """The outputs, whatever the ``inputs``."""
        return self.outputs


def loss_of(outputs: Tensor, images: Images, objective: Objective) -> Tensor:
    """The mean loss of ``outputs`` (N, ...) that are there already for ``images``, in float64."""
    device = outputs.device
    batch = Batch(outputs, images.targets.to(device), images.rows.to(device))
    return objective(Known(outputs.double()), batch)


def divergence(teacher: Tensor, student: Tensor, T: float = 1.0) -> Tensor:
    """T^2 KL(teacher || student) of two models' outputs (B, classes, ...), in the mean over all but the classes."""
    p, q = torch.log_softmax(teacher / T, 1), torch.log_softmax(student / T, 1)
    return T * T * F.kl_div(q, p, reduction="none", log_target=True).sum(1).mean()


def part(batch: Batch, which: Tensor) -> Batch:
    """The images of ``batch`` where ``which``, (B,) bool on the CPU, is true."""
    here = which.nonzero().flatten()
    there = here.to(batch.rows.device, non_blocking=True)

    def taken(values: Tensor) -> Tensor:
        return values.index_select(0, here if values.device == here.device else there)

    return batch.at(taken)


def chosen(values: Tensor, which: Tensor) -> Tensor:
    """``values[which]``, but a GPU is not waited for; ``which``, (B,) bool, is on the CPU."""
    return values.index_select(0, which.nonzero().flatten().to(values.device, non_blocking=True))


def together(*parts: Images) -> Images:
    """All images of ``parts``, one after another; what an objective asks of each is left behind."""
    return Images(
        torch.cat([one.pixels for one in parts]),
        torch.cat([one.targets for one in parts]),
        torch.cat([one.rows for one in parts]),
        companions={name: torch.cat([one.companions[name] for one in parts]) for name in parts[0].companions},
    )


def marked(forget: Images, retain: Images | None = None) -> Images:
    """Both, with ``extra["forget"]``, (N,) bool on the CPU, telling which are which."""
    images = together(forget) if retain is None else together(forget, retain)
    mark = torch.arange(len(images)) < len(forget)
    return replace(images, extra={"forget": mark})


def drawn(images: Images, share: float, seed: int) -> Images:
    """A random ``share`` of ``images``, in random order."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.at(order[: round(share * len(images))].to(images.rows.device))


def taught(images: Images, teacher: Tensor) -> Images:
    """``images`` with ``teacher``'s outputs, (N, ...), beside them."""
    return replace(images, extra={**images.extra, "teacher": teacher.to(images.rows.device)})


def softly(images: Images, labels: Tensor) -> Images:
    """``images`` with class probabilities ``labels``, (N, classes, ...), beside them."""
    return replace(images, extra={**images.extra, "soft": labels.to(images.rows.device)})
