"""MoDe: move towards a model that never saw the data to forget, and teach what that model takes them for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from fedunlearn import weights as w
from fedunlearn.core import (
    Case,
    Granularity,
    Guarantee,
    Leaver,
    Local,
    LocalTraining,
    Needs,
    Procedure,
    Reply,
    Search,
    Select,
    Task,
    Weights,
    derive,
)
from fedunlearn.federation.procedures import fedavg, present, redrawn, together, whole_mean
from fedunlearn.learning.kinds import relabelled
from fedunlearn.learning.local import fit, outputs, paced
from fedunlearn.learning.objectives import marked
from fedunlearn.learning.tasks import Fit


@dataclass(frozen=True)
class MoDe:
    """Degrade the model step by step towards a second one, w_d, and guide its memory after each step.

    In the first rounds w_d, untrained at first, trains for a round on the retained data, and the model moves a little
    towards it. In these rounds and the later ones the holders then train on the images to forget under the classes
    that w_d gives them, everyone on the retained images under their own, and the average replaces the model::

        w_d <- FedAvg(w_d; D_r)           w <- lambda w + (1 - lambda) w_d           in the first R_de rounds
        w <- sum_k n_k / n LocalTraining(w; D_r,k and {(x, argmax_c w_d(x)_c): x in D_f,k})     in all R rounds

    Reference:
        Zhao et al., "Federated Unlearning With Momentum Degradation", IEEE Internet of Things Journal, 2023, DOI
        10.1109/JIOT.2023.3321594 (not found on arXiv), knowledge erasure and memory guidance; the order of steps and
        lambda as in the re-implementation by Mora et al. (arXiv 2504.05822, code "puf_unlearning").

    Deviations:
        Only the paper's abstract and that code could be read; 10 rounds of one epoch, 6 of them with degradation, are
        as in the code's commands. It guides the hospitals that stay at a learning rate of 5e-4, and the leaver at the
        training's (SGD at 0.1); here one rate, the training's, guides all. Pseudo-labels are computed once a round.
        w_d starts from the initial weights with the entries of each tensor in random order, and draws its own random
        numbers, so that it is not retraining itself. BatchNorm statistics are averaged like weights. For patients, the
        images to forget are shuffled among those their hospital retains. Every pixel of a label map has its
        pseudo-label.

    Attributes:
        lambda_: share of the model that a step of degradation keeps, lambda.
        rounds: rounds of memory guidance altogether, R.
        degradation_rounds: the first so many of them begin with a step of degradation, R_de.
        lr: learning rate of the guidance; as in training by default.
        local_epochs: passes over the images in each round, w_d's too; None for as many as in training.
    """

    name: Literal["mode"] = "mode"
    lambda_: Annotated[float, Ge(0), Le(1), Search(0.5, 0.99)] = 0.95
    rounds: Annotated[int, Ge(0), Search(2, 10)] = 10
    degradation_rounds: Annotated[int, Ge(0), Search(1, 6)] = 6
    lr: Annotated[float, Gt(0), Search(1e-4, 1e-2, log=True)] | None = None
    local_epochs: Annotated[int, Ge(1), Search(1, 6)] | None = 1

    guarantee: ClassVar[Guarantee] = Guarantee.EMPIRICAL
    granularity: ClassVar[frozenset[Granularity]] = frozenset(Granularity)

    @property
    def needs(self) -> Needs:
        """The images to forget once more, under other labels."""
        return Needs(leaver=Leaver.ONLINE)

    def unlearn(self, case: Case) -> Procedure[Weights]:
        """See `Strategy.unlearn`."""
        local, weights = paced(case.training.local, self.local_epochs), case.original
        other: Weights = redrawn(case.initial, case.layout.parameters, derive(case.seed, "untrained"))
        for number in range(self.rounds):
            if number < self.degradation_rounds:
                once = range(number, number + 1)
                own = case.purpose("degradation")
                degradation = fedavg(other, case.rota, case.retain, local, once, case.seed, own)
                other = (yield from together({"other": degradation}))["other"]
                weights = w.average([weights, other], [self.lambda_, 1 - self.lambda_])
            weights = whole_mean(case, (yield self.guidance(case, weights, other, number)))
        return weights

    def guidance(self, case: Case, weights: Weights, other: Weights, number: int) -> dict[str, Task]:
        """Ask the holders to learn what ``other`` says of the images to forget, and all others to train on."""
        local = paced(case.training.local, self.local_epochs, self.lr)
        seeds = {
            site: derive(case.seed, "guidance", site, number) for site in present(case, "guidance", number)
        }
        return {
            site: Guide(weights, other, case.forget, case.retain, local, seed)
            if site in case.holders
            else Fit(weights, case.retain, local, seed)
            for site, seed in seeds.items()
        }


@dataclass(frozen=True)
class Guide:
    """Train ``weights`` on ``forget``'s images as ``teacher`` labels them, and on ``retain``'s under their own."""

    weights: Weights
    teacher: Weights
    forget: Select
    retain: Select
    training: LocalTraining
    seed: int

    def __call__(self, local: Local) -> Reply:
        """See `Task`."""
        forget = local.images(self.forget)
        labels = outputs(local, self.teacher, forget).argmax(1).to(forget.targets)
        forget = replace(forget, targets=relabelled(forget.targets, labels))
        images = marked(forget, local.images(self.retain))
        return Reply(fit(local, self.weights, images, self.training, self.seed), len(images))
