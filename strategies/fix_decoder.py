"""Fix decoder: train on without the data, and let only the part of the network move that makes features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Recovery, Search, Weights
from fedunlearn.federation.procedures import recover
from fedunlearn.learning.constraints import Mask


@dataclass(frozen=True)
class FixDecoder:
    """Freeze the decoder and train the encoder on the retained data.

    The decoder turns features into labels (of a classifier it is the last layer) and knows little of single
    patients; the encoder has to find features again that suit it, from the retained data alone::

        min over w_encoder:  L(w; D_r)        w_decoder stays as it was, bit for bit

    Neither history nor the data to forget is used.

    Reference:
        Singh et al., "To Forget is to Preserve: Machine Unlearning for 3D Medical Image Segmentation", arXiv
        2606.16180, "Fix Decoder". It is the counterpart of CF-k, which trains the last layers only: Goel et al.,
        "Towards Adversarial Evaluations for Inexact Machine Unlearning", arXiv 2201.06640.

    Deviations:
        Our reading of the strategy's name: the paper's losses are not public, and it may freeze the decoder in
        another strategy's training. Rounds instead of 20 and 50 epochs. BatchNorm statistics are not frozen.

    Attributes:
        rounds: rounds of federated averaging, R.
        local_epochs: passes over the retained images in each, E; as in training by default.
        lr: learning rate, eta; as in training by default.
    """

    name: Literal["fix_decoder"] = "fix_decoder"
    rounds: Annotated[int, Ge(1), Search(1, 6)] = 3
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs()

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        fixed = {name: case.original[name] for name in case.layout.decoder}
        frozen = {name: torch.zeros_like(x, dtype=torch.bool) for name, x in fixed.items()}
        steps = Recovery(self.rounds, self.local_epochs, self.lr)
        return (yield from recover(case, case.original, steps, Mask(frozen, fixed)))
