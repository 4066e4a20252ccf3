"""Strategies whose change has low rank: the constraint against a singular value decomposition, layers by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn import weights as w
from fedunlearn.core import Batch, Form, Recovery, Weights
from fedunlearn.federation.procedures import recover
from fedunlearn.kinds.classification.learnt import CrossEntropy
from fedunlearn.learning.constraints import LowRank, nearest
from fedunlearn.learning.models import MODELS, Network
from fedunlearn.learning.objectives import Distillation, Signed
from strategies.fused import FUSED, critical
from strategies.lora_student import Erased, LoRAStudent, Student
from tests import toy
from tests.strategies.test_client import (
    FORGET,
    RETAIN,
    STEP,
    WEIGHTS,
    Clinic,
    X,
    Y,
    by_autograd,
    close,
    stepped,
)

pytestmark = pytest.mark.rounding


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


def rank(change: Tensor) -> int:
    """Singular values above float32's rounding of the largest weight, which is below 8."""
    return int((torch.linalg.svdvals(change.flatten(1).double()) > 8 * 2**-23 * change.numel() ** 0.5).sum())


# ---------------------------------------------------------------------------------------- the constraint


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 2, 3, 3), (3, 2, 2, 2, 2)])
@pytest.mark.parametrize("r", [1, 2, 3, 9])
def test_nearest_is_the_truncated_decomposition(shape: tuple[int, ...], r: int) -> None:
    change = draw(*shape)
    U, S, Vh = torch.linalg.svd(change.flatten(1).double(), full_matrices=False)
    expected = (U[:, :r] * S[:r]) @ Vh[:r]
    assert torch.allclose(nearest(change, r).flatten(1).double(), expected, atol=1e-6)


def test_what_has_the_rank_stays_and_what_is_not_finite_too() -> None:
    low = draw(6, 2) @ draw(2, 5)
    assert torch.allclose(nearest(low, 2), low, atol=1e-6)
    assert torch.equal(nearest(torch.zeros(3, 4), 1), torch.zeros(3, 4))
    assert nearest(torch.full((3, 4), torch.nan), 1).isnan().all()


def test_only_the_named_move_and_buffers_are_left_alone() -> None:
    reference = {"a": draw(4, 5), "b": draw(4, 5), "bias": draw(4)}
    state: Weights = {
        "a": draw(4, 5) + 1,
        "b": draw(4, 5) + 1,
        "bias": draw(4) + 1,
        "running_mean": torch.ones(4),
    }
    moved = {name: x.clone() for name, x in state.items()}
    LowRank(("a",), 1, reference)(moved)
    assert rank(moved["a"] - reference["a"]) == 1
    assert all(torch.equal(moved[name], reference[name]) for name in ("b", "bias"))
    assert torch.equal(moved["running_mean"], state["running_mean"])


# ----------------------------------------------------------------------------------------------- fused


def test_the_layers_that_move_most_per_weight() -> None:
    """Means of |u|: a 1 and 3, b 2 and 1, c 0 and 0: 4, 3 and 0 together. c has the most weights."""
    updates = [
        {"a": torch.tensor([[1.0, -1.0]]), "b": torch.tensor([[2.0]]), "c": torch.zeros(9, 9)},
        {"a": torch.tensor([[-5.0, 1.0]]), "b": torch.tensor([[-1.0]]), "c": torch.zeros(9, 9)},
    ]
    assert critical(updates, ["b", "a", "c"], 2) == ("a", "b")
    assert critical(updates, ["b", "a", "c"], 9) == ("a", "b", "c")


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_nothing_but_the_critical_layers_moves_and_by_a_low_rank(wish: str) -> None:
    """Taking the adapters off is giving back the original: all else is the original, bit for bit."""
    case, strategy = toy.case(wish), FUSED(layers=2, rank=3, rounds=2)
    result = toy.outcome(strategy, wish).weights
    matrices = [name for name in case.layout.parameters if case.original[name].dim() > 1]
    updates = [case.history.update(case.rounds - 1, site) for site in toy.SITES]
    adapted = critical(updates, matrices, 2)
    for name in case.layout.parameters:
        change = result[name] - case.original[name]
        if name in adapted:
            assert rank(change) == 3
        else:
            assert not change.any(), name


def test_with_full_rank_everywhere_it_is_fine_tuning_of_matrices() -> None:
    """An adapter of full rank is no constraint, but biases stay: the same rounds under a constraint written out."""
    case = toy.case("patients")

    def biases_stay(parameters: Mapping[str, Tensor]) -> None:
        for name, p in parameters.items():
            if name.endswith("bias"):
                p.copy_(case.original[name])

    found = toy.outcome(FUSED(layers=99, rank=99, rounds=3), "patients").weights
    everything = Recovery(3)
    link = toy.ToyLink(across=False)  # a constraint of a test cannot cross a wire
    expected = toy.run(recover(case, case.original, everything, biases_stay), link)
    # w + (p - w) is p but for the rounding of each step, which training then amplifies.
    assert w.norm(w.subtract(found, expected)) < 0.05 * w.norm(w.subtract(expected, case.original))


