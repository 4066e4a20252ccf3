"""Forget-MI: move what images and their reports become, each and together, and hold what others become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Needs,
    Procedure,
    Recovery,
    Search,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, recover
from fedunlearn.learning.embeddings import Aimed, Gate, Reembed
from fedunlearn.learning.local import paced


@dataclass(frozen=True)
class ForgetMI:
    """Pull embeddings of pairs to forget to those of noisy copies, and hold those of retained pairs.

    z are the embeddings that the network makes of an image and of its report or table, side by side; j is one of both;
    d is the L2 distance. Against the original model, of a pair f to forget, its noisy copy f~ and a retained pair r::

        L = uu s d(z(f), z_o(f~)) + mu s d(j(f), j_o(f~)) + ur d(z(r), z_o(r)) + mr d(j(r), j_o(r))

    each d in the mean over all pairs of its kind, s = 1 (to_noise) or -1 (away). Only hospitals that hold images to
    forget work; one that leaves has no r, so that nothing but the aim, or `margin`, bounds it. Where nothing comes
    beside an image, z is what the last layer is given, and mu and mr count for nothing.

    Reference:
        Hardan et al., "Forget-MI: Machine Unlearning for Forgetting Multimodal Information in Healthcare Settings",
        MICCAI 2025, arXiv 2506.23145: UU, MU, UR and MR, with details from the authors' code. The weights uu, ur, mu,
        mr of its settings: .25 each; multimodal .1, .1, .4, .4; unimodal .4, .4, .1, .1; retention .1, .4, .1, .4.

    Deviations:
        j is made by one gate (`learning.embeddings.Gate`), drawn from the seed and frozen, where the code draws another
        one for every batch and both models, with which MR never vanishes; norms by row, no dropout, beta > 0. z_o and
        j_o are computed once, by the model as in use. Their `away` is unbounded; their hinge, the least of d and 1 (d
        is 0 at first), lets go of what has moved far. Both kinds of pairs are shuffled together, and an epoch goes
        through all that the hospital retains, not through as many as it forgets. One step a batch; they make one an
        epoch (`accumulate`), of AdamW, 30 in all, at 1e-4 or 1e-5. A report's noise is other words of the hospital's,
        not synonyms and typing errors.

    Attributes:
        direction: to the noisy copy's embedding, or away from it.
        uu: weight of single embeddings to forget; all four are divided by their sum.
        ur: weight of single embeddings retained.
        mu: weight of joint embeddings to forget.
        mr: weight of joint embeddings retained.
        joint: whose joint embedding: the frozen gate's, or the network's own.
        noise_std: deviation of an image's noise, pixels going from 0 to 1.
        other_noise: share of words, or of a table's columns, drawn anew from what the hospital has.
        margin: how far away is far enough, in lengths of the embedding.
        retention: plain, or the authors' hinge.
        accumulate: one step an epoch.
        epochs: passes of the holders over their images.
        lr: the holders' learning rate; None for training's.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["forget_mi"] = "forget_mi"
    direction: Annotated[Literal["to_noise", "away"], Search()] = "to_noise"
    uu: Annotated[float, Ge(0), Search(0.1, 0.4)] = 0.25
    ur: Annotated[float, Ge(0), Search(0.1, 0.4)] = 0.25
    mu: Annotated[float, Ge(0), Search(0.1, 0.4)] = 0.25
    mr: Annotated[float, Ge(0), Search(0.1, 0.4)] = 0.25
    joint: Annotated[Literal["gate", "network"], Search()] = "gate"
    noise_std: Annotated[float, Ge(0), Search(0.03, 0.5, log=True)] = 0.1
    other_noise: Annotated[float, Ge(0), Le(1), Search(0.1, 1)] = 0.5
    margin: Annotated[float, Gt(0), Search(0.1, 2, log=True)] = 0.5
    retention: Annotated[Literal["plain", "hinge"], Search()] = "plain"
    accumulate: bool = False
    epochs: Annotated[int, Ge(1), Search(1, 30)] = 5
    lr: Annotated[float, Gt(0), Search(1e-5, 1e-2, log=True)] | None = 5e-4
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local, away = paced(case.training.local, self.epochs, self.lr), self.direction == "away"
        n_f, n_r = sum(case.lost.values()), sum(case.kept.get(site, 0) for site in case.holders)
        total = self.uu + self.ur + self.mu + self.mr or 1.0
        lose, keep = (-1 if away else 1) * (n_f + n_r) / n_f / total, (n_f + n_r) / max(n_r, 1) / total
        aimed = Aimed(
            case.layout.head[0],
            (self.uu * lose, self.mu * lose),
            (self.ur * keep, self.mr * keep),
            Gate(derive(case.seed, "gate", case.request)) if self.joint == "gate" else None,
            self.margin if away else None,
            1.0 if self.retention == "hinge" else None,
        )
        noise = self.noise_std, self.other_noise

        def reembed(site: SiteId) -> Reembed:
            seed = derive(case.seed, "forget", site)
            return Reembed(
                case.original, case.forget, case.retain, local, seed, aimed, noise, self.accumulate
            )

        weights = yield from at_holders(case, reembed)
        return (yield from recover(case, weights, self.recovery))
