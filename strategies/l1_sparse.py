"""L1-sparse unlearning: fine-tune under a penalty that prunes what the retained data do not need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from fedunlearn.core import (
    Batch,
    Case,
    Granularity,
    Guarantee,
    Local,
    LocalTraining,
    Needs,
    Procedure,
    Reply,
    Search,
    Select,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import mean
from fedunlearn.learning.kinds import Objective, learnt
from fedunlearn.learning.local import fit, paced


@dataclass(frozen=True)
class L1Sparse:
    """Go on training on the retained data with an L1 penalty on all weights that fades to nothing.

    A sparse model has fewer places to remember single images in. In round t of R every hospital minimises::

        L(w; D_r) + gamma_t |w|_1        gamma_t = alpha (1 - t / R), t = 0 … R - 1

    Neither history nor the data to forget is used.

    Reference:
        Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934, its
        sparsity-aware unlearning with a linearly decreasing penalty.

    Deviations:
        Federated: at all remaining hospitals, as fine-tuning, since one that leaves retains nothing; the
        penalty fades from round to round, not from epoch to epoch, and so the last rounds, weakly penalised,
        are the recovery. |w|_1 is descended by its subgradient, as in the authors' code. What alpha they took for
        10 epochs of SGD at 0.01 could not be read (their README leaves it open, their parser's 0.2 prunes everything);
        ours is that of RULI's configuration, Scissorhands' scripts run their code with 1e-4. Under Adam, which
        divides by the size of what it descends, the same alpha shrinks more where the loss is flat.

    Attributes:
        alpha: first strength of the penalty, alpha.
        rounds: rounds of federated averaging, R.
        local_epochs: passes over the retained images in each, E; as in training by default.
        lr: learning rate, eta; as in training by default.
    """

    name: Literal["l1_sparse"] = "l1_sparse"
    alpha: Annotated[float, Ge(0), Search(1e-5, 1e-2, log=True)] = 3e-4
    rounds: Annotated[int, Ge(1), Search(1, 6)] = 3
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs()

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local, weights = paced(case.training.local, self.local_epochs, self.lr), case.original
        purpose = case.purpose("recover")
        for t in range(self.rounds):
            gamma = self.alpha * (1 - t / self.rounds)
            weights = mean(
                (
                    yield {
                        site: Sparsen(weights, case.retain, local, derive(case.seed, purpose, site, t), gamma)
                        for site in case.turn("recover", t)
                    }
                )
            )
        return weights


@dataclass(frozen=True)
class Sparsen:
    """Train ``weights`` on ``select``'s images under the penalty ``gamma`` |w|_1."""

    weights: Weights
    select: Select
    training: LocalTraining
    seed: int
    gamma: float

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images, objective = (
            local.images(self.select),
            Penalised(learnt(local.network.kind).objective, self.gamma),
        )
        return Reply(fit(local, self.weights, images, self.training, self.seed, objective), len(images))


@dataclass(frozen=True)
class Penalised:
    """``loss`` plus ``gamma`` times the sum of the parameters' absolute values."""

    loss: Objective
    gamma: float

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        size = torch.stack([p.abs().sum() for p in module.parameters()]).sum()
        return self.loss(module, batch) + self.gamma * size
