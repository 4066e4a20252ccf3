"""Cheaper ways to what some of torch's operations come to, on a CPU; elsewhere torch's own are called.

What each saves of a step is in docs/performance.md. Where a second derivative is asked for, or gradients of many images
at once (`torch.func.vmap`), torch's own operations are called as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PReLU(nn.PReLU):
    """A PReLU with one slope for all channels, whose gradients take half the time on a CPU; the same bits."""

    def forward(self, input: Tensor) -> Tensor:
        """See `torch.nn.PReLU`."""
        if self.weight.numel() > 1 or not suits(input):
            return super().forward(input)
        return _PReLU.apply(input, self.weight)  # type: ignore[no-any-return,no-untyped-call]  # torch has no types for it


class ConvTranspose3d(nn.ConvTranspose3d):
    """A transposed convolution to few channels: on a CPU a matrix product, and oneDNN's gradients.

    oneDNN's own for some volumes takes twice as long, and lays its results out so that whatever comes next must copy
    them. Results differ in rounding.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """See `torch.nn.ConvTranspose3d`."""
        if output_size is not None or self.groups > 1 or not suits(input):
            return super().forward(input, output_size)
        found: Tensor = torch.ops.aten.slow_conv_transpose3d(
            input,
            self.weight,
            self.kernel_size,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.dilation,
        )
        return found


def cheaper(module: nn.Module) -> nn.Module:
    """``module``, whose layers do the same in the ways that are here; their parameters stay what and where they are."""
    for layer in module.modules():
        layer.__class__ = _CHEAPER.get(type(layer), type(layer))
    return module


def with_slope(outputs: Tensor, loss: Tensor, slope: Tensor, again: Callable[[Tensor], Tensor]) -> Tensor:
    """A ``loss`` of ``outputs`` whose gradient is known.

    Args:
        outputs: what it is a loss of; gradients flow on from there.
        loss: its value, a scalar.
        slope: its gradient by ``outputs``, of their shape.
        again: comes to the same loss by operations that can be differentiated: called for second derivatives only.
    """
    return _Sloped.apply(outputs, loss, slope, again)  # type: ignore[no-any-return,no-untyped-call]  # as above


def dice_cross_entropy(
    outputs: Tensor, labels: Tensor, known: Tensor, smooth: float
) -> tuple[Tensor, Tensor]:
    """The loss of `fedunlearn.learning.kinds.DiceCrossEntropy` and its gradient by ``outputs``, in one go.

    With K = N (C - 1) Dice coefficients d = (2 I + s) / D, where I = sum p g and D = sum p + sum g + s, the gradient by
    p_c is u_c = b_c + a_c g_c with a = -2 / (K D) and b = d / (K D), 0 for the background. Through the softmax, and
    with omega the share of a voxel in the mean, that is p_c (u_c - sum_k p_k u_k) + omega (p_c - g_c).

    Args:
        outputs: (N, C, *spatial) class scores.
        labels: (N, C, *spatial) bool, of which class a voxel is; of none where it does not count.
        known: (N, *spatial) bool, which voxels count.
        smooth: s.

    Returns:
        The loss, a scalar, and the gradient, of the shape of ``outputs``.
    """
    n, classes = outputs.shape[:2]
    g, counts = labels.flatten(2).to(outputs.dtype), known.flatten(1).unsqueeze(1).to(outputs.dtype)
    z = outputs.flatten(2)
    p = z - z.amax(1, keepdim=True)
    at_label = (p * g).sum(1, keepdim=True)
    total = p.exp_().sum(1, keepdim=True)
    omega = 1 / (n * counts.sum(2, keepdim=True).clamp_(min=1))
    entropy = (total.log().sub_(at_label).mul_(counts) * omega).sum()
    p.mul_(counts / total)
    both = p.sum(2, keepdim=True) + g.sum(2, keepdim=True) + smooth
    dice = (2 * (p * g).sum(2, keepdim=True) + smooth) / both
    k = n * (classes - 1)
    a, b = -2 / (k * both), dice / (k * both)
    a[:, 0] = b[:, 0] = 0
    slope = torch.addcmul(b, g, a).mul_(p)
    rest = omega - slope.sum(1, keepdim=True)
    slope.addcmul_(p, rest).addcmul_(g, -omega)
    return entropy + 1 - dice[:, 1:].sum() / k, slope.view(outputs.shape)


_CHEAPER: Mapping[type[nn.Module], type[nn.Module]] = {nn.PReLU: PReLU, nn.ConvTranspose3d: ConvTranspose3d}


def on_cpu(values: Tensor) -> bool:
    """Whether they are on a CPU."""
    return values.device.type == "cpu"


def suits(input: Tensor) -> bool:
    """Whether what stands here is for such an input: of one pass, on a CPU, in float32."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(input)
    return input.device.type == "cpu" and input.dtype == torch.float32 and not wrapped


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        return F.prelu(input, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (input, weight), (gradient,) = ctx.saved_tensors, gradients
        if torch.is_grad_enabled():
            below = input <= 0
            return torch.where(below, gradient * weight, gradient), torch.where(
                below, gradient * input, 0
            ).sum().view_as(weight)
        by_input = torch.ops.aten.leaky_relu_backward(gradient, input, float(weight), False)
        return by_input, (input.clamp(max=0) * gradient).sum().view_as(weight)


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, outputs: Tensor, loss: Tensor, slope: Tensor, again: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(outputs, slope)
        ctx.again = again
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (outputs, slope), (gradient,) = ctx.saved_tensors, gradients
        if torch.is_grad_enabled():
            (slope,) = torch.autograd.grad(ctx.again(outputs), outputs, create_graph=True)
        return slope * gradient, None, None, None
