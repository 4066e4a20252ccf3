"""Noise images: go on training with noise in the place of the images to forget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Local,
    LocalTraining,
    Needs,
    Procedure,
    Recovery,
    Reply,
    Search,
    Select,
    SiteId,
    Task,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import everywhere, recover
from fedunlearn.learning.embeddings import noisy
from fedunlearn.learning.local import fit, paced, scaled
from fedunlearn.learning.objectives import together
from fedunlearn.learning.tasks import Fit


@dataclass(frozen=True)
class NoiseImages:
    """Train on with every image to forget replaced by noise under the image's own labels.

    What the model knew of the images' labels has nothing to hold on to any more; noise teaches it at most how
    frequent classes are, and where. mu and sigma are mean and deviation of all pixels to forget at a hospital::

        min  L(w; D_r) + L(w; {(x', y) : (x, y) in D_f}),      x' = mu + sigma N(0, I), drawn once for each image

    at the hospitals that hold D_f, and L(w; D_r) at the others. A report beside x becomes words of all reports there.

    Reference:
        The authors' code for diffusion of Li et al., "Machine Unlearning for Image-to-Image Generative Models", ICLR
        2024, arXiv 2402.00351, whose "Noisy Label" puts noise in the place of what is to be seen of an image to forget.

    Deviations:
        Of labels of ours it says nothing: a diffusion model's are noise themselves. The true ones are used once more
        here; empty ones would teach that noise is background, and mean nothing of images with one class each.

    Attributes:
        rounds: rounds with noise.
        lr: the holders' learning rate in these; as in training by default.
        local_epochs: passes over the images in each; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["noise_images"] = "noise_images"
    rounds: Annotated[int, Ge(1), Search(1, 4)] = 1
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The labels to forget once more, and how bright the images are."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.local_epochs)
        noisy = paced(local, lr=self.lr)

        def learn(weights: Weights, site: SiteId, seed: int) -> Task:
            if site not in case.holders:
                return Fit(weights, case.retain, local, seed)
            return Learn(weights, case.forget, case.retain, noisy, seed, derive(case.seed, "noise", site))

        weights = yield from everywhere(case, case.original, self.rounds, learn, "noise images")
        return (yield from recover(case, weights, self.recovery))


@dataclass(frozen=True)
class Learn:
    """Train ``weights`` on `noise` under ``forget``'s labels and on ``retain``'s images."""

    weights: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int
    noise: int

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget, retain = local.images(self.forget), local.images(self.retain)
        drawn = noisy(forget, together(forget, retain), 0.0, 1.0, self.noise)  # what comes beside each
        drawn = replace(drawn, pixels=noise(scaled(forget.pixels), self.noise))
        images = together(drawn, replace(retain, pixels=scaled(retain.pixels)))
        return Reply(fit(local, self.weights, images, self.training, self.seed), len(images))


def noise(pixels: Tensor, seed: int) -> Tensor:
    """Gaussian noise shaped as ``pixels``, with their mean and deviation."""
    drawn = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(pixels) * pixels.std(correction=0) + pixels.mean()
