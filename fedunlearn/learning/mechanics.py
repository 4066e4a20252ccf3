"""The mechanics of image-to-image unlearning: a loss of retained data plus alpha times one of data to forget.

Both are means over their own images, and the images to forget have other targets than their own: labels that are
noise, or what the original model makes of something else. Whatever is drawn is drawn anew at every step. The reference
of all is Li et al., "Machine Unlearning for Image-to-Image Generative Models", ICLR 2024, arXiv 2402.00351, and the
authors' code, where a batch holds as many images to forget as retained ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import IMAGE, Batch, Images, Inputs, Local, LocalTraining, Reply, Select, Weights, derive
from fedunlearn.learning.embeddings import redrawn
from fedunlearn.learning.kinds import Objective, learnt
from fedunlearn.learning.labels import Labels, replaced
from fedunlearn.learning.local import Constraint, fit
from fedunlearn.learning.models import encoded
from fedunlearn.learning.objectives import Known, Signed, chosen, marked, part

Instead = Literal["others", "noise", "noise images"]
"""What an image to forget is to be answered with: the teacher's answer to a retained one, noise, that to noise."""


@dataclass(frozen=True)
class Terms:
    """The two halves of a loss at a hospital with n images to forget and m retained ones.

    An image to forget counts alpha in the average of hospitals, too: where a hospital has nothing else, an optimizer
    such as Adam does not feel the factor.

    Attributes:
        seed: of whatever is drawn.
        forget: alpha (n + m) / n, the factor of images to forget: L_r + alpha L_f is the mean over batches then.
        retain: (n + m) / m, that of retained ones.
        count: m + alpha n, at least 1 if there is any image: what the hospital's answer counts in the average.
    """

    seed: int
    forget: float
    retain: float
    count: int

    def __call__(self, batch: Batch, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Both halves of ``loss``, which is told of which images, (B,) bool; those a batch has none of cost nothing."""
        forget = batch.extra["forget"]
        halves = [
            factor * float(which.float().mean()) * loss(which)
            for factor, which in ((self.forget, forget), (self.retain, ~forget))
            if bool(which.any())
        ]
        return torch.stack(halves).sum()

    def drawn(self, batch: Batch) -> int:
        """A seed for this batch of this step."""
        return derive(self.seed, "step", batch.step, *batch.rows.tolist())


@dataclass(frozen=True)
class OtherLabels:
    """The kind's own ``loss``, of images to forget under the labels that ``how`` names."""

    loss: Objective
    terms: Terms
    how: Labels

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        outputs, forget, seed = module(batch.inputs), batch.extra["forget"], self.terms.drawn(batch)
        targets = batch.targets.clone()
        if bool(forget.any()):
            true, others = targets[forget], targets[~forget]
            targets[forget] = replaced(self.how, true, others, outputs.shape[1], seed)
        batch = replace(batch, targets=targets)
        return self.terms(batch, lambda which: self.loss(Known(chosen(outputs, which)), part(batch, which)))


@dataclass(frozen=True)
class Imitation:
    """|h(x_r) - t(x_r)|^2 + alpha |h(x_f) - t'|^2, t being what the ``teacher`` makes of the same images at this step.

    Squares are means over an image's numbers; of an encoder with several levels, their sum. t' is `Instead`:
    t(x_r) of a retained image of the batch, or standard Gaussian noise if it has none; Gaussian noise with the mean
    and deviation of the batch's t; or t of Gaussian images with the mean and deviation of the batch's, cut off where
    its darkest and brightest pixels are, with words or numbers of the batch's beside them.

    Attributes:
        teacher: weights, on the device of the module, which is in use as such: no BatchNorm statistics of batches.
        terms: the two halves.
        instead: what t' is.
        head: compare what the decoder is given (`encoded`); None for outputs.
    """

    teacher: Weights
    terms: Terms
    instead: Instead
    head: str | None = None

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        h = shown(module, batch.inputs, self.head)
        t = self._targets(module, batch)

        def loss(which: Tensor) -> Tensor:
            pairs = ((chosen(a, which), chosen(b, which)) for a, b in zip(h, t, strict=True))
            return torch.stack([F.mse_loss(a, b) for a, b in pairs]).sum()

        return self.terms(batch, loss)

    def _targets(self, module: nn.Module, batch: Batch) -> list[Tensor]:
        """The teacher's t of each image, and t' of each to forget."""
        forget, generator = batch.extra["forget"], torch.Generator().manual_seed(self.terms.drawn(batch))
        t = self._taught(module, batch.inputs)
        if not bool(forget.any()):
            return t
        n = int(forget.sum())
        match self.instead:
            case "others":
                instead = [x[~forget].repeat(n, *[1] * (x.dim() - 1))[:n] for x in t]
                if not len(instead[0]):
                    instead = [noise(x[forget], 0.0, 1.0, generator) for x in t]
            case "noise":
                instead = [noise(x[forget], x.mean(), x.std(correction=0), generator) for x in t]
            case "noise images":
                x, forgotten = batch.image, part(batch, forget)
                images = noise(forgotten.image, x.mean(), x.std(correction=0), generator)
                images = images.clamp(x.min(), x.max())
                instead = self._taught(module, anew(forgotten, batch, generator).showing(images).inputs)
        return [x.index_put((forget,), other) for x, other in zip(t, instead, strict=True)]

    def _taught(self, module: nn.Module, inputs: Inputs) -> list[Tensor]:
        """What the teacher makes of ``inputs``, without gradients."""
        training = module.training
        module.eval()
        try:
            with torch.no_grad():
                return shown(module, inputs, self.head, self.teacher)
        finally:
            module.train(training)


@dataclass(frozen=True)
class Relearn:
    """Train ``weights`` towards a small L(retain) + ``alpha`` L(forget), the latter under other ``labels``.

    Each L is the kind's own loss, the mean over its own images; both are shuffled together (`OtherLabels`).
    """

    weights: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int
    alpha: float
    labels: Labels
    constraint: Constraint | None = None

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images, terms = _together(local, self)
        objective = OtherLabels(learnt(local.network.kind).objective, terms, self.labels)
        new = fit(local, self.weights, images, self.training, self.seed, objective, self.constraint)
        return Reply(new, terms.count)


@dataclass(frozen=True)
class Climb:
    """Train ``weights`` towards a small L(retain) - ``alpha`` min(L(forget), ``ceiling``), L being the kind's own loss.

    Each L is the mean over its own images; both are shuffled together, and the ceiling is for each batch (`Signed`).
    """

    weights: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int
    alpha: float
    ceiling: float | None
    constraint: Constraint | None = None

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images, terms = _together(local, self)
        own = learnt(local.network.kind).objective
        objective = Signed(own, -terms.forget, terms.retain, self.ceiling)
        new = fit(local, self.weights, images, self.training, self.seed, objective, self.constraint)
        return Reply(new, terms.count)


@dataclass(frozen=True)
class Imitate:
    """Train ``weights`` to answer as ``teacher``, and for ``forget``'s images as it would to ``instead`` (`Imitation`).

    In outputs, or with ``encoder`` in what the decoder is given. Both are shuffled together.
    """

    weights: Weights
    teacher: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int
    alpha: float
    instead: Instead
    encoder: bool = False
    constraint: Constraint | None = None

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images, terms = _together(local, self)
        teacher = {name: x.to(local.network.device) for name, x in self.teacher.items()}
        head = local.network.layout.head[0] if self.encoder else None
        objective = Imitation(teacher, terms, self.instead, head)
        new = fit(local, self.weights, images, self.training, self.seed, objective, self.constraint)
        return Reply(new, terms.count)


def shown(
    module: nn.Module, inputs: Inputs, head: str | None, weights: Weights | None = None
) -> list[Tensor]:
    """What a module makes of ``inputs``: its outputs, or with ``head`` what its decoder is given (`encoded`).

    With ``weights``, these are in the place of its own.
    """
    with encoded(module, head) if head else nullcontext(list[Tensor]()) as seen:
        outputs = (
            module(inputs)
            if weights is None
            else torch.func.functional_call(module, dict(weights), (inputs,))
        )
    return list(seen) if head else [outputs]


def noise(
    like: Tensor, mean: Tensor | float, deviation: Tensor | float, generator: torch.Generator
) -> Tensor:
    """Gaussian noise shaped as ``like``."""
    return torch.randn(like.shape, generator=generator).to(like) * deviation + mean


def anew(batch: Batch, among: Batch, generator: torch.Generator) -> Batch:
    """``batch`` with what comes beside each image drawn anew from what ``among`` has (`redrawn`)."""
    if not (isinstance(batch.inputs, Mapping) and isinstance(among.inputs, Mapping)):
        return batch
    beside = {
        name: redrawn(x, among.inputs[name], 1.0, generator)
        for name, x in batch.inputs.items()
        if name != IMAGE
    }
    return replace(batch, inputs={IMAGE: batch.image, **beside})


def _together(local: Local, task: Relearn | Climb | Imitate) -> tuple[Images, Terms]:
    """The images of both kinds, and what they count."""
    forget = local.images(task.forget)
    images = marked(forget, local.images(task.retain))
    every, n, m = len(images), len(forget), len(images) - len(forget)
    lose, keep = task.alpha * every / max(n, 1), every / max(m, 1)
    count = max(1, round(m + task.alpha * n)) if every else 0
    return images, Terms(derive(task.seed, "mechanic"), lose, keep, count)
