"""What shadow federations cost: those of `evaluation: {shadows: 64}`, single training runs, and a hand-written loop.

    python benchmarks/shadow_farm.py            64 shadows of scenarios/3hosp.yaml, four minutes on one free core
    python benchmarks/shadow_farm.py --quick    8 of them

Three contestants train on the same halves from the same weights on the same batches, each in a process of its own:

    farm     `Shadows` through `drive` and engine inline with one worker, many at once: all that a run does for them,
             from storing the hospitals' images to the answers for all images in the run folder and in the cache
    single   one training run after another, `fedavg` through the same engine, on a federation that holds that half
             and nothing else; only training counts, neither storing images nor answers
    by hand  a plain loop with the engine's own step and nothing around it, images in memory; only training counts

Only CPU time counts. Each turn is eight shadows; contestants take turns, in reverse order every other time, and every
ratio is taken within one turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.origins import Environment
from fedunlearn.campaign.shadows import Shadows
from fedunlearn.core import Select, Weights, derive
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.engines.machines import here
from fedunlearn.federation.jobs import Job, Label
from fedunlearn.federation.ledger import Ledger
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.local import scaled
from fedunlearn.learning.models import Network, initial_weights
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scenario import Evaluation, Scenario
from sites.hospital import Federation

SCENARIO = Path(__file__).resolve().parents[1] / "scenarios" / "3hosp.yaml"
CONTESTANTS = ("farm", "single", "by hand")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Turn:
    """Some shadows, and a folder of the turn's own."""

    scenario: Scenario
    cohort: Cohort
    folder: Path

    @property
    def seeds(self) -> list[int]:
        """The shadows' training seeds."""
        return [derive(self.scenario.seed, "shadow", i) for i in range(self.scenario.evaluation.shadows)]

    def initial(self, seed: int) -> dict[str, Tensor]:
        """Where a shadow starts."""
        cohort = self.cohort
        return initial_weights(self.scenario.model, cohort.form, derive(seed, "initial"))


def turns(count: int, size: int) -> Iterator[Turn]:
    """``count`` turns of ``size`` shadows, each of halves that no other turn has."""
    config = dataclasses.replace(scenarios.read(SCENARIO), evaluation=Evaluation(shadows=count * size))
    cohort = gather(config, Path("."))
    for number in range(count):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            few = dataclasses.replace(config, evaluation=Evaluation(size, folder / "cache"))
            members = cohort.members[:, number * size : (number + 1) * size]
            yield Turn(few, dataclasses.replace(cohort, members=members), folder)


# ---------------------------------------------------------------- contestants: seconds and answers (M, N, C)


def farm(turn: Turn) -> tuple[float, Array]:
    began, ledger = time.process_time(), Ledger()
    shadows = Shadows(turn.scenario, turn.cohort, Environment(here(), (here(),)))
    run = RunFolder.create(turn.folder / "run")
    turn.cohort.store(run.scratch / "federation", turn.scenario.model)
    shadows.fetch(run, print)
    Inline(workers=1).run(run.scratch / "federation", lambda link: drive(shadows.jobs(run), link, [ledger]))
    seconds = time.process_time() - began
    return seconds, np.stack([run.read_table(f"shadows/{i}.parquet") for i in range(shadows.count)])


def single(turn: Turn) -> tuple[float, Array]:
    seconds, answers, cohort = 0.0, [], turn.cohort
    for number, seed in enumerate(turn.seeds):
        inside, found, folder = cohort.members[:, number], list[Weights](), turn.folder / str(number)
        images = cohort.pixels[inside], cohort.targets[inside], cohort.site[inside], cohort.split[inside]
        Federation.write(folder, *images, {}, turn.scenario.model, cohort.classes)
        began, training, ledger = time.process_time(), turn.scenario.training, Ledger()
        rounds = fedavg(
            turn.initial(seed), cohort.sites, Select(), training.local, range(training.rounds), seed
        )
        job = Job(
            Label("original", "", "original", seed), rounds, lambda new, found=found: found.append(new) or ()
        )
        Inline(workers=1).run(folder, lambda link, job=job, ledger=ledger: drive([job], link, [ledger]))
        seconds += time.process_time() - began
        answers.append(_answers(turn, found[0]))
    return seconds, np.stack(answers)


