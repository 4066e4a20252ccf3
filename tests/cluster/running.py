"""Ray on machines of a lab, and runs that use it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.story import simulate as run_scenario
from tests import runs
from tests.cluster.machines import ROOT, SHARED, Lab, Machine, lab, until

SCENARIO = ROOT / "scenarios" / "3hosp.yaml"
SHORT = ("data.images=400", "seeds=[7,8]", "training.rounds=2", "references=2")
"""36 models in some ten seconds of work."""
PYTHON = sys.executable
RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379
ACTOR = "ray::Actor"
"""How Ray titles workers of ours."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster of machines; the driver is on the first.

    Attributes:
        lab: where the machines are.
        head: the first of them.
    """

    lab: Lab
    head: Machine

    @property
    def address(self) -> str:
        """Where a driver finds it."""
        return f"{self.head.address}:{PORT}"

    def join(self, machine: Machine, cpus: int = 1) -> None:
        """Have a machine join it."""
        options = [f"--address={self.address}", f"--node-ip-address={machine.address}", f"--num-cpus={cpus}"]
        start(machine, *options, "--disable-usage-stats")

    def nodes(self) -> list[str]:
        """The addresses of machines that Ray takes for alive."""
        code = (
            f"import ray; ray.init(address={self.address!r}, log_to_driver=False, logging_level='critical')\n"
            "for node in ray.nodes():\n    if node['Alive']: print('node', node['NodeManagerAddress'])"
        )
        done = self.head.run(PYTHON, "-c", code)
        assert done.returncode == 0, done.stderr
        return sorted(line.split()[1] for line in done.stdout.splitlines() if line.startswith("node "))


@contextlib.contextmanager
def cluster(folder: Path, cpus: Sequence[int] = (1, 1)) -> Iterator[Cluster]:
    """A cluster of machines with so many CPUs each, called node1, node2, …"""
    with lab(folder) as machines:
        yield begin(machines, machines.machine("node1"), cpus)


def begin(machines: Lab, head: Machine, cpus: Sequence[int]) -> Cluster:
    """Start Ray on ``head`` and on further machines, which are made."""
    options = ["--head", f"--node-ip-address={head.address}", f"--port={PORT}", f"--num-cpus={cpus[0]}"]
    start(head, *options, "--include-dashboard=false", "--disable-usage-stats")
    made = Cluster(machines, head)
    for number, count in enumerate(cpus[1:], start=2):
        made.join(machines.machine(f"node{number}"), count)
    return made


def start(machine: Machine, *options: str) -> None:
    """Start Ray there, and wait until it has."""
    log = machine.tmp / "ray-start.log"
    machine.spawn(log, RAY, "start", "--block", f"--object-store-memory={200 << 20}", *options)
    until(
        lambda: "Ray runtime started" in log.read_text(errors="replace"), 90, f"Ray on {machine.name}\n{log}"
    )


def kill_ray(machine: Machine) -> None:
    """Kill all of Ray there at once, with everything it runs; a driver is left."""
    for word in ("ray start", "gcs_server", "raylet", "ray::", "/ray/"):
        machine.signal(signal.SIGKILL, word)


@dataclass(frozen=True)
class Run:
    """A simulation that goes on.

    Attributes:
        process: its process.
        out: its run folder, from outside.
        log: what it says.
    """

    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def wait(self, seconds: float = 240) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds:g} s\n{self.said}") from None

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def told(self) -> list[str]:
        """Its lines about errors."""
        return [line for line in self.said.splitlines() if line.startswith("error:")]

    def weights(self) -> dict[str, str]:
        """sha256 of every model, by name."""
        return runs.contents(self.out / "weights")


def simulate(on: Cluster, name: str, *settings: str, resume: bool = False, engine: str = "flower") -> Run:
    """Start the short scenario on the head, with its run folder where all see it."""
    words = [PYTHON, "-m", "fedunlearn", "simulate", str(SCENARIO), "--engine", engine]
    sets = [*SHORT, *([f"engine.address={on.address}"] if engine == "flower" else []), *settings]
    words += [word for value in sets for word in ("--set", value)]
    words += ["--out", str(SHARED / name), *(["--resume"] if resume else [])]
    log = on.lab.folder / f"{name}{'-resumed' if resume else ''}.log"
    return Run(on.head.spawn(log, *words), on.lab.shared / name, log)


def reference(folder: Path) -> dict[str, str]:
    """sha256 of every model of the short scenario, by name, as engine inline comes to them."""
    with runs.without_scores():
        made = run_scenario(
            scenarios.read(SCENARIO, [*SHORT, "engine.name=inline"]),
            folder / "run",
            folder,
            Console(),
            quiet=True,
        )
    return runs.weight_files(made)


def averaging(on: Cluster, folder: Path, workers: int, *options: str, name: str = "averaging") -> Averaging:
    """Start `tests.cluster.averaging` on the head, with the hospitals in ``folder`` of what all share."""
    log = on.lab.folder / f"{name}.log"
    words = [PYTHON, "-m", "tests.cluster.averaging", str(SHARED / folder.name), on.address, str(workers)]
    return Averaging(on.head.spawn(log, *words, *options), folder, log)


@dataclass(frozen=True)
class Averaging:
    """`tests.cluster.averaging`, which goes on.

    Attributes:
        process: its process.
        folder: where it finds its hospitals.
        log: what it says.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path

    def lines(self, about: str) -> list[list[str]]:
        """What it has told so far about something, in words."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return [words[1:] for line in text.splitlines() if (words := line.split()) and words[0] == about]

    def more(self, answers: int, host: str = "", seconds: float = 120) -> None:
        """Wait for so many more answers, or for so many from one machine."""

        def count() -> int:
            return sum(not host or words[1] == host for words in self.lines("answer"))

        enough = count() + answers
        until(lambda: count() >= enough or self.process.poll() is not None, seconds, f"answers\n{self.log}")
        assert self.process.poll() is None, self.log.read_text()

    def stop(self, seconds: float = 120) -> dict[int, str]:
        """Have it end, and return its averages."""
        (self.folder / "stop").touch()
        assert self.process.wait(seconds) == 0, self.log.read_text()
        return {int(seed): digest for seed, digest in self.lines("average")}

    @property
    def longest(self) -> float:
        """The longest time between two answers, in seconds."""
        times = [float(words[0]) for words in self.lines("answer")]
        return max(after - before for before, after in itertools.pairwise(times))


def until_under_way(run: Run, answers: int = 1, seconds: float = 120) -> None:
    """Wait until a run has come to some answers."""
    journal = run.out / "work" / "journal"

    def enough() -> bool:
        assert run.process.poll() is None, f"it has ended\n{run.said}"
        return len(signs(journal)) >= answers

    until(enough, seconds, "answers in the journal")


def stall(run: Run, seconds: float = 240) -> float:
    """The longest time without a sign of work in a run's folder until it ends, in seconds."""
    longest, last, seen = 0.0, time.monotonic(), signs(run.out)
    deadline = last + seconds
    while run.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
        if (now := signs(run.out)) != seen:
            longest, last, seen = max(longest, time.monotonic() - last), time.monotonic(), now
        if not (run.out / "work" / "federation").exists():
            break  # all tasks are done, it scores
    return max(longest, time.monotonic() - last)


def signs(out: Path) -> frozenset[tuple[str, int]]:
    """What a run has come to so far: every file and when it was written."""
    found = set()
    for folder, _, names in os.walk(out):  # unlike rglob, it passes over what vanishes meanwhile
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found.add((name, os.stat(os.path.join(folder, name)).st_mtime_ns))
    return frozenset(found)
