from __future__ import annotations

import random
from typing import Literal

import pytest
import torch
from torch import nn

from fedunlearn import weights as w
from fedunlearn.core import Form
from fedunlearn.core.kinds import kinds
from fedunlearn.learning.models import MODELS, Model, Network, ResNet18, SmallCNN, initial_weights

pytestmark = pytest.mark.rounding

SHAPES = [((3, 28, 28), 8), ((1, 28, 28), 2), ((3, 64, 64), 14), ((1, 28, 40), 5)]
VOLUMES = [((1, 28, 28, 28), 11), ((2, 64, 64, 64), 2), ((1, 28, 33, 40), 5)]


def test_models_are_found_by_their_names() -> None:
    for name, cls in MODELS.items():
        model = cls()
        assert model.name == name
        assert model.kind in kinds()
        segments = model.kind == "segmentation"
        assert model.dimensions in ([(3,)] if segments else [(2, 3), (0,)])
        assert model.smallest <= (16 if segments else 28)


@pytest.mark.parametrize("model", [SmallCNN(), ResNet18(), ResNet18(norm="batch")])
@pytest.mark.parametrize(("shape", "classes"), [*SHAPES, *VOLUMES])
def test_any_channels_classes_and_sizes(model: Model, shape: tuple[int, ...], classes: int) -> None:
    """Built without memory for its numbers: what counts is which shapes come out."""
    with torch.device("meta"):
        module = model.build(Form(shape, classes))
        assert module(torch.empty(2, *shape)).shape == (2, classes)


def test_the_largest_image() -> None:
    for model in (SmallCNN(), ResNet18()):
        with torch.device("meta"):
            assert model.build(Form((3, 224, 224), 9))(torch.empty(1, 3, 224, 224)).shape == (1, 9)


def size(model: Model, shape: tuple[int, ...] = (3, 28, 28), classes: int = 8) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in model.build(Form(shape, classes)).parameters())


def test_small_cnn_has_some_100k_parameters() -> None:
    """Convolutions 3→8→32 (3x3 weights and a bias, then two numbers of GroupNorm per channel), 32*7*7→64→8.

    (216 + 8) + 16 + (2304 + 32) + 64 + (1568 * 64 + 64) + (64 * 8 + 8) = 103576.
    """
    assert size(SmallCNN()) == 103_576
    assert size(SmallCNN(hidden=1)) < 20_000
    assert all(80_000 < size(SmallCNN(), (3, edge, edge)) < 165_000 for edge in (28, 32, 64, 128, 224))


def test_small_cnn_of_volumes_has_some_200k_parameters_at_most() -> None:
    """Edges of 28, 14, 7 and 4 voxels; convolutions 1→8→32→32 (27 weights a pair, a bias, GroupNorm), 32*4^3→64→11.

    (216 + 8) + 16 + (6912 + 32) + 64 + (27648 + 32) + 64 + (2048 * 64 + 64) + (64 * 11 + 11) = 166843.
    """
    assert size(SmallCNN(), (1, 28, 28, 28), 11) == 166_843
    assert all(160_000 < size(SmallCNN(), (1, edge, edge, edge)) < 200_000 for edge in (28, 64))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_resnet18_of_volumes_has_kernels_of_three_times_as_many_weights(
    norm: Literal["group", "batch"],
) -> None:
    """27 for 9; those of single pixels in the shortcuts, the norms and the head are as they were."""
    with torch.device("meta"):
        flat, deep = (ResNet18(norm=norm).build(Form((1, *[32] * n), 2)).state_dict() for n in (2, 3))
    assert list(flat) == list(deep)
    for name, x in flat.items():
        expected = (*x.shape, x.shape[-1]) if x.dim() == 4 else tuple(x.shape)
        assert deep[name].shape == expected, name


def test_the_layout_of_a_classifier_of_volumes() -> None:
    layout = Network(SmallCNN(), Form((1, 28, 28, 28), 3)).layout
    assert (layout.first, layout.head) == ("0.weight", ("12.weight", "12.bias"))
    layout = Network(ResNet18(), Form((1, 28, 28, 28), 3)).layout
    assert (layout.first, layout.head) == ("0.0.weight", ("4.weight", "4.bias"))


