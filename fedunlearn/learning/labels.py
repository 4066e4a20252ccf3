"""Other labels in the place of the true ones, of images and of volumes. What is `IGNORED` stays so."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedunlearn.learning.kinds import filled, ignored, relabelled

Labels = Literal["wrong", "uniform", "shuffled", "retained"]
"""Which labels: any but the true one, any at all, the same in random order, those of retained images."""


def replaced(how: Labels, labels: Tensor, retained: Tensor, classes: int, seed: int) -> Tensor:
    """Others for ``labels`` (N, ...), given those of ``retained`` images (M, ...) and how many classes there are."""
    match how:
        case "wrong":
            return wrong_labels(labels, classes, seed)
        case "uniform":
            return uniform_labels(labels, classes, seed)
        case "shuffled":
            return shuffled_labels(labels, seed)
        case "retained":
            return retained_labels(labels, retained, seed)


def wrong_labels(labels: Tensor, classes: int, seed: int) -> Tensor:
    """For every label another one, uniform over the ``classes - 1`` others."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randint(1, classes, labels.shape, generator=generator)
    return relabelled(labels, (labels + offsets.to(labels.device)) % classes)


def uniform_labels(labels: Tensor, classes: int, seed: int) -> Tensor:
    """For every label one of all ``classes``, the true one included."""
    generator = torch.Generator().manual_seed(seed)
    return relabelled(labels, torch.randint(classes, labels.shape, generator=generator).to(labels))


def shuffled_labels(labels: Tensor, seed: int) -> Tensor:
    """``labels`` in random order: a volume's (N, *spatial) each among its own voxels, images' (N,) among images."""
    rows = labels.flatten(1) if labels.dim() > 1 else labels[None]
    out, generator = ignored(labels).view_as(rows), torch.Generator().manual_seed(seed)
    keys = torch.rand(rows.shape, generator=generator).masked_fill(out.cpu(), 1.0)
    order = keys.argsort(1).to(labels.device)
    # The places of labels that count, then of those that do not: `order` has the latter last as well.
    places = out.byte().argsort(dim=1, stable=True)
    return torch.empty_like(rows).scatter(1, places, rows.gather(1, order)).view_as(labels)


def retained_labels(labels: Tensor, retained: Tensor, seed: int) -> Tensor:
    """For every label (map) a random one of ``retained``; without any, that of the next image of ``labels``.

    What is `IGNORED` in the other map is background here.
    """
    if not len(retained):
        return relabelled(labels, filled(labels.roll(1, 0)))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(retained), (len(labels),), generator=generator)
    return relabelled(labels, filled(retained[drawn.to(labels.device)]))
