"""PUF: one ordinary update on the data to forget, applied backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Needs,
    Procedure,
    Recovery,
    Search,
    Select,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import mean, recover, standing_for
from fedunlearn.learning.tasks import Fit


@dataclass(frozen=True)
class PUF:
    """Negate the update that ordinary local training on the data to forget gives, scaled by eta.

    Local training's update is a pseudo-gradient; a step against it unlearns. The hospitals do nothing but
    ordinary rounds, and several may leave at once. With n images in the round, n_k retained at hospital k and
    n_u to forget at u::

        special round: only the holders take part      w <- w - eta * sum_u (n_u / n) Delta_u
        regular round: everyone takes part, in addition     w <- … + sum_k (n_k / n) Delta_k

    then ordinary rounds on the retained data. For patients, Delta_u comes from their images alone.

    Reference:
        Mora et al., "Federated Unlearning Made Practical: Seamless Integration via Negated Pseudo-Gradients",
        arXiv 2504.05822, PUF-Special and PUF-Regular; n as in the authors' code.

    Deviations:
        A local training is as long as in the scenario; with the authors it is one epoch of SGD at 0.1, one of 200. A
        fixed number of recovery rounds; the authors stop at the retrained model's test accuracy. BatchNorm statistics
        are not gradients and keep their value until recovery replaces them; the authors negate their change as well.
        A hospital that both forgets and retains is asked twice in a regular round, which the ledger counts as two.
        Where rounds ask some hospitals only, those asked stand for all in n.

    Attributes:
        eta: step against the pseudo-gradient, eta; the authors' scripts take 2 (special) and 20 (regular).
        round: who takes part.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["puf"] = "puf"
    eta: Annotated[float, Ge(0), Search(0.1, 10, log=True)] = 2.0
    round: Literal["special", "regular"] = "special"
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """One more training on the data to forget."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.round == "regular" or self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        forget = yield _updates(case, case.holders, case.forget, "forget")
        retain = (
            (yield _updates(case, case.turn("retain", 0), case.retain, "retain"))
            if self.round == "regular"
            else {}
        )
        n_forget = sum(reply.count for reply in forget.values())
        n_retain = sum(standing_for(case.kept, retain))
        weights: Weights = case.original
        for replies, scale in ((retain, n_retain), (forget, -self.eta * n_forget)):
            if replies:
                pseudo_gradient = w.subtract(mean(replies), case.original)
                weights = w.add(weights, pseudo_gradient, scale / (n_forget + n_retain))
        weights = {**weights, **{name: case.original[name] for name in case.layout.buffers}}
        return (yield from recover(case, weights, self.recovery))


def _updates(case: Case, sites: tuple[SiteId, ...], select: Select, purpose: str) -> dict[SiteId, Fit]:
    """Ask ``sites`` for one ordinary local training from the original weights."""
    return {
        site: Fit(case.original, select, case.training.local, derive(case.seed, purpose, site))
        for site in sites
    }
