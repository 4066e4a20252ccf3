"""One oracle per client-side strategy: its formula worked out by hand, or ten slow lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import (
    Form,
    Images,
    LocalTraining,
    Recovery,
    Reply,
    RunError,
    Select,
    SiteId,
    Task,
    Weights,
)
from fedunlearn.federation.procedures import errors as errors_of
from fedunlearn.learning.local import gradient, outputs, squared_gradients
from fedunlearn.learning.models import Network
from fedunlearn.learning.objectives import drawn
from fedunlearn.learning.tasks import Errors, Fisher, Weigh
from strategies.bad_teacher import BadTeacher
from strategies.fedquit import FedQUIT, Value, virtual
from strategies.fine_tune import FineTune
from strategies.gradient_ascent import GradientAscent
from strategies.l1_sparse import L1Sparse
from strategies.neggrad_plus import NegGradPlus
from strategies.scrub import SCRUB, nearest
from strategies.ssd import SSD, dampened, selecting
from tests import toy

pytestmark = pytest.mark.rounding

# A linear model on three numbers, two classes; four images at one hospital, of which the first two are to be forgotten.
X = torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 1.0], [1.0, 1.0, 0.0], [-1.0, 2.0, 1.0]])
Y = torch.tensor([0, 1, 1, 0])
W = torch.tensor([[0.5, -0.25, 1.0], [-0.5, 0.75, 0.25]])
B = torch.tensor([0.1, -0.1])
STEP = LocalTraining(epochs=1, batch_size=4, optimizer="sgd", lr=0.1, momentum=0.0)
FORGET, RETAIN = Select(only="r"), Select(without=("r",))


@dataclass(frozen=True)
class Linear:
    """A linear model, and nothing else."""

    name = "linear"
    kind = "classification"
    dimensions = (1,)
    smallest = 1

    def build(self, form: Form) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3, form.classes))


@cache
def linear() -> Network:
    with torch.random.fork_rng(devices=[]):
        return Network(Linear(), Form((1, 3), 2))


WEIGHTS: Weights = {"1.weight": W, "1.bias": B}


@dataclass
class Clinic:
    """A hospital of those four images; ``leaving`` it retains none of them."""

    site: SiteId = "a"
    network: Network = field(default_factory=linear)
    classes: int = 2
    leaving: bool = False

    def images(self, select: Select) -> Images:
        rows = torch.arange(4)
        if select.split == "train":
            named = torch.full((4,), True) if self.leaving else rows < 2
            rows = rows[named if select.only else ~named]
        return Images(X[rows][:, None], Y[rows], rows)


def by_autograd(loss: Any) -> dict[str, Tensor]:
    """The gradient of ``loss(outputs of weights W, B)`` at the linear model."""
    a, b = W.clone().requires_grad_(), B.clone().requires_grad_()
    ga, gb = torch.autograd.grad(loss(lambda x: x @ a.T + b, a, b), [a, b])
    return {"1.weight": ga, "1.bias": gb}


def stepped(gradient: Mapping[str, Tensor], lr: float = 0.1) -> Weights:
    return {name: WEIGHTS[name] - lr * gradient[name] for name in WEIGHTS}


def close(a: Weights, b: Weights, tolerance: float = 1e-6) -> bool:
    """Whether all numbers of two states are, but for rounding, the same.

    1e-6 is 17 times u = 2^-24, which is for one step at the clinic: a weight below 2 is rounded by 2 u, and 0.1 times a
    sum of at most eight slopes below 2 by less than 3 u, on either side.
    """
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], atol=tolerance, rtol=0) for n in a)


def moved(a: Weights, b: Weights) -> float:
    return w.norm(w.subtract(a, b))


def only_task(strategy: Any, wish: str = "patients") -> Any:
    """The task of a strategy's first round at one hospital, to be asked of the clinic instead."""
    return next(iter(next(strategy.unlearn(toy.case(wish))).values()))


def at_clinic(task: Task, leaving: bool = False, **fields: Any) -> Weights:
    """What the clinic answers to ``task`` for the linear model, trained by one step of SGD."""
    reply = replace(task, **{"weights": WEIGHTS, "training": STEP, **fields})(Clinic(leaving=leaving))  # type: ignore[type-var]
    assert reply.weights is not None
    return reply.weights


