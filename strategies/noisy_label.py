"""Noisy label: go on training with the data to forget under labels that are noise."""

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

Noise = Literal["shuffled", "uniform"]


@dataclass(frozen=True)
class NoisyLabel:
    """Train on, the data to forget under noise for labels and the retained data under their own.

    With y' in the place of the labels y of an image or volume x to forget, every round minimises::

        L(w; D_r) + L(w; {(x, y') : x in D_f})

    at the hospitals that hold D_f, and L(w; D_r) at the others. y' is drawn once: by `shuffled`, the voxels of each
    volume's own map in random order (of images with one class each, their classes in random order among them), so
    that classes are as frequent as before; by `uniform`, every label at random over all classes.

    Reference:
        Singh et al., "To Forget is to Preserve: Machine Unlearning for 3D Medical Image Segmentation", arXiv
        2606.16180, "Noisy Label", its label mechanic.

    Deviations:
        Our reading of the strategy's name: the paper's losses are not public. It reports 20 and 50 epochs on one
        machine, after which almost nothing of the forgotten volumes is segmented, while a retrained model segments
        them about as well as unseen ones. So fewer passes here, and recovery rounds (0: none). Unlike
        `random_label`, labels may come out right, keep their frequencies if shuffled, and everyone trains.

    Attributes:
        noise: what y' is.
        rounds: rounds with noise.
        lr: the holders' learning rate in these; as in training by default.
        local_epochs: passes over the images in each; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["noisy_label"] = "noisy_label"
    noise: Annotated[Noise, Search()] = "shuffled"
    rounds: Annotated[int, Ge(1), Search(1, 4)] = 1
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    recovery: Recovery = Recovery()

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.local_epochs)
        noisy = paced(local, lr=self.lr)

        def relabel(weights: Weights, site: SiteId, seed: int) -> Task:
            labels = derive(case.seed, "labels", site)
            return Relabel(weights, case.forget, case.retain, noisy, seed, labels, how=self.noise)

        weights = yield from beside(case, case.original, self.rounds, local, relabel, "noise")
        return (yield from recover(case, weights, self.recovery))
