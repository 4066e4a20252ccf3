"""Networks for volumes, against MONAI's and MedicalNet's, and starting from a file of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedunlearn import scenario as scenarios, weights as w
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import Batch, Form, Images, InputError, LocalTraining
from fedunlearn.kinds.segmentation.learnt import DiceCrossEntropy
from fedunlearn.learning.local import each_gradient, fit, gradient
from fedunlearn.learning.models import Model, Network, features, initial_weights, origin
from fedunlearn.learning.models.volumes import Med3D, UNet3D
from tests.test_simulate_volumes import TINY_VOLUMES, store
from tests.toy_volumes import VOLUMES, Ward

pytestmark = pytest.mark.rounding

SMALL = Med3D(width=8)
MODELS = [
    UNet3D(),
    UNet3D(norm="group"),
    UNet3D(channels=16, norm="batch"),
    SMALL,
    Med3D(width=8, norm="group"),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(1, 16, 16, 16), (2, 17, 24, 19)])
def test_scores_come_on_the_volumes_own_grid(model: Model, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert model.build(Form(shape, 3))(torch.empty(2, *shape)).shape == (2, 3, *shape[1:])


def test_the_small_u_net_is_monais() -> None:
    """The same weights, in the order of the way down and up, give the same scores."""
    from monai.networks.nets.unet import UNet

    ours = Network(UNet3D(), Form((1, 16, 8, 24), 4))
    theirs = UNet(3, 1, 4, channels=(8, 16, 32), strides=(2, 2), num_res_units=0)
    whole: Any = theirs.model  # way down, what is below, way up; and so on
    down, inner, up = whole[0], whole[1].submodule, whole[2]
    blocks = (down, inner[0], inner[1].submodule, inner[2], up)
    parameters = [p for block in blocks for p in block.parameters()]
    with torch.no_grad():
        for own, p in zip(ours.parameters().values(), parameters, strict=True):
            p.copy_(own)
        x = torch.randn(2, 1, 16, 8, 24, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(ours.module(x), theirs(x), atol=1e-6)


def test_the_small_u_net_has_some_30k_parameters() -> None:
    """Kernels of 27: 1-8-16-32 down, (16 + 32)-8 and (8 + 8)-3 up, a bias each, and PReLU's number but for the last."""
    kernels = 1 * 8 + 8 * 16 + 16 * 32 + 48 * 8 + 16 * 3
    assert size(UNet3D()) == 27 * kernels + 8 + 16 + 32 + 8 + 3 + 4


def test_med3d_has_the_published_size() -> None:
    """46 155 072 of a 3D ResNet-50's encoder, and conv_seg: 2048-32 by 8 and a bias, 32-32 by 27, 32-2."""
    head = 2048 * 32 * 8 + 32 + 32 * 32 * 27 + 32 * 2 + 2 * 64
    assert size(Med3D(), 2) == encoder() + head == 46_155_072 + head


def encoder() -> int:
    """Bottlenecks of planes p: in-p by 1, p-p by 27, p-4p by 1, two numbers of BatchNorm each, and shortcut B."""
    total, channels = 64 * 343 + 2 * 64, 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        total += channels * 4 * planes + 2 * 4 * planes
        for _ in range(blocks):
            total += (
                channels * planes + 27 * planes**2 + planes * 4 * planes + 2 * (planes + planes + 4 * planes)
            )
            channels = 4 * planes
    return total


def size(model: Model, classes: int = 3) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in model.build(Form((1, 32, 32, 32), classes)).parameters())


def test_med3d_keeps_the_resolution_of_its_second_stage() -> None:
    """32 / 2 (stem) / 2 (pool) / 2 (second stage) = 4, not the 1 of a ResNet; twice that with a stem of stride 1."""
    for model, expected in ((SMALL, 4), (Med3D(width=8, conv1_t_stride=1), 8)):
        with torch.device("meta"):
            features = model.build(Form((1, 32, 32, 32), 2)).encoder(torch.empty(1, 1, 32, 32, 32))  # type: ignore[operator]
        assert features.shape == (1, 8 * 8 * 4, expected, expected, expected)


def test_med3d_is_dilated_as_medicalnet() -> None:
    with torch.device("meta"):
        module = SMALL.build(Form((1, 32, 32, 32), 2))
    found = {
        name.split(".")[1]: (layer.stride[0], layer.dilation[0], layer.padding[0])
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv3d) and name.endswith("0.conv2")
    }
    assert found == {"layer1": (1, 1, 1), "layer2": (2, 1, 1), "layer3": (1, 2, 2), "layer4": (1, 4, 4)}


def test_med3d_with_group_norm_keeps_no_statistics() -> None:
    assert Network(Med3D(width=8, norm="group"), Form((1, 16, 16, 16), 2)).layout.buffers == ()
    assert Network(SMALL, Form((1, 16, 16, 16), 2)).layout.buffers


@pytest.mark.parametrize("model", [UNet3D(), SMALL])
def test_encoder_and_decoder_are_named(model: Model) -> None:
    layout = Network(model, Form((1, 16, 16, 16), 2)).layout
    assert all(name.startswith("encoder.") for name in layout.encoder)
    assert all(name.startswith("decoder.") for name in layout.decoder)
    assert layout.encoder + layout.decoder == layout.parameters
    assert set(layout.head) < set(layout.decoder)
    assert layout.first == layout.encoder[0]


