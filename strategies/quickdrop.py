"""QuickDrop: keep a few images that stand for each hospital's; climb the leaver's and repair with the others'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fedunlearn.core import (
    SERVER,
    Case,
    Course,
    Granularity,
    Guarantee,
    Needs,
    Procedure,
    Search,
    SiteId,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import fedavg, mean
from fedunlearn.learning.local import paced
from fedunlearn.learning.tasks import Condense, FitGiven


@dataclass(frozen=True)
class QuickDrop:
    """Unlearn on synthetic images, which training leaves behind, instead of the real ones.

    Before each round of training every hospital changes its few synthetic images x so that the gradients of class c
    on them point as those on its real images do, layer by layer and output by output::

        x <- x - eta_x grad_x sum_c sum_l sum_rows 1 - cos(g_l(w; x of c), g_l(w; real images of c))

    When a hospital leaves, its synthetic images S_u tell where its gradients led, and the others' S_k repair::

        w <- Fit(w; ascent on S_u)                                            once, on the server
        w <- sum_k n_k / n Fit(w; S_k)                                        in each of R rounds

    No real image is read again. But synthetic images that start as real ones, as the authors', stay much like them,
    and the server keeps them, the leaver's too, until they have served: that must be agreed on beforehand. At a
    hundredth of a few hundred images there is one of each class, which repairs little: on phantom cells the ascent
    costs half of the accuracy, and recovery brings back half of that.

    Reference:
        Dhasade et al., "QuickDrop: Efficient Federated Unlearning via Synthetic Data Generation", Middleware 2024,
        arXiv 2311.15603, unlearning of clients; the authors' code, and the commands that reproduce its figure 2.

    Deviations:
        In the paper a hospital keeps its synthetic images and climbs before it goes; here the server does, so that it
        may be gone. The model is trained on real images as ever, bit for bit, and images are matched beside it, in
        rounds of their own; the paper reuses training's gradients, and the released code, by its defaults, trains on
        synthetic images and starts them anew in every round. Matching is at the round's first model; theirs follows it
        through 5 local steps. No weight decay. Ascent: theirs is one step of SGD at 0.004 or 0.01, ours two of
        training's optimizer, 0.004 in 3hosp. Recovery: 25 steps in both, theirs at 0.01 or 0.02. Single patients are
        in no image of their own, and cannot be forgotten. We read the paper's abstract and the code.

    Attributes:
        scale: synthetic images as a share of a class's real ones, rounded up.
        start: what synthetic images start as, real images or noise.
        steps: steps of matching before each round.
        lr_img: their learning rate, eta_x.
        epochs: passes over the leaver's synthetic images, uphill.
        lr: learning rate of the ascent; as in training by default.
        rounds: rounds of recovery on the others' synthetic images, R.
        local_epochs: passes over them in each round.
    """

    name: Literal["quickdrop"] = "quickdrop"
    scale: Annotated[float, Gt(0), Le(1)] = 0.01
    start: Literal["real", "noise"] = "real"
    steps: Annotated[int, Ge(0)] = 5
    lr_img: Annotated[float, Gt(0)] = 0.1
    epochs: Annotated[int, Ge(1), Search(1, 10)] = 2
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    rounds: Annotated[int, Ge(0), Search(1, 8)] = 5
    local_epochs: Annotated[int, Ge(1), Search(1, 10)] = 5

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset({Granularity.SITE})

    @property
    def needs(self) -> Needs:
        """Its own training, and each hospital's synthetic images of it."""
        return Needs(
            preparation=True, stayers=self.rounds > 0, class_labels=True, each_reply=True, everyone=True
        )

    def prepare(self, course: Course) -> Procedure[Mapping[str, Weights]]:
        """See `Preparing.prepare`: hospital k's synthetic images are kept as ``images-k``."""
        weights, local = course.initial, course.training.local
        small: dict[SiteId, Weights | None] = dict.fromkeys(course.sites)
        for number in range(course.rounds):
            replies = yield {
                site: self.condense(course, weights, site, number, small[site]) for site in small
            }
            small = {site: reply.arrays for site, reply in replies.items()}
            rounds = range(number, number + 1)
            weights = yield from fedavg(weights, course.sites, course.select, local, rounds, course.seed)
        return {"model": weights, **{f"images-{site}": kept or {} for site, kept in small.items()}}

    def condense(
        self, course: Course, weights: Weights, site: SiteId, number: int, small: Weights | None
    ) -> Condense:
        """What a hospital does for its synthetic images before round ``number``."""
        seed, noise = derive(course.seed, "condense", site, number), self.start == "noise"
        return Condense(weights, course.select, small, self.scale, noise, self.steps, self.lr_img, 256, seed)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        (leaver,), kept, local = case.holders, case.history.prepared, case.training.local
        climb, seed = paced(local, self.epochs, self.lr), derive(case.seed, "forget")
        weights = mean(
            (yield {SERVER: FitGiven(case.original, kept(f"images-{leaver}"), climb, seed, climb=True)})
        )
        # BatchNorm's statistics of the ascent are of the leaver's images, and tell of them (`procedures.at_holders`).
        weights = {**weights, **{name: case.original[name] for name in case.layout.buffers}}
        repair = paced(local, self.local_epochs)
        for number in range(self.rounds):
            seeds = {site: derive(case.seed, "recover", site, number) for site in case.sites}
            weights = mean(
                (yield {k: FitGiven(weights, kept(f"images-{k}"), repair, seed) for k, seed in seeds.items()})
            )
        return weights
