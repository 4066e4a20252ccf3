"""How much disk and memory a run will take, before any of it is taken.

The parts follow from sizes alone: how many models, of how many bytes, from how many hospitals. Each is about the most
that is there at once; only what strategies ask for beyond whole rounds of models is not known before they run. What
cannot fit is refused, with the numbers, before anything is trained.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

from fedunlearn import cores, weights as w
from fedunlearn.campaign import curves
from fedunlearn.campaign.activations import activations, untrained
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.copying import copied
from fedunlearn.campaign.counting import asked_rounds, cuts, extra_models, models, served, share
from fedunlearn.campaign.references import LESSONS
from fedunlearn.campaign.shadows import AT_ONCE
from fedunlearn.campaign.timeline import Moment, chains
from fedunlearn.core import IGNORED, Every, InputError, Last, Problem
from fedunlearn.federation.history import kept_bytes, union
from fedunlearn.federation.journal import IN_MEMORY
from fedunlearn.learning.copies import NUMBER
from fedunlearn.scenario import Scenario

IN_FLIGHT = 2**28
"""Bytes of models that procedures under way may hold together, each about `_MODELS` of them."""
_MODELS = 4
_FEWEST = 16  # procedures under way, however large their models: enough to keep workers busy
_PROCESS = 600 * 2**20  # of memory that this process takes before it has any image or model
_RAY = 360 * 2**20  # of memory that Ray's own processes take,
_WORKER = 320 * 2**20  # and what each of its workers does not share with others (torch 2.13, on Linux)
_GATHERED = 256 * 2**20  # of images at hand (`sites.hospital`); of more, those that are worked on
_TRAINED = 4  # models' sizes that a network under training takes: weights, gradients, two moments of Adam
_FILE = 3 * 2**12  # of a Parquet file and of the records beside it and its model, however little is in them

_CURVE = 2 * 2**12  # of a small array and the record beside it
_ID = 16  # of an image's id and a copy's number in a table

_HALF: Final = "bfloat16"
"""How updates take half of the room (`scenario.schema.HistoryConfig`)."""
_STAYING = ("weights", "signals")
"""Parts of the disk that are there as long as the run folder is."""
_REMEDIES = {
    "history": "choose fewer rounds, or leave out strategies that use stored updates (`list strategies`)",
    "own trainings of strategies": "choose fewer rounds, or leave out strategies that prepare (`list strategies`)",
    "weights": "choose fewer seeds, requests or strategies, or a smaller model",
    "signals": "choose fewer seeds, requests or strategies",
    "work under way": "choose fewer seeds, requests or strategies at a time, or a smaller model",
    "images": "choose fewer or smaller images",
    "processes": "choose fewer workers (engine.workers)",
    "networks": "choose fewer workers (engine.workers), a smaller batch or model, or set training.micro_batch",
    "models under way": "choose a smaller model",
}
"""By what takes most, what makes it less."""


@dataclass(frozen=True)
class Estimate:
    """What a run takes, in bytes, by what takes it.

    Attributes:
        disk: in the run folder, at the most while it lasts.
        memory: of all processes on one machine.
        limit: the most that history may take of the disk; None for any.
        halved: what history would take if updates were kept in 16 bits; None where they are, or there is no limit.
    """

    disk: Mapping[str, int]
    memory: Mapping[str, int]
    limit: int | None = None
    halved: int | None = None

    def __str__(self) -> str:
        return f"needs about {_told('disk', self.disk)} and {_told('memory', self.memory)}"


def estimate(scenario: Scenario, cohort: Cohort) -> Estimate:
    """What a run of ``scenario`` takes."""
    size, limit = model_bytes(scenario, cohort), scenario.history.limit
    halved = replace(scenario, history=replace(scenario.history, precision=_HALF))
    helps = limit is not None and scenario.history.precision == "float32"
    phases = _phases(scenario, cohort)
    at_once = min(max(map(len, phases)), most_under_way(size))
    traced = curves.kept(size) if curves.wanted(scenario) else 0
    asked = math.ceil(share(scenario, cohort) * len(cohort.sites))
    journal = max(_journal(phase, asked, at_once, traced) for phase in phases) * size
    return Estimate(
        disk={
            "history": len(scenario.seeds) * _history(scenario, cohort, size, asked),
            "own trainings of strategies": len(scenario.seeds) * _prepared(scenario, cohort) * size,
            "weights": (len(scenario.seeds) * models(scenario, cohort) + extra_models(scenario, cohort))
            * size,
            "signals": _signals(scenario, cohort),
            "work under way": journal,
            "images": cohort.pixels.nbytes
            + cohort.targets.size * np.min_scalar_type(max(cohort.classes, IGNORED)).itemsize
            + _companions(cohort),
        },
        memory=_memory(scenario, cohort, size, _MODELS * at_once * size + min(IN_MEMORY, journal)),
        limit=None if limit is None else int(limit * 1e9),
        halved=len(scenario.seeds) * _history(halved, cohort, size, asked) if helps else None,
    )


def of_all(needed: Sequence[Estimate]) -> Estimate:
    """What several runs take, one after another: the results of all, and the most that any takes for a time."""
    parts = {name: [one.disk[name] for one in needed] for name in needed[0].disk}
    return Estimate(
        disk={name: sum(each) if name in _STAYING else max(each) for name, each in parts.items()},
        memory=max((one.memory for one in needed), key=lambda memory: sum(memory.values())),
    )


def available_memory() -> int:
    """Bytes of memory that a run would have: what is available, and what this process has already, its images among it.

    What workers hold that came before is no part of it: ask before they come.
    """
    used = psutil.Process().memory_info()
    own = used.rss - getattr(
        used, "shared", 0
    )  # where it is told; pages of mapped files are available to all
    return psutil.virtual_memory().available + own


def require_room(
    needed: Estimate, out: Path, runs: Iterable[Path] = (), available: int | None = None
) -> None:
    """Make sure that there is room for what is ``needed`` in the folder ``out``.

    Args:
        needed: what is needed.
        out: where to write; it need not be there yet.
        runs: folders of unfinished runs that will go on: what they hold is there already.
        available: bytes of memory that there were (`available_memory`) before workers came, who are a part of what is
            needed; None to look now.

    Raises:
        InputError: there is not (`refuse`).
    """
    folder = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free + sum(map(_held, runs))
    refuse(needed, free, available_memory() if available is None else available, folder)


def refuse(needed: Estimate, free: int, available: int, folder: Path) -> None:
    """Refuse what cannot fit.

    Args:
        needed: what is needed.
        free: bytes of disk there are for it.
        available: bytes of memory there are for it.
        folder: where the disk is.

    Raises:
        InputError: it cannot; tells the numbers, what takes most, and what to do.
    """
    given = (
        ("disk", needed.disk, free, f"there is room for {_size(free)} in {folder}"),
        ("memory", needed.memory, available, f"{_size(available)} are available"),
    )
    problems = list[Problem]()
    if needed.limit is not None and (history := needed.disk["history"]) > needed.limit:
        helps = needed.halved is not None and needed.halved <= needed.limit
        half = f", write history: {{precision: {_HALF}}}" if helps else ""
        problems.append(
            Problem(
                f"the history of training would take about {_size(history)}, and history.limit is "
                f"{_size(needed.limit)}: {_REMEDIES['history']}{half}, or raise the limit"
            )
        )
    for what, parts, room, told in given:
        if sum(parts.values()) > room:
            remedy = _REMEDIES[max(parts, key=lambda name: parts[name])]
            elsewhere = ", or give a folder on another disk with --out" if what == "disk" else ""
            problems.append(Problem(f"needs about {_told(what, parts)}, but {told}: {remedy}{elsewhere}"))
    if problems:
        raise InputError(problems)


def model_bytes(scenario: Scenario, cohort: Cohort) -> int:
    """The size of one model."""
    return w.nbytes(untrained(scenario, cohort).state_dict())


def most_under_way(size: int) -> int:
    """How many procedures may be under way at once, of models of ``size`` bytes."""
    return max(_FEWEST, IN_FLIGHT // (_MODELS * size))


# ---------------------------------------------------------------------------------------------- the parts


class _Procedure(NamedTuple):
    """A procedure under way: how many rounds it has, and whether it restarts from its last model."""

    rounds: int
    restarts: bool


def _signals(scenario: Scenario, cohort: Cohort) -> int:
    """Bytes of what models answer for every image (`fedunlearn.learning.kinds`), after probes and from shadows too."""
    wanted = scenario.evaluation
    one = _answer(cohort) or 8 * (4 * cohort.classes + 3)
    answered = 1 + wanted.linear_probe + (wanted.resurgence_rounds > 0)
    own, extra = len(scenario.seeds) * models(scenario, cohort), extra_models(scenario, cohort)
    files = own * answered + extra + wanted.shadows
    measured = own + extra if curves.wanted(scenario) else 0
    return files * (len(cohort.site) * one + _FILE) + _copies(scenario, cohort) + measured * _CURVE


def _answer(cohort: Cohort) -> int:
    """Bytes of scores of every class, or of every class of each finding; 0 for label maps, which are summed up."""
    places = cohort.targets.shape[1:]
    return 4 * cohort.classes * math.prod(places) if len(places) < 2 else 0


def _copies(scenario: Scenario, cohort: Cohort) -> int:
    """Bytes of what models answer for changed copies of images: scores of classes, or a volume's loss."""
    one = _ID + (_answer(cohort) or 8)

    def size(moment: Moment | None) -> int:
        asked = copied(scenario, cohort, moment)
        return 0 if asked is None else _FILE + NUMBER * asked.count(cohort) * one

    seeds, extra = len(scenario.seeds), len(scenario.extra_seeds)
    total = seeds * (1 + cuts(scenario, cohort)) * size(None)
    for chain in chains(scenario, cohort.entries):
        many = len(served(scenario, chain))
        total += sum((extra + seeds * (1 + many)) * size(moment) for moment in chain.moments)
        total += sum(seeds * many * len(scenario.horizons) * size(step.moment) for step in chain.asking)
    return total


