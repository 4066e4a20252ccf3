"""Noisy label: train on with the data to forget under labels that are noise."""

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
)
from fedunlearn.federation.procedures import everywhere, recover
from fedunlearn.learning.constraints import fixed
from fedunlearn.learning.local import paced
from fedunlearn.learning.mechanics import Relearn


@dataclass(frozen=True)
class NoisyLabel:
    """Train on, the retained data under their own labels and the data to forget under noise.

    Every step draws new labels y' for its images or volumes x to forget, a label for every voxel of a volume; every
    hospital minimises, each mean over its own images::

        L(w; D_r) + alpha L(w; {(x, y') : x in D_f})

    By `gaussian`, y' is N(mean, deviation) of the numbers of the batch's labels, rounded to a class; by `uniform`, any
    class alike. A hospital that leaves has the second half only, and the others the first.

    Reference:
        Li et al., "Machine Unlearning for Image-to-Image Generative Models", ICLR 2024, arXiv 2402.00351, its
        baseline "Noisy Label" (`learn_noise` in the authors' code for diffusion), with the noise of their code for
        VQ-GAN, whose tokens are classes.

    Deviations:
        Labels in the place of their tokens. Taken over by Singh et al., arXiv 2606.16180, as "Noisy Label" of 3D
        segmentation after 20 and 50 epochs, as its names say; that paper's losses could not be read. Federated: in
        averages an image to forget counts alpha, since Adam does not feel the factor at a hospital that has nothing
        else. Path length (learning rate x steps): 6 epochs over some 24,000 images are .03 in their code for VQ-GAN, 2
        over 500,000 in that for diffusion .5; our 3 rounds of six epochs are .3 at a hospital of 230 images (.002,
        batches of 32). No recovery, as there, since L(w; D_r) is minimised all along.

    Attributes:
        alpha: weight of the data to forget; .1 to .25 there.
        noise: how y' is drawn.
        fix_decoder: whether the decoder (of a classifier, its last layer) stays as it is, bit for bit.
        rounds: rounds with noise.
        lr: learning rate in these; as in training by default.
        local_epochs: passes over the images in each; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["noisy_label"] = "noisy_label"
    alpha: Annotated[float, Gt(0), Search(0.05, 1, log=True)] = 0.2
    noise: Annotated[Literal["gaussian", "uniform"], Search()] = "gaussian"
    fix_decoder: bool = False
    rounds: Annotated[int, Ge(1), Search(1, 8)] = 3
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more; what their labels are counts for mean and deviation alone."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.local_epochs, self.lr)
        frozen = fixed(case.original, case.layout.decoder) if self.fix_decoder else None

        def relearn(weights: Weights, site: SiteId, seed: int) -> Task:
            return Relearn(weights, case.forget, case.retain, local, seed, self.alpha, self.noise, frozen)

        weights = yield from everywhere(case, case.original, self.rounds, relearn, "noisy label", frozen)
        return (yield from recover(case, weights, self.recovery, frozen))