# ------------------------------------------------------------------------------------- gradient_ascent


def test_ascent_is_a_step_up_the_loss_by_hand() -> None:
    """grad of the mean cross-entropy in row c: mean over images of (p_c - [y = c]) x, for the forget images only."""
    p = torch.softmax(X[:2] @ W.T + B, 1)
    error = (p - F.one_hot(Y[:2], 2)) / 2
    expected = {"1.weight": W + 0.1 * error.T @ X[:2], "1.bias": B + 0.1 * error.sum(0)}
    assert close(at_clinic(only_task(GradientAscent()), forget=FORGET), expected)


@pytest.mark.parametrize("clip", [0.01, 100.0])
def test_ascent_goes_no_farther_than_its_bound(clip: float) -> None:
    """8 images at north, 4 at east, batches of 12: one step an epoch, each at most lr clip."""
    case, lr = toy.case("patients"), 0.05
    result = toy.run(GradientAscent(epochs=3, lr=lr, clip=clip, recovery=Recovery(0)).unlearn(case))
    distance, bound = moved(result, case.original), 3 * lr * clip
    assert 0 < distance <= bound * (1 + 1e-5)
    if clip == 0.01:  # every gradient is longer; the average of two holders that go different ways is shorter
        assert distance > 0.5 * bound
    before, after = toy.chances(case.original, "patients"), toy.chances(result, "patients")
    assert after.log().mean() < before.log().mean()


# ---------------------------------------------------------------------------------------- neggrad_plus


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_an_average_of_neggrad_plus_is_one_step_of_both_losses_of_all_images(wish: str) -> None:
    """alpha L(retain) - (1 - alpha) L(forget), each the mean over its images wherever they are; one batch each."""
    case, alpha, lr = toy.case(wish), 0.7, 0.05
    training = replace(case.training, local=replace(case.training.local, batch_size=100))
    strategy = NegGradPlus(alpha=alpha, epochs=1, lr=lr)
    result = toy.run(strategy.unlearn(replace(case, training=training)))

    def slope(select: Select) -> Mapping[str, Tensor]:
        parts = [toy.select(site, select) for site in toy.SITES]
        pixels, targets, rows = (
            torch.cat([getattr(x, name) for x in parts]) for name in ("pixels", "targets", "rows")
        )
        local = toy.ToyLocal("north", toy.network(), toy.Log())
        return gradient(local, case.original, Images(pixels, targets, rows))

    up, down = slope(case.forget), slope(case.retain)
    expected = {name: case.original[name] - lr * (alpha * down[name] - (1 - alpha) * up[name]) for name in up}
    # sums of at most 72 slopes below 10, times 0.05: 72 roundings of 0.5 are 72 * 2^-25
    assert close(result, expected, 3e-6)
    assert moved(result, case.original) > 1e-3


def test_weighed_losses_of_random_batches_are_right_on_average() -> None:
    """Batches of 2, whose steps at a tiny rate add up: 4 images in two batches, each gradient once more."""
    gradient = by_autograd(
        lambda f, *_: 0.7 * F.cross_entropy(f(X[2:]), Y[2:]) - 0.3 * F.cross_entropy(f(X[:2]), Y[:2])
    )
    task = Weigh(WEIGHTS, FORGET, RETAIN, replace(STEP, batch_size=2, lr=1e-3), 0, lose=-0.6, keep=1.4)
    total = {name: torch.zeros_like(x) for name, x in WEIGHTS.items()}
    for seed in range(200):
        result = at_clinic(task, seed=seed, training=task.training)
        total = {name: total[name] + (WEIGHTS[name] - result[name]) / (2 * 1e-3 * 200) for name in WEIGHTS}
    # both batches of two hold every image once, so only the movement within an epoch is left
    assert close(total, gradient, 1e-2)


