"""What a federated round costs: fedunlearn's, a hand-written loop's, and pfl's (Apple, arXiv 2404.06430).

    python benchmarks/federated_round.py            all cases, about ten minutes on two busy cores
    python benchmarks/federated_round.py --quick    one small case, to see that all of it works
    pip install -c constraints.txt -e .[bench]      brings pfl; without it its columns stay empty

Five contestants do the same round from the same weights on the same batches, each in a process of its own, so that
none lives on memory another has warmed up:

    engine   `fedavg` through `drive` and engine inline with one worker: what a scenario runs
    tuned    a plain loop with the engine's own step (uint8 images, fused optimizer) and nothing around it
    stacked  the same as engine for 8 seeds at once, `training: {stack: 8}`, per seed
    naive    a plain loop as one first writes it: float images, torch's default optimizer
    pfl      SimulatedBackend and FederatedAveraging: float images, torch's default optimizer

Only CPU time counts (all threads; each contestant has one torch thread), since others may use the machine. They take
turns, in reverse order every other time, and every ratio is taken within one such turn.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedunlearn.core import Form, LocalTraining, Select, Weights, derive
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Link
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.jobs import Job, Label
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.local import scaled
from fedunlearn.learning.models import SmallCNN, initial_weights
from sites.hospital import Federation

SHAPE, CLASSES, SEED, LR = (3, 28, 28), 8, 7, 0.002
CONTESTANTS = ("engine", "tuned", "stacked", "naive", "pfl")
STACKED = 8  # seeds
RATIOS = (("engine", "tuned"), ("stacked", "engine"), ("engine", "pfl"), ("stacked", "pfl"), ("naive", "pfl"))


@dataclass(frozen=True)
class Case:
    """One kind of round: so many hospitals with so many images each, one epoch in batches."""

    hospitals: int
    images: int
    batch: int
    optimizer: str

    @property
    def steps(self) -> int:
        """Optimizer steps in the round."""
        return self.hospitals * -(-self.images // self.batch)

    @property
    def training(self) -> LocalTraining:
        """One hospital's work."""
        return LocalTraining(batch_size=self.batch, optimizer=self.optimizer, lr=LR)  # type: ignore[arg-type]  # one of its names

    @property
    def sites(self) -> list[str]:
        """The hospitals' names."""
        return [f"h{number:03}" for number in range(self.hospitals)]

    def data(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Pixels (K, N, C, H, W) uint8 and labels (K, N): noise, since their values cost nothing."""
        rng, size = np.random.default_rng(SEED), (self.hospitals, self.images)
        return rng.integers(0, 256, (*size, *SHAPE), dtype=np.uint8), rng.integers(0, CLASSES, size)

    def order(self, site: str, seed: int = SEED) -> Tensor:
        """The order in which `fit` goes through a hospital's images in round 0."""
        generator = torch.Generator().manual_seed(derive(seed, "train", site, 0))
        return torch.randperm(self.images, generator=generator)

    def initial(self, seed: int = SEED) -> dict[str, Tensor]:
        """Where every round starts."""
        return initial_weights(SmallCNN(), Form(SHAPE, CLASSES), seed)


SIZES = ((3, 360, 32), (3, 360, 8), (30, 64, 32), (100, 32, 32))
CASES = [Case(*size, optimizer) for size in SIZES for optimizer in ("adam", "sgd")]
QUICK = [Case(2, 20, 16, "adam")]


# ---------------------------------------------------------------------------------------- in a contestant's process


@dataclass
class Clock:
    """A contestant's end of the pipe: it waits for its turn, and tells what its turn cost."""

    pipe: Connection
    began: tuple[float, int] = (0.0, 0)
    cost: tuple[float, int] = (0.0, 0)

    def wait(self) -> bool:
        """Wait for the next turn; False when there is none."""
        go = bool(self.pipe.recv())
        self.began = self._now()
        return go

    def stop(self, rounds: int = 1) -> None:
        """So many rounds are done: what one of them cost."""
        seconds, faults = self._now()
        self.cost = (seconds - self.began[0]) / rounds, (faults - self.began[1]) // rounds

    def tell(self, weights: Weights) -> None:
        """Report the round's cost and its result."""
        flat = torch.cat([weights[name].detach().reshape(-1) for name in sorted(weights)])
        self.pipe.send((*self.cost, flat.numpy()))

    def turns(self, run: Callable[[], Weights], rounds: int = 1) -> None:
        """Run one round in each turn, or so many at once."""
        while self.wait():
            weights = run()
            self.stop(rounds)
            self.tell(weights)

    @staticmethod
    def _now() -> tuple[float, int]:
        return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def contest(name: str, case: Case, pipe: Connection) -> None:
    """A contestant's process."""
    torch.set_num_threads(1)
    contestants = {"engine": engine, "tuned": tuned, "stacked": stacked, "naive": naive, "pfl": pfl}
    contestants[name](case, Clock(pipe))


def engine(case: Case, clock: Clock, seeds: range = range(SEED, SEED + 1)) -> None:
    """The round of each seed, as many in a stack."""
    pixels, labels = case.data()
    site = np.repeat(case.sites, case.images)
    split = np.full(site.shape, "train")
    flat = pixels.reshape(-1, *SHAPE), labels.reshape(-1)
    training = replace(case.training, stack=len(seeds))
    initial, results = {seed: case.initial(seed) for seed in seeds}, dict[int, Weights]()

    def job(seed: int) -> Job[Weights]:
        def then(weights: Weights) -> tuple[()]:
            results[seed] = weights
            return ()

        rounds = fedavg(initial[seed], case.sites, Select(), training, range(1), seed)
        return Job(Label("original", "", "original", seed), rounds, then)

    def body(link: Link) -> None:
        def one() -> Weights:
            drive([job(seed) for seed in seeds], link)
            return results[SEED]

        clock.turns(one, len(seeds))

    with tempfile.TemporaryDirectory() as folder:
        Federation.write(Path(folder), *flat, site, split, {}, SmallCNN(), CLASSES)
        Inline(workers=1).run(Path(folder), body)


def stacked(case: Case, clock: Clock) -> None:
    engine(case, clock, range(SEED, SEED + STACKED))


def tuned(case: Case, clock: Clock) -> None:
    pixels, labels = (torch.from_numpy(array) for array in case.data())
    make = {"adam": lambda p: torch.optim.Adam(p, LR, fused=True), "sgd": _fused_sgd}[case.optimizer]
    orders = [case.order(site) for site in case.sites]

    def batches(k: int) -> Iterator[tuple[Tensor, Tensor]]:
        for pick in orders[k].split(case.batch):
            yield scaled(pixels[k].index_select(0, pick)), labels[k].index_select(0, pick)

    clock.turns(_plain(case, batches, make))


def naive(case: Case, clock: Clock) -> None:
    floats = _floats(case)
    make = {"adam": lambda p: torch.optim.Adam(p, LR), "sgd": _sgd}[case.optimizer]
    cut = [list(zip(*(t.split(case.batch) for t in pair), strict=True)) for pair in floats]
    clock.turns(_plain(case, lambda k: iter(cut[k]), make))


def pfl(case: Case, clock: Clock) -> None:
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = SmallCNN().build(Form(SHAPE, CLASSES))
            self.net.load_state_dict(case.initial())

        def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
            return cross_entropy(self.net(inputs), targets)

        def metrics(self, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
            return {}

    class Turns(TrainingProcessCallback):
        def after_central_iteration(
            self, aggregate_metrics: Any, model: Any, *, central_iteration: int
        ) -> Any:
            clock.stop()
            state = {name: value.clone() for name, value in net.net.state_dict().items()}
            net.net.load_state_dict(case.initial())
            clock.tell(state)
            return not clock.wait(), Metrics()

    local = {"adam": torch.optim.Adam, "sgd": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)}[
        case.optimizer
    ]
    net, users, often = Net(), [Dataset(pair) for pair in _floats(case)], 10**9
    turn = iter(range(often))
    data = FederatedDataset(lambda user: users[user], lambda: next(turn) % case.hospitals)
    model = PyTorchModel(net, local, torch.optim.SGD(net.parameters(), 1.0))
    training = NNTrainHyperParams(local_num_epochs=1, local_learning_rate=LR, local_batch_size=case.batch)
    clock.wait()
    rounds, backend = NNAlgorithmParams(often, often, case.hospitals, None), SimulatedBackend(data, data)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints metrics every round
        FederatedAveraging().run(rounds, backend, model, training, callbacks=[Turns()])


def _plain(
    case: Case, batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]], optimizer: Callable[[Any], Any]
) -> Callable[[], Weights]:
    """Federated averaging by hand, hospital after hospital."""
    net, initial = SmallCNN().build(Form(SHAPE, CLASSES)).train(), case.initial()

    def one() -> Weights:
        mean = {name: torch.zeros_like(value) for name, value in initial.items()}
        for k in range(case.hospitals):
            net.load_state_dict(initial)
            steps = optimizer(net.parameters())
            for inputs, targets in batches(k):
                steps.zero_grad()
                cross_entropy(net(inputs), targets).backward()
                steps.step()
            with torch.no_grad():
                for name, value in net.state_dict().items():
                    mean[name].add_(value, alpha=1 / case.hospitals)
        return mean

    return one


