"""Influence unlearning: one step to where the loss without the data would have its minimum, by its curvature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Local,
    Needs,
    Procedure,
    Recovery,
    Replies,
    Reply,
    Search,
    Select,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import recover
from fedunlearn.learning.local import each_gradient
from fedunlearn.learning.tasks import Gradient


@dataclass(frozen=True)
class Influence:
    """Take one Newton-like step for the change of the loss that comes of taking n_f of its n images out.

    g_f and g_r are the mean gradients over the images to forget and over the retained ones, H the damped empirical
    Fisher of retained images, g_i the gradient of one image's loss::

        v = (n_f / n) (g_f - g_r)              = 1 / n_r sum_f grad l  where the gradient over all images is zero
        H = damping I + 1 / N sum_i g_i g_i^T
        w <- w + alpha H^-1 v

    The holders send g_f, then all remaining hospitals g_r; then these solve for v, each with the Fisher of its own
    retained images, and the mean of their answers by images is the step. Nobody trains.

    Reference:
        Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934, its influence
        unlearning (IU) and the v of the authors' code; Izzo et al., arXiv 2002.10077; WoodFisher: Singh and
        Alistarh, "WoodFisher", NeurIPS 2020, arXiv 2004.14340.

    Deviations:
        Federated: a mean of the hospitals' inverses is not the inverse of the mean. H^-1 v is exact: WoodFisher's
        N updates of rank one are made at once, by Woodbury's identity, whereas the authors' recursion goes on with
        the first image's vector for all others. Fewer Fisher images than their 1000, since all their gradients are
        kept. Their recursion starts from the identity, a damping of 1 as here, and alpha is 1 as in their first run
        script; their README leaves it open. With less damping, and the more images leave the sooner, so long a step
        leaves the region where the loss is quadratic and wrecks the model. BatchNorm statistics stay. As there, no
        recovery.

    Attributes:
        alpha: length of the step, alpha; 1 is the formula's.
        damping: added to the Fisher's diagonal, lambda.
        samples: images of each hospital for its Fisher, N, or all if it has fewer; their gradients are held at once.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["influence"] = "influence"
    alpha: Annotated[float, Ge(0), Search(0.1, 4, log=True)] = 1.0
    damping: Annotated[float, Gt(0), Search(0.1, 10, log=True)] = 1.0
    samples: Annotated[int, Ge(1)] = 256
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more, and the curvature of the others."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        forget = average((yield {site: Gradient(case.original, case.forget) for site in case.holders}))
        turn, n_forget, n_retain = case.turn("retain", 0), sum(case.lost.values()), sum(case.kept.values())
        retain = average((yield {site: Gradient(case.original, case.retain) for site in turn}))
        influence = w.multiply(w.subtract(forget, retain), n_forget / (n_forget + n_retain))
        solve = Solve(case.original, case.retain, influence, self.damping, self.samples, 0)
        seeds = {site: derive(case.seed, "fisher", site) for site in turn}
        step = average((yield {site: replace(solve, seed=seed) for site, seed in seeds.items()}))
        parameters = {name: case.original[name] for name in step}
        weights = {**case.original, **w.add(parameters, step, self.alpha)}
        return (yield from recover(case, weights, self.recovery))


@dataclass(frozen=True)
class Solve:
    """Reply H^-1 ``vector``, H being the damped Fisher of ``samples`` of ``select``'s images (`woodfisher`)."""

    weights: Weights
    select: Select
    vector: Mapping[str, Tensor]
    damping: float
    samples: int
    seed: int
    each_image: ClassVar[bool] = True

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        drawn = images.at(order[: self.samples].to(images.rows.device))
        parts = list(each_gradient(local, self.weights, drawn))
        none = {name: v.new_empty(0, *v.shape) for name, v in self.vector.items()}
        rows = {name: torch.cat([none[name], *(part[name].cpu() for part in parts)]) for name in none}
        return Reply(None, len(images), woodfisher(rows, self.vector, self.damping))


def woodfisher(
    gradients: Mapping[str, Tensor], vector: Mapping[str, Tensor], damping: float
) -> dict[str, Tensor]:
    """(damping I + 1 / N sum_i g_i g_i^T)^-1 ``vector``, of ``gradients`` (N, ...) by parameter; N may be 0.

    By Woodbury's identity, with G of rows g_i: (v - G^T (N damping I + G G^T)^-1 G v) / damping.
    """
    G = {name: g.flatten(1).double() for name, g in gradients.items()}
    N = len(next(iter(G.values())))
    inner, along = N * damping * torch.eye(N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    for name, g in G.items():
        inner += g @ g.T
        along += g @ vector[name].flatten().double()
    rest = torch.linalg.solve(inner, along)
    return {name: ((v - (rest @ G[name]).view_as(v)) / damping).to(v.dtype) for name, v in vector.items()}


def average(replies: Replies) -> dict[str, Tensor]:
    """The hospitals' arrays in the mean over all their images."""
    return w.average([reply.arrays for reply in replies.values()], [r.count for r in replies.values()])
