"""Networks for volumes: a small U-Net, and the dilated 3D ResNet-50 of Med3D. Their blocks are MONAI's.

Each has an ``encoder`` and a ``decoder``, from which `Layout` takes the names. MONAI is loaded when one is built.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.core import Form
from fedunlearn.learning.kernels import cheaper
from fedunlearn.learning.patches import Patch

Norm = Literal["instance", "group", "batch"]


@dataclass(frozen=True)
class UNet3D:
    """A 3D U-Net of some 30k parameters (channels 8, 16, 32; MONAI's blocks), for volumes from 8 voxels.

    Two convolutions of stride 2 and one of stride 1 go down, two transposed ones come up, each fed with what went
    down at its level. A volume of any size comes out at its own size.

    Attributes:
        channels: of the first level; each further level has twice as many.
        norm: GroupNorm has 4 groups; BatchNorm's statistics remember the volumes they were computed on.
        patch: edges in voxels of the part of a volume to train on at a time, [depth, height, width], each at least 8
            (`fedunlearn.learning.patches`); by default the whole volume.

    Reference:
        Kerfoot et al., "Left-Ventricle Quantification Using Residual U-Net", STACOM 2018, as MONAI's UNet without
        residual units; outputs are cropped where a size is odd, which MONAI refuses.
    """

    name: Literal["unet3d"] = "unet3d"
    channels: Literal[8, 16, 32] = 8
    norm: Norm = "instance"
    patch: Patch | None = None

    kind = "segmentation"
    dimensions = (3,)
    smallest = 8

    def build(self, form: Form) -> nn.Module:
        """See `Model.build`."""
        from monai.networks.blocks.convolutions import Convolution

        norm = ("group", {"num_groups": 4}) if self.norm == "group" else self.norm

        def block(channels: int, width: int, stride: int, **settings: Any) -> nn.Module:
            convolution: nn.Module = Convolution(3, channels, width, strides=stride, norm=norm, **settings)
            return convolution

        a, b, c = (self.channels * 2**level for level in range(3))
        down = [block(form.shape[0], a, 2), block(a, b, 2), block(b, c, 1)]
        up = [
            block(b + c, a, 2, is_transposed=True),
            block(a + a, form.classes, 2, is_transposed=True, conv_only=True),
        ]
        return cheaper(_UNet(down, up))


@dataclass(frozen=True)
class Med3D:
    """Med3D's 3D ResNet-50 with dilated last stages and a small transposed-convolution head, from 16 voxels.

    The encoder is MONAI's ResNet-50 (bottlenecks 3, 4, 6, 3, shortcut B) whose third and fourth stages keep the
    resolution and are dilated by 2 and 4 instead; the decoder is MedicalNet's ``conv_seg``. Scores are resized to
    the volume's grid, trilinearly. At full width, 46 million parameters: a reduced ``width`` runs on a CPU.

    Attributes:
        width: channels of the stem; 64 is the published size, and the only one that published weights fit.
        conv1_t_stride: of the stem's convolution; 1 keeps twice the resolution, at eight times the cost.
        norm: BatchNorm as published; its statistics remember volumes, and batches of a few make them poor.
        weights: a file of pre-trained weights (PyTorch's, read without pickled code, or safetensors), absolute or
            relative to where the command is run; training then starts from it wherever names and shapes match.
        patch: as of `UNet3D`, each edge at least 16.

    Reference:
        Chen et al., "Med3D: Transfer Learning for 3D Medical Image Analysis", arXiv 1904.00625, and the authors'
        code, Tencent/MedicalNet, models/resnet.py.
    """

    name: Literal["med3d_resnet50"] = "med3d_resnet50"
    width: Literal[8, 16, 32, 64] = 64
    conv1_t_stride: Literal[1, 2] = 2
    norm: Literal["group", "batch"] = "batch"
    weights: str | None = None
    patch: Patch | None = None

    kind = "segmentation"
    dimensions = (3,)
    smallest = 16

    def build(self, form: Form) -> nn.Module:
        """See `Model.build`."""
        from monai.networks.nets.resnet import ResNet

        stages = [self.width * 2**stage for stage in range(4)]
        net = ResNet(
            block="bottleneck",
            layers=[3, 4, 6, 3],
            block_inplanes=stages,
            n_input_channels=form.shape[0],
            conv1_t_stride=self.conv1_t_stride,
            feed_forward=False,
            bias_downsample=False,
        )
        _dilate(net.layer3, 2)
        _dilate(net.layer4, 4)
        parts = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
        encoder = nn.Sequential(OrderedDict((part, net.get_submodule(part)) for part in parts))
        module = _Resized(encoder, _head(4 * stages[-1], form.classes))
        if self.norm == "group":
            _regroup(module, 8)  # not by MONAI's argument, which its stages do not heed
        return module

    @staticmethod
    def renamed(name: str) -> str:
        """What the published name of a tensor is here."""
        name = name.removeprefix("module.")
        head = name.removeprefix("conv_seg.")
        return f"encoder.{name}" if head == name else f"decoder.{head}"


class _UNet(nn.Module):
    def __init__(self, down: list[nn.Module], up: list[nn.Module]) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(down), nn.ModuleList(up)

    def forward(self, x: Tensor) -> Tensor:
        sizes, skips = list[torch.Size](), list[Tensor]()
        for block in self.encoder:
            sizes.append(x.shape[2:])
            x = block(x)
            skips.append(x)
        for level, block in zip(reversed(range(len(self.decoder))), self.decoder, strict=True):
            x = _cropped(block(torch.cat([skips[level], x], 1)), sizes[level])
        return x


class _Resized(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        scores = self.decoder(self.encoder(x))
        return F.interpolate(scores, size=x.shape[2:], mode="trilinear", align_corners=False)


def _head(channels: int, classes: int) -> nn.Module:
    """MedicalNet's ``conv_seg``, with its initialisation."""
    head = nn.Sequential(
        nn.ConvTranspose3d(channels, 32, 2, stride=2),
        nn.BatchNorm3d(32),
        nn.ReLU(inplace=True),
        nn.Conv3d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm3d(32),
        nn.ReLU(inplace=True),
        nn.Conv3d(32, classes, 1, bias=False),
    )
    for layer in head:
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return head


def _regroup(module: nn.Module, groups: int) -> None:
    """Put a GroupNorm in the place of every BatchNorm."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _regroup(child, groups)


def _dilate(stage: nn.Module, dilation: int) -> None:
    """Let a stage of bottlenecks see as far as if it had a stride, at the resolution it is given."""
    for layer in stage.modules():
        if isinstance(layer, nn.Conv3d):
            layer.stride = (1, 1, 1)
            if layer.kernel_size == (3, 3, 3):
                layer.dilation = layer.padding = (dilation,) * 3


def _cropped(x: Tensor, size: torch.Size) -> Tensor:
    depth, height, width = size
    return x[..., :depth, :height, :width]