def _history(scenario: Scenario, cohort: Cohort, size: int, hospitals: int) -> int:
    """For one seed, bytes of the history of training, with models of ``size`` bytes, if a round asks so many."""
    needs = (*union(plan.strategy.needs for plan in scenario.strategies), LESSONS)
    rounds, places = range(scenario.training.rounds), 2 + cuts(scenario, cohort)
    updates = {t for n in needs if isinstance(n.updates, Every) for t in rounds if t in n.updates}
    checkpoints = {t for n in needs if n.checkpoints for t in rounds if t in n.checkpoints}
    if any(
        not isinstance(n.updates, Every | Last | None) for n in needs
    ):  # the recorder keeps what is chosen from
        updates, checkpoints = set(rounds), set(rounds)
    last = places if any(isinstance(n.updates, Last) for n in needs) else 0
    kinds = {n.cumulative for n in needs} - {None}
    sums = places * len(kinds)  # the one before stays until the next round
    update = kept_bytes(untrained(scenario, cohort).state_dict(), scenario.history.precision)
    whole = len(checkpoints) + ("distances" in kinds) + hospitals * sums
    return whole * size + hospitals * (len(updates) + last) * update


def _preparing(scenario: Scenario, cohort: Cohort) -> Iterable[int]:
    """For one seed, the rounds of every training that strategies do in a way of their own."""
    trained = {
        (p.label, c.steps[0].round) for c in chains(scenario, cohort.entries) for p in served(scenario, c)
    }
    labels = {plan.label for plan in scenario.strategies if plan.strategy.needs.preparation}
    return [round for label, round in trained if label in labels]