def test_neggrad_plus_of_a_hospital_without_retained_images_only_ascends() -> None:
    """24 of 72 images leave: each counts -(1 - alpha) 72 / 24 times, which for four at the clinic is their mean."""
    gradient = by_autograd(lambda f, *_: -0.3 * 3 * F.cross_entropy(f(X), Y))
    task = next(NegGradPlus(alpha=0.7).unlearn(toy.case("site")))["west"]
    assert close(at_clinic(task, leaving=True, forget=FORGET, retain=RETAIN), stepped(gradient))


# ----------------------------------------------------------------------------------------------- scrub

TEACHER: Weights = {"1.weight": W.flip(1) - 0.3, "1.bias": B + 0.2}


def slow_divergence(p: Tensor, q: Tensor, T: float) -> Tensor:
    """T^2 sum_c p_c log(p_c / q_c), in the mean over the images."""
    p, q = torch.softmax(p / T, 1), torch.softmax(q / T, 1)
    return T**2 * (p * (p / q).log()).sum(1).mean()


def scrub_tasks(**fields: Any) -> list[Any]:
    """The first task of each round of SCRUB on the toy, in which nobody does anything."""
    tasks = []

    def reply(asks: Any) -> Any:
        tasks.append(next(iter(asks.values())))
        return {site: Reply(task.weights, 1) for site, task in asks.items()}

    toy.by_hand(SCRUB(**fields, recovery=Recovery(0)).unlearn(toy.case("patients")), reply)
    return tasks


def test_scrubs_two_losses() -> None:
    """max: -KL on the forget images; min: gamma CE + alpha KL on the others; the teacher is another linear model."""
    teacher = X @ TEACHER["1.weight"].T + TEACHER["1.bias"]
    away, stay, *_ = scrub_tasks(gamma=0.9, alpha=0.2, T=2.0)
    up = by_autograd(lambda f, *_: -slow_divergence(teacher[:2], f(X[:2]), 2.0))
    down = by_autograd(
        lambda f, *_: (
            0.9 * F.cross_entropy(f(X[2:]), Y[2:]) + 0.2 * slow_divergence(teacher[2:], f(X[2:]), 2.0)
        )
    )
    assert close(at_clinic(away, teacher=TEACHER, select=FORGET), stepped(up))
    assert close(at_clinic(stay, teacher=TEACHER, select=RETAIN), stepped(down))


def test_scrub_ascends_in_the_first_epochs_and_descends_in_all_with_the_original_as_teacher() -> None:
    case, tasks = toy.case("patients"), scrub_tasks(epochs=3, msteps=2)
    assert [task.kl > 0 for task in tasks] == [False, True, False, True, True]
    assert [task.select for task in tasks] == [case.retain if task.kl > 0 else case.forget for task in tasks]
    assert all(w.digest(task.teacher) == w.digest(case.original) for task in tasks)


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_scrub_moves_the_student(wish: str) -> None:
    """Widely used code hands the teacher's parameters to the optimizer, and so returns the model as it was."""
    case = toy.case(wish)
    tasks: list[Any] = []

    class Watch(toy.Asked):
        def round(self, round: Any) -> None:
            tasks.append(next(iter(round.asks.values())))

    result = toy.run(SCRUB(lr=5e-3, recovery=Recovery(0)).unlearn(case), watchers=[Watch(toy.Log())])
    students = [task.weights for task in tasks] + [result]
    assert all(moved(a, b) > 0.01 for a, b in pairwise(students))
    images = toy.select(case.holders[0], case.forget)

    def from_teacher(student: Weights) -> float:
        local = toy.ToyLocal(case.holders[0], toy.network(), toy.Log())
        t, s = (outputs(local, x, images) for x in (case.original, student))
        return float(slow_divergence(t, s, 4.0))

    assert from_teacher(students[3]) > from_teacher(students[2])  # the max-pass of the second epoch


def test_the_rewind_takes_the_epoch_nearest_to_unseen_images() -> None:
    assert nearest([0.0, 0.4, 0.9], 0.5) == 1
    assert nearest([0.0, 0.5, 0.25, 0.5, 0.9], 0.5) == 3  # the later of equals

    errors = {"train": torch.tensor([0.1, 0.6, 0.3]), "val": torch.tensor([0.55])}
    passes: list[Weights] = []

    def reply(asks: Any) -> Any:
        (task, *_) = asks.values()
        if isinstance(task, Errors):
            return {site: Reply(None, 5, {"error": errors[task.select.split]}) for site in asks}
        if task.kl < 0:
            return {site: Reply(task.weights, 1) for site in asks}
        passes.append({name: x + len(passes) for name, x in task.weights.items()})
        return {site: Reply(passes[-1], 1) for site in asks}

    result = toy.by_hand(SCRUB(rewind=True, recovery=Recovery(0)).unlearn(toy.case("patients")), reply)
    assert close(result, passes[1])


