"""Oracles for the strategies that give the images to forget another target: worked out by hand or in slow lines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fedunlearn import weights as w
from fedunlearn.core import Batch, Form, Images, Recovery, Reply, RunError, Select, Weights, derive
from fedunlearn.learning.local import outputs
from fedunlearn.learning.models import Network
from fedunlearn.learning.objectives import SoftLabels, drawn
from fedunlearn.learning.tasks import Errors
from strategies.boundary_shrink import BoundaryShrink, neighbours
from strategies.fine_tune import FineTune
from strategies.held_out_target import HeldOutTarget, exchanged, unseen
from strategies.lotus import LoTUS, Soften, lessons
from tests import toy
from tests.strategies.test_client import (
    FORGET,
    RETAIN,
    STEP,
    WEIGHTS,
    B,
    Clinic,
    Linear,
    W,
    X,
    Y,
    at_clinic,
    by_autograd,
    close,
    linear,
    moved,
    only_task,
    stepped,
)

pytestmark = pytest.mark.rounding

# ----------------------------------------------------------------------------------------- soft labels


def test_soft_labels_give_the_slope_of_a_divergence_and_sure_ones_the_ordinary_loss() -> None:
    module, soft = linear().module, torch.tensor([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5], [1.0, 0.0]])
    linear().load(WEIGHTS)
    batch = Batch(X[:, None], Y, torch.arange(4), {"soft": soft})
    found = torch.autograd.grad(SoftLabels()(module, batch), list(module.parameters()))
    error = (torch.softmax(X @ W.T + B, 1) - soft) / 4  # of the mean of KL(soft || model), in the scores
    assert torch.allclose(found[0], error.T @ X, atol=1e-6)
    assert torch.allclose(found[1], error.sum(0), atol=1e-6)
    sure = replace(batch, extra={"soft": F.one_hot(Y, 2).float()})
    assert torch.allclose(SoftLabels()(module, sure), F.cross_entropy(module(X[:, None]), Y))


# ------------------------------------------------------------------------------------- boundary_shrink


def test_a_neighbour_by_hand() -> None:
    """x = (0, 1, 0) of class 0, scores 0, 2 x_2 - 1.5, 1.5 x_1: both pixels go up, and the second is at its limit.

    At (epsilon, 1, 0) the scores are .5 and 1.5 epsilon: class 2 is next from epsilon = 1/3 on. Without the limit
    class 1 would always be.
    """
    with torch.random.fork_rng(devices=[]):
        clinic = Clinic(network=Network(Linear(), Form((1, 3), 3)), classes=3)
    weights = {
        "1.weight": torch.tensor([[0.0, 0, 0], [0, 2, 0], [1.5, 0, 0]]),
        "1.bias": torch.tensor([0.0, -1.5, 0]),
    }
    image = Images(torch.tensor([[[0.0, 1.0, 0.0]]]), torch.tensor([0]), torch.tensor([0]))
    for epsilon, label in ((0.0, 1), (0.3, 1), (0.4, 2)):
        assert neighbours(clinic, weights, image, epsilon).tolist() == [label]


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.3])
def test_the_neighbour_is_found_one_image_after_another(epsilon: float) -> None:
    """On the toy, four classes: the step matters, and batches, weights in use and the images themselves do not."""
    case, images = toy.case("site"), toy.images("west")
    local = toy.ToyLocal("west", toy.network(), toy.Log())
    found = neighbours(local, case.original, images, epsilon, batch_size=7)
    low, high = float(images.pixels.min()), float(images.pixels.max())
    before = images.pixels.clone()
    for i in range(len(images)):
        x, y = images.pixels[i : i + 1].clone().requires_grad_(), int(images.targets[i])
        local.network.load(case.original)
        module = local.network.module.eval()
        (slope,) = torch.autograd.grad(-torch.log_softmax(module(x), 1)[0, y], x)
        there = (x.detach() + epsilon * (high - low) * slope.sign()).clamp(low, high)
        ranking = module(there)[0].argsort(descending=True).tolist()
        assert int(found[i]) == next(c for c in ranking if c != y)
    assert torch.equal(images.pixels, before)
    if epsilon == 0.3:
        assert found.tolist() != neighbours(local, case.original, images, 0.0).tolist()


def test_grey_levels_are_as_good_as_scaled_pixels() -> None:
    """uint8 pixels 0 to 255 and the same in [-1, 1]: a step of epsilon is that share of either range."""
    case, local = toy.case("site"), toy.ToyLocal("west", toy.network(), toy.Log())
    grey = torch.randint(256, (30, *toy.SHAPE), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    grey[0, 0, 0, :2] = torch.tensor([0, 255])
    targets, rows = torch.arange(30) % 4, torch.arange(30)
    pairs = [Images(pixels, targets, rows) for pixels in (grey, grey.float() / 127.5 - 1)]
    one, other = (neighbours(local, case.original, images, 0.1) for images in pairs)
    assert one.tolist() == other.tolist()


def test_a_shrinking_step_by_hand() -> None:
    """Cross-entropy under the other of two labels, on the images to forget only."""
    gradient = by_autograd(lambda f, *_: F.cross_entropy(f(X[:2]), 1 - Y[:2]))
    assert close(at_clinic(only_task(BoundaryShrink()), forget=FORGET), stepped(gradient))


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_shrinking_moves_the_forgotten_images_to_their_neighbours(wish: str) -> None:
    case = toy.case(wish)
    result = toy.run(BoundaryShrink(recovery=Recovery(0)).unlearn(case))
    for site in case.holders:
        images, local = toy.select(site, case.forget), toy.ToyLocal(site, toy.network(), toy.Log())
        labels = neighbours(local, case.original, images, 0.1)
        before, after = (
            F.cross_entropy(outputs(local, model, images), labels) for model in (case.original, result)
        )
        assert after < before


# ----------------------------------------------------------------------------------------------- lotus


def test_lessons_by_hand() -> None:
    """One Gumbel draw per score: the forgotten images' softened by tau, the others' largest taken for sure."""
    scores = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5], [0.0, 3.0, 1.0]])
    noise = -torch.empty(3, 3).exponential_(generator=torch.Generator().manual_seed(5)).log()
    found = lessons(scores, 1, 4.0, 5)
    soft = ((scores[0] + noise[0]) / 4).exp()
    assert torch.allclose(found[0], soft / soft.sum())
    for i in (1, 2):
        assert found[i].tolist() == F.one_hot((scores[i] + noise[i]).argmax(), 3).tolist()


def test_sampled_lessons_are_as_frequent_as_the_teacher_says() -> None:
    """Gumbel's trick: the largest of scores plus noise is a draw from their softmax, to within 4 deviations."""
    p = torch.tensor([0.7, 0.2, 0.1])
    found = lessons(p.log().expand(20_000, 3), 0, 1.0, 1).mean(0)
    assert bool(((found - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt()).all())


def test_lessons_soften_at_every_position_of_a_label_map() -> None:
    scores = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2))
    found = lessons(scores, 1, 2.0, 1)
    assert found.shape == scores.shape
    assert torch.allclose(found.sum(1), torch.ones(2, 5))
    assert set(found[1].unique().tolist()) == {0.0, 1.0}


