"""Wu et al.'s distillation: subtract what the leaving hospital gave, then mend the model with unlabelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from fedunlearn.core import (
    SERVER,
    Case,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Recovery,
    Search,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import mean, recover
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Distil


@dataclass(frozen=True)
class WuDistillation:
    """Take the leaver's updates out of the model, then let the original model teach what is left; no hospital works.

    The average gave the leaver u the share p of every round, so its work is subtracted with that share. The
    subtraction ignores that later rounds built on earlier ones; the server mends this skew with images x of its
    own, which have no labels, the original model w_T being the teacher at temperature T::

        w_s = w_T - p sum_t Delta_u^t           p = n_u / n, which is 1 / K among K equal hospitals
        w   = argmin_w  T^2 KL(softmax(w_T(x) / T) || softmax(w(x) / T)),  starting from w_s

    The hope is that the teacher tells what it learnt of everyone, and not the leaver's images.

    Reference:
        Wu, Zhu and Mitra, "Federated Unlearning with Knowledge Distillation", arXiv 2201.09441, subtraction of
        historical updates and distillation with unlabelled data.

    Deviations:
        We read a summary of the paper, which names neither temperature, optimizer nor epochs: T, lr and epochs are
        ours, the optimizer is the training's. The paper's hospitals are equal; here p is the leaver's share of
        the training images (in a sequential timeline, of those that earlier requests left). BatchNorm
        statistics are no updates: the student starts from the original's, which distillation then moves towards
        the server's images.

    Attributes:
        T: temperature of teacher and student, T.
        epochs: passes of the server over its images; 0 for the subtraction alone.
        lr: learning rate of the distillation; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["wu_distillation"] = "wu_distillation"
    T: Annotated[float, Gt(0), Search(1, 8)] = 4.0
    epochs: Annotated[int, Ge(0), Search(1, 40)] = 20
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """Every hospital's sum of updates, and an image or more to distil with: all there are take part."""
        return Needs(
            cumulative="updates",
            proxy_examples=min(self.epochs, 1),
            stayers=self.recovery.rounds > 0,
            everyone=True,
        )

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        student = subtracted(case)
        if self.epochs:
            local, seed = paced(case.training.local, self.epochs, self.lr), derive(case.seed, "distil")
            student = mean(
                (yield {SERVER: Distil(student, case.original, case.proxy, local, seed, T=self.T)})
            )
        return (yield from recover(case, student, self.recovery))


def subtracted(case: Case) -> Weights:
    """w_s: the original weights without the leaver's share of its updates."""
    (leaver,), images = case.holders, {**case.kept, **case.lost}
    share, given = images[leaver] / sum(images.values()), case.history.cumulative(leaver)
    names = case.layout.parameters
    return {**case.original, **{name: case.original[name] - share * given[name] for name in names}}
