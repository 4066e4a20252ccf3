"""Cheaper ways to torch's results: the same bits, or the same numbers but for rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fedunlearn.core import IGNORED, Batch
from fedunlearn.kinds.segmentation.learnt import DiceCrossEntropy, _dice_cross_entropy
from fedunlearn.learning.kernels import ConvTranspose3d, PReLU, cheaper
from fedunlearn.learning.objectives import Known


def drawn(*shape: int, seed: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def hutchinson(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Derivatives of squared gradients: second ones, as AdaHessian asks for them."""
    parameters = list(module.parameters())
    first = torch.autograd.grad(module(x).pow(3).sum(), parameters, create_graph=True)
    return list(torch.autograd.grad([g.pow(2).sum() for g in first], parameters))


@pytest.mark.rounding
@pytest.mark.parametrize("zeros", [False, True])
def test_a_prelu_has_the_bits_of_torchs(zeros: bool) -> None:
    x, slope = drawn(3, 4, 5, 6, 7), drawn(3, 4, 5, 6, 7, seed=4)
    if zeros:
        x[:, 1] = 0.0  # where its two sides meet
    theirs = nn.PReLU(init=0.3)
    ours = cheaper(copy.deepcopy(theirs))
    assert type(ours) is PReLU
    found = []
    for layer in (theirs, ours):
        inputs = x.clone().requires_grad_()
        outputs = layer(inputs)
        outputs.backward(slope)
        assert inputs.grad is not None and isinstance(layer.weight.grad, Tensor)
        found.append((outputs.detach(), inputs.grad, layer.weight.grad))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(hutchinson(ours, x), hutchinson(theirs, x), strict=True):
        torch.testing.assert_close(a, b)


def test_a_transposed_convolution_is_torchs_but_for_rounding_and_lies_in_order() -> None:
    torch.manual_seed(0)
    theirs = nn.ConvTranspose3d(6, 4, 3, stride=2, padding=1, output_padding=1)
    ours, x = cheaper(copy.deepcopy(theirs)), drawn(2, 6, 5, 4, 3)
    assert type(ours) is ConvTranspose3d
    found = ours(x)
    assert found.is_contiguous()
    torch.testing.assert_close(found, theirs(x))
    for a, b in zip(hutchinson(ours, x), hutchinson(theirs, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def labels(ignore: bool) -> Tensor:
    found = torch.randint(0, 4, (3, 5, 6, 7), generator=torch.Generator().manual_seed(1))
    if ignore:
        found[0, :2] = IGNORED
        found[1] = IGNORED  # nothing of this volume counts
    return found


@pytest.mark.parametrize("ignore", [False, True])
def test_a_loss_with_its_gradient_is_what_differentiation_comes_to(ignore: bool) -> None:
    targets = labels(ignore)
    batch = Batch(torch.empty(3, 1), targets, torch.arange(3))
    found = []
    for objective in (
        lambda z: DiceCrossEntropy()(Known(z), batch),
        lambda z: _dice_cross_entropy(z, targets),
    ):
        z = (3 * drawn(3, 4, 5, 6, 7, dtype=torch.float64)).requires_grad_()
        loss = objective(z)
        (slope,) = torch.autograd.grad(2 * loss, z, create_graph=True)
        (second,) = torch.autograd.grad(slope.pow(2).sum(), z)
        (alone,) = torch.autograd.grad(2 * objective(z), z)
        found.append((loss.detach(), slope.detach(), second, alone))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def test_off_the_cpu_a_loss_is_torchs_own() -> None:
    """The device without memory stands for any other; not in the first step, in which labels are looked at."""
    for device, ours in (("cpu", True), ("meta", False)):
        z = drawn(3, 4, 5, 6, 7).to(device).requires_grad_()
        batch = Batch(torch.empty(3, 1), labels(False).to(device), torch.arange(3), step=1)
        loss = DiceCrossEntropy()(Known(z), batch)
        assert loss.grad_fn is not None
        assert ("_Sloped" in loss.grad_fn.name()) == ours


@pytest.mark.parametrize("step", [0, 1])
def test_a_volumes_label_that_is_no_class_is_refused_with_what_was_found(step: int) -> None:
    targets = labels(ignore=True)
    targets[0, 3, 0, 0] = -1
    outputs = drawn(3, 4, 5, 6, 7).requires_grad_()
    with pytest.raises(IndexError, match=r"found labels \[-1\], expected classes 0 to 3"):
        DiceCrossEntropy()(Known(outputs), Batch(torch.empty(3, 1), targets, torch.arange(3), step=step))
