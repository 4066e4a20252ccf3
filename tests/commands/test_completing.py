"""What shells are offered when the Tab key is pressed, as they ask for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fedunlearn.installation import ROOT

SHELLS = ("bash", "zsh", "fish")


def offered(shell: str, words: str) -> list[str]:
    code = "import sys; sys.argv[0] = 'fedunlearn'; from fedunlearn.__main__ import main; main()"
    asked = {
        "_FEDUNLEARN_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "PATH": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=asked,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=300,
    )
    assert not done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_names_of_strategies_are_offered_each_on_a_line_of_its_own(shell: str) -> None:
    lines = offered(shell, "fedunlearn list strategies salu")
    assert len(lines) == 2 and "salun" in lines[0] and "salun_cra" in lines[1]


@pytest.mark.gate
def test_names_of_scenarios_and_of_strategies_to_check_are_offered() -> None:
    assert offered("bash", "fedunlearn simulate 3hos") == [
        "3hosp",
        "3hosp-brain",
        "3hosp-chest",
        "3hosp-tuned",
    ]
    assert offered("bash", "fedunlearn copy brai") == ["brain"]
    assert offered("bash", "fedunlearn check-strategy neggr") == ["neggrad_plus"]
    assert offered("bash", "fedunlearn list measures test_acc") == ["test_accuracy"]
    assert "simulate" in offered("bash", "fedunlearn sim")
