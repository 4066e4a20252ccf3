"""Learn noise: go on training with noise in the place of the images to forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Images,
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
from fedunlearn.federation.procedures import beside, recover
from fedunlearn.learning.local import fit, paced, scaled


@dataclass(frozen=True)
class LearnNoise:
    """Train on with every image to forget replaced by noise under the image's own labels.

    What the model knew of the images' labels has nothing to hold on to any more; noise teaches it at most how
    frequent classes are, and where. mu and sigma are mean and deviation of all pixels to forget at a hospital::

        min  L(w; D_r) + L(w; {(x', y) : (x, y) in D_f}),      x' = mu + sigma N(0, I), drawn once for each image

    at the hospitals that hold D_f, and L(w; D_r) at the others.

    Reference:
        Singh et al., "To Forget is to Preserve: Machine Unlearning for 3D Medical Image Segmentation", arXiv
        2606.16180, "LearnNoise", its data mechanic.

    Deviations:
        Our reading of the strategy's name: the paper's losses are not public. Labels to forget are used once more,
        which the name leaves open; empty ones would teach that noise is background, and mean nothing of images with
        one class each. Few passes and recovery rounds, as for `noisy_label`.

    Attributes:
        rounds: rounds with noise.
        lr: the holders' learning rate in these; as in training by default.
        local_epochs: passes over the images in each; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["learn_noise"] = "learn_noise"
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
            return Learn(weights, case.forget, case.retain, noisy, seed, derive(case.seed, "noise", site))

        weights = yield from beside(case, case.original, self.rounds, local, learn, "learn noise")
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
        images = Images(
            torch.cat([noise(scaled(forget.pixels), self.noise), scaled(retain.pixels)]),
            torch.cat([forget.targets, retain.targets]),
            torch.cat([forget.rows, retain.rows]),
        )
        return Reply(fit(local, self.weights, images, self.training, self.seed), len(images))


def noise(pixels: Tensor, seed: int) -> Tensor:
    """Gaussian noise shaped as ``pixels``, with their mean and deviation."""
    drawn = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(pixels) * pixels.std(correction=0) + pixels.mean()
