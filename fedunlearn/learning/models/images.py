"""Networks that look at a whole image, or at a row of numbers.

Memory is what this project measures, and pooling and augmentation hide it: `small_cnn` has neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from fedunlearn.core import Form

Answers = Literal["classification", "multilabel"]
"""What a network that looks at a whole image may be asked: its class, or which of several findings it shows."""
_CONVOLUTIONS: Mapping[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORMS: Mapping[int, Callable[[int], nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOLS: Mapping[int, Callable[[int], nn.Module]] = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


@dataclass(frozen=True)
class SmallCNN:
    """A strided CNN of 100k to 200k parameters with a flattening head and GroupNorm, for images or volumes from 28.

    Every convolution halves the image until its edge is at most 8 pixels, a volume until it is at most 4; then the map
    is flattened into a hidden layer: position is kept, so single images can be remembered.

    Attributes:
        hidden: width of the hidden layer.
        kind: multilabel for data of several findings an image.
    """

    name: Literal["small_cnn"] = "small_cnn"
    hidden: Annotated[int, Ge(1)] = 64
    kind: Answers = "classification"

    dimensions = (2, 3)
    smallest = 28

    def build(self, form: Form) -> nn.Module:
        """See `Model.build`."""
        channels, width, size, layers = form.shape[0], 8, torch.Size(form.shape[1:]), nn.Sequential()
        convolution, enough = _CONVOLUTIONS[len(size)], {2: 8, 3: 4}[len(size)]
        while max(size) > enough:
            layers.append(convolution(channels, width, 3, stride=2, padding=1))
            layers.append(nn.GroupNorm(width // 4, width))
            layers.append(nn.ReLU(inplace=True))
            channels, width, size = width, 32, torch.Size((n + 1) // 2 for n in size)
        layers.append(nn.Flatten())
        layers.append(nn.Linear(channels * size.numel(), self.hidden))
        layers.append(nn.ReLU(inplace=True))
        return layers.extend(_head(self.hidden, form))


@dataclass(frozen=True)
class ResNet18:
    """ResNet-18 (He et al. 2016) with a 3x3 stem and no first pooling, as usual for small images; of volumes, in 3D.

    Attributes:
        norm: GroupNorm by default; BatchNorm's statistics remember the images they were computed on.
        kind: multilabel for data of several findings an image.
    """

    name: Literal["resnet18"] = "resnet18"
    norm: Literal["group", "batch"] = "group"
    kind: Answers = "classification"

    dimensions = (2, 3)
    smallest = 28

    def build(self, form: Form) -> nn.Module:
        """See `Model.build`."""
        dimensions = len(form.shape) - 1
        convolution = partial(_CONVOLUTIONS[dimensions], bias=False)
        norm = partial(nn.GroupNorm, 32) if self.norm == "group" else _BATCH_NORMS[dimensions]
        stem = nn.Sequential(convolution(form.shape[0], 64, 3, padding=1), norm(64), nn.ReLU(inplace=True))
        stages, channels = nn.Sequential(), 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            stages.append(_BasicBlock(channels, width, stride, convolution, norm))
            stages.append(_BasicBlock(width, width, 1, convolution, norm))
            channels = width
        return nn.Sequential(stem, stages, _POOLS[dimensions](1), nn.Flatten(), *_head(512, form))


@dataclass(frozen=True)
class Mlp:
    """Two hidden layers over a row of numbers, for tables alone: a row is an image without edges.

    Attributes:
        hidden: width of both layers.
        kind: multilabel for data of several findings a row.
    """

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[int, Ge(1)] = 64
    kind: Answers = "classification"

    dimensions = (0,)
    smallest = 1

    def build(self, form: Form) -> nn.Module:
        """See `Model.build`."""
        layers = nn.Sequential()
        for width in (form.shape[0], self.hidden):
            layers.append(nn.Linear(width, self.hidden))
            layers.append(nn.ReLU(inplace=True))
        return layers.extend(_head(self.hidden, form))


class _BasicBlock(nn.Module):
    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        convolution: Callable[..., nn.Module],
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels, width, 3, stride=stride, padding=1),
            norm(width),
            nn.ReLU(inplace=True),
            convolution(width, width, 3, padding=1),
            norm(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(convolution(channels, width, 1, stride=stride), norm(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Present(nn.Module):
    """Scores of absent and present, (B, 2, F), of scores (B, F): their cross-entropy is the binary one."""

    def forward(self, scores: Tensor) -> Tensor:
        """0 for absent: what counts is the difference."""
        return torch.stack([torch.zeros_like(scores), scores], 1)


def _head(width: int, form: Form) -> list[nn.Module]:
    """The last layer: a score of each class, or of each finding's presence."""
    if not form.places:
        return [nn.Linear(width, form.classes)]
    return [nn.Linear(width, math.prod(form.places)), Present()]
