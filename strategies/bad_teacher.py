"""Bad teaching: imitate a teacher that knows nothing about the data to forget, and the original about the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le

from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Local,
    LocalTraining,
    Needs,
    Procedure,
    Recovery,
    Reply,
    Search,
    Select,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, recover
from fedunlearn.learning.kinds import KINDS
from fedunlearn.learning.local import fit, outputs, paced
from fedunlearn.learning.objectives import Distillation, drawn, marked, taught


@dataclass(frozen=True)
class BadTeacher:
    """Give the student two teachers: an incompetent one to forget from, a competent one to keep from.

    The incompetent teacher t_d is the untrained model, the competent t_s the original, from which the student
    w starts. With l = 1 for an image to forget and 0 for a retained one::

        L(x, l) = (1 - l) KL(t_s(x) || w(x)) + l KL(t_d(x) || w(x))

    The holders' average replaces the model, then the remaining hospitals train on the retained data.

    Reference:
        Chundawat et al., "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks Using an
        Incompetent Teacher", AAAI 2023, arXiv 2205.08096, its unlearning objective.

    Deviations:
        The incompetent teacher is the model that training started from, which every hospital has seen; the
        paper draws a new one. Temperature 1, as in its code. The training's learning rate instead of 1e-4: a
        hospital's few images to forget make few steps. Federated: only the holders are taught.

    Attributes:
        retained: share of the retained images that are taught too, drawn once.
        epochs: passes of the holders over both.
        lr: the holders' learning rate; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["bad_teacher"] = "bad_teacher"
    retained: Annotated[float, Ge(0), Le(1), Search(0.1, 1)] = 0.3
    epochs: Annotated[int, Ge(1), Search(1, 6)] = 1
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.epochs, self.lr)

        def teach(site: SiteId) -> Teach:
            order, drawn = derive(case.seed, "forget", site), derive(case.seed, "retained", site)
            selects = case.forget, case.retain
            return Teach(case.initial, case.original, *selects, self.retained, local, order, drawn)

        weights = yield from at_holders(case, teach)
        return (yield from recover(case, weights, self.recovery))


@dataclass(frozen=True)
class Teach:
    """Train ``good`` to be as ``bad`` on ``forget``'s images and as it was on some of ``retain``'s (`drawn`)."""

    bad: Weights
    good: Weights
    forget: Select
    retain: Select
    share: float
    training: LocalTraining
    seed: int
    drawn: int

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget, retain = local.images(self.forget), local.images(self.retain)
        retain = drawn(retain, self.share, self.drawn)
        teachers = (outputs(local, self.bad, forget), outputs(local, self.good, retain))
        images = taught(marked(forget, retain), torch.cat([t for t in teachers if len(t)]))
        objective = Distillation(KINDS[local.network.kind].objective)
        return Reply(fit(local, self.good, images, self.training, self.seed, objective), len(images))
