"""Held-out target: treat the data to forget as the model treats images that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
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
    RunError,
    Search,
    Select,
    SiteId,
    Weights,
)
from fedunlearn.federation.procedures import beside, recover
from fedunlearn.learning.local import fit, outputs, paced
from fedunlearn.learning.objectives import SoftLabels, marked, softly

Target = Literal["rank", "mean"]


@dataclass(frozen=True)
class HeldOutTarget:
    """Distil, for every image to forget, an output that the model gives to an unseen image of the same class.

    With D_h its own validation images and w_o the original model, a holder's student, which starts as w_o, descends::

        sum over D_r of the loss of w + sum over (x, y) in D_f of KL(q || w(x)),     q = w_o(x'), x' in D_h of class y

    By `rank`, the x of a class get their x' in the order of w_o's probability of y, each x' equally often: outputs on
    D_f become spread as on D_h, mistakes included, and the hardest images make them. By `mean`, q is the average
    over all x'. Of a class that D_h lacks, all of D_h serve, the probabilities of their own class and of the
    missing one exchanged. D_r is that of all hospitals.

    Reference:
        Mirlach et al., "Reference-Guided Machine Unlearning", arXiv 2603.11210 (ReGUn), its idea, from the abstract
        and a summary: a reference built class by class from what the model to unlearn says of held-out images.

    Deviations:
        The paper's q is one for a batch to forget, the average over held-out images that repeat its class counts;
        ours is one for a class (`mean`) or an image (`rank`), whose model then errs as often as on unseen images.
        Exchanging probabilities and the equal weight of all images are our reading, and so are the epochs: the paper's
        settings could not be read. Federated: an average after every epoch, which is a round of all hospitals, the
        others training on what they retain; a leaver's D_h is of a scanner that w_o, unlike retraining, knows.

    Attributes:
        target: what stands for unseen images.
        epochs: passes of all hospitals over their images, each followed by an average.
        lr: learning rate in these; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["held_out_target"] = "held_out_target"
    target: Annotated[Target, Search()] = "rank"
    epochs: Annotated[int, Ge(1), Search(1, 6)] = 6
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more, and a class for each."""
        return Needs(leaver=Leaver.ONLINE, class_labels=True)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        once = paced(case.training.local, 1, self.lr)

        def imitate(weights: Weights, site: SiteId, seed: int) -> Imitate:
            return Imitate(weights, case.original, case.forget, case.retain, once, seed, self.target)

        weights = yield from beside(case, case.original, self.epochs, once, imitate, "forget")
        return (yield from recover(case, weights, self.recovery))


@dataclass(frozen=True)
class Imitate:
    """Train ``weights`` on ``forget``'s images as if `unseen` and on ``retain``'s under their own labels."""

    weights: Weights
    original: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int
    target: Target

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget, retain, held_out = (local.images(s) for s in (self.forget, self.retain, Select(split="val")))
        if not len(held_out):
            advice = "give validation a share of the data, or choose another strategy"
            raise RunError(f"found no val images at {local.site}, expected some to imitate: {advice}")
        p, known = (torch.softmax(outputs(local, self.original, images), 1) for images in (held_out, forget))
        soft = unseen(p, held_out.targets.cpu(), known, forget.targets.cpu(), self.target)
        own = F.one_hot(retain.targets.cpu(), local.classes).to(soft.dtype)
        images = softly(marked(forget, retain), torch.cat([soft, own]))
        return Reply(fit(local, self.weights, images, self.training, self.seed, SoftLabels()), len(images))


def unseen(p: Tensor, classes: Tensor, known: Tensor, wanted: Tensor, target: Target) -> Tensor:
    """Probabilities (n, C) for images of classes ``wanted``, now ``known``, from ``p`` (N, C) of other ``classes``."""
    result = torch.empty_like(known)
    for y in sorted(set(wanted.tolist())):
        mine, same = (wanted == y).nonzero()[:, 0], classes == y
        rows = p[same] if same.any() else exchanged(p, classes, y)
        if target == "mean":
            result[mine] = rows.mean(0)
        else:
            mine, rows = (
                x[x_y.argsort(stable=True)] for x, x_y in ((mine, known[mine, y]), (rows, rows[:, y]))
            )
            result[mine] = rows[(2 * torch.arange(len(mine)) + 1) * len(rows) // (2 * len(mine))]
    return result


def exchanged(p: Tensor, classes: Tensor, y: int) -> Tensor:
    """``p`` (N, C) with each row's entries of its own class and of ``y`` exchanged."""
    own = classes.unsqueeze(1)
    other = p.scatter(1, own, p[:, [y]])
    other[:, [y]] = p.gather(1, own)
    return other
