"""AdaHessian: steps scaled by the curvature along each weight instead of by the size of its gradients.

`fedunlearn.learning.local.fit` uses it like any other optimizer, but leaves the gradients to it; its random probes come
from a seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class AdaHessian:
    """A diagonal quasi-Newton step with momentum.

    The diagonal D of the Hessian H is Hutchinson's estimate from one probe a step: right on average, and exact where
    H is diagonal. D and the gradient g come from `backward`, the rest happens in `step`::

        D = |z * (H z)|                         z uniform over {-1, 1}
        m <- beta1 m + (1 - beta1) g,           v <- beta2 v + (1 - beta2) D^2
        w <- w - lr (m / (1 - beta1^t)) / ((v / (1 - beta2^t))^(power / 2) + eps) - lr weight_decay w

    Within a kernel of a convolution, D is averaged over the positions.

    Reference:
        Yao et al., "ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning", AAAI 2021, arXiv
        2006.00719, Algorithm 1; betas, eps and what is averaged as in the authors' code.

    Attributes:
        parameters: what to train.
        lr: learning rate; 1 is a Newton step.
        power: Hessian power; 0 leaves momentum alone.
        weight_decay: L2 coefficient, decoupled.
        generator: of the probes; on the CPU, so that they are the same on every device.
    """

    betas, eps = (0.9, 0.999), 1e-4

    def __init__(
        self, parameters: Sequence[Tensor], lr: float, power: float, weight_decay: float, seed: int
    ) -> None:
        self.parameters, self.lr, self.power, self.weight_decay = parameters, lr, power, weight_decay
        self.generator = torch.Generator().manual_seed(seed)
        self.steps, self.diagonal = 0, list[Tensor]()
        self.m, self.v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    def backward(self, losses: Iterable[Tensor]) -> None:
        """Differentiate the sum of ``losses`` twice: its gradient goes to the parameters' ``grad``, D waits for `step`.

        Each loss is made when the one before is done with. All see the same probe, since H z adds up over them and
        |z (H z)| does not.
        """
        probes = [self._probe(p) for p in self.parameters]
        totals, products = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        for loss in losses:
            gradients = torch.autograd.grad(loss, self.parameters, create_graph=True, materialize_grads=True)
            for total, g in zip(totals, gradients, strict=True):
                total.add_(g.detach())
            # Not grad(gradients, …, probes): the same numbers, but torch would load algebra for it (sympy).
            along = torch.stack([(z * g).sum() for z, g in zip(probes, gradients, strict=True)]).sum()
            found = torch.autograd.grad(along, self.parameters, materialize_grads=True)
            for product, hz in zip(products, found, strict=True):
                product.add_(hz)
        self.diagonal = [averaged((z * hz).abs()) for z, hz in zip(probes, products, strict=True)]
        for p, total in zip(self.parameters, totals, strict=True):
            p.grad = total

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter; `backward` must have been called."""
        self.steps += 1
        beta1, beta2 = self.betas
        for p, m, v, d in zip(self.parameters, self.m, self.v, self.diagonal, strict=True):
            assert p.grad is not None
            m.lerp_(p.grad, 1 - beta1)
            v.lerp_(d.square(), 1 - beta2)
            curvature = (v / (1 - beta2**self.steps)) ** (self.power / 2)
            direction = m / (1 - beta1**self.steps) / (curvature + self.eps)
            p.sub_(direction + self.weight_decay * p, alpha=self.lr)

    def _probe(self, p: Tensor) -> Tensor:
        signs = torch.randint(0, 2, p.shape, generator=self.generator, dtype=p.dtype)
        return signs.mul_(2).sub_(1).to(p.device, non_blocking=True)


def averaged(diagonal: Tensor) -> Tensor:
    """``diagonal`` (out, in, *kernel), averaged over the kernel's positions; fewer dimensions stay as they are."""
    if diagonal.dim() <= 2:
        return diagonal
    return diagonal.mean(tuple(range(2, diagonal.dim())), keepdim=True).expand_as(diagonal)
