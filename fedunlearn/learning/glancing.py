"""What a hospital says in passing of models that are still worked on: how wrong and how good, on a few images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.core import Local, Reply, Select, Weights
from fedunlearn.learning.kinds import learnt
from fedunlearn.learning.local import signals
from fedunlearn.learning.objectives import together


@dataclass(frozen=True)
class Glance:
    """Reply the glance (`fedunlearn.learning.kinds.Kind.glance`) of each of ``models`` at some images.

    Attributes:
        models: to be shown the images.
        selects: where the images are from, part by part.
        places: of each part, (n,) int64: which of its images, by their places in it.
    """

    models: tuple[Weights, ...]
    selects: tuple[Select, ...]
    places: tuple[Tensor, ...]

    def __call__(self, local: Local) -> Reply:
        """See `Task`: arrays (models, images, …), the parts' images one after another."""
        glance = learnt(local.network.kind).glance
        parts = [
            (images := local.images(select)).at(places.to(images.rows.device))
            for select, places in zip(self.selects, self.places, strict=True)
        ]
        images = together(*parts)
        found = [signals(local, weights, images, glance) for weights in self.models]
        return Reply(
            None, len(images), {name: torch.stack([one[name] for one in found]) for name in found[0]}
        )
