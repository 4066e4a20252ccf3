"""SalUn-CRA, against its losses written out and against SalUn."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import IGNORED, Batch, InputError, Recovery, RunError
from fedunlearn.learning.constraints import Mask
from strategies.salun import SalUn
from strategies.salun_cra import Doubt, SalUnCRA, Unsure
from tests import toy
from tests.runs import TINY, write
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


def at(scores: Tensor, unsure: list[bool], targets: list[int]) -> Tensor:
    rows = torch.arange(len(scores))
    return Unsure()(
        nn.Identity(), Batch(scores, torch.tensor(targets), rows, {"unsure": torch.tensor(unsure)})
    )


def test_the_loss_by_hand() -> None:
    """p = (1/4, 3/4) has H = log 4 - 3/4 log 3; the other image's cross-entropy is -log 1/4 = log 4."""
    scores = torch.log(torch.tensor([[0.25, 0.75], [0.25, 0.75]]))
    expected = (math.log(2) - (math.log(4) - 0.75 * math.log(3)) + math.log(4)) / 2
    assert float(at(scores, [True, False], [1, 0])) == pytest.approx(expected, rel=1e-6)


def test_even_chances_cost_nothing_and_attract() -> None:
    """Whatever the label, the loss is 0 at p = 1/C, and its slope leads there from either side."""
    assert float(at(torch.zeros(1, 4), [True], [2])) == pytest.approx(0, abs=1e-6)
    for score in (3.0, -3.0):
        scores = torch.tensor([[score, 0.0]], requires_grad=True)
        (slope,) = torch.autograd.grad(at(scores, [True], [0]), scores)
        assert math.copysign(1, float(slope[0, 0])) == math.copysign(1, score)
        assert float(slope.sum()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("malignant", [(0,), (1,), None, ()])
def test_one_step_by_hand(malignant: tuple[int, ...] | None) -> None:
    """Classes 0 and 1 are to be forgotten, one image each: entropy for the malignant, the other label for the rest."""
    free = Mask({name: torch.ones_like(x, dtype=torch.bool) for name, x in WEIGHTS.items()}, WEIGHTS)
    reply = Doubt(WEIGHTS, FORGET, RETAIN, STEP, 1, 2, free, "wrong", malignant)(Clinic())
    classes = (0, 1) if malignant is None else malignant

    def loss(model: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
        log_p = torch.log_softmax(model(X), 1)
        total = F.nll_loss(log_p[2:], Y[2:], reduction="sum")
        for log_q, y in zip(log_p[:2], Y[:2].tolist(), strict=True):
            entropy = -(log_q.exp() * log_q).sum()
            total = total + (math.log(2) - entropy if y in classes else -log_q[1 - y])
        return total / 4

    assert reply.weights is not None
    assert close(reply.weights, stepped(by_autograd(loss)))


def test_without_a_malignant_class_it_is_salun() -> None:
    """The same numbers in another order of operations: as near as float32 stays over a toy's 9 steps."""
    case, once = toy.case("patients"), Recovery(0)
    own = toy.run(SalUnCRA(malignant=(), epochs=3, recovery=once).unlearn(case))
    other = toy.run(SalUn(epochs=3, recovery=once).unlearn(case))
    assert close(own, other, 1e-3)
    assert not close(own, case.original, 1e-2)


def test_a_class_that_is_not_there_is_refused() -> None:
    free = Mask({}, WEIGHTS)
    with pytest.raises(RunError, match="from 0 to 1"):
        Doubt(WEIGHTS, FORGET, RETAIN, STEP, 1, 2, free, "wrong", (2,))(Clinic())


@pytest.mark.parametrize(("malignant", "missing"), [("[7, 8]", 8), ("[0, 7]", None)])
def test_a_class_that_the_data_does_not_have_is_found_before_training(
    tmp_path: Path, malignant: str, missing: int | None
) -> None:
    text = TINY.partition("strategies:")[0]
    entry = f"strategies:\n  - name: fine_tune\n  - name: salun_cra\n    malignant: {malignant}\n"
    scenario = scenarios.read(write(tmp_path, text + entry))
    if missing is None:
        assert gather(scenario, tmp_path).classes == 8
        return
    with pytest.raises(InputError) as caught:
        gather(scenario, tmp_path)
    (problem,) = caught.value.problems
    assert problem.message == "found class 8, but the data has 8: expected 0 to 7"
    assert problem.line == 1 + (text + entry).partition("malignant")[0].count("\n")


def test_of_several_targets_the_known_ones_count_alike() -> None:
    """By hand: two images of three findings, one of them unknown; one finding to be unsure of."""
    scores = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    targets = torch.tensor([[0, 1, IGNORED], [1, 1, 0]])
    unsure = torch.tensor([[False, True, False], [False, False, False]])
    batch = Batch(scores, targets, torch.arange(2), {"unsure": unsure})
    p = torch.softmax(scores, 1)
    certain = math.log(2) + float((p[0, :, 1] * p[0, :, 1].log()).sum())
    first = (-float(p[0, 0, 0].log()) + certain) / 2
    second = -sum(float(p[1, target, i].log()) for i, target in enumerate([1, 1, 0])) / 3
    assert float(Unsure()(nn.Identity(), batch)) == pytest.approx((first + second) / 2, rel=1e-12)
