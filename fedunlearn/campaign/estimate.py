"""How much disk and memory a run will take, before any of it is taken.

The parts are upper bounds of what is there at once, from sizes alone: how many models, of how many bytes, from how many
hospitals. What cannot fit is refused, with the numbers, before anything is trained.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.references import LESSONS
from fedunlearn.campaign.timeline import chains, moments
from fedunlearn.core import Every, InputError, Last
from fedunlearn.federation.history import union
from fedunlearn.federation.journal import IN_MEMORY
from fedunlearn.scenario import Scenario

IN_FLIGHT = 2**28
"""Bytes of models that procedures under way may hold together, each about `_MODELS` of them."""
_MODELS = 4
_FEWEST = 16  # procedures under way, however large their models: enough to keep workers busy
_PROCESS = 600 * 2**20  # of memory that a process takes before it has any image or model
_GATHERED = 256 * 2**20  # of images that a worker keeps at hand (`sites.hospital`)


@dataclass(frozen=True)
class Estimate:
    """What a run takes, in bytes, by what takes it.

    Attributes:
        disk: in the run folder, at the most while it lasts.
        memory: of all processes on one machine.
    """

    disk: Mapping[str, int]
    memory: Mapping[str, int]

    def __str__(self) -> str:
        return f"needs about {_told(self.disk)} of disk and {_told(self.memory)} of memory"


def estimate(scenario: Scenario, cohort: Cohort) -> Estimate:
    """What a run of ``scenario`` takes."""
    size, hospitals, seeds = model_bytes(scenario, cohort), len(cohort.sites), len(scenario.seeds)
    models, procedures = _models(scenario)
    at_once = min(procedures * seeds, most_under_way(size))
    images = cohort.pixels.nbytes + cohort.targets.size * (1 if cohort.classes < 256 else 2)
    columns = cohort.classes if cohort.targets.ndim == 1 else 4 * cohort.classes + 3
    engine = scenario.engine
    own = engine.name == "flower" and engine.address is None  # workers are processes of this machine
    workers = (engine.workers or psutil.cpu_count() or 1) if own else 0
    return Estimate(
        disk={
            "history": seeds * _history(scenario, hospitals) * size,
            "models": seeds * models * size,
            "signals": seeds * models * len(cohort.site) * columns * 4,
            "images while it runs": images,
            "journal": (2 + hospitals) * at_once * size,
        },
        memory={
            "processes": (1 + workers) * _PROCESS,
            "images": cohort.pixels.nbytes + (1 + workers) * min(_GATHERED, 2 * images),
            "models under way": _MODELS * at_once * size + IN_MEMORY,
        },
    )


def require_room(needed: Estimate, out: Path) -> None:
    """Make sure that a run fits.

    Raises:
        InputError: it does not; tells what there is, and what to do.
    """
    folder = next(
        (parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists()), Path("/")
    )
    disk, memory = shutil.disk_usage(folder).free, psutil.virtual_memory().available
    problems = []
    if sum(needed.disk.values()) > disk:
        problems.append(
            f"needs about {_told(needed.disk)} of disk, but {folder} has {_size(disk)} free: choose a folder on "
            "another disk with --out, or fewer seeds, strategies or rounds"
        )
    if (wanted := sum(needed.memory.values())) > memory:
        problems.append(
            f"needs about {_told(needed.memory)} of memory, but {_size(memory)} are available: choose fewer images, "
            f"a smaller model or fewer workers (missing: {_size(wanted - memory)})"
        )
    if problems:
        raise InputError("\n".join(problems))


def model_bytes(scenario: Scenario, cohort: Cohort) -> int:
    """The size of one model."""
    with torch.device("meta"):
        state = scenario.model.build(cohort.shape, cohort.classes).state_dict()
    return sum(x.numel() * x.element_size() for x in state.values())


def most_under_way(size: int) -> int:
    """How many procedures may be under way at once, of models of ``size`` bytes."""
    return max(_FEWEST, IN_FLIGHT // (_MODELS * size))


def _models(scenario: Scenario) -> tuple[int, int]:
    """For one seed, how many models are kept, and how many procedures lead to them."""
    models = procedures = 1
    for chain in chains(scenario):
        at = len(moments(scenario, chain))
        plans = sum(all(step.request.id in plan.requests for step in chain) for plan in scenario.strategies)
        early = chain[0].round < scenario.training.rounds  # then the original of that moment is kept too
        models += at + plans * at * (1 + len(scenario.horizons)) + early
        procedures += at + plans * at
    return models, procedures


def _history(scenario: Scenario, hospitals: int) -> int:
    """For one seed, of how many models' size the history is that the server keeps."""
    needs, rounds = (
        (*union(plan.strategy.needs for plan in scenario.strategies), LESSONS),
        scenario.training.rounds,
    )
    updates = {
        t for need in needs if isinstance(need.updates, Every) for t in range(rounds) if t in need.updates
    }
    checkpoints = {t for need in needs if need.checkpoints for t in range(rounds) if t in need.checkpoints}
    last = any(isinstance(need.updates, Last) for need in needs)
    sums = 2 * hospitals if any(need.cumulative for need in needs) else 0
    return len(checkpoints) + hospitals * (len(updates) + 2 * last) + sums


def _told(parts: Mapping[str, int]) -> str:
    """A sum, and what most of it is."""
    largest = sorted(parts.items(), key=lambda part: -part[1])[:3]
    return f"{_size(sum(parts.values()))} ({', '.join(f'{name} {_size(part)}' for name, part in largest)})"


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(number / 1e6, 1):.0f} MB"