def test_med3d_can_be_differentiated_by_volume_and_twice() -> None:
    """What `influence` and `rapid_retrain` ask of a network: its pooling and its resizing, too."""
    network = Network(SMALL, Form((1, 16, 16, 16), 2))
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 1, 16, 16, 16, generator=generator)
    images = Images(pixels, (pixels[:, 0] > 0).long(), torch.arange(2))
    ward, start = Ward(VOLUMES, "north", network), network.read()
    (each,) = each_gradient(ward, start, images)
    for name, g in gradient(ward, start, images).items():
        assert torch.allclose(each[name].mean(0), g, atol=1e-4), name
    curved = LocalTraining(1, 2, "adahessian", lr=1e-3)
    assert w.first_nonfinite(fit(ward, start, images, curved, seed=0)) is None
    batch = Batch(images.pixels, images.targets, images.rows)
    assert torch.isfinite(DiceCrossEntropy()(network.module, batch))


@pytest.mark.parametrize(("model", "width"), [(UNet3D(), 8 + 8), (SMALL, 32)])
def test_features_of_a_volume_are_the_mean_of_what_the_last_layer_is_given(model: Model, width: int) -> None:
    network = Network(model, Form((1, 16, 16, 16), 2))
    layer = network.module.get_submodule(network.layout.head[0].rpartition(".")[0])
    given = list[Tensor]()
    hook = layer.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    x = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    found = features(network.module.eval(), network.layout.head[0], x)
    hook.remove()
    assert found.shape == (2, width)
    assert torch.allclose(found, given[0].mean((2, 3, 4)), atol=1e-6)


# --------------------------------------------------------------------------------------- pre-trained weights


def published(model: Med3D, classes: int = 2) -> dict[str, Tensor]:
    """As MedicalNet's checkpoints: wrapped for several GPUs, the encoder alone, BatchNorm's counters left out."""
    state = initial_weights(model, Form((1, 16, 16, 16), classes), seed=99)
    names = {name: name.removeprefix("encoder.") for name in state if name.startswith("encoder.")}
    return {f"module.{new}": state[old] for old, new in names.items() if "num_batches" not in old}


def starting(tmp_path: Path, content: object, name: str = "weights.pth") -> Med3D:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        assert isinstance(content, dict)
        save_file(content, path)
    else:
        torch.save(content, path)
    return Med3D(width=8, weights=str(path))


@pytest.mark.parametrize("form", ["plain.pth", "wrapped.pth", "plain.safetensors"])
def test_training_starts_from_the_file_where_it_fits(tmp_path: Path, form: str) -> None:
    given = published(SMALL)
    model = starting(tmp_path, {"state_dict": given} if form.startswith("wrapped") else given, form)
    weights, untrained = (initial_weights(m, Form((1, 16, 16, 16), 2), seed=1) for m in (model, SMALL))
    for name, x in weights.items():
        original = f"module.{name.removeprefix('encoder.')}"
        assert torch.equal(x, given.get(original, untrained[name])), name
    assert not torch.equal(weights["encoder.conv1.weight"], untrained["encoder.conv1.weight"])
    told = origin(model, Form((1, 16, 16, 16), 2))
    assert f"{len(given)} of the network's {len(weights)} tensors are taken" in told
    assert "not in the file (encoder.bn1.num_batches_tracked, " in told


def test_the_names_are_medicalnets() -> None:
    assert Med3D.renamed("module.layer3.0.downsample.0.weight") == "encoder.layer3.0.downsample.0.weight"
    assert Med3D.renamed("conv_seg.6.weight") == "decoder.6.weight"


def test_what_does_not_match_is_told(tmp_path: Path) -> None:
    given = published(SMALL)
    given["module.conv1.weight"] = torch.zeros(8, 3, 7, 7, 7)
    model = starting(tmp_path, {**given, "fc.weight": torch.zeros(2, 2)})
    told = origin(model, Form((1, 16, 16, 16), 2))
    assert "1 of another shape (encoder.conv1.weight (8, 3, 7, 7, 7), expected (8, 1, 7, 7, 7))" in told
    assert "1 not in the network (encoder.fc.weight)" in told


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code was run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fc.weight": torch.zeros(2)}, r"none of the 1 tensors in .* fits the network"),
        ({"conv1.weight": Code()}, "cannot read weights from .* without running code in it"),
        ([torch.zeros(2)], "holds no named tensors, expected a state_dict"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, content: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = starting(tmp_path, content)
    with pytest.raises(InputError, match=message):
        initial_weights(model, Form((1, 16, 16, 16), 2), seed=1)
    assert "code was run" not in capsys.readouterr().out


def test_check_refuses_weights_before_anything_is_run(tmp_path: Path) -> None:
    """At the model's place in the scenario."""
    file = store(tmp_path, edge=16)
    (tmp_path / "empty.pth").write_bytes(b"")
    for name, message in (("absent.pth", "found no file of weights"), ("empty.pth", "cannot read weights")):
        model = json.dumps({"name": "med3d_resnet50", "width": 8, "weights": str(tmp_path / name)})
        file.write_text(TINY_VOLUMES.replace("{name: unet3d}", model))
        with pytest.raises(InputError, match=message) as caught:
            gather(scenarios.read(file, []), tmp_path)
        assert caught.value.problems[0].line == 6
