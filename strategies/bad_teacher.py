"""Bad teaching: imitate a teacher that knows nothing about the data to forget, and the original about the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from fedunlearn.federation.procedures import everywhere, recover
from fedunlearn.learning.kinds import learnt
from fedunlearn.learning.local import fit, outputs, paced
from fedunlearn.learning.objectives import Distillation, drawn, marked, taught


@dataclass(frozen=True)
class BadTeacher:
    """Give the student two teachers: an incompetent one to forget from, a competent one to keep from.

    The incompetent teacher t_d is the untrained model, the competent t_s the original, from which the student
    w starts. With l = 1 for an image to forget and 0 for a retained one::

        L(x, l) = (1 - l) KL(t_s(x) || w(x)) + l KL(t_d(x) || w(x))

    An epoch is a round: the holders are taught about both kinds of images, all others about what they retain.

    Reference:
        Chundawat et al., "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks Using an
        Incompetent Teacher", AAAI 2023, arXiv 2205.08096, its unlearning objective.

    Deviations:
        The incompetent teacher is the model that training started from, which every hospital has seen; the
        paper draws a new one. Temperature 1 and Adam, as in its code. 2 epochs at 5e-4, which are 8 to 16 steps
        where a hospital has 250 images, a path (steps x learning rate) of 0.004 to 0.008; the authors' notebook makes
        61 steps at 1e-4, 0.006, in one epoch. Federated: an average after every epoch. As there, no recovery.

    Attributes:
        retained: share of the retained images that are taught too, drawn once.
        epochs: passes of all hospitals over these images, each followed by an average.
        lr: learning rate in these, of Adam whatever the training's optimizer.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["bad_teacher"] = "bad_teacher"
    retained: Annotated[float, Ge(0), Le(1), Search(0.1, 1)] = 0.3
    epochs: Annotated[int, Ge(1), Search(1, 6)] = 2
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] = 5e-4
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        once = paced(replace(case.training.local, optimizer="adam"), 1, self.lr)

        def teach(weights: Weights, site: SiteId, seed: int) -> Teach:
            teachers, selects = (case.initial, case.original), (case.forget, case.retain)
            drawn = derive(case.seed, "retained", site)
            return Teach(weights, *teachers, *selects, self.retained, once, seed, drawn)

        weights = yield from everywhere(case, case.original, self.epochs, teach, "forget")
        return (yield from recover(case, weights, self.recovery))


@dataclass(frozen=True)
class Teach:
    """Train ``weights`` to be as ``bad`` on ``forget``'s images and as ``good`` on some of ``retain``'s (`drawn`)."""

    weights: Weights
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
        images = marked(forget, retain)
        if len(images):  # an earlier request may have left nothing, and of one image a share may be none
            images = taught(images, torch.cat([t for t in teachers if len(t)]))
        objective = Distillation(learnt(local.network.kind).objective)
        return Reply(fit(local, self.weights, images, self.training, self.seed, objective), len(images))
