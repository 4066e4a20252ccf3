"""FedMemPrune: reset the weights that the retained data do not use, since they hold what was learnt by heart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Search, Weights, derive
from fedunlearn.federation.procedures import fedavg, redrawn
from fedunlearn.learning.local import paced


@dataclass(frozen=True)
class FedMemPrune:
    """Fine-tune on the retained data, and give those weights that hardly move a new start.

    The weights that one round on the retained data moves least are redundant for them: they memorise what only the
    images to forget needed. With Delta the average update of the first round over the remaining hospitals::

        M = the drop_ratio of all weights with the smallest |Delta|
        after each of the first pruning rounds:  w_i <- an untrained value, for a random round_drop_ratio of M

    while the retained data go on repairing the model. Neither history nor the data to forget is used.

    Reference:
        Wei et al., "Rethinking Federated Unlearning via the Lens of Memorization", KDD 2026, arXiv 2605.24545,
        memorization pruning; ratios as in the authors' notebook for CIFAR-10 and EMNIST on unlike hospitals (0.3 on
        like ones; 0.8 and 0.85 for CIFAR-100).

    Deviations:
        An untrained value is one of the same tensor's initial values, in random order, so that any architecture
        keeps its own initialisation. Theirs is a fresh draw, uniform as Kaiming's for ReLU, sqrt 6 times as large as
        torch's own, and within 0.1 for biases and the scales of norm layers, which would all but close these. They
        repair by Adam at 1e-4 for 30 rounds of 3 epochs of 40 steps: a path (rate x steps) of 0.36. Three rounds of 6
        epochs of 8 steps (240 images) at 0.002 make 0.29. The average weighs by images. BatchNorm statistics are no
        weights: they are not reset, and fine-tuning replaces them.

    Attributes:
        rounds: rounds of fine-tuning altogether, R.
        pruning_rounds: the first so many of them end with a reset.
        drop_ratio: share of all weights that count as redundant.
        round_drop_ratio: share of these that a reset picks at random.
        local_epochs: passes over the retained images in each round; as in training by default.
        lr: learning rate of the fine-tuning; as in training by default.
    """

    name: Literal["fedmemprune"] = "fedmemprune"
    rounds: Annotated[int, Ge(1), Search(2, 5)] = 3
    pruning_rounds: Annotated[int, Ge(0)] = 1
    drop_ratio: Annotated[float, Ge(0), Le(1), Search(0.1, 0.9)] = 0.4
    round_drop_ratio: Annotated[float, Ge(0), Le(1), Search(0.25, 1)] = 1.0
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
        local, names = paced(case.training.local, self.local_epochs, self.lr), case.layout.parameters
        weights, redundant, recover = case.original, dict[str, Tensor](), case.purpose("recover")
        for number in range(self.rounds):
            once = range(number, number + 1)
            weights = yield from fedavg(weights, case.rota, case.retain, local, once, case.seed, recover)
            if number == 0:
                moved = w.subtract(weights, case.original)
                sizes = {name: moved[name].abs() for name in names}
                redundant = least(sizes, int(self.drop_ratio * sum(x.numel() for x in sizes.values())))
            if number < self.pruning_rounds:
                untrained = redrawn(case.initial, names, derive(case.seed, "untrained", number))
                weights = self.reset(weights, untrained, redundant, derive(case.seed, "reset", number))
        return weights

    def reset(self, weights: Weights, untrained: Weights, redundant: Weights, seed: int) -> Weights:
        """``weights`` with a random share of those marked in ``redundant`` as in ``untrained``."""
        generator, new = torch.Generator().manual_seed(seed), dict(weights)
        picks = {name: torch.rand(mark.shape, generator=generator) for name, mark in redundant.items()}
        # Those that were not marked come last and are never picked: two is more than any draw.
        order = {name: torch.where(mark, picks[name], 2.0) for name, mark in redundant.items()}
        marked = sum(int(mark.sum()) for mark in redundant.values())
        picked = least(order, int(self.round_drop_ratio * marked))
        return new | {name: torch.where(pick, untrained[name], new[name]) for name, pick in picked.items()}


def least(sizes: Weights, count: int) -> dict[str, Tensor]:
    """Where the ``count`` smallest of all entries together are; of equals, the earlier."""
    flat = torch.cat([x.flatten() for x in sizes.values()])
    mark = torch.zeros_like(flat, dtype=torch.bool)
    mark[flat.argsort(stable=True)[:count]] = True
    parts = torch.split(mark, [x.numel() for x in sizes.values()])
    return {name: part.view_as(x) for (name, x), part in zip(sizes.items(), parts, strict=True)}
