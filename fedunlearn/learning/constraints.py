"""Where parameters may be: constraints that `fedunlearn.learning.local.fit` applies after every step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.core import Weights


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


def fixed(weights: Weights, names: Iterable[str]) -> Mask:
    """A constraint: the parameters of ``names`` stay as they are in ``weights``, all others may move."""
    reference = {name: weights[name] for name in names}
    return Mask({name: torch.zeros_like(x, dtype=torch.bool) for name, x in reference.items()}, reference)


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
class LowRank:
    """A constraint: of ``reference``'s parameters only ``names`` move, each by a matrix of at most this ``rank``.

    A tensor (out, in, ...) counts as a matrix (out, in ...), the way low-rank adapters (LoRA, Hu et al., arXiv
    2106.09685) take it: W + B A, B with ``rank`` columns. After every step the change becomes the `nearest` of that
    rank, where LoRA descends B and A themselves: the same models can be reached, in other ways.
    """

    names: tuple[str, ...]
    rank: int
    reference: Weights

    def __call__(self, parameters: Mapping[str, Tensor]) -> None:
        """See `Constraint`."""
        for name, own in self.reference.items():
            p, reference = parameters[name], own.to(parameters[name].device)
            p.copy_(reference + nearest(p - reference, self.rank) if name in self.names else reference)


def distance(parameters: Mapping[str, Tensor], other: Weights) -> float:
    """The L2 distance of ``parameters`` from those of the same names in ``other``, accumulated in float64."""
    squares = [
        (p.detach() - other[name].to(p.device)).double().square().sum() for name, p in parameters.items()
    ]
    return math.sqrt(math.fsum(torch.stack(squares).tolist()))  # all at once: a GPU is waited for once


def nearest(change: Tensor, rank: int) -> Tensor:
    """The nearest of rank ``rank`` to ``change`` (out, ...) as a matrix (Eckart and Young 1936): U U^T change.

    U are the leading eigenvectors of change change^T, in float64. What is not finite has none, and stays.
    """
    matrix = change.flatten(1).double()
    gram = matrix @ matrix.T
    if rank >= min(matrix.shape) or not bool(gram.isfinite().all()):
        return change
    U: Tensor = torch.linalg.eigh(gram).eigenvectors[:, -rank:]  # ascending
    return (U @ (U.T @ matrix)).view_as(change).to(change.dtype)


def salient(gradient: Mapping[str, Tensor], fraction: float) -> dict[str, Tensor]:
    """Where ``|gradient|`` is among the largest ``fraction`` of all parameters; ties go to the earlier."""
    size = torch.cat([g.abs().flatten() for g in gradient.values()])
    top = torch.argsort(size, descending=True, stable=True)[: int(fraction * len(size))]
    chosen = torch.zeros(len(size), dtype=torch.bool).index_fill_(0, top, True)
    parts = torch.split(chosen, [g.numel() for g in gradient.values()])
    return {name: part.view(g.shape).clone() for (name, g), part in zip(gradient.items(), parts, strict=True)}
