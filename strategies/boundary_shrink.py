"""Boundary shrink: move the data to forget across the nearest decision boundary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
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
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, recover
from fedunlearn.learning.kinds import filled, learnt, relabelled
from fedunlearn.learning.local import at_once, batches, fit, paced, scaled


@dataclass(frozen=True)
class BoundaryShrink:
    """Train on the images to forget, and on no others, as if each were of the class next to its own.

    The neighbour is what the original model w_o sees after one step of FGSM away from the true class y::

        x' = x + epsilon sign(grad_x L(w_o; x, y))        y' = argmax over c != y of w_o(x')_c
        min over w:  L(w; x, y')

    The holders' average replaces the model, then all remaining hospitals repair it by ordinary rounds.

    Reference:
        Chen et al., "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the Decision Boundary",
        CVPR 2023, arXiv 2303.11570, Boundary Shrink; epsilon as in the authors' code.

    Deviations:
        The paper forgets whole classes; here images of all classes leave, whose classes stay. Where the step does
        not leave the true class, the most probable other class is taken; the authors' code then trains under the
        true label. epsilon is a share of the range of the holder's images to forget, which x' is clipped to; theirs
        is of [0, 1], and rounds to whole grey levels. Their 10 epochs, but of Adam at 1e-4 instead of SGD at 1e-5:
        with 8 steps an epoch, where a hospital has 250 images, the path (steps x learning rate) is theirs, 0.008, for
        5000 images in batches of 64. Federated: recovery rounds follow; the paper has no use for retained data.

    Attributes:
        epsilon: step of every pixel, as a share of the range of the images' values, epsilon.
        epochs: passes of the holders over the relabelled images.
        lr: the holders' learning rate, of Adam whatever the training's optimizer.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["boundary_shrink"] = "boundary_shrink"
    epsilon: Annotated[float, Ge(0), Le(1), Search(0.01, 0.3, log=True)] = 0.1
    epochs: Annotated[int, Ge(1), Search(1, 20)] = 10
    lr: Annotated[float, Gt(0), Search(3e-5, 3e-3, log=True)] = 1e-4
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(replace(case.training.local, optimizer="adam"), self.epochs, self.lr)

        def shrink(site: SiteId) -> Shrink:
            return Shrink(case.original, case.forget, local, derive(case.seed, "forget", site), self.epsilon)

        weights = yield from at_holders(case, shrink)
        return (yield from recover(case, weights, self.recovery))


@dataclass(frozen=True)
class Shrink:
    """Train ``weights`` on ``forget``'s images under the labels of their neighbours at these weights."""

    weights: Weights
    forget: Select
    training: LocalTraining
    seed: int
    epsilon: float

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.forget)
        images = replace(images, targets=neighbours(local, self.weights, images, self.epsilon))
        return Reply(fit(local, self.weights, images, self.training, self.seed), len(images))


def neighbours(
    local: Local, weights: Weights, images: Images, epsilon: float, batch_size: int | None = None
) -> Tensor:
    """For every target the other class that scores most after one step of FGSM, shaped as the targets."""
    local.network.load(weights)
    module, loss = local.network.module.eval(), learnt(local.network.kind).objective
    low, high = scaled(images.pixels).aminmax()
    found = []
    for batch in batches(images, batch_size or at_once(images)):
        x = batch.image.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(module, batch.showing(x)), x)
        with torch.inference_mode():
            moved = (x + epsilon * (high - low) * slope.sign()).clamp(low, high)
            scores = module(batch.showing(moved).inputs)
            others = scores.scatter(1, filled(batch.targets).unsqueeze(1), -torch.inf)
            found.append(relabelled(batch.targets, others.argmax(1)))
    return torch.cat(found)