def test_errors_are_counted_over_all_hospitals() -> None:
    """With two classes, the negative of a linear model is right where the model is wrong."""
    scores = X @ W.T + B
    right = (scores.argmax(1) == Y).float()
    upside_down = {name: -x for name, x in WEIGHTS.items()}
    reply = Errors((WEIGHTS, upside_down), Select(split="val"))(Clinic())
    assert reply.count == 4
    assert torch.allclose(reply.arrays["error"], torch.stack([1 - right.mean(), right.mean()]))

    def two(asks: Any) -> Any:
        shares = {
            "a": Reply(None, 1, {"error": torch.tensor([1.0])}),
            "b": Reply(None, 3, {"error": torch.zeros(1)}),
        }
        return {site: shares[site] for site in asks}

    assert toy.by_hand(errors_of([WEIGHTS], ("a", "b"), FORGET), two) == [0.25]
    nothing = Reply(None, 0, {"error": torch.zeros(1)})
    with pytest.raises(RunError, match="found no val images at a"):
        toy.by_hand(errors_of([WEIGHTS], ("a",), Select(split="val")), lambda asks: {"a": nothing})


# ------------------------------------------------------------------------------------------------- ssd


def test_the_fisher_diagonal_by_hand() -> None:
    """The gradient of one image's cross-entropy is (p - onehot) x^T; squared, then averaged: not the mean's square."""
    error = torch.softmax(X @ W.T + B, 1) - F.one_hot(Y, 2)
    reply = Fisher(WEIGHTS, Select(split="val"))(Clinic())
    expected = {"1.weight": (error**2).T @ X**2 / 4, "1.bias": (error**2).mean(0)}
    assert close(reply.arrays, expected)


@pytest.mark.parametrize("batch_size", [5, 32])
def test_the_fisher_diagonal_is_one_image_after_another(batch_size: int) -> None:
    """In a network with BatchNorm, whose statistics must not move."""
    original, images = toy.wide(toy.case("site", norm=True).original), toy.widened(toy.images("west"))
    local = toy.ToyLocal("west", toy.wide_network(True), toy.Log())
    found = squared_gradients(local, original, images, batch_size=batch_size)
    assert w.digest(toy.wide_network(True).read()) == w.digest(original)
    slow = {name: torch.zeros_like(x) for name, x in found.items()}
    for i in range(len(images)):
        one = Images(images.pixels[i : i + 1], images.targets[i : i + 1], images.rows[i : i + 1])
        for name, g in gradient(local, original, one).items():
            slow[name] += g**2 / len(images)
    # in float64: a gradient g below 100 is off by less than 10^-11 (1000 terms, 2^-53 each), its square by 2 g that
    assert all(torch.allclose(found[n], slow[n], rtol=0, atol=2e-9) for n in slow)