def _prepared(scenario: Scenario, cohort: Cohort) -> int:
    """For one seed, how many models such trainings keep: by round or by group of hospitals, and once more to go on."""
    return sum(2 * max(rounds, len(cohort.sites)) + 1 for rounds in _preparing(scenario, cohort))


def _phases(scenario: Scenario, cohort: Cohort) -> tuple[list[_Procedure], list[_Procedure]]:
    """What is under way at once: trainings, then unlearning."""
    linked, seeds, rounds = chains(scenario, cohort.entries), len(scenario.seeds), scenario.training.rounds
    shadows = min(AT_ONCE, scenario.evaluation.shadows)
    training = [_Procedure(rounds, restarts=True)]
    alone = shadows + len(linked) * len(scenario.extra_seeds)
    trainings = training * (1 + len(linked))
    own = [_Procedure(rounds, restarts=False) for rounds in _preparing(scenario, cohort)]
    unlearning = [
        _Procedure(asked_rounds(plan.strategy, step.round), restarts=False)
        for chain in linked
        for step in chain.asking[-1:]
        for plan in served(scenario, chain)
    ]
    return (trainings + own) * seeds + training * alone, unlearning * seeds


def _journal(phase: Sequence[_Procedure], hospitals: int, most: int, traced: int) -> int:
    """How many models the journal has at the most, of procedures that go on round by round side by side.

    Of a training the last two and a round of replies, of any other all its replies; of both, at the most ``traced``
    models that were in hand between rounds; of one that ended, nothing.
    """

    def kept(procedure: _Procedure, rounds: int) -> int:
        replies = 2 + hospitals if procedure.restarts else rounds * hospitals
        return replies + min(rounds, traced)

    ends = {procedure.rounds for procedure in phase}
    alive = ([kept(one, end) for one in phase if one.rounds >= end] for end in ends)
    return max((sum(sorted(each, reverse=True)[:most]) for each in alive), default=0)


