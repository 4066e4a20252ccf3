"""The benchmarks of start-up and of stock Flower still run, and what they show can be believed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import startup, stock_flower


def rows(printed: str) -> dict[str, list[str]]:
    """The cells of a table's rows, by the first."""
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in printed.strip().splitlines()]
    return {first: rest for first, *rest in cells[2:]}


@pytest.mark.gate
def test_every_command_takes_its_time_and_only_some_load_torch() -> None:
    wanted = ["list", "check", "report --markdown", "compare"]
    command = [sys.executable, startup.__file__, "--quick", "--only", *wanted]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout
    found = rows(printed)
    assert list(found) == wanted
    assert all(float(cpu) > 0.05 for cpu, _ in found.values())
    assert "torch" in found["check"][1].split(", ") and "ray" not in found["check"][1].split(", ")
    assert found["list"][1] == "none of these"
    for name in ("report --markdown", "compare"):
        assert not {"torch", "ray", "monai"} & set(found[name][1].split(", "))


@pytest.mark.ray
@pytest.mark.slow
def test_stock_flower_and_this_driver_do_the_same_work() -> None:
    command = [sys.executable, stock_flower.__file__, "--quick"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout
    found = rows(printed)
    assert list(found) == list(stock_flower.CONTESTANTS)
    assert all(float(cells[0]) > 1 for cells in found.values())
    alike = [float(cells[-1]) for cells in found.values()]
    assert min(alike) > 0.5 and max(alike) - min(alike) < 0.3  # each shuffles in its own way; a guess is .25
