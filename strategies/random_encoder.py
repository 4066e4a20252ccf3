"""Random encoder: throw away the part of the network that makes features, and let the retained data make it anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from fedunlearn.core import Case, Granularity, Guarantee, Needs, Procedure, Search, Weights, derive
from fedunlearn.federation.procedures import recover, redrawn
from fedunlearn.learning.local import paced


@dataclass(frozen=True)
class RandomEncoder:
    """Put an untrained encoder under the trained decoder, then train on the retained data.

    What made a patient's features is gone for good; what turns features into labels (of a classifier, its last
    layer) stays, is no longer fed what it was trained on, and is trained further::

        w_encoder <- an untrained draw        then R rounds of federated averaging on D_r

    Neither history nor the data to forget is used. BatchNorm statistics start anew.

    Reference:
        Singh et al., "To Forget is to Preserve: Machine Unlearning for 3D Medical Image Segmentation", arXiv
        2606.16180, "Random Encoder", its parameter mechanic.

    Deviations:
        Our reading of the strategy's name: the paper's losses are not public. The untrained draw is the one that
        training started from with the entries of each tensor in random order; if that was pre-trained, so are
        the numbers, and their places are not. Rounds instead of 20 and 50 epochs: with too few the model is poor.

    Attributes:
        rounds: rounds of federated averaging afterwards, R.
        local_epochs: passes over the retained images in each, E; as in training by default.
        lr: learning rate, eta; as in training by default.
    """

    name: Literal["random_encoder"] = "random_encoder"
    rounds: Annotated[int, Ge(0), Search(1, 6)] = 4
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = None
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """Nothing but the hospitals that remain."""
        return Needs(stayers=self.rounds > 0)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        encoder = case.layout.encoder
        untrained = redrawn(case.initial, encoder, derive(case.seed, "untrained"))
        anew = {name: untrained[name] for name in (*encoder, *case.layout.buffers)}
        local = paced(case.training.local, self.local_epochs, self.lr)
        return (yield from recover(case, {**case.original, **anew}, self.rounds, local))
