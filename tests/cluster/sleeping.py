"""A driver whose hospitals only sleep and send weights back: what an answer costs the driver itself.

python -m tests.cluster.sleeping FOLDER ADDRESS WORKERS --hospitals 10,100 --procedures 1,8 --megabytes 0.4,4
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fedunlearn import guests
from fedunlearn.core import Procedure, Task, Weights
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Ask, Link
from fedunlearn.federation.engines.flower import Flower
from fedunlearn.federation.jobs import Job, Label
from fedunlearn.federation.procedures import mean
from fedunlearn.learning.models import SmallCNN
from sites.hospital import Federation

SLEEP = """
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fedunlearn.core import Local, Reply
from torch import Tensor
@dataclass(frozen=True)
class Sleep:
    weights: Mapping[str, Tensor]
    seconds: float
    def __call__(self, local: Local) -> Reply:
        time.sleep(self.seconds)
        return Reply(self.weights, 1, {})
"""
ROUNDS = 2


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("address")
    parser.add_argument("workers", type=int)
    parser.add_argument("--seconds", type=float, default=1.0)
    for name in ("hospitals", "procedures", "megabytes"):
        parser.add_argument(f"--{name}", type=numbers)
    given = parser.parse_args()
    sites = [f"h{number:03}" for number in range(int(max(given.hospitals)))]
    pixels, count = np.zeros((len(sites), 3, 28, 28), np.uint8), len(sites)
    there = given.folder / "sleepers"
    there.mkdir()
    Federation.write(
        there, pixels, np.zeros(count, int), np.array(sites), np.full(count, "train"), {}, SmallCNN(), 4
    )
    sleep = vars(guests.admit(guests.File("sleep.py", SLEEP.encode())))["Sleep"]

    def body(link: Link) -> None:
        # All are there, and have loaded what they need.
        link.submit([Ask(-n, sites[0], sleep({}, 5.0)) for n in range(1, given.workers + 1)])
        answered = 0
        while answered < given.workers:
            answered += len(link.collect())
        for megabytes, hospitals, procedures in itertools.product(
            given.megabytes, map(int, given.hospitals), map(int, given.procedures)
        ):
            weights = {"weight": torch.zeros(int(megabytes * 1e6 / 4))}
            labels = [Label("original", "", "original", seed) for seed in range(procedures)]
            jobs = [Job(label, rounds(weights, sites[:hospitals], sleep, given.seconds)) for label in labels]
            wall, cpu = time.perf_counter(), time.process_time()
            drive(jobs, link)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            answers = ROUNDS * hospitals * procedures
            busy = answers * given.seconds / wall / given.workers
            print(
                f"{given.workers:7} {hospitals:9} {procedures:10} {megabytes:4.1f} {answers / wall:9.1f} "
                f"{busy:5.2f} {1000 * cpu / answers:10.1f}",
                flush=True,
            )

    Flower(given.workers, address=given.address, timeout=300.0).run(there, body)


def numbers(text: str) -> list[float]:
    """Of "0.4,4"."""
    return [float(number) for number in text.split(",")]


def rounds(
    weights: Weights, sites: list[str], sleep: Callable[..., Task], seconds: float
) -> Procedure[Weights]:
    """Averages of what hospitals send back."""
    for _ in range(ROUNDS):
        weights = mean((yield {site: sleep(weights, seconds) for site in sites}))
    return weights


if __name__ == "__main__":
    main()
