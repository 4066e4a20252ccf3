"""What a network takes while it works is counted from its layers, without any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.activations import activations, trained
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import Form
from fedunlearn.learning.models import Model, Network, ResNet18, SmallCNN
from fedunlearn.learning.models.volumes import UNet3D
from fedunlearn.scenario import Scenario
from tests.runs import write


def with_images(folder: Path, model: Model, shape: tuple[int, ...]) -> tuple[Scenario, Cohort]:
    """A scenario of ``model``, and hospitals with images of ``shape``."""
    plain = scenarios.read(write(folder))
    cohort = replace(gather(plain, folder), pixels=np.zeros((1, *shape), np.uint8))
    if len(shape) == 4:
        cohort = replace(cohort, targets=np.zeros((1, *shape[1:]), np.uint8))
    return replace(plain, model=model), cohort


@pytest.mark.parametrize(
    ("model", "shape"),
    [(SmallCNN(), (3, 28, 28)), (ResNet18(), (3, 28, 28)), (UNet3D(), (1, 16, 16, 16))],
    ids=["small_cnn", "resnet18", "unet3d"],
)
def test_training_takes_about_what_torch_keeps_for_gradients(
    tmp_path: Path, model: Model, shape: tuple[int, ...]
) -> None:
    """Within a factor of two of all storage that autograd saves, but for the weights."""
    scenario, cohort = with_images(tmp_path, model, shape)
    network, kept = Network(model, Form(shape, cohort.classes)), dict[int, int]()
    own = {tensor.untyped_storage().data_ptr() for tensor in network.module.state_dict().values()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network.module(torch.zeros(scenario.training.local.batch_size, *shape))
    # What it gives is kept for the loss; on the way back there are gradients of two layers at a time.
    taken = sum(kept.values()) + outputs.nbytes + 2 * max(*kept.values(), outputs.nbytes)
    assert taken / 2 < trained(scenario, cohort) < 2 * taken


def test_larger_batches_and_stacks_take_more_and_micro_batches_less(tmp_path: Path) -> None:
    def taken(batch: int, micro: int | None, stack: int = 1) -> int:
        local = replace(scenario.training.local, batch_size=batch, micro_batch=micro, stack=stack)
        return trained(replace(scenario, training=replace(scenario.training, local=local)), cohort)

    scenario, cohort = with_images(tmp_path, SmallCNN(), (3, 28, 28))
    assert taken(64, None) == 2 * taken(32, None) == 4 * taken(64, 16) == taken(16, None, 4)


def test_patches_take_as_much_as_volumes_of_their_size(tmp_path: Path) -> None:
    """16 times 16 times 16 of 32 times 16 times 16 voxels: half."""
    whole = trained(*with_images(tmp_path, UNet3D(), (1, 32, 16, 16)))
    part = trained(*with_images(tmp_path, UNet3D(patch=(16, 16, 16)), (1, 32, 16, 16)))
    assert part == trained(*with_images(tmp_path, UNet3D(), (1, 16, 16, 16))) == whole / 2


def test_what_signals_of_volumes_need_counts_where_it_is_more(tmp_path: Path) -> None:
    """Of 2**20 voxels at once, 4 arrays of 8 bytes and 8 classes: 256 MiB, beside the layers."""
    scenario, cohort = with_images(tmp_path, UNet3D(patch=(16, 16, 16)), (1, 32, 32, 32))
    local = replace(scenario.training.local, batch_size=1)
    one = replace(scenario, training=replace(scenario.training, local=local))
    assert 2**28 < activations(one, cohort) < 2 * 2**28
