"""Many federated averagings: Flower as its users write it, one app for each or all in one, and this project's driver.

    python benchmarks/stock_flower.py [--procedures 2] [--rounds 24] [--turns 2]
    python benchmarks/stock_flower.py --quick       two procedures of one round

A study of unlearning trains many models: originals and retrained ones of several seeds, and what strategies come to.
All contestants do the same work for the same hospitals: so many procedures, each so many rounds of `small_cnn`, whose
hospitals train two epochs of Adam in batches of 32.

- *one app each*: a ServerApp with Flower's FedAvg and a ClientApp with a DataLoader and torch's Adam, started by
  `run_simulation` once for each procedure, as an example of Flower's would be run by a script. Most of its time is
  Ray's start and imports, again and again: **whoever puts all into one app saves that too**.
- *one app*: the same apps, started once; the ServerApp runs one FedAvg after the other.
- *flower*, *inline*: this project's driver runs them side by side, on its engine of that name.

CPU time is that of all processes that belong to a contestant, sampled from /proc until each ends; wall time means
something on a quiet machine only, so the load before each is shown. Start-up is told apart: *start* is all until a
first round is over, for every start, and so has what is loaded when it is first used; *a round* is what each of the
others takes, with its share of the end. Contestants take turns. `right` is the share of training images that the models
class rightly at the end, over all procedures: the same work should come to about the same.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from fedunlearn.core import Form, LocalTraining, Procedure, Select, Weights
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Engine, Link
from fedunlearn.federation.engines.flower import Flower, cluster, scratch
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.jobs import Job, Label
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.local import scaled
from fedunlearn.learning.models import Network, SmallCNN, initial_weights
from sites.hospital import Federation

SITES, IMAGES, CLASSES, SHAPE = ("east", "north", "west"), 240, 4, (3, 28, 28)
LOCAL = LocalTraining(epochs=2, batch_size=32, optimizer="adam", lr=1e-3)
CONTESTANTS = ("one app each", "one app", "flower", "inline")
_MARK = "FEDUNLEARN_STOCK"
_BEGUN = "begun"  # a file that is there once a first round is over
_LOOK = 0.1  # seconds between looks at processes
_PATIENCE, _TRIES = 90.0, 5  # seconds until a first round is over, and starts in which it must be


@dataclass(frozen=True)
class Outcome:
    """What a contestant took, and the share of images that its models class rightly.

    Attributes:
        cpu: seconds.
        wall: seconds.
        start: CPU seconds of them until a first round was over, over all starts.
        round: CPU seconds of each of the other rounds.
        right: the share.
    """

    cpu: float
    wall: float
    start: float
    round: float
    right: float


# ------------------------------------------------------------------------------------------------- the work


def prepare(folder: Path) -> None:
    """Hospitals whose images can be told apart: each class has a mean of its own."""
    rng, count = np.random.default_rng(0), IMAGES * len(SITES)
    targets, site = rng.integers(0, CLASSES, count), np.array(SITES)[np.arange(count) % len(SITES)]
    noise = rng.integers(0, 120, (count, *SHAPE))
    pixels = (noise + 30 * targets[:, None, None, None]).astype(np.uint8)
    Federation.write(
        folder / "federation", pixels, targets, site, np.full(count, "train"), {}, SmallCNN(), CLASSES
    )
    np.savez(folder / "images.npz", pixels=pixels, targets=targets, site=site)


def right(models: Sequence[Weights], folder: Path) -> float:
    """The share of all images that models class rightly."""
    found, network = np.load(folder / "images.npz"), Network(SmallCNN(), Form(SHAPE, CLASSES))
    images = scaled(torch.from_numpy(found["pixels"]))
    shares = []
    for weights in models:
        network.load(weights)
        with torch.no_grad():
            shares.append(float((network.module(images).argmax(1).numpy() == found["targets"]).mean()))
    return statistics.mean(shares)


def start(seed: int) -> Weights:
    """The model that a procedure starts from."""
    return initial_weights(SmallCNN(), Form(SHAPE, CLASSES), seed)


def noted(training: Procedure, folder: Path) -> Procedure:
    """A procedure that says when its first round is over."""
    replies = yield next(training)
    (folder / _BEGUN).touch()
    while True:
        try:
            asks = training.send(replies)
        except StopIteration as end:
            weights: Weights = end.value
            return weights
        replies = yield asks


def ours(engine: Engine, folder: Path, procedures: int, rounds: int) -> list[Weights]:
    """All procedures side by side."""
    found: list[Weights] = []

    def body(link: Link) -> None:
        def job(seed: int) -> Job[Weights]:
            def then(weights: Weights) -> tuple[()]:
                found.append(weights)
                return ()

            training = fedavg(start(seed), SITES, Select(), LOCAL, range(rounds), seed)
            return Job(Label("original", "", "original", seed), noted(training, folder), then)

        drive([job(seed) for seed in range(procedures)], link)

    engine.run(folder / "federation", body)
    return found


def stock(folder: Path, seeds: Sequence[int], rounds: int) -> list[Weights]:
    """Flower's simulation with one app, whose server trains one model after the other."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client, server, found = ClientApp(), ServerApp(), list[Weights]()
    images = str(folder / "images.npz")

    @client.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        every, own = np.load(images), SITES[int(context.node_config["partition-id"])]
        rows = every["site"] == own
        pixels = scaled(torch.from_numpy(every["pixels"][rows]))
        data = torch.utils.data.TensorDataset(pixels, torch.from_numpy(every["targets"][rows]))
        loader = torch.utils.data.DataLoader(data, batch_size=LOCAL.batch_size, shuffle=True)
        module: nn.Module = Network(SmallCNN(), Form(SHAPE, CLASSES)).module
        module.load_state_dict(message.content["arrays"].to_torch_state_dict())  # type: ignore[union-attr]
        optimizer = torch.optim.Adam(module.parameters(), lr=LOCAL.lr)
        for _ in range(LOCAL.epochs):
            for batch, labels in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(batch), labels).backward()
                optimizer.step()
        content = {
            "arrays": ArrayRecord(module.state_dict()),
            "metrics": MetricRecord({"num-examples": len(data)}),
        }
        return Message(RecordDict(content), reply_to=message)

    def over(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number:  # before the first round it is 0
            (folder / _BEGUN).touch()
        return None

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        for seed in seeds:
            strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=len(SITES))
            model = ArrayRecord(dict(start(seed)))
            result = strategy.start(grid, model, num_rounds=rounds, evaluate_fn=over)
            found.append(result.arrays.to_torch_state_dict())

    backend: Any = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that `run_simulation` will go
        run_simulation(server, client, num_supernodes=len(SITES), backend_config=backend)
    return found


