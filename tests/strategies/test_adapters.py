"""Strategies whose change has low rank: the constraint against a singular value decomposition, layers by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import Recovery, Weights
from fedunlearn.federation.procedures import recover
from fedunlearn.learning.constraints import LowRank, nearest
from strategies.fused import FUSED, critical
from tests import toy

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

    found = toy.outcome(FUSED(layers=99, rank=99), "patients").weights
    everything = Recovery(case.rounds)
    link = toy.ToyLink(across=False)  # a constraint of a test cannot cross a wire
    expected = toy.run(recover(case, case.original, everything, biases_stay), link)
    # w + (p - w) is p but for the rounding of each step, which training then amplifies.
    assert w.norm(w.subtract(found, expected)) < 0.05 * w.norm(w.subtract(expected, case.original))