def by_hand(turn: Turn) -> tuple[float, Array]:
    seconds, answers = 0.0, []
    for number, seed in enumerate(turn.seeds):
        began = time.process_time()
        weights = _train(turn, turn.cohort.members[:, number], seed)
        seconds += time.process_time() - began
        answers.append(_answers(turn, weights))
    return seconds, np.stack(answers)


def _train(turn: Turn, inside: Array, seed: int) -> dict[str, Tensor]:
    """Federated averaging, hospital after hospital."""
    cohort, training, weights = turn.cohort, turn.scenario.training, turn.initial(seed)
    masks = {site: inside & (cohort.site == site) for site in cohort.sites}
    data = {
        s: (torch.from_numpy(cohort.pixels[m]), torch.from_numpy(cohort.targets[m])) for s, m in masks.items()
    }
    shares = {site: float(mask.sum() / inside.sum()) for site, mask in masks.items()}
    net = turn.scenario.model.build(cohort.form).train()
    for number in range(training.rounds):
        mean = {name: torch.zeros_like(value) for name, value in weights.items()}
        for site, (pixels, labels) in data.items():
            net.load_state_dict(weights)
            optimizer = torch.optim.Adam(net.parameters(), training.local.lr, fused=True)
            generator = torch.Generator().manual_seed(derive(seed, "train", site, number))
            for _ in range(training.local.epochs):
                for pick in torch.randperm(len(labels), generator=generator).split(training.local.batch_size):
                    optimizer.zero_grad()
                    outputs = net(scaled(pixels.index_select(0, pick)))
                    cross_entropy(outputs, labels.index_select(0, pick)).backward()
                    optimizer.step()
            for name, value in net.state_dict().items():
                mean[name].add_(value, alpha=shares[site])
        weights = mean
    return weights


def _answers(turn: Turn, weights: Weights) -> Array:
    """(N, C) what a model answers for all images; not part of what is measured."""
    network = Network(turn.scenario.model, turn.cohort.form)
    network.load(weights)
    with torch.inference_mode():
        answers: Array = network.module.eval()(scaled(torch.from_numpy(turn.cohort.pixels))).numpy()
    return answers


# ------------------------------------------------------------------------------------------------- taking turns


def contest(name: str, count: int, size: int, pipe: Connection) -> None:
    """A contestant's process: one turn after another when told to."""
    torch.set_num_threads(1)
    run: Callable[[Turn], tuple[float, Array]] = {"farm": farm, "single": single, "by hand": by_hand}[name]
    for turn in turns(count, size):
        pipe.recv()
        pipe.send(run(turn))


def measure(count: int, size: int) -> tuple[dict[str, list[float]], float]:
    """CPU seconds of every turn, and the largest difference of an answer from the farm's."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in CONTESTANTS:
        pipes[name], theirs = context.Pipe()
        context.Process(target=contest, args=(name, count, size, theirs), daemon=True).start()
    seconds, apart = {name: list[float]() for name in CONTESTANTS}, 0.0
    for number in range(count):
        answers = {}
        for name in CONTESTANTS if number % 2 == 0 else reversed(CONTESTANTS):
            pipes[name].send(None)
            spent, answers[name] = pipes[name].recv()
            seconds[name].append(spent)
        apart = max(apart, *(float(np.abs(answers["farm"] - other).max()) for other in answers.values()))
        print(
            f"turn {number + 1} of {count}:",
            {name: round(s[-1], 1) for name, s in seconds.items()},
            flush=True,
        )
    return seconds, apart


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of shadow federations, in ratios")
    parser.add_argument("--quick", action="store_true", help="8 shadows instead of 64")
    count, size = (2, 4) if parser.parse_args().quick else (8, 8)
    seconds, apart = measure(count, size)
    print(
        f"\ntorch {torch.__version__}; CPU time of {count * size} shadows; answers apart by at most {apart:.0e}\n"
    )
    print("| | all | median of turns | best turns |\n|---|---|---|---|")
    for other in CONTESTANTS[1:]:
        ours, theirs = seconds["farm"], seconds[other]
        median = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        cells = (sum(ours) / sum(theirs), median, min(ours) / min(theirs))
        print(f"| farm / {other} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
