"""What a cluster can lose, and how many workers one driver keeps busy. Machines are namespaces: as root, on Linux.

    python benchmarks/cluster.py kills --times 10
    python benchmarks/cluster.py scaling --workers 8 32

`kills`: a run averages the models of three hospitals on two machines. In the midst of it, at moments drawn from a fixed
seed, something is done to the second machine, which is then started again. Counted are averages that differ from
engine inline's by a bit, hospitals that were blamed, and the longest time without an answer after each loss. With
`whole`, Ray is killed on both machines while a short version of `scenarios/3hosp.yaml` runs, which is then resumed.

`scaling`: hospitals that only sleep and send back weights of a given size, on one machine of which Ray is told that it
has many cores. Printed are answers per second, the share of the workers' time that was slept, and what one answer costs
the driver's process in CPU time: its inverse is what one core of the driver can serve, whatever the hospitals do.
"""

from __future__ import annotations

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.cluster import averaging, losses, running  # noqa: E402
from tests.cluster.machines import SHARED, unable  # noqa: E402
from tests.cluster.running import PYTHON, Averaging, Cluster, cluster  # noqa: E402

WINDOW = 4.0  # seconds over which moments are drawn; a task takes some tenths
ENOUGH = 20  # answers after a loss: some are of tasks that were lost with the machine


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    killing = commands.add_parser("kills")
    killing.add_argument("--times", type=int, default=10)
    killing.add_argument("--losses", nargs="+", default=[*losses.LOSSES, "whole"])
    killing.add_argument("--seed", type=int, default=0)
    scaling = commands.add_parser("scaling")
    scaling.add_argument("--workers", type=int, nargs="+", default=[8, 32])
    scaling.add_argument("--hospitals", type=int, nargs="+", default=[10, 100])
    scaling.add_argument("--procedures", type=int, nargs="+", default=[1, 8])
    scaling.add_argument("--megabytes", type=float, nargs="+", default=[0.4, 4.0])
    scaling.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    if (reason := unable()) is not None:
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="fedunlearn-cluster-") as name:
        if given.what == "scaling":
            scale(Path(name), given)
            return
        for kind in given.losses:
            rng = random.Random(f"{given.seed} {kind}")
            moments = [rng.uniform(0, WINDOW) for _ in range(given.times)]
            kill_all(Path(name), moments) if kind == "whole" else kill(Path(name), kind, moments)


# --------------------------------------------------------------------------------------------------- kills


def kill(folder: Path, kind: str, moments: Sequence[float]) -> None:
    """One run that loses its second machine at every moment."""
    with cluster(folder / kind) as on:
        there = on.lab.shared / "averages"
        averaging.write(there / "federation")
        run, stalls, touched = running.averaging(on, there, 2), [], set[int]()
        for moment in moments:
            machine = on.lab.made[-1]
            run.more(1, "node2")
            time.sleep(moment)
            before, done = len(run.lines("answer")), len(run.lines("average"))
            touched |= {*range(done - done % averaging.AT_ONCE, done + averaging.AT_ONCE)}
            losses.LOSSES[kind](on, machine)
            run.more(ENOUGH)
            back(on, kind)
            stalls.append(longest(run, before))
        found = run.stop(300)
        failed = sum(words[2] != "ok" for words in run.lines("answer"))
        expected = averaging.inline(there, sorted(touched & found.keys()))
        other = sum(found[seed] != digest for seed, digest in expected.items())
    print(
        f"{kind:7} {len(moments)} times: of {len(expected)} averages under way, {other} are other than inline's; "
        f"{failed} of {len(run.lines('answer'))} answers a failure; longest time without an answer after each loss: "
        f"{' '.join(f'{stall:.1f}' for stall in sorted(stalls))} s",
        flush=True,
    )


def back(on: Cluster, kind: str) -> None:
    """Have a second machine again."""
    if kind in ("raylet", "node", "hang", "pause", "unplug"):  # Ray ends itself where it was given up
        on.lab.made[-1].die()
        on.join(on.lab.machine("node2"))


def longest(run: Averaging, since: int) -> float:
    """The longest time between answers from the one before the loss, in seconds."""
    times = [float(words[0]) for words in run.lines("answer")][max(0, since - 1) :]
    return max(after - before for before, after in itertools.pairwise(times))


def kill_all(folder: Path, moments: Sequence[float]) -> None:
    """Runs that lose their cluster, each at one moment, and go on without any."""
    expected = running.reference(folder / "inline")
    codes, lines, images, same, slowest = [], 0, 0, 0, 0.0
    for number, moment in enumerate(moments):
        with cluster(folder / f"whole-{number}") as on:
            run = running.simulate(on, "run", "engine.workers=2")
            ended = losses.outcome(on, run, losses.whole, on.lab.made[1], moment)
            codes.append(ended.code)
            lines, images = lines + (len(ended.told) == 1 and not ended.blamed), images + bool(ended.images)
            slowest = max(slowest, ended.stall)
            resumed = running.simulate(on, "run", resume=True, engine="inline")
            same += resumed.wait() == 0 and resumed.weights() == expected
    print(
        f"whole   {len(moments)} times: exit codes {sorted(set(codes))}, {lines} with one line that blames nobody, "
        f"{images} left images, {same} resumed to the same bits; over at most {slowest:.1f} s later",
        flush=True,
    )


# ------------------------------------------------------------------------------------------------- scaling


def scale(folder: Path, given: argparse.Namespace) -> None:
    """A driver for every number of workers, which measures all else itself."""
    print("workers hospitals procedures  MB  answers/s  busy  driver CPU, ms/answer")
    for workers in given.workers:
        with cluster(folder / str(workers), cpus=(workers,)) as on:
            numbers = [f"--{name}={','.join(map(str, getattr(given, name)))}" for name in _LISTS]
            log = on.lab.shared / "scaling.txt"
            words = [PYTHON, "-m", "tests.cluster.sleeping", str(SHARED), on.address, str(workers)]
            process = on.head.spawn(log, *words, f"--seconds={given.seconds}", *numbers)
            try:
                code = process.wait(1800)
            except subprocess.TimeoutExpired:
                code = -1
            print(log.read_text(), end="" if code == 0 else f"exit code {code}\n", flush=True)


_LISTS = ("hospitals", "procedures", "megabytes")

if __name__ == "__main__":
    main()
