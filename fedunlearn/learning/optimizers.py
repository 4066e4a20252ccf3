"""SGD, Adam and AdamW: torch's fused kernels, and the state that these go by.

`torch.optim` calls the same kernels and comes to the same bits, which a test compares. But the first optimizer that it
makes imports torch's compiler, which nothing here uses and every worker of every run would wait for
(docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Optimizer(Protocol):
    """Moves parameters by their ``grad``; what it remembers of earlier steps ends with it."""

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        ...


class SGD:
    """Stochastic gradient descent: ``v <- momentum v + g + weight_decay w``, ``w <- w - lr v``.

    Attributes:
        parameters: what to train.
        lr: learning rate.
        momentum: what is left of the last step's direction; the first step has none.
        weight_decay: L2 coefficient.
        directions: v of each parameter; None before its first step, and without momentum.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        self.parameters, self.lr, self.momentum, self.weight_decay = parameters, lr, momentum, weight_decay
        self.directions: list[Tensor | None] = [None] * len(parameters)

    @torch.no_grad()
    def step(self) -> None:
        """See `Optimizer.step`."""
        moved = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        if not self.momentum:
            self._move(moved, first=False)
            return
        new = [i for i in moved if self.directions[i] is None]
        self._move([i for i in moved if self.directions[i] is not None], first=False)
        for i in new:
            self.directions[i] = torch.empty_like(self.parameters[i])  # the kernel fills it
        self._move(new, first=True)

    def _move(self, which: Sequence[int], first: bool) -> None:
        if which:
            torch._fused_sgd_(
                [self.parameters[i] for i in which],
                [g for i in which if (g := self.parameters[i].grad) is not None],
                [v for i in which if (v := self.directions[i]) is not None],
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                lr=self.lr,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=first,
            )


class Adam:
    """Steps of about the same size for all parameters, whatever the size of their gradients.

    The averages m of gradients and v of their squares begin at zero, which is made up for::

        g <- g + weight_decay w                          or, decoupled, w <- w - lr weight_decay w
        m <- beta1 m + (1 - beta1) g,                    v <- beta2 v + (1 - beta2) g^2
        w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Reference:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv 1412.6980, Algorithm 1; with
        decoupled decay, AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv
        1711.05101, Algorithm 2.

    Attributes:
        parameters: what to train.
        lr: learning rate.
        weight_decay: L2 coefficient.
        decoupled: whether decay is kept out of the averages.
        steps: t of each parameter, a number on its device.
        m, v: the averages.
    """

    betas, eps = (0.9, 0.999), 1e-8

    def __init__(
        self, parameters: Sequence[Tensor], lr: float, weight_decay: float, decoupled: bool = False
    ) -> None:
        self.parameters, self.lr, self.weight_decay, self.decoupled = parameters, lr, weight_decay, decoupled
        self.steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in parameters]
        self.m, self.v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    @torch.no_grad()
    def step(self) -> None:
        """See `Optimizer.step`."""
        moved = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        if not moved:
            return
        steps = [self.steps[i] for i in moved]
        torch._foreach_add_(steps, 1)
        kernel = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        kernel(
            [self.parameters[i] for i in moved],
            [g for i in moved if (g := self.parameters[i].grad) is not None],
            [self.m[i] for i in moved],
            [self.v[i] for i in moved],
            [],
            steps,
            lr=self.lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
