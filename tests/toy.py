"""The toy of `fedunlearn.contract` by one name, and a network of its kind in float64."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from fedunlearn.contract.cases import *  # noqa: F403
from fedunlearn.contract.hospitals import *  # noqa: F403
from fedunlearn.contract.toy import *  # noqa: F403
from fedunlearn.contract.toy import CLASSES, SHAPE, ToyNet
from fedunlearn.core import Form, Images, Weights
from fedunlearn.learning.models import Network


@cache
def wide_network(norm: bool = False) -> Network:
    """The same in float64, where one way to compute a number is told from another whatever the rounding."""
    with torch.random.fork_rng(devices=[]):
        return Network(ToyNet(norm=norm, wide=True), Form(SHAPE, CLASSES))


def wide(weights: Weights) -> Weights:
    """Weights for `wide_network`."""
    return {name: x.double() if x.is_floating_point() else x for name, x in weights.items()}


def widened(images: Images) -> Images:
    """Images for `wide_network`."""
    return replace(images, pixels=images.pixels.double())
