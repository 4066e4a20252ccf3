"""One oracle per strategy that lives on what the server stored: a training that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import Asks, Case, LocalTraining, Replies, Reply, Select, SiteId, Training, Weights
from fedunlearn.federation.procedures import fedavg
from strategies.fast_fedul import FastFedUL
from strategies.fedrecover import FedRecover, product
from strategies.wu_distillation import subtracted
from tests import toy

pytestmark = pytest.mark.rounding

IMAGES = {"north": 10, "east": 20, "west": 30}  # west leaves
CENTRES = {"north": [1.0, 2.0, -1.0], "east": [0.0, 1.0, 3.0], "west": [5.0, -4.0, 2.0]}


@dataclass(frozen=True)
class Straight:
    """A training whose updates are ``slope`` (w - c_k), and its history; weights are one tensor of three."""

    slope: float
    rounds: int

    def update(self, round: int, site: SiteId) -> Weights:
        """See `History`."""
        return {"x": self.move(self.sent()[round], site)}

    def chosen(self, round: int) -> tuple[SiteId, ...]:
        """See `History`."""
        raise NotImplementedError

    def cumulative(self, site: SiteId) -> Weights:
        """See `History`."""
        return {"x": torch.stack([self.update(t, site)["x"] for t in range(self.rounds)]).sum(0)}

    def checkpoint(self, round: int) -> Weights:
        """See `History`."""
        return {"x": self.sent()[round]}

    def prepared(self, name: str) -> Weights:
        """See `History`."""
        raise NotImplementedError

    def move(self, x: Tensor, site: SiteId) -> Tensor:
        """A hospital's update from the weights ``x``."""
        return self.slope * (x - torch.tensor(CENTRES[site], dtype=torch.float64))

    def sent(self, sites: Sequence[SiteId] = toy.SITES, among: int = sum(IMAGES.values())) -> list[Tensor]:
        """The model before every round and after the last, if ``sites`` train and have n_k / ``among`` each."""
        models = [torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)]
        for _ in range(self.rounds):
            models.append(models[-1] + sum(IMAGES[k] / among * self.move(models[-1], k) for k in sites))
        return models

    def case(self) -> Case:
        """West's request to leave this training."""
        case = toy.case("site")
        layout = replace(case.layout, parameters=("x",), buffers=(), head=("x",), decoder=("x",))
        kept: Mapping[SiteId, int] = {site: IMAGES[site] for site in case.sites}
        models = self.sent()
        return replace(
            case,
            rounds=self.rounds,
            initial={"x": models[0]},
            original={"x": models[-1]},
            layout=layout,
            kept=kept,
            lost={"west": IMAGES["west"]},
            history=self,
        )


# ---------------------------------------------------------------------------------------- fast_fedul


def test_the_codes_skew_is_exact_where_updates_lead_to_an_optimum() -> None:
    """Updates alpha (c_k - w): the estimate is training without west, the others' shares as they were (1/6 and 1/3)."""
    training = Straight(slope=-0.3, rounds=6)
    result = toy.run(FastFedUL(alpha=0.3).unlearn(training.case()))
    assert torch.allclose(result["x"], training.sent(("north", "east"))[-1], rtol=0, atol=1e-12)


def test_the_papers_skew_is_exact_where_updates_lead_away() -> None:
    """Updates alpha (w - c_k): the estimate is retraining, north and east having 10 and 20 of 30 images."""
    training = Straight(slope=0.3, rounds=6)
    result = toy.run(FastFedUL(alpha=0.3, form="paper").unlearn(training.case()))
    assert torch.allclose(result["x"], training.sent(("north", "east"), 30)[-1], rtol=0, atol=1e-12)


