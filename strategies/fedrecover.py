"""FedRecover: retrain without the leaver, but estimate most updates of the others instead of asking for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Every,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Search,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.learning.tasks import Fit


@dataclass(frozen=True)
class FedRecover:
    """Train again from the initial weights; what a hospital would send is its stored update, corrected to first order.

    In round t of training the server sent w_t and hospital k replied the update Delta_k. The recovered model w'_t is
    elsewhere, so the update would have been another one. L-BFGS knows by how much from s earlier rounds in which the
    hospital did train::

        Delta'_k = Delta_k + B_k (w'_t - w_t)              B_k: of the pairs (w'_i - w_i, Delta'_k,i - Delta_k,i)
        w'_t+1   = w'_t + sum_k n_k / n Delta'_k

    A hospital is asked to train instead in the first T_w rounds, in every T_c-th round after these, in the last T_f
    rounds, and wherever its estimate is abnormal: when one entry is larger than all but alpha of the entries of the
    stored updates, in the round where these were largest. Always asking is retraining, bit for bit. Between two
    rounds with training estimates drift with the path, learning rate x T_c: long steps leave a poor model. Where
    rounds ask some hospitals only, they are those of retraining; one without a stored update of the round is asked.

    Reference:
        Cao et al., "FedRecover: Recovering from Poisoning Attacks in Federated Learning using Historical
        Information", S&P 2023, arXiv 2210.10936; B v as in the code of FLDetector, by the same group.

    Deviations:
        We found no code of the authors (the port in Crab's repository trains with L-BFGS at the hospitals: another
        method), and of the paper's settings only T_f = 5: ours suit five rounds. The paper's updates are gradients,
        whose change is a symmetric Hessian's work. After many local steps, of Adam above all, they are not: estimates
        are abnormal, everyone is asked, and it is retraining, at its cost. Pairs are of rounds in which the hospital
        trained; the paper's weights of those in which all did. Batch statistics move in rounds with training only.

    Attributes:
        T_w: rounds at the start with training; the first teaches nothing, since both models start alike.
        T_c: every T_c-th round after these has training.
        T_f: rounds at the end with training.
        s: pairs that each hospital's B is made of, the latest; without any, B is zero.
        alpha: share of the stored updates' entries that may be larger than what counts as abnormal.
    """

    name: Literal["fedrecover"] = "fedrecover"
    T_w: Annotated[int, Ge(0), Search(1, 4)] = 2
    T_c: Annotated[int, Ge(1), Search(2, 10)] = 5
    T_f: Annotated[int, Ge(0), Search(0, 2)] = 1
    s: Annotated[int, Ge(1), Search(1, 4)] = 2
    alpha: Annotated[float, Ge(0), Le(1)] = 0.0

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """All stored updates, and the models they started from."""
        return Needs(updates=Every(1), checkpoints=Every(1), each_reply=True)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        names, stored, limit = case.layout.parameters, case.history.update, self.limit(case)
        pairs, weights = {site: list[tuple[Tensor, Tensor]]() for site in case.sites}, case.initial
        for t in range(case.rounds):
            away = flat(w.subtract(weights, case.history.checkpoint(t)), names)
            models, sites, seen = dict[SiteId, Weights](), case.turn("train", t), set(case.trained(t))
            for site in () if self.asks(t, case.rounds) else (site for site in sites if site in seen):
                estimate = flat(stored(t, site), names) + product(pairs[site], away)
                if estimate.abs().max() <= limit:
                    models[site] = moved(weights, estimate, names)
            if asked := [site for site in sites if site not in models]:
                local, seeds = case.training.local, {s: derive(case.seed, "train", s, t) for s in asked}
                replies = yield {s: Fit(weights, case.retain, local, seed) for s, seed in seeds.items()}
                for site, reply in replies.items():
                    models[site] = reply.weights or {}
                    if away.any() and site in seen:
                        changed = w.subtract(w.subtract(models[site], weights), stored(t, site))
                        pairs[site] = [*pairs[site], (away, flat(changed, names))][-self.s :]
            weights = w.average([models[site] for site in sites], [case.kept[site] for site in sites])
        return weights

    def asks(self, t: int, rounds: int) -> bool:
        """Whether every hospital trains in round ``t``."""
        return t < self.T_w or t >= rounds - self.T_f or (t + 1 - self.T_w) % self.T_c == 0

    def limit(self, case: Case) -> float:
        """tau: the largest, over rounds, of the sizes that alpha of the stored updates' entries exceed at most."""
        names, limits = case.layout.parameters, list[float]()
        for t in range(case.rounds):
            if seen := [site for site in case.trained(t) if case.kept.get(site)]:
                sizes = torch.cat([flat(case.history.update(t, site), names) for site in seen]).abs()
                larger = min(int(self.alpha * len(sizes)), len(sizes) - 1)
                limits.append(float(sizes.topk(larger + 1).values[-1]))
        return max(limits, default=0.0)


def product(pairs: Sequence[tuple[Tensor, Tensor]], v: Tensor) -> Tensor:
    """B v, B being BFGS's guess of what takes each pair's first to its second (compact form: Byrd et al. 1994)."""
    if not pairs:
        return torch.zeros_like(v)
    S, Y = (torch.stack(part, 1) for part in zip(*pairs, strict=True))
    A, sigma = S.T @ Y, (Y[:, -1] @ S[:, -1]) / (S[:, -1] @ S[:, -1])
    L, sides = A.tril(-1), torch.cat([sigma * S, Y], 1)
    middle = torch.vstack([torch.hstack([sigma * S.T @ S, L]), torch.hstack([L.T, -A.diag().diag()])])
    return torch.sub(sigma * v, sides @ (torch.linalg.pinv(middle, rtol=1e-12) @ (sides.T @ v)))


def flat(weights: Weights, names: Sequence[str]) -> Tensor:
    """The entries of ``names`` in one row, float64."""
    return torch.cat([weights[name].flatten().double() for name in names])


def moved(weights: Weights, update: Tensor, names: Sequence[str]) -> Weights:
    """``weights`` plus an ``update`` in one row (`flat`)."""
    parts = zip(names, torch.split(update, [weights[name].numel() for name in names]), strict=True)
    return {**weights, **{n: weights[n] + x.view_as(weights[n]).to(weights[n].dtype) for n, x in parts}}
