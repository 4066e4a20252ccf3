"""Random encoder: lead the features of data to forget to noise, under a decoder that stays as it is."""

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
from fedunlearn.learning.mechanics import Imitate


@dataclass(frozen=True)
class RandomEncoder:
    """Train the encoder alone: features of retained data stay, those of data to forget become Gaussian noise.

    E(x) is what the decoder is given for an image x: of a U-Net the output of every level, skips and bottleneck, of a
    classifier the input of its last layer. T_E is E of the original model. Every hospital minimises, summed over levels
    and in the mean over the images of each half::

        |E(x_r) - T_E(x_r)|^2 + alpha |E(x_f) - n|^2,   n ~ N(mean T_E, deviation T_E) of the batch

    n is drawn anew at every step. No label is used. A hospital that leaves has the second half only, the others the
    first.

    Reference:
        Li et al., "Machine Unlearning for Image-to-Image Generative Models", ICLR 2024, arXiv 2402.00351, its
        baseline "Random Encoder" (`encoder_noise` in the authors' code, `fix_decoder` with `learn_noise` in that for
        diffusion, whose U-Net gives every level).

    Deviations:
        The released code for VQ-GAN weighs both halves by the retained images (engine_baseline.py), which we take for
        a slip; that for diffusion does as written above. Taken over by Singh et al., arXiv 2606.16180, as its names
        say; that paper's losses could not be read. Path length, averages and recovery as for `noisy_label`.
        BatchNorm statistics are not frozen. For an untrained encoder in the place of the trained one see
        `reset_encoder`.

    Attributes:
        alpha: weight of the data to forget; .1 to .25 there.
        fix_decoder: whether averages and recovery leave the decoder as it is, bit for bit; the loss does anyway.
        rounds: rounds with the loss.
        lr: learning rate in these; as in training by default.
        local_epochs: passes over the images in each; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["random_encoder"] = "random_encoder"
    alpha: Annotated[float, Gt(0), Search(0.05, 1, log=True)] = 0.2
    fix_decoder: bool = True
    rounds: Annotated[int, Ge(1), Search(1, 8)] = 3
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more, without their labels."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.local_epochs, self.lr)
        frozen = fixed(case.original, case.layout.decoder) if self.fix_decoder else None
        of = case.forget, case.retain, local

        def imitate(weights: Weights, site: SiteId, seed: int) -> Task:
            return Imitate(weights, case.original, *of, seed, self.alpha, "noise", True, frozen)

        weights = yield from everywhere(case, case.original, self.rounds, imitate, "random encoder", frozen)
        return (yield from recover(case, weights, self.recovery, frozen))