# ---------------------------------------------------------------------------------------- lora_student


def test_one_step_of_a_student_by_hand() -> None:
    """Two images to forget, two retained; the teacher is another model. The bias is no matrix, and stays."""
    lam, alpha, beta, T = 3.0, 0.7, 0.05, 2.0
    teacher = {name: x * 0.5 - 0.1 for name, x in WEIGHTS.items()}
    free = LowRank(("1.weight",), 9, WEIGHTS)
    task = Student(WEIGHTS, teacher, FORGET, RETAIN, STEP, 1, free, (lam, alpha, beta, T))
    reply = task(Clinic())
    t = X[2:] @ teacher["1.weight"].T + teacher["1.bias"]

    def loss(model: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
        s, log_p = model(X[2:]), torch.log_softmax(model(X[:2]), 1)
        q, p = torch.log_softmax(t / T, 1), torch.log_softmax(s / T, 1)
        retained = F.cross_entropy(s, Y[2:], reduction="sum") + alpha * T**2 * (q.exp() * (q - p)).sum()
        guarded = retained + beta * (s - t).square().sum() / 2  # a mean over two scores, of each image
        uniform = (0.5 * (math.log(0.5) - log_p)).sum()
        return (guarded + lam * uniform) / 4

    assert reply.weights is not None
    expected = {**stepped(by_autograd(loss)), "1.bias": WEIGHTS["1.bias"]}
    assert close(reply.weights, expected)


def test_a_volume_is_forgotten_to_background_and_an_image_to_nothing() -> None:
    """One voxel at p = (1/4, 3/4) and one at even chances: -log of 1/4 and of 1/2; the divergence is KL by hand."""
    scores = torch.log(torch.tensor([[[0.25, 0.5], [0.75, 0.5]]]))
    batch = Batch(scores, torch.zeros(1, 2, dtype=torch.long), torch.arange(1))
    assert float(Erased(True)(nn.Identity(), batch)) == pytest.approx(math.log(8) / 2, rel=1e-6)
    divergence = 0.5 * (math.log(0.5 / 0.25) + math.log(0.5 / 0.75))
    assert float(Erased(False)(nn.Identity(), batch)) == pytest.approx(divergence / 2, rel=1e-5)


def test_images_to_forget_may_have_a_loss_of_their_own() -> None:
    """Three images of four at 2 times one loss, one at 5 times the other."""
    scores, targets = draw(4, 3), torch.tensor([0, 1, 2, 0])
    gone = torch.tensor([True, True, False, True])
    batch = Batch(scores, targets, torch.arange(4), {"forget": gone})
    found = Signed(CrossEntropy(), 2.0, 5.0, instead=Erased(True))(nn.Identity(), batch)
    log_p = torch.log_softmax(scores, 1)
    expected = (2 * -log_p[gone, 0].sum() + 5 * -log_p[2, 2]) / 4
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    plain = Distillation(CrossEntropy(), 1.0, 0.5)
    guarded = Distillation(CrossEntropy(), 1.0, 0.5, guard=0.25)
    batch = Batch(scores, targets, torch.arange(4), {"teacher": scores + 2})
    difference = guarded(nn.Identity(), batch) - plain(nn.Identity(), batch)
    assert float(difference) == pytest.approx(0.25 * 4, rel=1e-5)


@pytest.mark.parametrize("wish", ["patients", "site"])
def test_convolutions_move_by_a_low_rank_and_then_the_head(wish: str) -> None:
    case, strategy = toy.case(wish), LoRAStudent(rank=2, rounds=2, local_epochs=2, recovery=Recovery(0))
    erased = toy.outcome(strategy, wish).weights
    restored = toy.outcome(replace(strategy, recovery=Recovery(1)), wish).weights
    for name in case.layout.parameters:
        change = erased[name] - case.original[name]
        assert rank(change) == 2 if name == "0.weight" else not change.any(), name
        assert torch.equal(restored[name], erased[name]) == (name not in case.layout.head), name
    assert toy.chances(erased, wish).mean() < toy.chances(case.original, wish).mean()


def test_without_convolutions_the_matrices_below_the_head_are_adapted() -> None:
    with torch.random.fork_rng(devices=[]):
        network = Network(MODELS["mlp"](), Form((30,), 2))
    case = replace(toy.case("site"), original=network.read(), layout=network.layout)
    task: Any = next(iter(next(LoRAStudent().unlearn(case)).values()))
    matrices = [name for name, x in network.parameters().items() if x.dim() == 2]
    assert [*task.constraint.names] == [name for name in matrices if name not in network.layout.head] != []
