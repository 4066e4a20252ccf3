"""Stop runs at many moments: how soon do they end, with which exit code, and what do they leave behind?

    python benchmarks/interrupts.py                    # SIGTERM and SIGINT at 20 moments each, some half an hour
    python benchmarks/interrupts.py --moments 5 --signals TERM HUP KILL

Each run is a short version of `scenarios/3hosp.yaml` with Flower. Moments are drawn from a fixed seed over the length
of a run that nobody stops. Every second signal goes to the whole process group, as a terminal and batch systems send
it. A process is left if it carries the run's own temporary folder in its environment; a folder if anything is in
there but torch's cache, or if the hospitals' images still are. KILL shows what would be left if nobody cleared it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SCENARIO = Path(__file__).parents[1] / "scenarios" / "3hosp.yaml"
SHORT = ("data.images=300", "training.rounds=3", "seeds=[7,8]", "references=2")
ALLOWED = 15.0  # seconds
HANG = 60.0  # seconds after which a run that does not end is killed


@dataclass(frozen=True)
class Stopped:
    """How one run ended."""

    at: float
    seconds: float
    code: int
    expected: int
    lines: Sequence[str]
    processes: Sequence[str]
    files: Sequence[str]

    @property
    def good(self) -> bool:
        # by the signal itself, before the program had begun: to a shell the same
        return self.seconds <= ALLOWED and self.code in (self.expected, 128 - self.expected)

    @property
    def told(self) -> bool:
        # one line, and one more about going on where there is something to go on with
        return bool(self.lines) and self.lines[0].startswith("interrupted") and len(self.lines) <= 2

    @property
    def clean(self) -> bool:
        return not self.processes and not self.files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--signals", nargs="+", default=["TERM", "INT"])
    parser.add_argument("--engine", default="flower")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with Run(options.engine) as run:
        code = run.process.wait()
    length = time.monotonic() - began
    print(
        f"nobody stops it: exit code {code}, {length:.1f} s, left: {run.processes()} {run.files()}",
        flush=True,
    )
    run.remove()
    for name in options.signals:
        rng = random.Random(options.seed)
        moments = sorted(rng.uniform(0, length) for _ in range(options.moments))
        show(name, [stop(options.engine, name, at, whole=i % 2 == 1) for i, at in enumerate(moments)])


class Run:
    """A run in a process group and a temporary folder of its own."""

    def __init__(self, engine: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="b-", dir="/tmp"))  # short: Ray's sockets are in there
        self.temporary, self.out, self._errors = (
            self.folder / "t",
            self.folder / "run",
            self.folder / "stderr",
        )
        self.temporary.mkdir()
        command = [sys.executable, "-m", "fedunlearn", "simulate", str(SCENARIO), "--engine", engine]
        values = [part for value in SHORT for part in ("--set", value)]
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, *values, "--out", str(self.out)],
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdout=subprocess.DEVNULL,
                stderr=errors,
                process_group=0,
                preexec_fn=listen,
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes():
            process.kill()
        self.process.wait()

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def lines(self) -> list[str]:
        return self._errors.read_text(errors="replace").splitlines()

    def processes(self) -> list[str]:
        return [process.name() for process in self._processes()]

    def files(self) -> list[str]:
        left = [path.name for path in self.temporary.iterdir() if not path.name.startswith("torchinductor_")]
        images = self.out / "work" / "federation"
        return left + ([str(images)] if images.exists() else [])

    def _processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if belongs(process, self.temporary)]


def listen() -> None:
    """Whoever starts this script in the background of a shell has SIGINT ignored, and a child inherits that."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def belongs(process: psutil.Process, temporary: Path) -> bool:
    """Whether it has that folder in its environment. Not by psutil, which stops where Ray writes its titles."""
    try:
        return f"TMPDIR={temporary}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(
            b"\0"
        )
    except OSError:  # ended meanwhile
        return False


def stop(engine: str, name: str, at: float, whole: bool) -> Stopped:
    number = signal.Signals[f"SIG{name}"]
    run = Run(engine)
    with run:
        try:
            run.process.wait(at)
        except subprocess.TimeoutExpired:
            os.killpg(run.process.pid, number) if whole else run.process.send_signal(number)
        began = time.monotonic()
        try:
            code = run.process.wait(HANG)
        except subprocess.TimeoutExpired:
            code = 0
        seconds = time.monotonic() - began
        found = Stopped(at, seconds, code, 128 + number, run.lines(), run.processes(), run.files())
    run.remove()
    to = "group" if whole else "process"
    print(f"{name} to the {to} at {at:5.1f} s: exit code {code} after {seconds:4.1f} s", flush=True)
    for line in [*found.lines, *found.processes, *found.files]:
        print(f"    {line}", flush=True)
    return found


def show(name: str, runs: Sequence[Stopped]) -> None:
    good, clean = sum(run.good for run in runs), sum(run.clean for run in runs)
    told = sum(run.told for run in runs)
    processes, files = sum(len(run.processes) for run in runs), sum(len(run.files) for run in runs)
    print(
        f"{name}: {good} of {len(runs)} ended within {ALLOWED:g} s with the right code (slowest "
        f"{max(run.seconds for run in runs):.1f} s), {told} said so and no more, {clean} left nothing "
        f"({processes} processes and {files} folders left in all)",
        flush=True,
    )


if __name__ == "__main__":
    main()
