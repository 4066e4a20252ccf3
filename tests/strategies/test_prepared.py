"""One oracle per strategy that prepares for requests while training: what it keeps, and what it makes of that."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fedunlearn import weights as w
from fedunlearn.core import Images, LocalTraining, Recovery, Select, Training, derive
from fedunlearn.learning.condensing import distance, matched, picked
from fedunlearn.learning.constraints import Mask
from fedunlearn.learning.labels import wrong_labels
from fedunlearn.learning.local import gradient
from fedunlearn.learning.tasks import Relabel
from strategies.fedau import FedAU
from strategies.quickdrop import QuickDrop
from tests import toy
from tests.strategies.test_client import WEIGHTS, B, Clinic, W, X, Y

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


# ----------------------------------------------------------------------------------------- quickdrop


def test_images_leave_ordinary_training_as_it_is() -> None:
    kept = toy.prepared(QuickDrop(scale=0.2))
    assert w.digest(kept["model"]) == w.digest(toy.trained()[1])
    for site in toy.SITES:
        counts = torch.bincount(toy.select(site, Select()).targets, minlength=toy.CLASSES)
        found = torch.bincount(kept[f"images-{site}"]["targets"], minlength=toy.CLASSES)
        assert found.tolist() == (0.2 * counts).ceil().tolist()


def test_the_distance_counts_angles_of_rows() -> None:
    """Rows (1, 0) and (3, 0) lie alike, (0, 2) and (2, 0) at a right angle, (1, 1) and (-1, -1) opposite: 0 + 1 + 2."""
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    b = torch.tensor([[3.0, 0.0], [2.0, 0.0], [-1.0, -1.0]])
    vector = torch.tensor([1.0, 2.0])
    assert float(distance([a, vector], [b, -vector])) == pytest.approx(3.0, abs=1e-5)


def test_a_step_of_matching_by_hand() -> None:
    """Of a linear softmax model the gradient of class c on images x is mean (p - y) x^T: its rows are turned by pixels.

    Two images, one of each class, against the two real ones of each; lr 0.1.
    """
    network, start = Clinic().network, torch.tensor([[0.3, -0.2, 0.5], [1.0, 0.4, -0.6]])
    small = Images(start[:, None], torch.tensor([0, 1]), torch.tensor([-1, -1]))
    real = Images(X[:, None], Y, torch.arange(4))
    result = matched(Clinic(), WEIGHTS, real, small, steps=1, lr=0.1, batch_size=9, seed=1)

    def slope(x: torch.Tensor, c: int) -> torch.Tensor:
        error = torch.softmax(x @ W.T + B, 1) - F.one_hot(torch.full((len(x),), c), 2)
        return error.T @ x / len(x)

    x = start.clone().requires_grad_()
    cosines = [F.cosine_similarity(slope(x[c : c + 1], c), slope(X[c == Y], c)) for c in (0, 1)]
    (turn,) = torch.autograd.grad((1 - torch.cat(cosines)).sum(), [x])
    assert torch.allclose(result.pixels[:, 0], start - 0.1 * turn, rtol=0, atol=1e-5)
    assert network.module.training is False


def test_matching_brings_gradients_together() -> None:
    """One image of each class, from noise, at the trained model: 50 steps take a tenth off the distance, or more."""
    real, local = toy.select("west", Select()), toy.ToyLocal("west", toy.network(), toy.Log())
    weights, few = toy.trained()[1], picked(real, 0.01, 3)
    few = replace(few, pixels=torch.randn(few.pixels.shape, generator=torch.Generator().manual_seed(1)))

    def slopes(images: Images, c: int) -> list[torch.Tensor]:
        of_class = images.targets == c
        some = Images(images.pixels[of_class], images.targets[of_class], images.rows[of_class])
        return list(gradient(local, weights, some).values())

    def far(small: Images) -> float:
        return sum(float(distance(slopes(small, c), slopes(real, c))) for c in range(toy.CLASSES))

    moved = matched(local, weights, real, few, steps=50, lr=0.1, batch_size=99, seed=1)
    assert far(moved) < 0.9 * far(few)


def test_with_every_image_kept_the_ascent_is_a_step_up_the_leavers_loss() -> None:
    """scale = 1 and no matching keep all real images; one full step of SGD is then w + lr grad L(west)."""
    strategy = QuickDrop(scale=1.0, steps=0, epochs=1, rounds=0, lr=0.01)
    step = LocalTraining(epochs=1, batch_size=99, optimizer="sgd", momentum=0.0)
    case = replace(toy.case("site", strategy=strategy), training=Training(4, step))
    result = toy.run(strategy.unlearn(case))
    local = toy.ToyLocal("west", toy.network(), toy.Log())
    up = gradient(local, case.original, toy.select("west", Select()))
    for name in case.layout.parameters:
        assert torch.allclose(result[name], case.original[name] + 0.01 * up[name], rtol=0, atol=1e-6)


def test_batch_norm_statistics_tell_nothing_of_the_leavers_images() -> None:
    strategy = QuickDrop(rounds=0)
    case = toy.case("site", norm=True, strategy=strategy)
    result = toy.run(strategy.unlearn(case), toy.ToyLink(norm=True))
    assert case.layout.buffers
    assert all(torch.equal(result[name], case.original[name]) for name in case.layout.buffers)
    assert w.digest(result) != w.digest(case.original)


def test_recovery_shows_each_hospital_its_own_images_only() -> None:
    """With every image kept: the rounds after the ascent are those on what the others retain, up to rounding."""
    strategy = QuickDrop(scale=1.0, steps=0, epochs=1, rounds=1, local_epochs=1, lr=1e-9)
    step = LocalTraining(epochs=1, batch_size=99, optimizer="sgd", lr=0.1, momentum=0.0)
    case = replace(toy.case("site", strategy=strategy), training=Training(4, step))
    result = toy.run(strategy.unlearn(case))
    locals_ = [toy.ToyLocal(site, toy.network(), toy.Log()) for site in case.sites]
    slopes = [gradient(x, case.original, toy.select(x.site, Select())) for x in locals_]
    for name in case.layout.parameters:
        expected = case.original[name] - 0.1 * (slopes[0][name] + slopes[1][name]) / 2
        assert torch.allclose(result[name], expected, rtol=0, atol=1e-6)


def test_noise_keeps_nothing_of_a_real_image() -> None:
    kept = toy.prepared(QuickDrop(scale=1.0, steps=0, start="noise"))["images-west"]
    real = toy.select("west", Select())
    assert (torch.cdist(kept["pixels"].flatten(1), real.pixels.flatten(1)).amin(1) > 1).all()
    assert kept["targets"].tolist() == sorted(real.targets.tolist())
