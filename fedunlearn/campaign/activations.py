"""How much memory a network takes while it works, from the sizes of what its layers give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedunlearn.campaign.cohort import Cohort
from fedunlearn.core import IMAGE, Form, Inputs
from fedunlearn.learning.patches import VOXELS, Patch, Patched
from fedunlearn.scenario import Scenario
from sites.pixels import one_thread


def activations(scenario: Scenario, cohort: Cohort) -> int:
    """Bytes that the network of a scenario holds beside its weights, at the most, in training or when it is asked."""
    layers = _layers(scenario, cohort)
    return max(_trained(scenario, layers), _asked(cohort, layers))


def trained(scenario: Scenario, cohort: Cohort) -> int:
    """Bytes of what every layer gives, kept until there are gradients, and those of the largest one."""
    return _trained(scenario, _layers(scenario, cohort))


def _trained(scenario: Scenario, layers: Sequence[int]) -> int:
    """The same, of layers that give so many values."""
    local = scenario.training.local
    return local.stack * (local.micro_batch or local.batch_size) * (sum(layers) + 2 * max(layers)) * 4


def untrained(scenario: Scenario, cohort: Cohort) -> nn.Module:
    """The network, without any numbers in it."""
    with torch.device("meta"):
        return scenario.model.build(cohort.form)


def _asked(cohort: Cohort, layers: Sequence[int]) -> int:
    """Bytes of the largest layer, and what signals need: some arrays of each class and place, in float64."""
    voxels = math.prod(cohort.shape[1:])
    together = max(1, min(256, VOXELS // voxels))  # as `fedunlearn.learning.local.at_once`
    signal = 4 * 8 * cohort.classes * math.prod(cohort.form.places)
    return together * (2 * 4 * max(layers) + signal)


def _layers(scenario: Scenario, cohort: Cohort) -> list[int]:
    """How many values each layer gives for one image, or one patch of it.

    An image is really passed through: without numbers, torch loads its compiler first, which takes longer.
    """
    model, values = scenario.model, list[int]()
    device = torch.device(
        "meta" if len(cohort.shape) == 4 else "cpu"
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
    with torch.no_grad(), one_thread():
        network(_nothing(cohort.form, patch, device))
    return values


def _nothing(form: Form, patch: Patch | None, device: torch.device) -> Inputs:
    """One image of nothing, and nothing beside it."""
    image = torch.zeros((1, form.shape[0], *(patch or form.shape[1:])), device=device)
    if not form.companions:
        return image
    beside = {
        name: torch.zeros((1, *one.shape), dtype=torch.int64 if one.tokens else torch.float32, device=device)
        for name, one in form.companions.items()
    }
    return {IMAGE: image, **beside}
