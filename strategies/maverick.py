"""Maverick: make the model's outputs at an image to forget nothing special among those around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt

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
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, recover
from fedunlearn.learning.local import fit, outputs, paced, scaled
from fedunlearn.learning.objectives import Noise, Sensitivity, taught

Against = Literal["itself", "original"]


@dataclass(frozen=True)
class Maverick:
    """Make the outputs at an image to forget differ little from those near it, so that no peak remembers the image.

    f(x) are the model's outputs before any softmax, all of an image's together. With N Gaussian noises xi of each
    image, whose deviations are uniform in [min_sigma, max_sigma], the holders minimise on their images to forget::

        L = mean over x, xi of |f(x) - g(x + xi)| / |xi|        g = the original model, or f itself as it is by now

    Only f(x) moves, no slope goes through g. Nobody else works and nothing else is used, labels included.

    Reference:
        Ong and Chan, "Maverick: Collaboration-free Federated Unlearning for Medical Privacy", MICCAI 2025, with f
        and the frozen original as in its code; the loss and its numbers are Ferrari's, Gu et al., NeurIPS 2024,
        arXiv 2405.17462, its feature sensitivity, whose g is f itself without a gradient (`itself`).

    Deviations:
        Noise covers the whole image, as in that code for classes; for hospitals and samples it covers the
        backdoor planted there, which our images do not have. A deviation is drawn for each noise of an image, not
        of a batch, and the noises come again in every epoch. The training's optimizer instead of SGD; at 1e-4 its path
        (steps x learning rate) is 0.0008 where 250 images leave, with Ferrari some 0.0005 (SGD at 1e-5); Maverick's own
        rate could not be read. That is too short to forget anything here, and twenty times as far damages the model:
        nothing holds f at retained images. Against `itself`, with no slope at x + xi, the quotient need not fall, and
        at training's rate many images leave the model at chance until it recovers. As there, no recovery.

    Attributes:
        against: whose outputs near the image are compared with, g.
        samples: noises of each image, N.
        min_sigma: smallest deviation of the noise, where pixels go from -1 to 1.
        max_sigma: largest deviation of the noise.
        epochs: passes of the holders over the images to forget.
        lr: the holders' learning rate; None for training's.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["maverick"] = "maverick"
    against: Annotated[Against, Search()] = "original"
    samples: Annotated[int, Ge(1)] = 20
    min_sigma: Annotated[float, Gt(0)] = 0.05
    max_sigma: Annotated[float, Gt(0), Search(0.1, 2, log=True)] = 1.0
    epochs: Annotated[int, Ge(1), Search(1, 6)] = 1
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = 1e-4
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.epochs, self.lr)
        noise = Noise(derive(case.seed, "noise"), self.min_sigma, self.max_sigma)

        def calm(site: SiteId) -> Calm:
            seed = derive(case.seed, "forget", site)
            return Calm(
                case.original, case.forget, local, seed, Sensitivity(noise, self.samples), self.against
            )

        weights = yield from at_holders(case, calm)
        return (yield from recover(case, weights, self.recovery))


@dataclass(frozen=True)
class Calm:
    """Train ``weights`` to be insensitive at ``forget``'s images, by ``sensitivity``."""

    weights: Weights
    forget: Select
    training: LocalTraining
    seed: int
    sensitivity: Sensitivity
    against: Against

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.forget)
        if self.against == "original":
            pixels, noise = scaled(images.pixels), self.sensitivity.noise
            noisy = (
                replace(images, pixels=pixels + noise(pixels, images.rows, i))
                for i in range(self.sensitivity.samples)
            )
            images = taught(images, torch.stack([outputs(local, self.weights, x) for x in noisy], 1))
        new = fit(local, self.weights, images, self.training, self.seed, self.sensitivity)
        return Reply(new, len(images))