def test_without_skew_updates_are_subtracted_or_the_others_are_summed() -> None:
    """alpha = 0: w_T - p sum_t Delta_u, which is Wu et al.'s student, or w_0 + sum_t of the others' average."""
    case = toy.case("site")
    student = toy.run(FastFedUL(alpha=0.0).unlearn(case))
    others = toy.run(FastFedUL(alpha=0.0, form="paper").unlearn(case))
    summed: Weights = case.initial
    for t in range(case.rounds):
        updates = [case.history.update(t, site) for site in case.sites]
        summed = w.add(summed, w.average(updates, [case.kept[site] for site in case.sites]))
    for name in case.layout.parameters:
        assert torch.allclose(student[name], subtracted(case)[name], rtol=0, atol=1e-5)
        assert torch.allclose(others[name], summed[name], rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------- fedrecover


@pytest.mark.parametrize(
    "strategy", [FedRecover(T_w=4), FedRecover(T_f=4), FedRecover(T_c=1), FedRecover(alpha=1.0)]
)
def test_asked_in_every_round_it_is_retraining_bit_for_bit(strategy: FedRecover) -> None:
    """Whatever makes it ask: the start, the end, every round, or that every estimate counts as abnormal."""
    assert w.digest(toy.outcome(strategy, "site").weights) == w.digest(toy.retrained("site"))


def test_never_asked_it_sums_the_others_stored_updates() -> None:
    """Without any pair B = 0, so that the estimates are the stored updates: w_0 + sum_t of their average."""
    strategy = FedRecover(T_w=0, T_c=100, T_f=0)
    case, log = toy.case("site"), toy.outcome(strategy, "site").log
    result, summed = (
        toy.outcome(strategy, "site").weights,
        toy.run(FastFedUL(alpha=0.0, form="paper").unlearn(case)),
    )
    assert not log.asked
    for name in case.layout.parameters:
        assert torch.allclose(result[name], summed[name], rtol=0, atol=1e-5)


def test_product_is_that_of_the_bfgs_update_rule() -> None:
    """From sigma I, each pair (s, y) in turn: B <- B - B s s^T B / s^T B s + y y^T / y^T s; so B s = y for the last."""
    generator = torch.Generator().manual_seed(3)
    root, v = (torch.randn(5, n, generator=generator, dtype=torch.float64) for n in (5, 1))
    hessian = root @ root.T  # of such pairs, every s^T y is positive
    starts = [torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(3)]
    pairs = [(s, hessian @ s) for s in starts]
    s, y = pairs[-1]
    B = torch.eye(5, dtype=torch.float64) * (y @ s) / (s @ s)
    for s, y in pairs:
        B = B - torch.outer(B @ s, B @ s) / (s @ B @ s) + torch.outer(y, y) / (y @ s)
    assert torch.allclose(product(pairs, v[:, 0]), B @ v[:, 0], rtol=0, atol=1e-9)
    assert torch.allclose(product(pairs, s), y, rtol=0, atol=1e-9)


def test_a_pair_that_did_not_change_says_that_nothing_changes() -> None:
    s = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert product([(s, torch.zeros_like(s))], s).tolist() == [0.0, 0.0]


def test_where_updates_are_straight_one_pair_gives_retraining() -> None:
    """B is then slope I, whatever the pair. The first round has no pair to give: asked in two, it knows the rest."""
    training, asked = Straight(slope=-0.3, rounds=6), list[int]()

    def reply(asks: Asks) -> Replies:
        tasks: dict[SiteId, Any] = dict(asks)
        asked.append(len(tasks))
        return {
            site: Reply({"x": task.weights["x"] + training.move(task.weights["x"], site)}, IMAGES[site])
            for site, task in tasks.items()
        }

    result = toy.by_hand(FedRecover(T_c=100, T_f=0).unlearn(training.case()), reply)
    assert asked == [2, 2]
    assert torch.allclose(result["x"], training.sent(("north", "east"), 30)[-1], rtol=0, atol=1e-12)


def test_after_gradient_descent_few_questions_come_near_to_retraining() -> None:
    """30 rounds of one step. Measured: .19 from retraining after 12 questions of 60, .45 after none; original .50."""
    step = LocalTraining(epochs=1, batch_size=100, optimizer="sgd", lr=0.1, momentum=0.0)
    case, memory, rounds = toy.case("site"), toy.Memory(rounds=30), range(30)
    original = toy.run(fedavg(case.initial, toy.SITES, Select(), step, rounds, 7), watchers=[memory])
    retrained = toy.run(fedavg(case.initial, case.sites, case.retain, step, rounds, 7))
    case = replace(case, rounds=30, original=original, training=Training(30, step), history=memory)
    log = toy.Log()
    recovered = toy.run(FedRecover(T_w=3, T_c=10).unlearn(case), watchers=[toy.Asked(log)])
    summed = toy.run(FedRecover(T_w=0, T_c=100, T_f=0).unlearn(case))
    far = [w.norm(w.subtract(model, retrained)) for model in (recovered, summed, original)]
    assert far[0] < far[1] / 2 < far[2] / 2
    assert len(log.asked) < 60 / 3
