"""One oracle per strategy that prepares for requests while training: what it keeps, and what it makes of that."""

from __future__ import annotations

import pytest
import torch

from fedunlearn import weights as w
from fedunlearn.core import Recovery, Select, derive
from fedunlearn.learning.constraints import Mask
from fedunlearn.learning.labels import wrong_labels
from fedunlearn.learning.tasks import Relabel
from strategies.fedau import FedAU
from tests import toy

pytestmark = pytest.mark.rounding
HEAD = ("6.weight", "6.bias")


# --------------------------------------------------------------------------------------------- fedau


def test_heads_leave_ordinary_training_as_it_is() -> None:
    kept = toy.prepared(FedAU())
    assert w.digest(kept["model"]) == w.digest(toy.trained()[1])
    assert {name: tuple(head) for name, head in kept.items() if name != "model"} == {
        f"head-{site}": HEAD for site in toy.SITES
    }


def test_a_head_learns_the_wrong_labels_and_unlearns_the_true_ones() -> None:
    """Of west's images, in the mean: the true class falls from .85 to less than chance (.25), the wrong one rises."""
    kept, net, images = toy.prepared(FedAU(gamma=1.0)), toy.network(), toy.select("west", Select())
    wrong, found = wrong_labels(images.targets, toy.CLASSES, derive(7, "labels", "west")), list[float]()
    for head in ({}, kept["head-west"]):
        net.load({**kept["model"], **head})
        net.module.eval()
        with torch.no_grad():
            p = torch.softmax(net.module(images.pixels), 1)
        found += [float(p.gather(1, labels[:, None]).mean()) for labels in (images.targets, wrong)]
    true_before, wrong_before, true_after, wrong_after = found
    assert true_after < 0.25 < true_before
    assert wrong_after > 2 * wrong_before


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_the_request_is_one_linear_step_of_the_head(alpha: float) -> None:
    """alpha = 0 is the original model, 1 the leaver's head on the original's features."""
    strategy = FedAU(alpha=alpha, recovery=Recovery(0))
    kept, result = toy.prepared(strategy), toy.outcome(strategy, "site").weights
    for name, x in kept["model"].items():
        expected = (1 - alpha) * x + alpha * kept["head-west"][name] if name in HEAD else x
        assert torch.allclose(result[name], expected, rtol=0, atol=1e-6)


def test_without_a_pull_to_the_models_head_it_is_one_long_training() -> None:
    """gamma = 1: the second round goes on with the first round's head, on the second model's features."""
    strategy = FedAU(gamma=1.0)
    initial, _, memory = toy.trained()
    head = {name: initial[name] for name in HEAD}
    for number in range(2):
        model = memory.sent[number + 1]
        fixed = {name: x for name, x in model.items() if name not in HEAD}
        mask = Mask({name: torch.zeros_like(x, dtype=torch.bool) for name, x in fixed.items()}, fixed)
        order, labels = derive(7, "head", "west", number), derive(7, "labels", "west")
        task = Relabel({**model, **head}, Select(), None, toy.TRAINING.local, order, labels, mask)
        weights = toy.answer(task, "west").weights
        assert weights is not None
        head = {name: weights[name] for name in HEAD}
    found = toy.prepared(strategy, rounds=2)["head-west"]
    assert w.digest(found) == w.digest(head)
