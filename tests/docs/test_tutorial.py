"""The tutorial, as whoever reads it would follow it, command by command, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages

TUTORIAL, PYTHON = pages.DOCS / "tutorial.md", pages.DOCS / "how-to" / "python.md"
LESS = ["seeds=[7, 8]", "references=2", "training.rounds=1", "training.local_epochs=1", "engine.name=inline"]


def follow(folder: Path, command: str) -> str:
    """Run a command of the page in a folder; what it printed."""
    words = shlex.split(command)
    program = {"python": [sys.executable], "fedunlearn": [sys.executable, "-m", "fedunlearn"]}[words[0]]
    done = subprocess.run(
        [*program, *words[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(pages.ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def told() -> list[str]:
    """Its commands, in order, but for the installation."""
    return pages.commands(TUTORIAL, re.compile(r"(python make_images|fedunlearn )"))


def tutored(folder: Path, less: list[str]) -> dict[str, str]:
    """What each command printed; ``less`` is set wherever something is run."""
    (folder / "make_images.py").write_text(pages.file(TUTORIAL, "make_images.py", "python"), encoding="utf-8")
    changes = "".join(f" --set {shlex.quote(one)}" for one in less)
    return {
        command: follow(folder, command + (changes if "simulate" in command else "")) for command in told()
    }


@pytest.mark.gate
def test_it_leads_to_a_report(tmp_path: Path) -> None:
    """With less training than it tells."""
    said = tutored(tmp_path, LESS)
    assert [command.split()[1] for command in said] == [
        *("make_images.py", "init", "check", "simulate", "report", "score", "simulate", "compare")
    ]
    assert (tmp_path / "sheet.png").is_file()
    assert (tmp_path / "runs" / "first" / "report.html").is_file()


@pytest.mark.slow
def test_it_leads_to_answers(tmp_path: Path) -> None:
    """Word for word."""
    said = tutored(tmp_path, [])
    (report,) = (text for command, text in said.items() if command.endswith("--details"))
    assert "puf" in report
    simulated = said["fedunlearn simulate scenario.yaml --data-root . --out runs/first"]
    assert "CAN THIS RUN TELL?" in simulated
    assert "FORGOTTEN?" in simulated


@pytest.mark.gate
def test_the_python_that_is_shown_runs(tmp_path: Path) -> None:
    """With less training than it tells."""
    text = pages.file(PYTHON, "look.py", "python")
    less = ", ".join(map(repr, ["training.rounds=2", "training.local_epochs=1", "data.images=1200"]))
    shorter = text.replace('"references=4"]', f'"references=2", {less}]')
    assert shorter != text
    (tmp_path / "look.py").write_text(shorter, encoding="utf-8")
    assert "patients-of-north" in follow(tmp_path, "python look.py")
    assert (tmp_path / "memory.svg").stat().st_size > 1000
