"""A driver to run on a machine: hospitals' models are averaged again and again, until it is told to stop.

    python -m tests.cluster.averaging FOLDER ADDRESS WORKERS [--wait S] [--timeout S]

In ``FOLDER`` it finds ``federation``, and ``stop`` once it is to stop. It prints a line for every answer and for every
average, of which it says what it came to: whoever averages here with engine inline comes to the same.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedunlearn.core import FedunlearnError, Form, LocalTraining, Select, Weights
from fedunlearn.federation.drive import drive
from fedunlearn.federation.engines import Answer, Ask, Link
from fedunlearn.federation.engines.flower import Flower
from fedunlearn.federation.engines.inline import Inline
from fedunlearn.federation.engines.machines import Machine
from fedunlearn.federation.jobs import Job, Label
from fedunlearn.federation.procedures import fedavg
from fedunlearn.learning.models import SmallCNN, initial_weights
from sites.hospital import Federation

SITES = ("east", "north", "west")
AT_ONCE = 8
"""Averages under way; three tasks of each can be done at once."""


def write(folder: Path) -> None:
    """Three hospitals with 40 images each, in ``folder``."""
    rng, number = np.random.default_rng(0), np.arange(120)
    pixels = rng.integers(0, 256, (120, 3, 28, 28), dtype=np.uint8)
    targets, site = rng.integers(0, 4, 120), np.array(SITES)[number % 3]
    folder.mkdir(parents=True)
    Federation.write(folder, pixels, targets, site, np.full(120, "train"), {}, SmallCNN(), 4)


def averages(link: Link, seeds: Sequence[int], epochs: int = 10) -> dict[int, str]:
    """What federated averaging with each of those seeds comes to."""
    start, found = initial_weights(SmallCNN(), Form((3, 28, 28), 4), seed=1), dict[int, str]()

    def job(seed: int) -> Job[Weights]:
        def then(weights: Weights) -> tuple[()]:
            content = b"".join(w.numpy().tobytes() for w in weights.values())
            found[seed] = hashlib.sha256(content).hexdigest()
            return ()

        training = fedavg(start, SITES, Select(), LocalTraining(epochs=epochs), range(2), seed)
        return Job(Label("original", "", "original", seed), training, then)

    drive([job(seed) for seed in seeds], link)
    return found


def inline(folder: Path, seeds: Sequence[int] = range(AT_ONCE)) -> dict[int, str]:
    """Some averages, by default the first that a run comes to, as engine inline comes to them."""
    return Inline(workers=2).run(folder / "federation", lambda link: averages(link, seeds))


@dataclass(frozen=True)
class _Told:
    """A link that prints answers as they come."""

    link: Link

    @property
    def machines(self) -> Sequence[Machine]:
        return self.link.machines

    def submit(self, asks: Sequence[Ask]) -> None:
        self.link.submit(asks)

    def collect(self) -> Sequence[Answer]:
        answers = self.link.collect()
        for answer in answers:
            print(f"answer {time.monotonic():.3f} {answer.machine or '-'} {answer.error or 'ok'}", flush=True)
        return answers


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("address")
    parser.add_argument("workers", type=int)
    parser.add_argument("--wait", type=float, default=120.0)
    parser.add_argument("--timeout", type=float, default=20.0)
    given = parser.parse_args()

    def body(link: Link) -> None:
        told = _Told(link)
        for first in itertools.count(step=AT_ONCE):
            for seed, digest in averages(told, range(first, first + AT_ONCE)).items():
                print(f"average {seed} {digest}", flush=True)
            if (given.folder / "stop").exists():
                return

    engine = Flower(
        given.workers or None,
        address=given.address,
        timeout=given.timeout,
        wait=given.wait,
        tell=lambda text: print(f"told {text}", flush=True),
    )
    try:
        engine.run(given.folder / "federation", body)
    except FedunlearnError as error:
        print(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
