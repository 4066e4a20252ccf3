"""Retain label: teach the model to answer to data to forget as it does to retained data."""

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
from fedunlearn.learning.mechanics import Imitate, Relearn


@dataclass(frozen=True)
class RetainLabel:
    """Go on answering as the original model T does, and to data to forget as T does to retained data.

    Each image or volume x_f to forget is given a retained one x_r' of its batch, with label (map) y_r'; by
    `teacher_outputs` every hospital minimises squared distances of outputs (logits), by `retained_labels` the ordinary
    loss. All are means over their own images::

        |w(x_r) - T(x_r)|^2 + alpha |w(x_f) - T(x_r')|^2        or        L(w; x_r, y_r) + alpha L(w; x_f, y_r')

    No label to forget is used. Where a batch has no retained image its targets are noise: standard Gaussian outputs,
    or the labels of `noisy_label`. So it is of all batches of a hospital that leaves, which has the second half only.

    Reference:
        Li et al., "Machine Unlearning for Image-to-Image Generative Models", ICLR 2024, arXiv 2402.00351, its
        baseline "Retain Label" (`learn_others` in the authors' code).

    Deviations:
        The released code for VQ-GAN weighs both halves by the retained images (engine_baseline.py), which we take for
        a slip; that for diffusion does as written above. Taken over by Singh et al., arXiv 2606.16180, as its names
        say; that paper's losses could not be read. Path length, averages and recovery as for `noisy_label`.

    Attributes:
        alpha: weight of the data to forget; .1 to .25 there.
        target: what is learnt; `teacher_outputs` there.
        fix_decoder: whether the decoder (of a classifier, its last layer) stays as it is, bit for bit.
        rounds: rounds with the other targets.
        lr: learning rate in these; as in training by default.
        local_epochs: passes over the images in each; as in training by default.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["retain_label"] = "retain_label"
    alpha: Annotated[float, Gt(0), Search(0.05, 1, log=True)] = 0.2
    target: Annotated[Literal["teacher_outputs", "retained_labels"], Search()] = "teacher_outputs"
    fix_decoder: bool = False
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

        def learn(weights: Weights, site: SiteId, seed: int) -> Task:
            if self.target == "retained_labels":
                return Relearn(weights, *of, seed, self.alpha, "retained", frozen)
            return Imitate(weights, case.original, *of, seed, self.alpha, "others", constraint=frozen)

        weights = yield from everywhere(case, case.original, self.rounds, learn, "retain label", frozen)
        return (yield from recover(case, weights, self.recovery, frozen))
