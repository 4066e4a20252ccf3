"""SalUn-CRA: SalUn that makes the model unsure of a malignant image, and never teaches it that it is benign."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import (
    IGNORED,
    Batch,
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
    derive,
)
from fedunlearn.federation.procedures import beside, recover
from fedunlearn.learning.constraints import Mask, salient
from fedunlearn.learning.kinds import shares
from fedunlearn.learning.labels import Labels, replaced
from fedunlearn.learning.local import fit, paced
from fedunlearn.learning.objectives import marked
from fedunlearn.learning.tasks import Gradient


@dataclass(frozen=True)
class SalUnCRA:
    """Clinical risk-aware SalUn: of images to forget, those of a malignant class lose certainty, others their label.

    Random labels teach that a tumour is benign, and false negatives cost most. So the holders' loss of an image is::

        malignant, to forget:  log C - H(p),  H(p) = -sum_c p_c log p_c     0 where all C classes have even chances
        other, to forget:      -log p_y',     y' another label at random
        retained:              -log p_y

    and the weights that are salient for the images to forget are all that moves, as in `strategies.salun`.

    Reference:
        Falcão and Cordeiro, "Does Machine Unlearning Preserve Clinical Safety? A Risk Analysis for Medical Image
        Classification", SBCAS 2026, arXiv 2604.23854: SalUn-CRA, "entropy-based forgetting for malignant samples in
        the forget set" in the place of random labels. Mask and rest: Fan et al., ICLR 2024, arXiv 2310.12508.

    Deviations:
        Of the paper only the abstract could be read, and no code was found: that the entropy itself is what is
        maximised, and its weight beside the other losses (an image is an image), are our reading; settings are our
        SalUn's. The paper has two classes; here are any number, of voxels and findings too (where absent is class 0,
        present 1). Federated as `strategies.salun` is.

    Attributes:
        malignant: the classes to be forgotten by entropy; all by default, since only you know which: the paper's is
            the malignant one of two (0 in BreastMNIST).
        fraction: share of all parameters that may move; sets SalUn's gamma.
        labels: of the others: any label but the true one, or any at all, as in SalUn's code.
        epochs: passes of all hospitals over their images, each followed by an average.
        lr: learning rate in these, eta; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["salun_cra"] = "salun_cra"
    malignant: tuple[Annotated[int, Ge(0)], ...] | None = None
    fraction: Annotated[float, Gt(0), Le(1), Search(0.1, 0.9)] = 0.5
    labels: Annotated[Literal["wrong", "uniform"], Search()] = "wrong"
    epochs: Annotated[int, Ge(1), Search(1, 6)] = 3
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more, and data that has the malignant classes."""
        return Needs(leaver=Leaver.ONLINE, class_settings=("malignant",))

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        replies = yield {site: Gradient(case.original, case.forget) for site in case.holders}
        gradient = w.average([r.arrays for r in replies.values()], [r.count for r in replies.values()])
        mask = Mask(salient(gradient, self.fraction), {name: case.original[name] for name in gradient})
        once = paced(case.training.local, 1, self.lr)

        def doubt(weights: Weights, site: SiteId, seed: int) -> Doubt:
            labels = derive(case.seed, "labels", site)
            select = case.forget, case.retain
            return Doubt(weights, *select, once, seed, labels, mask, self.labels, self.malignant)

        weights = yield from beside(case, case.original, self.epochs, once, doubt, "forget", mask)
        return (yield from recover(case, weights, self.recovery, mask))


@dataclass(frozen=True)
class Doubt:
    """Train on ``forget``'s images by `Unsure` if ``malignant``, else under other labels, and on ``retain``'s."""

    weights: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int
    labels: int
    constraint: Mask
    how: Labels
    malignant: tuple[int, ...] | None

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget, retain = local.images(self.forget), local.images(self.retain)
        every = range(local.classes)
        malignant = tuple(every) if self.malignant is None else self.malignant
        if not set(malignant) <= set(every):
            raise RunError(f"found malignant: {list(malignant)}, expected classes from 0 to {every[-1]}")
        classes = torch.tensor(malignant, dtype=forget.targets.dtype, device=forget.targets.device)
        others = replaced(self.how, forget.targets, retain.targets, local.classes, self.labels)
        unsure = torch.cat([torch.isin(forget.targets, classes), torch.zeros_like(retain.targets) > 0])
        targets = torch.cat([others, retain.targets])
        images = replace(marked(forget, retain), targets=targets, extra={"unsure": unsure})
        new = fit(local, self.weights, images, self.training, self.seed, Unsure(), self.constraint)
        return Reply(new, len(images))


@dataclass(frozen=True)
class Unsure:
    """Over images and known targets the mean cross-entropy or, where ``extra["unsure"]`` is true, of log C - H(p)."""

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """See `Objective`."""
        log_p = torch.log_softmax(module(batch.inputs), 1)
        certainty = math.log(log_p.shape[1]) + (log_p.exp() * log_p).sum(1)
        surprise = F.nll_loss(log_p, batch.targets, reduction="none", ignore_index=IGNORED)
        return (
            torch.where(batch.extra["unsure"], certainty, surprise) * shares(batch.targets, log_p.dtype)
        ).mean()