def work(contestant: str, folder: Path, seeds: Sequence[int], rounds: int) -> None:
    """One process of a contestant; writes the share of images that its models class rightly."""
    if contestant in ("flower", "inline"):
        engine: Engine = Flower() if contestant == "flower" else Inline()
        models = ours(engine, folder, len(seeds), rounds)
    else:
        with tempfile.TemporaryDirectory() as home, cluster.environment(Path(home)):
            models = stock(folder, seeds, rounds)
    (folder / "right.json").write_text(json.dumps(right(models, folder)))


# ------------------------------------------------------------------------------------------------ measuring


def measured(contestant: str, folder: Path, procedures: int, rounds: int) -> Outcome:
    """One contestant, start by start."""
    starts = (
        [[seed] for seed in range(procedures)] if contestant == "one app each" else [list(range(procedures))]
    )
    shares, began, cpu, start = list[float](), time.monotonic(), 0.0, 0.0
    for seeds in starts:
        words = [contestant, str(folder), json.dumps(seeds), str(rounds)]
        first, all_of_it = _processes(words, folder / _BEGUN)
        start, cpu = start + first, cpu + all_of_it
        shares.append(json.loads((folder / "right.json").read_text()))
    others = procedures * rounds - len(starts)
    each = (cpu - start) / others if others else math.nan
    return Outcome(cpu, time.monotonic() - began, start, each, statistics.mean(shares))


