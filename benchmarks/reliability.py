"""What a run survives: kills at random moments, flipped bits, failing writes. Each prints a table of counts.

    python benchmarks/reliability.py kills --times 100
    python benchmarks/reliability.py kills --times 10 --engine flower
    python benchmarks/reliability.py flips --times 1000
    python benchmarks/reliability.py writes

Everything is compared with a run that nothing happened to: sha256 of every file of weights and signals, scores and
ledger but for wall times. Made to be run by hand: the tests do a little of each.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
from rich.console import Console

from fedunlearn import files, scenario as scenarios
from fedunlearn.core import FedunlearnError, InputError
from fedunlearn.finished import rescore
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scenario import Scenario
from fedunlearn.scoring.score import tables
from fedunlearn.story import simulate
from fedunlearn.verification import verify

SHORT = ["data.images=300", "training.rounds=3", "seeds=[7, 8]", "references=2"]
TINY = [*SHORT, "seeds=[7]", "references=1", "training.rounds=2", "training.local_epochs=1"]
TINY += ["strategies=[{name: fine_tune, rounds: 1}, {name: federaser, every: 1}]"]
LEAST = [*TINY, "data.images=120", "requests=[{id: leave, site: east, whole_site: true}]"]
SCENARIO = Path(__file__).resolve().parents[1] / "scenarios" / "3hosp.yaml"
TIMES = ("seconds", "site_seconds", "server_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["kills", "flips", "writes"])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--engine", choices=["inline", "flower"], default="inline")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedunlearn-reliability-") as name:
        folder, rng = Path(name), random.Random(given.seed)
        match given.what:
            case "kills":
                kills(folder, given.times, given.engine, rng)
            case "flips":
                flips(folder, given.times, rng)
            case "writes":
                writes(folder)


# --------------------------------------------------------------------------------------------------- kills


def kills(folder: Path, times: int, engine: str, rng: random.Random) -> None:
    """Kill a run and resume it, until it was killed so often; one that comes to its end is compared, and begun anew."""
    begin = _forked if engine == "inline" else _started
    began = time.perf_counter()
    _wait(begin(folder / "whole", False))
    length = time.perf_counter() - began
    whole, killed, ended, same = _state(folder / "whole"), 0, 0, 0
    while killed < times or (folder / "run").exists():
        resume = (folder / "run" / "work" / "about.json").exists()
        if not resume:
            shutil.rmtree(folder / "run", ignore_errors=True)
        child = begin(folder / "run", resume)
        if killed < times and _killed_within(child, rng.uniform(0, length)):
            killed += 1
            continue
        _wait(child)
        ended, same = ended + 1, same + (_state(folder / "run") == whole)
        shutil.rmtree(folder / "run")
    print(f"engine {engine}: killed {killed} times in a run of {length:.1f} s")
    print(
        f"runs that were resumed to their end: {ended}; with the same weights, signals, scores and ledger: {same}"
    )


def _forked(out: Path, resume: bool) -> int:
    """The run in a child of this process, which has imported everything; inline only."""
    if (child := os.fork()) == 0:
        with suppress(BaseException):
            simulate(_scenario(SHORT, "inline"), out, out.parent, Console(quiet=True), True, resume)
            os._exit(0)
        os._exit(1)
    return child


def _started(out: Path, resume: bool) -> int:
    """The run in a process of its own, as a person starts it."""
    settings = [argument for value in SHORT for argument in ("--set", value)]
    command = [sys.executable, "-m", "fedunlearn", "simulate", str(SCENARIO), "--out", str(out), "--quiet"]
    more = ["--engine", "flower", *(["--resume"] if resume else [])]
    with open(os.devnull, "wb") as nothing:
        return subprocess.Popen([*command, *settings, *more], stdout=nothing, stderr=nothing).pid


def _killed_within(child: int, seconds: float) -> bool:
    """Kill a child after so long; False if it had ended by then."""
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _wait(child: int) -> None:
    with suppress(ChildProcessError):  # it has been waited for
        os.waitpid(child, 0)


# --------------------------------------------------------------------------------------------------- flips


def flips(folder: Path, times: int, rng: random.Random) -> None:
    """Flip single bits of a finished run: `verify` must notice each, and scoring must refuse or say the same."""
    run = simulate(_scenario(TINY, "inline"), folder / "run", folder, Console(quiet=True), True)
    before, paths = tables(run.path), [run.path / name for name in (*run.listed(), "manifest.json")]
    noticed = refused = same = wrong = 0
    for number in range(times):
        path = rng.choice(paths)
        with _flipped(path, rng):
            noticed += _fails(lambda: verify(run.path, 0, folder, Console(quiet=True)))
            if number % 10:
                continue  # scoring takes a second
            try:
                after = tables(run.path)
            except FedunlearnError:
                refused += 1
                continue
            equal = all(after[name].equals(before[name]) for name in before)
            same, wrong = same + equal, wrong + (not equal)
    print(f"bits flipped: {times} in {len(paths)} files; noticed by verify: {noticed}")
    print(
        f"scored all the same: {same + refused + wrong}; refused {refused}, unchanged {same}, silently other {wrong}"
    )


@contextmanager
def _flipped(path: Path, rng: random.Random) -> Iterator[None]:
    content = path.read_bytes()
    place, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
    path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
    try:
        yield
    finally:
        path.write_bytes(content)


# -------------------------------------------------------------------------------------------------- writes


def writes(folder: Path) -> None:
    """Let the k-th write fail for want of space, for every k: what is there can be gone on with, or is as it was."""
    scenario, quiet = _scenario(LEAST, "inline"), Console(quiet=True)
    whole = _state(simulate(scenario, folder / "whole", folder, quiet, True).path)
    told = resumed = 0
    for count in range(1, 100_000):
        with _full_at(count) as failed:
            stopped = _fails(lambda: simulate(scenario, folder / "run", folder, quiet, True))
        if not failed:
            break
        told += stopped
        parts = list((folder / "run").rglob(f"*{files.PART}"))
        try:
            again = simulate(scenario, folder / "run", folder, quiet, True, resume=True)
        except InputError:  # it was stopped before there was anything to go on with
            shutil.rmtree(folder / "run", ignore_errors=True)
            again = simulate(scenario, folder / "run", folder, quiet, True)
        resumed += _state(again.path) == whole and not parts
        shutil.rmtree(folder / "run")
    print(
        f"writes of a run: {count - 1}; stopped with a message: {told}; gone on with to the same: {resumed}"
    )
    _rescored(folder, whole)


def _rescored(folder: Path, whole: dict[str, str]) -> None:
    good = total = 0

    def check() -> None:
        verify(folder / "whole", 0, folder, Console(quiet=True))

    for count in range(1, 1000):
        with _full_at(count) as failed:
            _fails(lambda: rescore(folder / "whole"))
        if not failed:
            break
        total += 1
        good += _state(RunFolder.open(folder / "whole").path) == whole and not _fails(check)
    print(
        f"writes of scoring again: {total}; after a failure all is readable, and as it was or as it is to be: {good}"
    )


@contextmanager
def _full_at(count: int) -> Iterator[list[Path]]:
    """Let the ``count``-th file that is about to take its place fail, as a full disk would."""
    failed: list[Path] = []
    real, calls = os.replace, iter(range(1, count + 1))

    def replace(source: str | Path, target: str | Path) -> None:
        if next(calls, None) == count:
            failed.append(Path(target))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    os.replace = replace
    try:
        yield failed
    finally:
        os.replace = real


# -------------------------------------------------------------------------------------------------- pieces


def _scenario(settings: list[str], engine: str) -> Scenario:
    return scenarios.read(SCENARIO, [*settings, f"engine.name={engine}"])


def _fails(do: Callable[[], object]) -> bool:
    try:
        do()
    except FedunlearnError:
        return True
    return False


def _state(run: Path) -> dict[str, str]:
    """What must be the same: files of weights and signals, scores and ledger but for times."""
    if not (run / "DONE").is_file():
        return {"DONE": "is missing"}
    state = {
        path.relative_to(run).as_posix(): files.sha256(path)
        for part in ("weights", "signals", "difficulty")
        for path in sorted((run / part).iterdir())
    }
    scores, ledger = pd.read_parquet(run / "scores.parquet"), pd.read_parquet(run / "ledger.parquet")
    timeless = scores[~scores["measure"].isin(TIMES)].to_csv(index=False)
    rows = ledger.drop(columns=["site_seconds", "server_seconds"]).to_csv(index=False)
    hashes = {"scores": timeless, "ledger": rows}
    return state | {name: hashlib.sha256(text.encode()).hexdigest() for name, text in hashes.items()}


if __name__ == "__main__":
    main()
