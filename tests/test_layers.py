"""Who may import whom: the contracts in pyproject.toml hold, and importing a package stays cheap."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedunlearn.scoring.score import score
from tests.scoring.made import MODELS, change_manifest, make_run

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


@pytest.mark.gate
def test_every_strategy_stays_clear_of_the_engines() -> None:
    done = run("import sys, strategies; dict(strategies.catalogue()); print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not {name.partition(".")[0] for name in done.stdout.split()} & {"flwr", "ray", "monai"}


@pytest.mark.gate
def test_to_show_a_finished_run_loads_nothing_that_trains(tmp_path: Path) -> None:
    """Torch takes a second; who only looks at tables waits for none of it."""
    folder = make_run(tmp_path / "run", {name: MODELS[name] for name in ("original", "retrained", "good")})
    score(folder)
    change_manifest(folder, moments=[{"id": "some", "forgets": "some", "summary": "-"}])
    (folder / "DONE").touch()
    code = (
        "import sys; from fedunlearn.__main__ import app; "
        "app(['report', sys.argv[1], '--markdown'], standalone_mode=False); "
        "print(sorted({'torch', 'sites', 'strategies', 'ray', 'flwr'} & set(sys.modules)), file=sys.stderr)"
    )
    done = run(code, str(folder))
    assert done.returncode == 0 and "retrained" in done.stdout and done.stderr.strip() == "[]", done.stderr


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a line of Python in a fresh process at the root of the checkout."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