def _processes(words: Sequence[str], begun: Path) -> tuple[float, float]:
    """CPU seconds of a start of this program and of all that carry its mark: until a file is there, and in all.

    Raises:
        SystemExit: it failed; what it printed is shown.
    """
    for _ in range(_TRIES):
        begun.unlink(missing_ok=True)
        if (found := _watched(words, begun)) is not None:
            return found
        print(f"{words[0]}: no round within {_PATIENCE:.0f} s, started again", file=sys.stderr)
    raise SystemExit(f"{words[0]}: does not start on this machine")


def _watched(words: Sequence[str], begun: Path) -> tuple[float, float] | None:
    """One start of it; None if it does not begin to work: Ray gives up soon on a busy machine, and Flower waits on.

    Raises:
        SystemExit: it failed; what it printed is shown.
    """
    name, value = _MARK, str(time.monotonic_ns())
    known, seconds = dict[int, bool](), dict[int, float]()
    first, began = None, time.monotonic()
    with tempfile.TemporaryFile() as printed:
        command = [sys.executable, __file__, "--work", *words]
        # Without SPT_NOENV Ray's processes write over their environment.
        environment = {**os.environ, name: value, "SPT_NOENV": "1"}
        child = subprocess.Popen(command, env=environment, stdout=printed, stderr=printed)
        while child.poll() is None:
            for process in psutil.process_iter():
                _look(process, f"{name}={value}", known, seconds)
            if first is None and begun.exists():
                first = sum(seconds.values())
            if first is None and time.monotonic() - began > _PATIENCE:
                child.kill()
            time.sleep(_LOOK)
        scratch.end([process for process in psutil.process_iter() if known.get(process.pid)], timeout=5.0)
        if first is None and child.returncode == -signal.SIGKILL:
            return None
        if child.returncode:
            printed.seek(0)
            raise SystemExit(f"{' '.join(command)}: exit {child.returncode}\n{printed.read().decode()}")
    total = sum(seconds.values())
    return (total if first is None else first), total


def _look(process: psutil.Process, mark: str, known: dict[int, bool], seconds: dict[int, float]) -> None:
    try:
        if process.pid not in known:
            known[process.pid] = mark.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(
                b"\0"
            )
        if known[process.pid]:
            used = process.cpu_times()
            seconds[process.pid] = used.user + used.system
    except (psutil.Error, OSError):  # ended meanwhile, or another user's
        return


def show(turns: Sequence[dict[str, Outcome]]) -> None:
    """Medians, and ratios taken within a turn."""
    heads = ("CPU s", "start, CPU s", "a round, CPU s", "wall s", "CPU, of `flower`", "right")
    print(f"| contestant | {' | '.join(heads)} |\n{'|---' * (len(heads) + 1)}|")
    for name in CONTESTANTS:
        found = [turn[name] for turn in turns]
        cells = [
            _spread([one.cpu for one in found]),
            _spread([one.start for one in found]),
            _spread([one.round for one in found], 2),
            _spread([one.wall for one in found]),
            _spread([turn[name].cpu / turn["flower"].cpu for turn in turns], 2),
            _spread([one.right for one in found], 2),
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _spread(values: Sequence[float], digits: int = 1) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run them by turns and print the table."""
    parser = argparse.ArgumentParser(
        description="Many federated averagings, on Flower alone and on this driver."
    )
    parser.add_argument("--procedures", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two procedures of one round, once")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.work:
        contestant, folder, seeds, rounds = asked.work
        work(contestant, Path(folder), json.loads(seeds), int(rounds))
        return
    procedures, rounds, count = (2, 1, 1) if asked.quick else (asked.procedures, asked.rounds, asked.turns)
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        turns = list[dict[str, Outcome]]()
        for number in range(count):
            order: Sequence[str] = CONTESTANTS if number % 2 == 0 else CONTESTANTS[::-1]
            turns.append({})
            for one in order:
                load = os.getloadavg()[0]
                turns[-1][one] = measured(one, Path(name), procedures, rounds)
                print(
                    f"turn {number + 1}: {one}: {turns[-1][one].wall:.1f} s (load {load:.1f})",
                    file=sys.stderr,
                )
        show(turns)


if __name__ == "__main__":
    main()
