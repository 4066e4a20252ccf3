"""Who may import whom: the contracts in pyproject.toml hold, and importing a package stays cheap."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_import_contracts_hold() -> None:
    # A process of its own: the linter sets up logging and the import path for itself.
    linter = "from importlinter.cli import lint_imports_command as main; main()"
    done = run(linter, "--no-logo", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("package", "unwanted"),
    [
        ("fedunlearn", ("torch", "numpy", "pandas", "scipy", "sklearn", "flwr", "ray", "monai")),
        ("strategies", ("flwr", "ray", "monai")),
        ("sites", ("flwr", "ray")),
    ],
)
def test_import_stays_cheap(package: str, unwanted: tuple[str, ...]) -> None:
    done = run(f"import sys, {package}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not {name.partition(".")[0] for name in done.stdout.split()} & set(unwanted)


def test_every_strategy_stays_clear_of_the_engines() -> None:
    done = run("import sys, strategies; strategies.catalogue(); print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not {name.partition(".")[0] for name in done.stdout.split()} & {"flwr", "ray", "monai"}


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a line of Python in a fresh process at the root of the checkout."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