def test_resnet18_has_the_published_size() -> None:
    """11 689 512 for ImageNet (He et al. 2016); a 3x3 stem for a 7x7 one; a head for 10 classes, not 1000."""
    assert size(ResNet18(), (3, 32, 32), 10) == 11_689_512 - 64 * 3 * 40 - 990 * 513
    assert size(ResNet18(norm="batch"), (3, 32, 32), 10) == size(ResNet18(), (3, 32, 32), 10)


def test_the_layout_of_small_cnn() -> None:
    network = Network(SmallCNN(), Form((1, 28, 28), 3))
    layout = network.layout
    assert layout.buffers == ()
    assert layout.parameters == tuple(name for name, _ in network.module.named_parameters())
    assert layout.first == "0.weight"
    assert layout.head == ("9.weight", "9.bias")
    assert list(network.parameters()) == list(layout.parameters)


def test_a_classifiers_decoder_is_its_head() -> None:
    layout = Network(SmallCNN(), Form((1, 28, 28), 3)).layout
    assert layout.decoder == layout.head
    assert layout.encoder == layout.parameters[:-2]


def test_the_layout_of_a_network_without_a_matrix() -> None:
    """Volumes have kernels of five dimensions only, beside biases and PReLU's numbers."""

    class Line(SmallCNN):
        def build(self, form: Form) -> nn.Module:
            return nn.Sequential(nn.PReLU(), nn.Conv3d(form.shape[0], form.classes, 1))

    layout = Network(Line(), Form((1, 4, 4, 4), 3)).layout
    assert (layout.first, layout.head) == ("1.weight", ("1.weight", "1.bias"))


def test_the_layout_of_resnet18() -> None:
    layout = Network(ResNet18(norm="batch"), Form((1, 28, 28), 3)).layout
    assert layout.first == "0.0.weight"
    assert layout.head == ("4.weight", "4.bias")
    kinds = {name.rpartition(".")[2] for name in layout.buffers}
    assert kinds == {"running_mean", "running_var", "num_batches_tracked"}
    assert len(layout.buffers) == 3 * 20  # 1 stem, 16 in blocks, 3 shortcuts
    assert not set(layout.buffers) & set(layout.parameters)


def test_weights_go_in_and_out_with_the_batch_norm_statistics() -> None:
    network = Network(ResNet18(norm="batch"), Form((1, 28, 28), 3))
    before = network.read()
    network.module.train()
    network.module(torch.randn(2, 1, 28, 28))
    after = network.read()
    assert w.digest(after) != w.digest(before)
    assert after["0.1.num_batches_tracked"].item() == 1
    assert before["0.1.num_batches_tracked"].item() == 0, "what was read is a copy"
    network.load(before)
    assert w.digest(network.read()) == w.digest(before)
    network.module.eval()
    network.load(after)
    with torch.no_grad():
        network.parameters()["4.bias"].add_(1)
    assert torch.equal(network.read()["4.bias"], after["4.bias"] + 1), "parameters are the network's own"


def test_weights_of_another_model_are_refused() -> None:
    network = Network(SmallCNN(), Form((1, 28, 28), 3))
    with pytest.raises(ValueError, match=r"do not fit the network.*extra"):
        network.load({**network.read(), "extra": torch.ones(1)})
    with pytest.raises(ValueError, match=r"'9.weight' has shape \(4, 64\), expected \(3, 64\)"):
        network.load(initial_weights(SmallCNN(), Form((1, 28, 28), 4), 0))


def test_initial_weights_come_from_the_seed_alone() -> None:
    states = torch.get_rng_state(), random.getstate()
    first = initial_weights(SmallCNN(), Form((1, 28, 28), 2), 2**62 + 1)
    torch.rand(3)
    assert w.digest(initial_weights(SmallCNN(), Form((1, 28, 28), 2), 2**62 + 1)) == w.digest(first)
    assert w.digest(initial_weights(SmallCNN(), Form((1, 28, 28), 2), 5)) != w.digest(first)
    torch.set_rng_state(states[0])
    initial_weights(SmallCNN(), Form((1, 28, 28), 2), 1)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_small_cnn_keeps_position() -> None:
    """A flattening head: moving the image by half its width changes the answer, as pooling would hide."""
    network = Network(SmallCNN(), Form((1, 28, 28), 4))
    image = torch.zeros(1, 1, 28, 28)
    image[..., 10:14, 4:8] = 1
    with torch.no_grad():
        assert not torch.allclose(network.module(image), network.module(image.roll(14, 3)), atol=1e-4)