def test_a_softening_step_by_hand() -> None:
    """The images to forget and both retained ones: the mean cross-entropy to the lessons of another teacher."""
    teacher = {name: 2 * x for name, x in WEIGHTS.items()}
    reply = Soften(WEIGHTS, teacher, FORGET, RETAIN, 1.0, 3.0, STEP, seed=5, drawn=6)(Clinic())
    rows = torch.cat([torch.arange(2), drawn(Clinic().images(RETAIN), 1.0, 6).rows])
    goal = lessons(2 * (X[rows] @ W.T + B), 2, 3.0, derive(5, "gumbel"))
    gradient = by_autograd(lambda f, *_: -(goal * torch.log_softmax(f(X[rows]), 1)).sum(1).mean())
    assert reply.count == 4
    assert reply.weights is not None
    assert close(reply.weights, stepped(gradient))


def test_every_round_of_lotus_has_noise_of_its_own_and_the_same_retained_images() -> None:
    tasks: list[Any] = []
    lotus_run([0.0, 0.1], 0.3, tasks, epochs=2)
    one, other = tasks
    assert one.seed != other.seed
    assert one.drawn == other.drawn
    assert w.digest(one.teacher) == w.digest(other.teacher) == w.digest(toy.case("patients").original)


def lotus_run(
    forget: list[float], unseen: float, tasks: list[Any] | None = None, **fields: Any
) -> tuple[list[float], Weights]:
    """The temperatures of LoTUS's rounds if the forget images' errors are ``forget``, and its result."""
    tasks, errors = [] if tasks is None else tasks, iter(forget)

    def reply(asks: Any) -> Any:
        task = next(iter(asks.values()))
        if isinstance(task, Errors):
            error = unseen if task.select.split == "val" else next(errors)
            return {site: Reply(None, 4, {"error": torch.tensor([error])}) for site in asks}
        tasks.append(task)
        step = {name: x + 1 for name, x in task.weights.items()}
        return {site: Reply(step, 4) for site in asks}

    case = toy.case("patients")
    result = toy.by_hand(LoTUS(**fields, recovery=Recovery(0)).unlearn(case), reply)
    return [task.tau for task in tasks], result


