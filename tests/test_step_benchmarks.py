"""The benchmarks of a training step and of a federated round: they run, and compute what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.step import operations

ROOT = Path(__file__).parents[1]


@pytest.mark.gate
@pytest.mark.parametrize(("name", "rows"), [("step", 6), ("federated_round", 1)])
def test_it_runs(name: str, rows: int, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick"]
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=where, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ") and "---" not in line]
    heads = 2 if name == "step" else 1
    assert len(lines) == heads + rows, done.stdout


def test_operations_are_two_a_product_and_thrice_the_forward_pass_but_for_the_first_input() -> None:
    """Convolution: 4 x 4 places of 5 x 2 x 9 weights. Transposed: 4 x 4 given places of 5 x 3 x 4. Linear: 192 x 7."""
    layers = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ConvTranspose2d(5, 3, 2, stride=2), nn.Flatten(), nn.Linear(192, 7)
    )
    first, second, third = 2 * 16 * 90, 2 * 16 * 60, 2 * 192 * 7
    assert operations(layers, torch.zeros(1, 2, 4, 4)) == 2 * first + 3 * (second + third)
