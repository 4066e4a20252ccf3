"""Other labels in the place of the true ones, of images and of volumes. What is `IGNORED` stays so."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedunlearn.learning.kinds import filled, ignored, relabelled

Labels = Literal["wrong", "uniform", "gaussian", "retained"]
"""Which labels: any but the true one, any at all, Gaussian numbers of classes, those of retained images."""


def replaced(how: Labels, labels: Tensor, retained: Tensor, classes: int, seed: int) -> Tensor:
    """Others for ``labels`` (N, ...), given those of ``retained`` images (M, ...) and how many classes there are."""
    match how:
        case "wrong":
            return wrong_labels(labels, classes, seed)
        case "uniform":
            return uniform_labels(labels, classes, seed)
        case "gaussian":
            return gaussian_labels(labels, retained, classes, seed)
        case "retained":
            return retained_labels(labels, retained, classes, seed)


def wrong_labels(labels: Tensor, classes: int, seed: int) -> Tensor:
    """For every label another one, uniform over the ``classes - 1`` others."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randint(1, classes, labels.shape, generator=generator)
    return relabelled(labels, (labels + offsets.to(labels.device)) % classes)


def uniform_labels(labels: Tensor, classes: int, seed: int) -> Tensor:
    """For every label one of all ``classes``, the true one included."""
    generator = torch.Generator().manual_seed(seed)
    return relabelled(labels, torch.randint(classes, labels.shape, generator=generator).to(labels))


def gaussian_labels(labels: Tensor, retained: Tensor, classes: int, seed: int) -> Tensor:
    """For every label a Gaussian number, rounded to the nearest class.

    Mean and deviation are those of the numbers of all labels, ``retained`` ones too.
    """
    every = torch.cat([labels[~ignored(labels)], retained[~ignored(retained)]]).double()
    mean, deviation = every.mean(), every.std(correction=0)
    drawn = torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    numbers = (drawn.to(every.device) * deviation + mean).round().clamp(0, classes - 1)
    return relabelled(labels, numbers.to(labels.dtype))


def retained_labels(labels: Tensor, retained: Tensor, classes: int, seed: int) -> Tensor:
    """For every label (map) a random one of ``retained``; without any, `gaussian_labels`.

    What is `IGNORED` in the other map is background here, where something must be. A finding that nobody knows of is
    not absent: it stays `IGNORED`.
    """
    if not len(retained):
        return gaussian_labels(labels, retained, classes, seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(retained), (len(labels),), generator=generator)
    others = retained[drawn.to(labels.device)]
    return relabelled(labels, filled(others) if labels.dim() > 2 else others)
