"""`scripts/gpu_check.py`, which only a GPU can answer, asks all its questions of the CPU too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKS = ["about", "bits", "rounding", "flat_maps", "out_of_memory", "labels", "speed"]


def asked(*checks: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), "--device", "cpu", "--only", *checks]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.gate
def test_all_is_as_expected_on_the_cpu() -> None:
    text = asked(*CHECKS)
    for check in CHECKS:
        assert f"as expected      {check}\n" in text
    for part in ("DefaultCPUAllocator", "micro_batch", "IndexError", "TFLOP/s measured", "med3d"):
        assert part in text


@pytest.mark.ray
def test_two_workers_come_to_the_bits_of_one_process() -> None:
    assert "as expected      workers\n" in asked("workers")
