"""Learn others: go on training with retained images in the place of those to forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt

from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Images,
    Local,
    LocalTraining,
    Needs,
    Procedure,
    Reply,
    Search,
    Select,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import mean
from fedunlearn.learning.local import fit, paced


@dataclass(frozen=True)
class LearnOthers:
    """Train on with the retained patients only, who take the places of those to forget.

    At a hospital with n_f images to forget, n_f of the retained ones, drawn with replacement in every round, pass
    once more in each epoch: training goes on in as many steps, and nothing of the images to forget is in them::

        min  L(w; D_r and n_f of D_r again)

    Neither history nor the data to forget is used. Nothing else tells it from `fine_tune`.

    Reference:
        Singh et al., "To Forget is to Preserve: Machine Unlearning for 3D Medical Image Segmentation", arXiv
        2606.16180, "LearnOthers", its data mechanic.

    Deviations:
        Our reading of the strategy's name: the paper's losses are not public. Rounds instead of 20 and 50 epochs.

    Attributes:
        rounds: rounds of federated averaging, R.
        local_epochs: passes over the images in each, E; as in training by default.
        lr: learning rate, eta; as in training by default.
    """

    name: Literal["learn_others"] = "learn_others"
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
        local, weights = paced(case.training.local, self.local_epochs, self.lr), case.original
        for number in range(self.rounds):
            seeds = {site: derive(case.seed, "recover", site, number) for site in case.sites}
            asks = {
                site: Replace(weights, case.retain, local, seed, case.lost.get(site, 0))
                for site, seed in seeds.items()
            }
            weights = mean((yield asks))
        return weights


@dataclass(frozen=True)
class Replace:
    """Train ``weights`` on ``select``'s images and ``again`` of them once more."""

    weights: Weights
    select: Select
    training: LocalTraining
    seed: int
    again: int

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        images = local.images(self.select)
        if len(images):
            generator = torch.Generator().manual_seed(derive(self.seed, "again"))
            more = torch.randint(len(images), (self.again,), generator=generator)
            rows = torch.cat([torch.arange(len(images)), more]).to(images.rows.device)
            images = Images(images.pixels[rows], images.targets[rows], images.rows[rows])
        return Reply(fit(local, self.weights, images, self.training, self.seed), len(images))