def test_the_temperature_follows_the_accuracies_and_ends_the_epochs() -> None:
    """Accuracy on the forget images 1, .8, .7, .68 against .7 on unseen ones: exp(.3 alpha), exp(.1 alpha), 1, stop."""
    taus, result = lotus_run([0.0, 0.2, 0.3, 0.32], 0.3, alpha=2.0, epochs=6)
    assert taus == pytest.approx([math.exp(0.6), math.exp(0.2), 1.0])
    # numbers below 4 are rounded by up to 2^-23, here in three sums, three means and the sum expected
    assert close(result, {name: x + 3 for name, x in toy.case("patients").original.items()}, 7 * 2**-23)
    taus, _ = lotus_run([0.0, 0.0], 0.3, alpha=2.0, epochs=2)
    assert len(taus) == 2


def test_lotus_leaves_a_model_alone_that_knows_the_forget_images_too_little() -> None:
    taus, result = lotus_run([0.5], 0.3)
    assert taus == []
    assert w.digest(result) == w.digest(toy.case("patients").original)


def test_lotus_without_validation_images_is_an_error() -> None:
    def reply(asks: Any) -> Any:
        return {site: Reply(None, 0, {"error": torch.zeros(1)}) for site in asks}

    with pytest.raises(RunError, match="found no val images at north, east"):
        toy.by_hand(LoTUS().unlearn(toy.case("patients")), reply)


# ------------------------------------------------------------------------------------- held_out_target

# Held-out outputs: two images of class 0, one of class 1, none of class 2.
P = torch.tensor([[0.6, 0.3, 0.1], [0.9, 0.1, 0.0], [0.2, 0.7, 0.1]])
OF = torch.tensor([0, 0, 1])


def test_ranked_targets_by_hand() -> None:
    """Four images of class 0 at .8, .99, .7, .95: the two least sure get .6, the two surest .9."""
    known = torch.tensor([[0.8, 0.2, 0], [0.99, 0.01, 0], [0.7, 0.3, 0], [0.95, 0.05, 0], [0.5, 0.5, 0]])
    found = unseen(P, OF, known, torch.tensor([0, 0, 0, 0, 1]), "rank")
    assert found.tolist() == P[[0, 1, 0, 1, 2]].tolist()


def test_few_images_take_the_middle_of_many_held_out_ones() -> None:
    """One image among three of its class: the median. Two of five: the second and the fourth, at 1/4 and 3/4."""
    p = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.7])
    p = torch.stack([p, 1 - p], 1)
    zeros = torch.zeros(5, dtype=torch.long)
    assert unseen(p[:3], zeros[:3], p[:1], zeros[:1], "rank").tolist() == p[:1].tolist()
    assert torch.equal(unseen(p, zeros, p[1:3], zeros[:2], "rank"), p[[3, 4]])


