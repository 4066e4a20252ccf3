"""Retain label: go on training with the data to forget under the labels of retained data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

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
    Task,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import beside, recover
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Relabel


@dataclass(frozen=True)
class RetainLabel:
    """Descend on labels of retained patients only: of their own data, and in the place of the labels to forget.

    Every image or volume x to forget gets the label (map) y_r of a retained one of its hospital, drawn once; then
    rounds of ordinary training::

        min  L(w; D_r) + L(w; {(x, y_r) : x in D_f})

    No label to forget is used. What a model may learn of x is what patients look like on average: of a volume, an
    organ about where others have theirs. A hospital that retains nothing passes labels on among its own images.

    Reference:
        Singh et al., "To Forget is to Preserve: Machine Unlearning for 3D Medical Image Segmentation", arXiv
        2606.16180, "Retain Label".

    Deviations:
        Our reading of the strategy's name: the paper's losses are not public. It is listed there beside Max Loss as
        one of the loss mechanic; to descend on the retained data alone would be `fine_tune`. Few passes and
        recovery rounds, as for `noisy_label`.

    Attributes:
        rounds: rounds with the other labels.
        lr: the holders' learning rate in these; as in training by default.
        local_epochs: passes over the images in each; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["retain_label"] = "retain_label"
    rounds: Annotated[int, Ge(1), Search(1, 4)] = 1
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more, without their labels."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.local_epochs)
        others = paced(local, lr=self.lr)

        def relabel(weights: Weights, site: SiteId, seed: int) -> Task:
            labels = derive(case.seed, "labels", site)
            return Relabel(weights, case.forget, case.retain, others, seed, labels, how="retained")

        weights = yield from beside(case, case.original, self.rounds, local, relabel, "retain label")
        return (yield from recover(case, weights, self.recovery))
