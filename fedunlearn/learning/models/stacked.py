"""Several networks of one small kind as one: each layer of all of them is one operation.

Convolutions get a group for each network, GroupNorm its groups, linear layers become batched products. A small
network's step is half spent on calling and on matrices that are too small for a processor; together they are larger.

What a network of a stack comes to depends on how many there are, since libraries choose how to add by shapes. It does
not depend on which others are there, on their numbers, or on its own place: tests say so for every kind of layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import Weights
from fedunlearn.learning.models.images import Present

_FEW = 8  # channels: oneDNN groups convolutions from fewer by copying, which large batches feel
_LARGE = 16  # images


class Stack:
    """Networks like ``module``, ``width`` of them, with one set of parameters for all.

    Attributes:
        width: how many.
        parameters: by name, (width, *shape) each.
    """

    def __init__(self, module: nn.Module, width: int) -> None:
        if why := unstackable(module):
            raise ValueError(f"cannot be stacked: {why}")
        self.width = width
        self._layers = list(module.children())
        self.parameters = {
            name: torch.zeros(width, *p.shape, dtype=p.dtype, device=p.device, requires_grad=True)
            for name, p in module.named_parameters()
        }

    def load(self, weights: Sequence[Weights]) -> None:
        """Copy each network's weights in; there are ``width``."""
        with torch.no_grad():
            for name, own in self.parameters.items():
                for place, one in zip(own, weights, strict=True):
                    place.copy_(one[name])

    def read(self, place: int) -> dict[str, Tensor]:
        """A copy of the weights of the network at a place, on the CPU."""
        return {name: own[place].detach().to("cpu", copy=True) for name, own in self.parameters.items()}

    def __call__(self, inputs: Tensor) -> Tensor:
        """What each says of images of its own.

        Args:
            inputs: (B, width, C, *spatial), or of tables (B, width, C).

        Returns:
            (width, B, classes, *places).
        """
        given, x = iter(self.parameters.values()), inputs
        x = x.flatten(1, 2) if x.dim() > 3 else x.transpose(0, 1)
        for layer in self._layers:
            own = [next(given) for _ in layer.parameters()]
            x = self._passed(layer, x, *own)
        return x

    def _passed(self, layer: Any, x: Tensor, *own: Tensor) -> Tensor:
        """``x`` through a layer with weights (width, ...): (B, width * C, *spatial), then (width, B, features)."""
        match layer:
            case nn.Conv2d() | nn.Conv3d():
                return _convolved(layer, x, *own)
            case nn.GroupNorm():
                weight, bias = (p.flatten() for p in own)
                return F.group_norm(x, self.width * layer.num_groups, weight, bias, layer.eps)
            case nn.ReLU():
                return x.relu_()
            case nn.Flatten():
                return x.view(len(x), self.width, -1).transpose(0, 1)
            case nn.Linear():
                weight, bias = own
                return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
        scores: Tensor = layer(x.flatten(0, 1))  # `Present`, which looks at each image for itself
        return scores.view(*x.shape[:2], *scores.shape[1:])


def unstackable(module: nn.Module) -> str:
    """Why networks like ``module`` cannot be a `Stack`; empty if they can."""
    if not isinstance(module, nn.Sequential):
        return f"{type(module).__name__} is more than one layer after the other"
    odd = (
        type(layer).__name__ if [*layer.children()] else str(layer) for layer in module if not _known(layer)
    )
    return next((f"nobody has written how {layer} is done for several at once" for layer in odd), "")


def _known(layer: nn.Module) -> bool:
    match layer:
        case nn.Conv2d() | nn.Conv3d():
            plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
            return plain and layer.bias is not None and set(layer.dilation) == {1}
        case nn.GroupNorm():
            return layer.affine
        case nn.Linear():
            return layer.bias is not None
        case nn.Flatten():
            return (layer.start_dim, layer.end_dim) == (1, -1)
    return isinstance(layer, nn.ReLU | Present)


def _convolved(layer: nn.Conv2d | nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of each network's channels of ``x``."""
    convolve: Any = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv3d
    stride, padding, width = layer.stride, layer.padding, len(weight)
    if layer.in_channels >= _FEW or len(x) < _LARGE:
        grouped: Tensor = convolve(x, weight.flatten(0, 1), bias.flatten(), stride, padding, groups=width)
        return grouped
    parts = zip(x.chunk(width, 1), weight, bias, strict=True)
    return torch.cat([convolve(part, w, b, stride, padding) for part, w, b in parts], 1)