def test_dampening_by_hand() -> None:
    """F_f / F = 4, 1, 100, 0/0 under alpha = 2, lambda = 3: only where it is above 2, times min(3 F / F_f, 1)."""
    weights = {"a": torch.tensor([8.0, 8.0, -8.0, 8.0]), "mean": torch.tensor([5.0])}
    forget, every = torch.tensor([4.0, 1.0, 100.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    result = dampened(weights, {"a": forget}, {"a": every}, 2.0, 3.0)
    assert torch.allclose(result["a"], torch.tensor([8.0 * 3 / 4, 8.0, -8.0 * 3 / 100, 8.0]))
    assert result["mean"] is weights["mean"]


def test_the_adaptive_alpha_selects_its_share_by_hand() -> None:
    """F_f / F = 4, 1, 8, 2 and 0 / 0, of which a half is to be selected: alpha is 2, and 4 and 8 are above it."""
    forget, every = torch.tensor([4.0, 1.0, 8.0]), torch.tensor([1.0, 1.0, 1.0])
    more = torch.tensor([4.0, 0.0]), torch.tensor([2.0, 0.0])
    assert selecting({"a": forget, "b": more[0]}, {"a": every, "b": more[1]}, 0.5) == 2.0


@pytest.mark.parametrize(("wish", "n_forget"), [("patients", 12), ("site", 24)])
def test_without_an_alpha_ssd_dampens_about_a_logarithm_of_the_share_that_leaves(
    wish: str, n_forget: int
) -> None:
    """log(1 + 100 n_f / n) per cent of all weights, but for those that were zero or tie."""
    case = toy.case(wish)
    result = toy.run(SSD(lam=0.1).unlearn(case))
    count = sum(int((result[name] != case.original[name]).sum()) for name in case.layout.parameters)
    every = sum(case.original[name].numel() for name in case.layout.parameters)
    needed = math.log(1 + 100 * n_forget / 72) / 100 * every
    assert 0.5 * needed <= count <= needed + 1


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_ssd_with_an_endless_lambda_is_the_identity(wish: str) -> None:
    case = toy.case(wish)
    assert w.digest(toy.run(SSD(alpha=0.5, lam=1e30, recovery=Recovery(0)).unlearn(case))) == w.digest(
        case.original
    )
    assert w.digest(toy.run(SSD(alpha=0.5, lam=0.1, recovery=Recovery(0)).unlearn(case))) != w.digest(
        case.original
    )


def test_ssd_compares_the_forget_images_with_all_training_images() -> None:
    """12 images to forget at two hospitals, 72 in all: importances are means over images, wherever they are."""
    case = toy.case("patients")
    local = toy.ToyLocal("north", toy.network(), toy.Log())
    every = [toy.images(site) for site in toy.SITES]
    forget = [toy.select(site, case.forget) for site in case.holders]

    def fisher(parts: list[Images]) -> dict[str, Tensor]:
        pixels, targets, rows = (
            torch.cat([getattr(x, name) for x in parts]) for name in ("pixels", "targets", "rows")
        )
        images = Images(pixels, targets, rows)
        return squared_gradients(local, case.original, images)

    expected = dampened(case.original, fisher(forget), fisher(every), 1.5, 1.0)
    result = toy.run(SSD(alpha=1.5, recovery=Recovery(0)).unlearn(case))
    assert close(result, expected, 1e-4)
    assert moved(result, case.original) > 0.1


# ----------------------------------------------------------------------------------------- bad_teacher


def test_each_image_has_its_teacher() -> None:
    """The forget images two of four, both retained ones taught: the mean of four divergences, two from each teacher."""
    bad, good = X @ TEACHER["1.weight"].T + TEACHER["1.bias"], X @ W.T + B
    teacher = torch.cat([bad[:2], good[2:]])
    gradient = by_autograd(lambda f, *_: slow_divergence(teacher, f(X), 1.0))
    task = replace(only_task(BadTeacher(retained=1.0)), weights=WEIGHTS, bad=TEACHER, good=WEIGHTS)
    reply = replace(task, forget=FORGET, retain=RETAIN, training=STEP)(Clinic())
    assert reply.count == 4
    assert close(reply.weights, stepped(gradient))


def test_the_bad_teacher_is_untrained_and_the_good_one_the_original() -> None:
    case, task = toy.case("patients"), only_task(BadTeacher())
    assert w.digest(task.bad) == w.digest(case.initial)
    assert w.digest(task.good) == w.digest(case.original)


def test_with_neither_images_to_forget_nor_retained_ones_nothing_is_taught() -> None:
    """As at a hospital that an earlier request emptied, or of one image, of which a share of 0.3 is none."""
    task = replace(only_task(BadTeacher(retained=0.0)), weights=WEIGHTS, bad=TEACHER, good=WEIGHTS)
    reply = replace(task, forget=RETAIN, retain=RETAIN)(Clinic(leaving=True))
    assert reply.count == 0
    assert close(reply.weights, WEIGHTS, 0)


def test_a_drawn_share_of_the_retained_images_is_taught() -> None:
    images = toy.images("north")
    rows = [drawn(images, 0.3, seed).rows.tolist() for seed in range(200)]
    assert all(len(set(r)) == len(r) == 7 for r in rows)  # 0.3 * 24 = 7.2
    assert {row for r in rows for row in r} == set(images.rows.tolist())
    assert drawn(images, 0.3, 1).rows.tolist() == rows[1]
    assert len(drawn(images, 0.0, 1)) == 0


# ------------------------------------------------------------------------------------------- l1_sparse


def test_a_penalised_step_by_hand() -> None:
    """w - lr (grad L + gamma sign(w)), on the retained images."""
    gradient = by_autograd(lambda f, *_: F.cross_entropy(f(X[2:]), Y[2:]))
    sparser = {name: gradient[name] + 0.05 * WEIGHTS[name].sign() for name in WEIGHTS}
    assert close(at_clinic(only_task(L1Sparse()), select=RETAIN, gamma=0.05), stepped(sparser))


def test_the_penalty_fades_from_round_to_round_and_without_it_is_fine_tuning() -> None:
    case, gammas = toy.case("site"), list[float]()

    class Watch(toy.Asked):
        def round(self, round: Any) -> None:
            gammas.extend({task.gamma for task in round.asks.values()})

    plain = toy.run(FineTune(rounds=3).unlearn(case))
    assert close(toy.run(L1Sparse(alpha=0.0).unlearn(case)), plain)
    sparse = toy.run(L1Sparse(alpha=3e-3).unlearn(case), watchers=[Watch(toy.Log())])
    assert gammas == pytest.approx([3e-3, 2e-3, 1e-3])
    size = {name: sum(float(x.abs().sum()) for x in a.values()) for name, a in (("s", sparse), ("p", plain))}
    assert size["s"] < 0.8 * size["p"]


# --------------------------------------------------------------------------------------------- fedquit


def test_the_virtual_teacher_by_hand() -> None:
    """z = (3, 1, -1), y = 0: v = -1; or q = softmax(1, -1) = (e, 1/e) / (e + 1/e) and v = q_1 - q_2 = tanh(1)."""
    z, y = torch.tensor([[3.0, 1.0, -1.0]]), torch.tensor([0])
    assert virtual(z, y, "min").tolist() == [[-1.0, 1.0, -1.0]]
    assert torch.allclose(virtual(z, y, "entropy"), torch.tensor([[math.tanh(1.0), 1.0, -1.0]]))


def test_the_entropy_value_is_the_one_of_largest_entropy() -> None:
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(3)) * 3
    y = torch.tensor([0, 3, 1, 2, 0])

    def entropy(logits: Tensor) -> Tensor:
        return torch.special.entr(torch.softmax(logits.double(), 1)).sum(1)

    best = entropy(virtual(z, y, "entropy"))
    for v in torch.linspace(-10, 10, 401):
        assert bool((entropy(z.scatter(1, y[:, None], float(v))) <= best + 1e-9).all())


def test_a_label_map_has_a_value_at_every_position() -> None:
    z, y = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3)), torch.arange(8).view(2, 4) % 3
    choices: list[Value] = ["min", "entropy"]
    for v in choices:
        expected = virtual(z.movedim(1, 2).reshape(8, 3), y.flatten(), v)
        assert torch.allclose(virtual(z, y, v).movedim(1, 2).reshape(8, 3), expected)


@pytest.mark.parametrize("v", ["min", "entropy"])
def test_fedquit_is_a_step_towards_its_virtual_teacher(v: Any) -> None:
    """With two classes both values are the other class's logit, so the teacher says one half: p - 1/2 is the slope."""
    error = (torch.softmax(X[:2] @ W.T + B, 1) - 0.5) / 2
    if v == "min":  # of the true class itself, where that is the smaller: then nothing is left to learn
        scores = X[:2] @ W.T + B
        error[scores.gather(1, Y[:2, None])[:, 0] <= scores.amin(1)] = 0.0
    expected = stepped({"1.weight": error.T @ X[:2], "1.bias": error.sum(0)})
    assert close(at_clinic(only_task(FedQUIT(v=v)), forget=FORGET), expected)