def _memory(scenario: Scenario, cohort: Cohort, size: int, under_way: int) -> dict[str, int]:
    """Memory by what takes it; workers on other machines take none of this one's."""
    engine = scenario.engine
    apart = engine.name == "flower" and not engine.elsewhere
    workers = engine.workers or (1 if engine.name == "inline" and engine.on_gpu else cores.usable())
    workers = workers if apart or engine.name == "inline" else 0
    layers = 0 if engine.on_gpu else activations(scenario, cohort)  # else they are on the GPU
    arrays = cohort.pixels, cohort.targets, *cohort.companions.values()
    gathered = _at_hand(cohort, 0) + _at_hand(cohort, 1) * workers if apart else _at_hand(cohort, workers)
    return {
        "processes": _PROCESS + (_RAY + workers * _WORKER if apart else 0),
        "images": sum(map(_in_memory, arrays)) + gathered,
        "networks": workers * (_TRAINED * scenario.training.local.stack * size + layers),
        "models under way": under_way,
    }


def _at_hand(cohort: Cohort, workers: int) -> int:
    """Bytes of images that a process holds whose ``workers`` work at once: at the largest hospitals, each at one."""
    every = cohort.pixels.nbytes + 8 * cohort.targets.size + _companions(cohort)  # labels have 8 bytes there
    largest: list[int] = sorted(np.unique(cohort.site, return_counts=True)[1].tolist(), reverse=True)
    # More workers than hospitals work at the same ones, for other procedures.
    worked_on = sum(itertools.islice(itertools.cycle(largest), workers))
    return max(min(_GATHERED, every), worked_on * every // len(cohort.site))


def _companions(cohort: Cohort) -> int:
    """Bytes of what comes beside images, as hospitals hold it: words have 8 each, numbers 4."""
    return sum(x.size * (8 if x.dtype.kind in "iu" else 4) for x in cohort.companions.values())


def _in_memory(array: npt.NDArray[Any]) -> int:
    """Of a mapped file, nothing must be in memory."""
    return 0 if isinstance(array, np.memmap) else array.nbytes


def _held(folder: Path) -> int:
    """Bytes of the files in a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone by now
                total += os.stat(os.path.join(place, name)).st_size
    return total


# ------------------------------------------------------------------------------------------------ in words


def _told(what: str, parts: Mapping[str, int]) -> str:
    """A sum, and what most of it is."""
    known = sorted((part for part in parts.items() if part[1]), key=lambda part: -part[1])
    shown = ", ".join([*(f"{name} {_size(part)}" for name, part in known[:3]), *(["…"] if known[3:] else [])])
    return f"{_size(sum(parts.values()))} of {what} ({shown})"


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(math.ceil(number / 1e6), 1)} MB"
