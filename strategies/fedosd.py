"""FedOSD: unlearn in a direction that no remaining hospital notices, and recover without going back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import (
    Batch,
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Needs,
    Procedure,
    Recovery,
    Search,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import repairing
from fedunlearn.learning.kinds import filled, shares
from fedunlearn.learning.tasks import Fit, Gradient


@dataclass(frozen=True)
class FedOSD:
    """Descend a bounded unlearning loss orthogonally to all retained gradients, then recover orthogonally to that.

    The holders' gradient g_u is that of the unlearning cross-entropy, which ends at zero when the true class gets
    no probability p_y. With a retained gradient g_k in each row of A, every round takes the steepest direction that
    changes no retained loss to first order; recovery takes out of each update what leads along or against v::

        L_UCE = -log(1 - p_y / 2)
        d = g_u - A^T (A A^T)^+ A g_u,            w <- w - eta |g_u| d / |d|
        g_k <- g_k - (g_k v / |v|^2) v at its old length,  v = w - w_T,   w <- w - sum_k n_k / n g_k

    Reference:
        Pan et al., "Federated Unlearning with Gradient Descent and Conflict Mitigation", AAAI 2025, arXiv
        2412.20200, both stages, and the authors' code.

    Deviations:
        A gradient is that of the mean loss; in the authors' code it is the sum over an epoch of local steps, 25 in
        their command, at 4e-4, so that 100 rounds make a path of one length of a mean gradient at most. An epoch of 72
        to 240 images has 3 to 8 steps: hence 0.002, a path of 0.2. Steps must be short, since the direction
        is orthogonal at one point only: 20 of 0.01 are as long a path and damage the model. A round of unlearning asks
        twice, the holders and then everyone, since a hospital may both forget and retain, and shows every image to
        the network once: 100 rounds cost as much as 100 epochs. Recovery trains as training did and weighs by
        images. BatchNorm statistics are no gradients: they stay as they are while unlearning, and are averaged
        while recovering.

    Attributes:
        rounds: rounds of unlearning, one step each.
        lr: step length in lengths of g_u, eta.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["fedosd"] = "fedosd"
    rounds: Annotated[int, Ge(1), Search(10, 100, log=True)] = 100
    lr: Annotated[float, Gt(0), Search(4e-4, 0.05, log=True)] = 2e-3
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget in every round of unlearning, and everyone's own gradient."""
        return Needs(leaver=Leaver.ONLINE, each_reply=True)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        weights = case.original
        for number in range(self.rounds):
            forget = yield {site: Gradient(weights, case.forget, UnlearningLoss()) for site in case.holders}
            retain = yield {site: Gradient(weights, case.retain) for site in case.turn("forget", number)}
            unlearning = w.average([r.arrays for r in forget.values()], [r.count for r in forget.values()])
            step = orthogonal(unlearning, [reply.arrays for reply in retain.values()])
            weights = {**weights, **w.add(picked(weights, step), step, -self.lr)}
        local, names = repairing(case, self.recovery), case.layout.parameters
        purpose = case.purpose("recover")
        for number in range(self.recovery.rounds):
            replies = yield {
                site: Fit(weights, case.retain, local, derive(case.seed, purpose, site, number))
                for site in case.turn("recover", number)
            }
            away = w.subtract(weights, case.original)
            updates = [
                {**update, **orthogonal(picked(update, names), [picked(away, names)])}
                for update in (
                    w.subtract(reply.weights, weights) for reply in replies.values() if reply.weights
                )
            ]
            weights = w.add(weights, w.average(updates, [reply.count for reply in replies.values()]))
        return weights


@dataclass(frozen=True)
class UnlearningLoss:
    """-log(1 - p_y / 2), p_y the probability of the target's class: between 0 and log 2; 0 where it is `IGNORED`."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        p = torch.softmax(module(batch.inputs), 1).gather(1, filled(batch.targets).unsqueeze(1)).squeeze(1)
        return -(torch.log1p(-p / 2) * shares(batch.targets, p.dtype)).mean()


def orthogonal(vector: Mapping[str, Tensor], others: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What of ``vector`` is orthogonal to all ``others``, as long as ``vector``; zero if nothing is.

    The others count by direction only, so that a short one is not lost to rounding in the pseudo-inverse.
    """
    g, rows = flat(vector), torch.stack([flat(other) for other in others])
    rows = torch.nn.functional.normalize(rows, dim=1)
    rest = g - rows.T @ (torch.linalg.pinv(rows @ rows.T, rtol=1e-12, hermitian=True) @ (rows @ g))
    length = rest.norm()
    # What is left of a vector inside the others' span is rounding, and has no direction.
    rest = rest * (g.norm() / length) if length > 1e-9 * g.norm() else torch.zeros_like(rest)
    parts = rest.split([x.numel() for x in vector.values()])
    return {n: part.view_as(x).to(x.dtype) for (n, x), part in zip(vector.items(), parts, strict=True)}


def picked(weights: Weights, names: Iterable[str]) -> Weights:
    """The entries of ``names``, in that order."""
    return {name: weights[name] for name in names}


def flat(vector: Mapping[str, Tensor]) -> Tensor:
    """All entries in one row, float64."""
    return torch.cat([x.flatten().double() for x in vector.values()])
