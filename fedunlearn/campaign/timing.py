"""About how long a run takes, from a step that is timed on the scenario's own images and network."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fedunlearn import cores
from fedunlearn.campaign import curves
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.copying import copied
from fedunlearn.campaign.counting import asked_passes, asked_rounds, extra_models, models, served, share
from fedunlearn.campaign.timeline import Chain, chains
from fedunlearn.core import Images, Local, LocalTraining, Select, SiteId, Weights
from fedunlearn.learning.copies import NUMBER
from fedunlearn.learning.local import fit, signals
from fedunlearn.learning.models import Network
from fedunlearn.learning.stacking import Member, fit_together
from fedunlearn.scenario import Scenario
from fedunlearn.scoring.together import usual
from sites.pixels import one_thread

_TRIES, _PATIENCE = 3, 5.0  # timed tries at the most, and seconds after which there are no more
_STARTING = 12.0  # seconds until Ray and its workers are there, and until they are gone
_SCORING, _THOUSAND = 0.14, 0.04  # seconds of a core to score one model, and more for every thousand images


@dataclass(frozen=True)
class Step:
    """What was timed, on one thread.

    Attributes:
        batch: images of a step.
        trained: seconds that one image of a step takes.
        asked: seconds that an answer about one image takes.
    """

    batch: int
    trained: float
    asked: float


@dataclass(frozen=True)
class Passes:
    """How many images pass through networks in a run.

    Attributes:
        trained: in training, of strategies about.
        asked: to be answered about, for scores.
    """

    trained: float
    asked: float


@dataclass(frozen=True)
class _Alone:
    """A hospital's side of a task (`fedunlearn.core.Local`) that has just these images."""

    network: Network
    classes: int
    own: Images
    site: SiteId = "timing"

    def images(self, select: Select) -> Images:
        return self.own


def duration(scenario: Scenario, cohort: Cohort) -> str:
    """About how long a run takes, in words."""
    engine = scenario.engine
    if engine.on_gpu:
        return "takes as long as its GPUs do: no step was timed"
    found, passes = timed(scenario, cohort), counted(scenario, cohort)
    workers = engine.workers or cores.usable()
    at_once = min(workers, cores.usable()) if not engine.elsewhere else workers
    seconds = (passes.trained * found.trained + passes.asked * found.asked) / at_once
    seconds += scoring_seconds(scenario, cohort) + _STARTING * (engine.name == "flower")
    step = f"a step of {found.batch} images takes {found.batch * found.trained * 1000:.0f} ms"
    return f"takes about {_words(seconds)} with {at_once} workers ({step} on one); half or twice that is possible"


def scoring_seconds(scenario: Scenario, cohort: Cohort) -> float:
    """About how long scoring takes, once all models are there."""
    count = len(scenario.seeds) * models(scenario, cohort) + extra_models(scenario, cohort)
    return count * (_SCORING + _THOUSAND * len(cohort.site) / 1000) / usual(scenario.engine.workers)


def timed(scenario: Scenario, cohort: Cohort) -> Step:
    """Time a step of training, and answers, on some of the cohort's own images; nothing is kept of either."""
    local = scenario.training.local
    rows = np.arange(min(len(cohort.site), local.batch_size))
    pixels, targets = (torch.from_numpy(np.array(array[rows])) for array in (cohort.pixels, cohort.targets))
    beside = {name: torch.from_numpy(np.array(array[rows])) for name, array in cohort.companions.items()}
    own = Images(pixels, targets.long(), torch.from_numpy(rows), companions=beside)
    with torch.random.fork_rng(devices=[]), one_thread():
        network = Network(scenario.model, cohort.form)
        alone, weights = _Alone(network, cohort.classes, own), network.read()
        trained = _median(lambda: _step(alone, weights, own, local)) / (len(rows) * local.stack)
        asked = _median(lambda: signals(alone, weights, own)) / len(rows)
    return Step(len(rows), trained, asked)


def _step(alone: Local, weights: Weights, own: Images, local: LocalTraining) -> None:
    """One step of training, of a full stack if there are any."""
    once = replace(local, epochs=1)
    if local.stack > 1:
        fit_together(alone.network, [Member(weights, own, 0)] * local.stack, once)
    else:
        fit(alone, weights, own, once, 0)


def counted(scenario: Scenario, cohort: Cohort) -> Passes:
    """How many images pass through networks: what trains as often as it is trained on, copies and scores once each."""
    rounds, epochs = scenario.training.rounds, scenario.training.local.epochs
    asked_share = share(scenario, cohort)
    whole = asked_share * int((cohort.split == "train").sum())
    seeds, linked, extra = len(scenario.seeds), chains(scenario, cohort.entries), len(scenario.extra_seeds)
    originals = seeds + scenario.evaluation.shadows / 2  # a shadow is trained on half of the images
    trained = originals * rounds * epochs * whole
    asked = float((seeds * models(scenario, cohort) + extra_models(scenario, cohort)) * len(cohort.site))
    for chain in linked:
        plans = served(scenario, chain)
        left = {step.id: asked_share * cohort.total(Select(without=step.without)) for step in chain.steps}
        for step in chain.asking:
            passes = seeds * sum(asked_passes(plan.strategy, step.round, epochs) for plan in plans)
            passes += 0 if chain.policy else (seeds + extra) * step.round * epochs
            trained += passes * left[step.id]
        for step, following in chain.stretches():
            many = seeds * len(plans)
            if following.request is None and not chain.policy:  # what is trained again goes on to the end
                many += seeds + extra
            trained += many * (following.round - step.round) * epochs * left[step.id]
        trained += sum(seeds * rounds * epochs * whole for plan in plans if plan.strategy.needs.preparation)
        for moment in chain.moments:
            what = copied(scenario, cohort, moment)
            each = seeds * (1 + len(plans)) + extra
            asked += each * NUMBER * (what.count(cohort) if what else 0)
    if scenario.calendar is not None and linked:
        last = linked[0].looks[-1]
        kept = asked_share * cohort.total(Select(without=last.without))
        trained += (seeds + extra) * rounds * epochs * kept
    if curves.wanted(scenario):
        asked += curves.budget(scenario, cohort) * _glanced(scenario, linked)
    return Passes(trained, asked)


def _glanced(scenario: Scenario, linked: Sequence[Chain]) -> int:
    """How often a model is shown a part's images to measure it round by round (`fedunlearn.campaign.curves`)."""
    rounds, seeds = scenario.training.rounds, len(scenario.seeds)
    found = seeds * (rounds + 1) * (len(scenario.requests) + 1)
    for chain in linked:
        found += (seeds + len(scenario.extra_seeds)) * len(chain.asking) * (rounds + 1) * 2
        asked = (asked_rounds(plan.strategy, rounds) + 2 for plan in served(scenario, chain))
        found += seeds * len(chain.asking) * 2 * sum(asked)
    return found


def _median(work: Callable[[], object]) -> float:
    """Seconds of the median try, after one that warms up; of work that takes long, of that one."""
    taken = list[float]()
    while len(taken) <= _TRIES and sum(taken) < _PATIENCE:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:] or taken)


def _words(seconds: float) -> str:
    """A time in words, as precise as it is known."""
    if seconds < 90:
        return f"{max(10, math.ceil(seconds / 10) * 10)} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
