"""Optimizers are torch's own, bit for bit, and load nothing more than they need."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedunlearn.learning.optimizers import SGD, Adam, Optimizer

pytestmark = pytest.mark.rounding

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[[list[Tensor]], Optimizer | torch.optim.Optimizer]

LR, DECAY, STEPS = 0.01, 0.1, 6
SHAPES = ((3, 4), (5,), (2, 3, 3, 3), ())
PAIRS: dict[str, tuple[Make, Make]] = {
    "adam": (
        lambda p: Adam(p, LR, DECAY),
        lambda p: torch.optim.Adam(p, LR, weight_decay=DECAY, fused=True),
    ),
    "adamw": (
        lambda p: Adam(p, LR, DECAY, decoupled=True),
        lambda p: torch.optim.AdamW(p, LR, weight_decay=DECAY, fused=True),
    ),
    "sgd": (
        lambda p: SGD(p, LR, 0.9, DECAY),
        lambda p: torch.optim.SGD(p, LR, momentum=0.9, weight_decay=DECAY, fused=True),
    ),
    "sgd without momentum": (
        lambda p: SGD(p, LR, 0.0, DECAY),
        lambda p: torch.optim.SGD(p, LR, weight_decay=DECAY, fused=True),
    ),
}
"""By name, ours and torch's."""


def moved(make: Make, without: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Parameters after some steps; in ``without``, (step, parameter) that has no gradient."""
    generator = torch.Generator().manual_seed(1)
    parameters = [torch.randn(shape, generator=generator).requires_grad_() for shape in SHAPES]
    optimizer = make(parameters)
    for step in range(STEPS):
        for i, p in enumerate(parameters):
            drawn = torch.randn(p.shape, generator=generator)
            p.grad = None if (step, i) in without else drawn
        optimizer.step()
    return parameters


@pytest.mark.parametrize("without", [(), ((1, 0), (1, 1), (3, 2))], ids=["all", "some are left out"])
@pytest.mark.parametrize("name", PAIRS)
def test_they_move_as_torchs_do_bit_for_bit(name: str, without: Sequence[tuple[int, int]]) -> None:
    ours, theirs = (moved(make, without) for make in PAIRS[name])
    start = moved(PAIRS[name][0], [(step, i) for step in range(STEPS) for i in range(len(SHAPES))])
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert torch.equal(a, b) and not torch.equal(a, before)


def test_momentum_begins_with_the_first_gradient() -> None:
    """Of a parameter that has none at first, too: by then it has made a step less than the others."""
    late = moved(PAIRS["sgd"][0], [(0, 1)])

    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator) for shape in SHAPES]
    drawn = [[torch.randn(shape, generator=generator) for shape in SHAPES] for _ in range(STEPS)]
    alone = start[1].requires_grad_()
    optimizer = torch.optim.SGD([alone], LR, momentum=0.9, weight_decay=DECAY, fused=True)
    for gradients in drawn[1:]:
        alone.grad = gradients[1]
        optimizer.step()
    assert torch.equal(late[1], alone)


LOADS = """
import sys
from dataclasses import replace
from fedunlearn.core import LocalTraining
from fedunlearn.learning.local import fit
from tests import toy
start = toy.network(False).read()
worker = toy.ToyLocal("north", toy.network(False), toy.Log())
for name in ("sgd", "adam", "adamw", "adahessian"):
    fit(worker, start, toy.images("north"), LocalTraining(optimizer=name, clip=1.0), 1)
print(*(name for name in sys.modules if name in ("torch._dynamo", "torch._inductor", "sympy")))
"""


@pytest.mark.gate
def test_training_loads_no_compiler() -> None:
    """A second of work in every process of every run, for nothing."""
    loaded = subprocess.run(
        [sys.executable, "-c", LOADS], capture_output=True, text=True, check=True, cwd=ROOT, timeout=300
    )
    assert loaded.stdout.split() == []


EACH = {"each_gradient", "squared_gradients"}


def names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_who_takes_the_gradient_of_each_image_says_so() -> None:
    """A forgotten one would have the import in its first task's time."""
    files = [*(ROOT / "strategies").glob("*.py"), *(ROOT / "fedunlearn" / "learning").glob("*.py")]
    found = []
    for file in files:
        for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and names(node) & EACH:
                found.append(node.name)
                assert "each_image" in names(node), f"{file}: {node.name} must say each_image = True"
    assert {"Fisher", "Curvature", "Solve"} <= set(found)
