"""FedQUIT: imitate the original model as it would be if it did not know the true class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

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
from fedunlearn.learning.kinds import filled, ignored, learnt
from fedunlearn.learning.local import fit, outputs, paced
from fedunlearn.learning.objectives import Distillation, taught

Value = Literal["min", "entropy"]


@dataclass(frozen=True)
class FedQUIT:
    """Distil a virtual teacher, the original model with the true class's logit z_y replaced by v.

    The holders' student w starts as the original and learns, on the images to forget only::

        KL(softmax(z') || softmax(w(x)))        z'_y = v, z'_c = z_c for c != y

    What the model knows of the other classes stays, so that the student remains a good place to recover
    from. v is the image's smallest logit, or that for which z' has the largest entropy,
    v = sum over c != y of q_c z_c with q the softmax of the other logits. Then ordinary rounds.

    Reference:
        Mora et al., "FedQUIT: On-Device Federated Unlearning via a Quasi-Competent Virtual Teacher", arXiv
        2408.07587, its virtual teacher and distillation at temperature 1.

    Deviations:
        20 epochs instead of one, at their learning rate and by their optimizer, Adam: 5000 images at a hospital of
        theirs make 157 steps, a path (steps x learning rate) of 0.016, and so do 250 images in 20 epochs; fewer to
        forget walk less far. A fixed number of recovery rounds; the authors stop at the retrained model's test
        accuracy. For patients the hospital's other images take no part in the distillation.

    Attributes:
        v: what the true class's logit becomes.
        epochs: passes of the holders over the images to forget.
        lr: the holders' learning rate, of Adam whatever the training's optimizer.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["fedquit"] = "fedquit"
    v: Annotated[Value, Search()] = "min"
    epochs: Annotated[int, Ge(1), Search(1, 30)] = 20
    lr: Annotated[float, Gt(0), Search(3e-5, 3e-3, log=True)] = 1e-4
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(replace(case.training.local, optimizer="adam"), self.epochs, self.lr)

        def quit(site: SiteId) -> Quit:
            return Quit(case.original, case.forget, local, derive(case.seed, "forget", site), self.v)

        weights = yield from at_holders(case, quit)
        return (yield from recover(case, weights, self.recovery))


@dataclass(frozen=True)
class Quit:
    """Train ``weights`` on ``forget``'s images towards their own outputs, with the true class's replaced."""

    weights: Weights
    forget: Select
    training: LocalTraining
    seed: int
    v: Value

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.forget)
        teacher = virtual(outputs(local, self.weights, images), images.targets.cpu(), self.v)
        objective = Distillation(learnt(local.network.kind).objective)
        new = fit(local, self.weights, taught(images, teacher), self.training, self.seed, objective)
        return Reply(new, len(images))


def virtual(logits: Tensor, targets: Tensor, v: Value) -> Tensor:
    """``logits`` (N, classes, ...) with that of the class in ``targets`` (N, ...) replaced by the value ``v`` names.

    Where the target is `IGNORED`, no class is the true one and all stay as they are.
    """
    true = filled(targets).unsqueeze(1)
    if v == "min":
        value = logits.amin(1, keepdim=True)
    else:
        others = torch.softmax(logits.scatter(1, true, -torch.inf), 1)
        value = (others * logits).sum(1, keepdim=True)
    return torch.where(ignored(targets).unsqueeze(1), logits, logits.scatter(1, true, value))
