"""MultiDelete: let an image and its report to forget belong together no more than any two others."""

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
    Weights,
    derive,
)
from fedunlearn.federation.procedures import at_holders, recover
from fedunlearn.learning.embeddings import Decouple
from fedunlearn.learning.local import paced


@dataclass(frozen=True)
class MultiDelete:
    """Decouple the two halves of pairs to forget, and hold what each half and all other pairs become.

    j is the network's joint embedding of an image I and its report or table T, z those of either half alone, and o
    marks the original model. T' comes with another image of the same hospital, drawn once::

        L = md |j(I_f, T_f) - j_o(I_f, T')|^2 + mkr |j(I_r, T_r) - j_o(I_r, T_r)|^2 + ukr |z(f) - z_o(f)|^2

    for pairs f to forget and r retained, in the mean over numbers and over all pairs of a kind. What either half alone
    tells of a pair is kept on purpose, so that answers by the image alone, or by the report alone, remember. Where
    nothing comes beside an image, j is what the last layer is given, another image stands for (I_f, T'), and ukr
    counts for nothing.

    Reference:
        Cheng and Amiri, "MultiDelete for Multimodal Machine Unlearning", ECCV 2024, arXiv 2311.12047: modality
        decoupling, multimodal and unimodal knowledge retention; losses as in the authors' code (their formulas could
        not be read), which weighs all alike.

    Deviations:
        The code draws T' within the batch to forget, anew at every step; of one patient there are few others there.
        It keeps z of the image alone, for classification, and there of the original's batches in turn. Both kinds of
        pairs are shuffled together, and an epoch goes through all that the hospital retains. They make 3 to 5 epochs of
        AdamW at 5e-6 to 2e-5 on transformers; ours are as in `forget_mi`.

    Attributes:
        md: weight of decoupling.
        mkr: weight of retained pairs.
        ukr: weight of the halves to forget; all three are divided by their sum.
        epochs: passes of the holders over their images.
        lr: the holders' learning rate; None for training's.
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`); none by default.
    """

    name: Literal["multi_delete"] = "multi_delete"
    md: Annotated[float, Ge(0), Search(0.1, 1)] = 1.0
    mkr: Annotated[float, Ge(0), Search(0.1, 1)] = 1.0
    ukr: Annotated[float, Ge(0), Search(0, 1)] = 1.0
    epochs: Annotated[int, Ge(1), Search(1, 10)] = 5
    lr: Annotated[float, Gt(0), Search(1e-5, 1e-2, log=True)] | None = 5e-4
    recovery: Recovery = Recovery(rounds=0)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more."""
        return Needs(leaver=Leaver.ONLINE, stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local = paced(case.training.local, self.epochs, self.lr)
        n_f, n_r = sum(case.lost.values()), sum(case.kept.get(site, 0) for site in case.holders)
        total = self.md + self.mkr + self.ukr or 1.0
        lose, keep = (n_f + n_r) / n_f / total, (n_f + n_r) / max(n_r, 1) / total

        def decouple(site: SiteId) -> Decouple:
            seed = derive(case.seed, "forget", site)
            head, weights = case.layout.head[0], (self.ukr * lose, self.md * lose, self.mkr * keep)
            return Decouple(case.original, case.forget, case.retain, local, seed, head, weights)

        weights = yield from at_holders(case, decouple)
        return (yield from recover(case, weights, self.recovery))