def test_as_many_images_as_held_out_ones_get_exactly_their_outputs() -> None:
    generator = torch.Generator().manual_seed(1)
    p, known = (torch.softmax(torch.randn(30, 3, generator=generator), 1) for _ in range(2))
    classes = torch.arange(30) % 3
    found = unseen(p, classes, known, classes, "rank")
    for y in range(3):
        mine = classes == y
        assert sorted(map(tuple, found[mine].tolist())) == sorted(map(tuple, p[mine].tolist()))
        assert torch.equal(found[mine, y].argsort(), known[mine, y].argsort())  # order stays


def test_mean_targets_and_a_class_without_held_out_images_by_hand() -> None:
    """Class 2 borrows all three: .1 <-> .6, 0 <-> .9, .1 <-> .7 between column 2 and their own."""
    found = unseen(P, OF, torch.zeros(3, 3), torch.tensor([0, 1, 2]), "mean")
    lent = torch.tensor([[0.1, 0.3, 0.6], [0.0, 0.1, 0.9], [0.2, 0.1, 0.7]])
    assert torch.equal(exchanged(P, OF, 2), lent)
    assert torch.allclose(found, torch.stack([P[:2].mean(0), P[2], lent.mean(0)]))
    assert unseen(P, OF, torch.zeros(1, 3), torch.tensor([2]), "rank").tolist() == [lent[2].tolist()]


@pytest.mark.parametrize("target", ["rank", "mean"])
def test_an_imitating_step_by_hand(target: Any) -> None:
    """The clinic's validation images are all four, two of each class; images 0 and 1, one of each class, leave."""
    p = torch.softmax(X @ W.T + B, 1)
    soft = []
    for i in (0, 1):
        same = sorted((row for row in range(4) if Y[row] == Y[i]), key=lambda row: float(p[row, Y[i]]))
        soft.append(p[same].mean(0) if target == "mean" else p[same[1]])  # one of two: floor(2 / 2)
    goal = torch.cat([torch.stack(soft), F.one_hot(Y[2:], 2).float()])
    expected = stepped(by_autograd(lambda f, *_: -(goal * torch.log_softmax(f(X), 1)).sum(1).mean()))
    task = only_task(HeldOutTarget(target=target))
    assert close(at_clinic(task, original=WEIGHTS, forget=FORGET, retain=RETAIN), expected)


def test_forgotten_images_become_like_held_out_ones() -> None:
    """Trained long on the images to forget alone, the leaver's outputs are spread as on its validation images."""
    case = toy.case("site")
    result = toy.run(HeldOutTarget(epochs=60, recovery=Recovery(0)).unlearn(case))
    local = toy.ToyLocal("west", toy.network(), toy.Log())

    def chances(model: Weights, select: Select) -> torch.Tensor:
        images = toy.select("west", select)
        return torch.softmax(outputs(local, model, images), 1).gather(1, images.targets[:, None])[:, 0]

    goal = chances(case.original, Select(split="val")).sort().values
    before, after = (
        (chances(model, case.forget).sort().values[::2] - goal).abs().mean()
        for model in (case.original, result)
    )
    assert after < 0.5 * before


@dataclass
class Unvalidated(Clinic):
    """A clinic without validation images."""

    def images(self, select: Select) -> Images:
        images = super().images(select)
        none = slice(0, 0) if select.split == "val" else slice(None)
        return Images(images.pixels[none], images.targets[none], images.rows[none])


def test_a_hospital_without_validation_images_has_nothing_to_imitate() -> None:
    task = replace(
        only_task(HeldOutTarget()), weights=WEIGHTS, original=WEIGHTS, forget=FORGET, retain=RETAIN
    )
    with pytest.raises(RunError, match="found no val images at a"):
        task(Unvalidated())


def test_all_three_end_in_ordinary_rounds() -> None:
    """Against fine-tuning for as many rounds, they differ by their first rounds only, and differ indeed."""
    case = toy.case("patients")
    tuned = toy.run(FineTune(rounds=2).unlearn(case))
    for strategy in (BoundaryShrink(), LoTUS(), HeldOutTarget()):
        assert moved(toy.run(strategy.unlearn(case)), tuned) > 0.01
