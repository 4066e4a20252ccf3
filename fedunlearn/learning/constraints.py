"""Where parameters may be: constraints that `fedunlearn.local.fit` applies after every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import (
    Weights,
)


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


def distance(parameters: Mapping[str, Tensor], other: Weights) -> float:
    """The L2 distance of ``parameters`` from those of the same names in ``other``."""
    return w.norm({name: p.detach() - other[name].to(p.device) for name, p in parameters.items()})


def salient(gradient: Mapping[str, Tensor], fraction: float) -> dict[str, Tensor]:
    """Where ``|gradient|`` is among the largest ``fraction`` of all parameters; ties go to the earlier."""
    size = torch.cat([g.abs().flatten() for g in gradient.values()])
    top = torch.argsort(size, descending=True, stable=True)[: int(fraction * len(size))]
    chosen = torch.zeros(len(size), dtype=torch.bool).index_fill_(0, top, True)
    parts = torch.split(chosen, [g.numel() for g in gradient.values()])
    return {name: part.view(g.shape).clone() for (name, g), part in zip(gradient.items(), parts, strict=True)}
