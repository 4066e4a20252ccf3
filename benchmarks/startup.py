"""What commands cost that do little work: CPU time from the call to the end, and which libraries they load.

    python benchmarks/startup.py                      every command five times
    python benchmarks/startup.py --against COMMIT     by turns with an earlier commit, and the ratio of CPU times
    python benchmarks/startup.py --quick              each once

Every command runs in a process of its own, and its CPU time is that of this process and of those that it waits for. It
runs once before it is measured: what is compiled once, or kept for the next command, is there.
What takes time as often as not is torch, so the table says who loads it, and what else is large. Commands and commits
take turns, in reverse order every other time, and a ratio is taken within a turn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.default_run import ROOT, earlier

LARGE = ("torch", "pandas", "scipy.stats", "sklearn", "pyarrow", "flwr", "ray", "monai", "matplotlib")
"""Libraries whose import takes a tenth of a second or more."""
SCENARIO = "scenarios/3hosp.yaml"
_SMALL = (
    "training.rounds=1",
    "training.local_epochs=1",
    "seeds=[1]",
    "references=1",
    "data.images=240",
    "strategies=[{name: fine_tune}]",
    "evaluation.curves=false",
)
"""What makes a run that is soon there to be shown."""
_LOADED = """
import sys
from fedunlearn.__main__ import app
try:
    app(sys.argv[2:], standalone_mode=False)
finally:
    print(*(name for name in sys.argv[1].split() if name in sys.modules), file=sys.stderr)
"""


def commands(run: Path) -> dict[str, list[str]]:
    """What is measured, by what it is called in the table; some of it shows the run in a folder."""
    return {
        "--help": ["--help"],
        "list": ["list", "strategies"],
        "check": ["check", SCENARIO],
        "report": ["report", str(run)],
        "report --markdown": ["report", str(run), "--markdown"],
        "report --format csv": ["report", str(run), "--format", "csv"],
        "compare": ["compare", str(run)],
    }


def spent(code: Path, words: Sequence[str]) -> float:
    """CPU seconds of one command.

    Raises:
        SystemExit: it failed; what it printed is shown.
    """
    with tempfile.TemporaryFile() as printed:
        command = [sys.executable, "-m", "fedunlearn", *words]
        child = subprocess.Popen(command, cwd=code, env=_environment(code), stdout=printed, stderr=printed)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            printed.seek(0)
            raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{printed.read().decode()}")
    return used.ru_utime + used.ru_stime


def loaded(code: Path, words: Sequence[str]) -> list[str]:
    """Which of `LARGE` a command has loaded at its end."""
    command = [sys.executable, "-c", _LOADED, " ".join(LARGE), *words]
    done = subprocess.run(
        command, cwd=code, env=_environment(code), capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()[-1].split()


def _environment(code: Path) -> dict[str, str]:
    """Of a command: our modules are compiled once, as they are for people."""
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": str(code),
    }


def show(
    turns: Sequence[Mapping[tuple[str, str], float]],
    large: Mapping[str, Sequence[str]],
    states: Sequence[str],
) -> None:
    """Medians with the least and the most; the ratio to the other state, taken within turns."""
    other = [f"CPU s, {state}" for state in states[1:]]
    print("| command | " + " | ".join(["CPU s", *other, *(["ratio"] if other else []), "loads"]) + " |")
    print("|---" * (3 + len(other) + bool(other)) + "|")
    for name, libraries in large.items():
        row = [_spread([turn[name, state] for turn in turns]) for state in states]
        if other:
            row.append(_spread([turn[name, states[0]] / turn[name, states[1]] for turn in turns]))
        print(f"| {name} | " + " | ".join([*row, ", ".join(libraries) or "none of these"]) + " |")


def _spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f}–{max(values):.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run them by turns and print the table."""
    parser = argparse.ArgumentParser(description="What commands cost before they do their work.")
    parser.add_argument("--runs", type=int, default=5, help="turns")
    parser.add_argument("--only", nargs="+", help="commands of the table")
    parser.add_argument("--against", help="a commit to take turns with")
    parser.add_argument("--quick", action="store_true", help="each command once")
    asked = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        small = [word for value in _SMALL for word in ("--set", value)]
        spent(ROOT, ["simulate", SCENARIO, "--engine", "inline", "--quiet", "--out", str(folder), *small])
        codes = {"now": ROOT}
        if asked.against:
            codes[asked.against] = stack.enter_context(earlier(asked.against))
        measured = {
            name: words
            for name, words in commands(folder).items()
            if name in (asked.only or commands(folder))
        }
        for (
            state
        ) in codes.values():  # what is compiled once, and kept for the next command, is there in the turns
            for words in measured.values():
                spent(state, words)
        large = {name: loaded(ROOT, words) for name, words in measured.items()}
        turns = list[dict[tuple[str, str], float]]()
        for number in range(1 if asked.quick else asked.runs):
            order = [(name, state) for name in measured for state in codes]
            order = order if number % 2 == 0 else order[::-1]
            turns.append({(name, state): spent(codes[state], measured[name]) for name, state in order})
        show(turns, large, list(codes))


if __name__ == "__main__":
    main()
