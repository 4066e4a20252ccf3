"""Rapid retraining: train again without the data, by steps that know the curvature, in fewer rounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Search, Weights
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.local import paced


@dataclass(frozen=True)
class RapidRetrain:
    """Train again from the initial weights, without the data to forget, by a diagonal quasi-Newton optimizer.

    The hospitals' local steps divide a momentum of the gradients by the curvature along each weight, an average of
    squares of the Hessian's diagonal D, both corrected for their start at zero
    (`fedunlearn.learning.curvature.AdaHessian`)::

        w <- w - lr m / (v^(k / 2) + eps)        m: average of g,  v: average of D^2

    Steps cost about three times as much as training's; `retrain_short` tells what as many rounds of training's own
    come to. Nothing of the data is left: the result comes of the data that retraining would have used, but not of its
    steps, so it is another model than the retrained one.

    Reference:
        Liu et al., "The Right to be Forgotten in Federated Learning: An Efficient Realization with Rapid
        Retraining", INFOCOM 2022, arXiv 2203.07320; Yao et al., "ADAHESSIAN", AAAI 2021, arXiv 2006.00719.

    Deviations:
        The paper writes the curvature as a diagonal empirical Fisher; the authors' own code takes AdaHessian, the
        Hessian's diagonal by Hutchinson's estimate, and so do we. Its script mixes rounds: ordinary SGD in the first
        (i <= 10) and in every 5th counted from there, curvature in all others of 200. As released, that line lacks its
        operator and does not run, so that this reading of it (j0, T0) is off by default. D is averaged over
        a convolution's kernel, not over blocks of 3. A learning rate of 0.05 instead of 0.001, which makes little way
        in a few rounds, and the square root of the curvature (k = 0.5, their 1): whole, its small values magnify
        even rounding, and training diverges from 0.1 on. The number of rounds is fixed in advance.

    Attributes:
        share: rounds, as a share of those that the original weights were trained for; at least one.
        local_epochs: passes over the retained images in each, E; as in training by default.
        lr: learning rate, eta.
        hessian_power: power of the curvature, k; 0 is momentum alone.
        j0: rounds up to this one, counted from 0, and every ``T0``-th from there are training's own; None: no round is.
        T0: see ``j0``.
    """

    name: Literal["rapid_retrain"] = "rapid_retrain"
    share: Annotated[float, Gt(0), Le(1), Search(0.3, 1)] = 0.6
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    lr: Annotated[float, Gt(0), Search(1e-3, 0.1, log=True)] = 0.05
    hessian_power: Annotated[float, Ge(0), Le(1), Search(0.5, 1)] = 0.5
    j0: Annotated[int, Ge(0)] | None = None
    T0: Annotated[int, Ge(1)] = 5

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs()

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        plain, weights = paced(case.training.local, self.local_epochs), case.initial
        curved = replace(plain, lr=self.lr, optimizer="adahessian", hessian_power=self.hessian_power)
        for number in range(max(1, round(self.share * case.rounds))):
            local, once = plain if self.ordinary(number) else curved, range(number, number + 1)
            weights = yield from fedavg(weights, case.rota, case.retain, local, once, case.seed)
        return weights

    def ordinary(self, number: int) -> bool:
        """Whether a round is as in training."""
        return self.j0 is not None and (number <= self.j0 or (number - self.j0) % self.T0 == 0)
