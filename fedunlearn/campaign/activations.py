"""How much memory a network takes while it works, from the sizes of what its layers give."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fedunlearn.campaign.cohort import Cohort
from fedunlearn.learning.patches import VOXELS, Patched
from fedunlearn.scenario import Scenario


def activations(scenario: Scenario, cohort: Cohort) -> int:
    """Bytes that the network of a scenario holds beside its weights, at the most, in training or when it is asked."""
    return max(trained(scenario, cohort), _asked(scenario, cohort))


def trained(scenario: Scenario, cohort: Cohort) -> int:
    """Bytes of what every layer gives, kept until there are gradients, and those of the largest one."""
    layers, local = _layers(scenario, cohort), scenario.training.local
    return (local.micro_batch or local.batch_size) * (sum(layers) + 2 * max(layers)) * 4


def untrained(scenario: Scenario, cohort: Cohort) -> nn.Module:
    """The network, without any numbers in it."""
    with torch.device("meta"):
        return scenario.model.build(cohort.form)


def _asked(scenario: Scenario, cohort: Cohort) -> int:
    """Bytes of the largest layer, and of volumes what signals need: some arrays of each class, in float64."""
    voxels = math.prod(cohort.shape[1:])
    together = max(1, min(256, VOXELS // voxels))  # as `fedunlearn.learning.local.at_once`
    signal = 4 * 8 * cohort.classes * voxels if cohort.targets.ndim > 2 else 0
    return together * (2 * 4 * max(_layers(scenario, cohort)) + signal)


def _layers(scenario: Scenario, cohort: Cohort) -> list[int]:
    """How many values each layer gives for one image, or one patch of it.

    An image is really passed through: without numbers, torch loads its compiler first, which takes longer.
    """
    model, values = scenario.model, list[int]()
    device = torch.device(
        "cpu" if len(cohort.shape) == 3 else "meta"
    )  # of volumes there may be too many numbers
    patch = model.patch if isinstance(model, Patched) else None

    def count(_module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        if isinstance(outputs, Tensor) and outputs is not inputs[0]:  # as a dropout of nothing gives
            values.append(outputs.numel())

    with torch.random.fork_rng(devices=[]), device:
        network = model.build(cohort.form).eval()
    for module in network.modules():
        if next(module.children(), None) is None:
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros((1, cohort.shape[0], *(patch or cohort.shape[1:])), device=device))
    return values
