"""Several trainings of one small network as one: what they would cost together. Nothing that a run uses.

Convolutions get a group and GroupNorm its groups for each model, linear layers become batched products. Each model
sees images of its own, so a training with several seeds, or shadows, could be a stack. Bits depend on how many models
are in it: who wants the same bits however asks meet needs stacks of one width, filled up where asks are missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import Weights

_FEW = 8  # channels: oneDNN groups convolutions from fewer by copying, which large batches feel
_LARGE = 16  # images


class Stack:
    """The layers of ``models``, all alike and sequential, with one set of parameters for all.

    Attributes:
        names: of the parameters, in order.
        parameters: (K, *shape) each.
    """

    def __init__(self, models: Sequence[nn.Sequential]) -> None:
        self.layers = list(models[0])
        self.names = [name for name, _ in models[0].named_parameters()]
        self.parameters = [
            torch.stack(values).detach().requires_grad_()
            for values in zip(*(model.parameters() for model in models), strict=True)
        ]

    def load(self, weights: Sequence[Weights]) -> None:
        """Copy each model's weights in."""
        with torch.no_grad():
            for name, own in zip(self.names, self.parameters, strict=True):
                for k, model in enumerate(weights):
                    own[k].copy_(model[name])

    def __call__(self, inputs: Tensor) -> Tensor:
        """Class scores (K, B, classes) of images (B, K, C, H, W), each model's own."""
        k, given = inputs.shape[1], iter(self.parameters)
        x = inputs.flatten(1, 2)
        for layer in self.layers:
            match layer:
                case nn.Conv2d():
                    x = _convolved(layer, x, next(given), next(given))
                case nn.GroupNorm():
                    x = F.group_norm(x, k * layer.num_groups, next(given).flatten(), next(given).flatten())
                case nn.ReLU():
                    x = x.relu_()
                case nn.Flatten():
                    x = x.view(len(x), k, -1).transpose(0, 1)
                case nn.Linear():
                    weight, bias = next(given), next(given)
                    x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
        return x

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of the models' cross-entropies; ``targets`` are (K, B)."""
        losses = F.cross_entropy(self(inputs).flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view_as(targets).mean(1).sum()


def _convolved(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    stride, padding, k = layer.stride, layer.padding, len(weight)
    if layer.in_channels >= _FEW or len(x) < _LARGE:
        return F.conv2d(x, weight.flatten(0, 1), bias.flatten(), stride, padding, groups=k)
    parts = zip(x.chunk(k, 1), weight, bias, strict=True)
    return torch.cat([F.conv2d(part, w, b, stride, padding) for part, w, b in parts], 1)