def _floats(case: Case) -> list[tuple[Tensor, Tensor]]:
    """Every hospital's images scaled and in the order of the round, once and for all."""
    pixels, labels = (torch.from_numpy(array) for array in case.data())
    orders = [case.order(site) for site in case.sites]
    return [(scaled(x[order]), y[order]) for x, y, order in zip(pixels, labels, orders, strict=True)]


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, LR, momentum=0.9)


def _fused_sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, LR, momentum=0.9, fused=True)


# --------------------------------------------------------------------------------------------------- taking turns


@dataclass
class Score:
    """What was measured of one case: seconds and page faults of each turn, the largest difference of results."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    faults: dict[str, list[int]] = field(default_factory=dict)
    apart: dict[str, float] = field(default_factory=dict)

    def ratio(self, a: str, b: str) -> str:
        """CPU time of ``a`` in units of ``b``'s: the median of the turns' ratios, and the ratio of the best turns."""
        if b not in self.seconds:
            return "–"
        pairs = zip(self.seconds[a], self.seconds[b], strict=True)
        return f"{statistics.median(x / y for x, y in pairs):.2f} ({min(self.seconds[a]) / min(self.seconds[b]):.2f})"


def measure(case: Case, names: list[str], starts: int, turns: int) -> Score:
    """Start all contestants ``starts`` times and give them ``turns`` turns each after one to warm up."""
    score = Score({name: [] for name in names}, {name: [] for name in names})
    for _ in range(starts):
        for name, (seconds, faults, apart) in _contest(case, names, turns).items():
            score.seconds[name] += seconds
            score.faults[name] += faults
            score.apart[name] = max(apart, score.apart.get(name, 0.0))
    return score


def _contest(case: Case, names: list[str], turns: int) -> dict[str, tuple[list[float], list[int], float]]:
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in names:
        pipes[name], theirs = context.Pipe()
        # By its process's name pfl tells whether it may start, or is imported in a DataLoader's worker.
        process = context.Process(target=contest, args=(name, case, theirs), name="MainProcess", daemon=True)
        processes.append(process)
        processes[-1].start()
        theirs.close()
    told: dict[str, list[Any]] = {name: [] for name in names}
    for turn in range(turns + 1):
        for name in names if turn % 2 else reversed(names):
            pipes[name].send(True)
            told[name].append(pipes[name].recv())
    for name, process in zip(names, processes, strict=True):
        pipes[name].send(False)
        process.join()
    reference = told["naive"][0][2]
    return {
        name: ([s for s, _, _ in rest], [f for _, f, _ in rest], float(abs(first[2] - reference).max()))
        for name, (first, *rest) in told.items()
    }


def row(case: Case, score: Score, names: list[str]) -> list[str]:
    """A line of the table."""
    milliseconds = (statistics.median(score.seconds[name]) / case.steps * 1e3 for name in names)
    faults = (statistics.median(score.faults[name]) / case.steps for name in names)
    return [
        f"{case.hospitals} x {case.steps // case.hospitals} x {case.batch}, {case.optimizer}",
        *(score.ratio(a, b) for a, b in RATIOS),
        " / ".join(f"{value:.1f}" for value in milliseconds),
        " / ".join(f"{value:.0f}" for value in faults),
        f"{max(score.apart.values()):.0e}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of a federated round, in ratios: median (best)")
    parser.add_argument("--quick", action="store_true", help="one small case, to see that all of it works")
    parser.add_argument("--cases", type=int, nargs="*", help="only these rows, from 0")
    asked = parser.parse_args()
    starts, turns, cases = (1, 1, QUICK) if asked.quick else (2, 7, CASES)
    names = [name for name in CONTESTANTS if name != "pfl" or importlib.util.find_spec("pfl")]
    if "pfl" not in names:
        print("pfl is not installed (pip install -c constraints.txt -e .[bench]): its columns stay empty")
    print(f"torch {torch.__version__}; CPU time, {starts} x {turns} turns: median (best)\n")
    head = ["hospitals x steps x batch", *(f"{a}/{b}" for a, b in RATIOS)]
    head += [f"ms a step: {' / '.join(names)}", "page faults a step", "apart"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for case in cases if asked.cases is None else [cases[number] for number in asked.cases]:
        print(f"| {' | '.join(row(case, measure(case, names, starts, turns), names))} |", flush=True)


if __name__ == "__main__":
    main()
