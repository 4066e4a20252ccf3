"""What the default run takes, from the command to the page: its parts in wall time, and CPU time.

    python benchmarks/default_run.py                      scenarios/3hosp.yaml five times on each engine
    python benchmarks/default_run.py --against COMMIT     by turns with an earlier commit, and the ratio of CPU times
    python benchmarks/default_run.py --quick              a tiny scenario, once

Every run is the command that the README shows, in a process of its own and a new folder. Its own events (`simulate
--json`) tell where its time goes. CPU time is that of all processes that a run starts, also those that outlive it: this
program becomes their parent. It does not see those that Ray ends and forgets, so on Ray it is too little. *busy* is how
much of all cores' time the run has used from its first procedure to its end: CPU time by wall time and cores. Runs take
turns, in reverse order every other time. Wall time means something on a quiet machine only, and so does *busy*, so the
load before each run is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import psutil

from fedunlearn import cores

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("start", "train", "score", "page", "end")
"""Until the first procedure begins, until the last has ended, scoring, writing the page, and what follows."""
_TINY = ("--set", "training.rounds=2", "--set", "seeds=[1]", "--set", "data.images=240")
_SUBREAPER = 36  # prctl's PR_SET_CHILD_SUBREAPER


@dataclass(frozen=True)
class Contestant:
    """A state of the program on an engine."""

    engine: str
    code: Path
    name: str


@dataclass(frozen=True)
class Outcome:
    """One run: seconds, the share of the cores' time that it used once it had started, and the table it came to."""

    wall: float
    cpu: float
    busy: float
    parts: dict[str, float]
    scores: pd.DataFrame


def run(contestant: Contestant, options: Sequence[str]) -> Outcome:
    """One run from its command to its end.

    Raises:
        SystemExit: it failed; what it printed is shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "fedunlearn", "simulate", "scenarios/3hosp.yaml", "--json"]
        command += ["--engine", contestant.engine, "--out", str(out), *options]
        environment = {**os.environ, "PYTHONPATH": str(contestant.code)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as they are for people
        spent, began, events = _children(), time.monotonic(), list[dict[str, str]]()
        first: tuple[float, float] | None = None
        with tempfile.TemporaryFile("w+") as said:
            child = subprocess.Popen(
                command, cwd=contestant.code, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
            )
            for line in child.stdout or ():
                events.append(json.loads(line))
                if first is None and _works(events[-1]):
                    first = time.monotonic(), _alive() + _children()
            child.wait()
            ended = time.monotonic()
            _reap()
            if child.returncode:
                said.seek(0)
                raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{said.read()}")
        cpu = _children()
        busy = (cpu - first[1]) / (ended - first[0]) / cores.usable() if first else math.nan
        scores = pd.read_parquet(out / "scores.parquet")
        scores = scores[~scores["measure"].str.endswith("seconds")].reset_index(drop=True)
        return Outcome(ended - began, cpu - spent, busy, _parts(events, ended - began), scores)


def _works(event: dict[str, str]) -> bool:
    """Whether an event tells of a procedure."""
    return event.get("phase") not in (None, "score", "page")


def _alive() -> float:
    """CPU seconds so far of all processes under this one, and of those that these have waited for."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            total += sum(process.cpu_times()[:4])
    return total


def _parts(events: Sequence[dict[str, str]], wall: float) -> dict[str, float]:
    """Where the time went; starting Python belongs to the start."""
    at = {(one.get("phase"), one.get("state")): _seconds(one) for one in events if one["event"] == "phase"}
    training = [_seconds(one) for one in events if _works(one)]
    marks = [
        _seconds(events[-1]) - wall,
        min(training),
        at["score", "begun"],
        at["score", "ended"],
        at["page", "ended"],
        _seconds(events[-1]),
    ]
    return {part: after - before for part, before, after in zip(PARTS, marks, marks[1:], strict=False)}


def _seconds(event: dict[str, str]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap() -> None:
    """Wait for what a run left behind.

    Raises:
        SystemExit: something of it does not end.
    """
    deadline = time.monotonic() + 60
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] or time.monotonic() < deadline:
            time.sleep(0.02)
        raise SystemExit("a process that the run started has not ended within 60 s of it")


@contextlib.contextmanager
def earlier(commit: str) -> Iterator[Path]:
    """The files of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "code"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(code), commit], check=True)
        try:
            yield code
        finally:
            subprocess.run([*git, "remove", "--force", str(code)], check=True)


def show(contestants: Sequence[Contestant], turns: Sequence[dict[Contestant, Outcome]]) -> None:
    """Medians with the least and the most, and ratios taken within a turn."""
    print(
        "| run | "
        + " | ".join(["wall s", "CPU s", "busy %", *(f"{part} s" for part in PARTS)])
        + " | CPU ratio |"
    )
    print("|---" * (len(PARTS) + 5) + "|")
    for one in contestants:
        found = [turn[one] for turn in turns]
        row = [_spread([each.wall for each in found]), _spread([each.cpu for each in found])]
        row.append(_spread([100 * each.busy for each in found], 0))
        row += [_spread([each.parts[part] for each in found]) for part in PARTS]
        rivals = [other for other in contestants if other.engine == one.engine and other != one]
        ratio = (
            _spread([turn[one].cpu / turn[rivals[0]].cpu for turn in turns], 2)
            if rivals and one.code == ROOT
            else ""
        )
        print(f"| {one.engine}, {one.name} | " + " | ".join(row) + f" | {ratio} |")
    first = turns[0][contestants[0]].scores
    same = all(first.equals(each.scores) for turn in turns for each in turn.values())
    print(f"All came to the same scores.parquet, but for seconds: {'yes' if same else 'NO'}.")


def _spread(values: Sequence[float], digits: int = 1) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run them by turns and print the table."""
    parser = argparse.ArgumentParser(description="What the default run takes.")
    parser.add_argument("--engines", nargs="+", default=["inline", "flower"], choices=["inline", "flower"])
    parser.add_argument("--runs", type=int, default=5, help="turns")
    parser.add_argument("--against", help="a commit to take turns with")
    parser.add_argument("--quick", action="store_true", help="a tiny scenario on engine inline, once")
    asked = parser.parse_args(arguments)
    engines, count = (asked.engines, asked.runs) if not asked.quick else (["inline"], 1)
    options = _TINY if asked.quick else ()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    with contextlib.ExitStack() as stack:
        codes = {"now": ROOT}
        if asked.against:
            codes[asked.against] = stack.enter_context(earlier(asked.against))
        contestants = [Contestant(engine, code, name) for engine in engines for name, code in codes.items()]
        turns: list[dict[Contestant, Outcome]] = []
        for number in range(count):
            order = contestants if number % 2 == 0 else contestants[::-1]
            turns.append({})
            for one in order:
                load = os.getloadavg()[0]
                turns[-1][one] = run(one, options)
                print(
                    f"turn {number + 1}: {one.engine}, {one.name}: {turns[-1][one].wall:.1f} s (load {load:.1f})"
                )
    show(contestants, turns)


if __name__ == "__main__":
    main()
