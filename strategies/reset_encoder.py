"""Reset encoder: throw away the part of the network that makes features, and let the retained data make it anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Recovery, Weights, derive
from fedunlearn.federation.procedures import recover, redrawn


@dataclass(frozen=True)
class ResetEncoder:
    """Put an untrained encoder under the trained decoder, then train on the retained data.

    What made a patient's features is gone for good; what turns features into labels (of a classifier, its last
    layer) stays, is no longer fed what it was trained on, and is trained further::

        w_encoder <- an untrained draw        then R rounds of federated averaging on D_r

    Neither history nor the data to forget is used. BatchNorm statistics start anew. The model is at chance until it
    recovers, and poor after too few rounds.

    Reference:
        The counterpart of EU-k, which trains the last k layers anew under fixed first ones: Goel et al., "Towards
        Adversarial Evaluations for Inexact Machine Unlearning", arXiv 2201.06640.

    Deviations:
        The first layers are drawn anew instead of the last, and the others are trained further instead of fixed. The
        untrained draw is the one that training started from with the entries of each tensor in random order; if that
        was pre-trained, so are the numbers, and their places are not.

    Attributes:
        recovery: ordinary rounds on the retained data afterwards (`core.Recovery`).
    """

    name: Literal["reset_encoder"] = "reset_encoder"
    recovery: Recovery = Recovery(rounds=4)

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs(stayers=self.recovery.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        encoder = case.layout.encoder
        untrained = redrawn(case.initial, encoder, derive(case.seed, "untrained"))
        anew = {name: untrained[name] for name in (*encoder, *case.layout.buffers)}
        return (yield from recover(case, {**case.original, **anew}, self.recovery))
