"""A scenario small enough to run many times in tests, and helpers to run and compare it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.origins import Environment
from fedunlearn.federation.engines.machines import here
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.story import simulate

TINY = """\
name: tiny
seeds: [1, 2]
engine: {name: inline, workers: 2, timeout: 60}
data: {name: phantom_cells, images: 240}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 2, local_epochs: 1, batch_size: 32, optimizer: adam, lr: 0.002}
requests:
  - {id: some, site: north, patients: {count: 2, pick: random}}
  - {id: leave, site: east, whole_site: true}
strategies:
  - {name: fine_tune, rounds: 1}
  - {name: negation, recovery: {rounds: 1}}
  - {name: federaser, every: 1}
"""


def environment() -> Environment:
    """That of a run on this machine alone."""
    return Environment(here(), (here(),))


def write(folder: Path, text: str = TINY) -> Path:
    """The scenario as a file."""
    path = folder / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run(folder: Path, *overrides: str, text: str = TINY, name: str = "run") -> RunFolder:
    """Run the scenario with some values changed."""
    scenario = scenarios.read(write(folder, text), overrides)
    return simulate(scenario, folder / name, folder, Console(), quiet=True)


@contextmanager
def without_scores() -> Iterator[None]:
    """Runs in here write no scores, which take longer than the training of so small a scenario."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.story.score", lambda path, workers: (pd.DataFrame(), pd.DataFrame()))
        yield


def weight_files(run: RunFolder) -> dict[str, str]:
    """sha256 of every weights file by name."""
    files = sorted((run.path / "weights").iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file in a folder and below, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
