"""Shadow models: federations trained on random halves of the training patients, to know what memory looks like.

Every training patient is in exactly half of them. Attacks and memorisation scores compare what a shadow answers for an
image it was trained on with what one answers that was not. Shadows see neither requests nor strategies, so the same
ones serve every scenario on the same data with the same training; their answers are kept in a cache
(`fedunlearn.results.cache`), their weights nowhere.

Shadow i trains with a seed of its own, ``derive(seed, "shadow", i)`` of the scenario's data seed ``seed``; the training
seeds ``seeds`` have no part in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pandas as pd
from torch import Tensor

from fedunlearn import __version__, files
from fedunlearn.campaign import sources
from fedunlearn.campaign.cohort import Cohort, half
from fedunlearn.campaign.keeping import SignalsFile
from fedunlearn.campaign.origins import Environment, training_modules, volumes
from fedunlearn.core import InputError, Procedure, Rota, Select, SiteId, Training, Weights, derive
from fedunlearn.federation.jobs import Job, Label, Work
from fedunlearn.federation.procedures import fedavg, signals
from fedunlearn.learning.models import initial_weights, origin
from fedunlearn.results.cache import Cache, Damaged
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.store import Store
from fedunlearn.scenario import Scenario

AT_ONCE = 16
"""Shadows under way at once: enough to keep the workers busy, few enough for their weights to fit in memory."""


class Shadows:
    """The jobs of a scenario's shadow models. Their answers go to the run folder and to the cache as they come.

    A run that goes on has those that it trained itself in its folder, with what they cost; others are from the cache.

    Args:
        scenario: how to train, and how many.
        cohort: the hospitals, and who is in which half.
        environment: what they train on.

    Raises:
        InputError: the cache cannot be written to.
    """

    def __init__(self, scenario: Scenario, cohort: Cohort, environment: Environment) -> None:
        self.count = scenario.evaluation.shadows
        self._scenario, self._cohort = scenario, cohort
        self._cache = Cache(scenario.evaluation.cache or default_cache())
        self._missing = list(range(self.count))
        self._origins = origins(scenario, cohort, environment)
        if self.count:
            self._check()

    def fetch(self, run: RunFolder, tell: Callable[[str], None]) -> None:
        """Write who is in which half to the run folder, and what the cache has and the run has not trained itself.

        Args:
            run: the run folder.
            tell: is told of entries that are damaged; these are computed again.
        """
        if not self.count:
            return
        run.write_table("shadows/members.parquet", pd.DataFrame(self._cohort.members).rename(columns=str))
        store = Store(run)
        for number, key in enumerate(self._origins):
            if store.known(_file(number), key) is not None:
                continue
            try:
                table = self._cache.fetch(key)
            except Damaged as damage:
                tell(f"shadow {number} is damaged in the cache and is trained again: {damage}")
                continue
            if table is not None:
                run.write_table(_file(number), table)
                self._missing.remove(number)

    def jobs(self, run: RunFolder) -> list[Job[Any]]:
        """The jobs of shadows that are missing: the first ones, each followed by another when it ends."""
        waiting = iter(self._missing)

        def following() -> list[Job[Any]]:
            number = next(waiting, None)
            return [] if number is None else [self._job(number, run, following)]

        return [job for _ in range(AT_ONCE) for job in following()]

    def procedures(self) -> list[Label]:
        """The labels of the jobs to come, for those who watch."""
        return [self._label(number) for number in self._missing]

    def summary(self) -> Mapping[str, object]:
        """The manifest's ``shadows`` entry: how many, their training seeds, and which of them the cache had."""
        numbers = range(self.count)
        return {
            "count": self.count,
            "seeds": [self._seed(number) for number in numbers],
            "cached": [number for number in numbers if number not in self._missing],
        }

    def _check(self) -> None:
        try:
            self._cache.check()
        except InputError as error:
            placed = [self._scenario.placed(problem, "evaluation.cache") for problem in error.problems]
            raise InputError(placed) from error

    def _job(self, number: int, run: RunFolder, following: Callable[[], Iterable[Job[Any]]]) -> Job[Any]:
        def then(_: Mapping[str, Tensor]) -> Iterable[Job[Any]]:
            self._cache.store(origin, run.read_table(file))
            return following()

        seed, cohort, file, origin = self._seed(number), self._cohort, _file(number), self._origins[number]
        initial = initial_weights(self._scenario.model, cohort.form, derive(seed, "initial"))

        def rest(round: int, weights: Weights) -> Procedure[Mapping[str, Tensor]]:
            training = self._scenario.training
            rota = Rota.among(cohort.sites, cohort.counts(half(number)), training.participation)
            return shadow(weights, cohort.sites, half(number), training, seed, round, rota)

        work = Work(SignalsFile(file), origin)
        return Job(self._label(number), rest(0, initial), then, work=work, restart=rest)

    def _label(self, number: int) -> Label:
        return Label("shadow", "", str(number), self._seed(number))

    def _seed(self, number: int) -> int:
        return _seed(self._scenario, number)


def shadow(
    initial: Weights,
    sites: tuple[SiteId, ...],
    select: Select,
    training: Training,
    seed: int,
    start: int = 0,
    rota: Rota | None = None,
) -> Procedure[Mapping[str, Tensor]]:
    """Train on ``select`` from round ``start`` on, in turns if told so, then ask ``sites`` for all images' signals."""
    rounds = range(start, training.rounds)
    weights = yield from fedavg(initial, rota or sites, select, training.local, rounds, seed)
    return (yield from signals(weights, sites))


def origins(scenario: Scenario, cohort: Cohort, environment: Environment) -> list[dict[str, object]]:
    """For every shadow, all that its answers depend on: the key of its cache entry, in plain text.

    Requests, strategies, training seeds and the number of workers are not in it.
    """
    names = cohort.table["patient"]
    common = {
        "data": cohort.digest,
        "patients": _digest(
            *("\x1f".join(map(str, of)).encode() for of in (cohort.site, cohort.split, names))
        ),
        "sites": list(cohort.sites),
        "classes": cohort.classes,
        "model": asdict(cast(Any, scenario.model)),
        "pretrained": origin(scenario.model, cohort.form),
        "training": asdict(scenario.training),
        "seed": scenario.seed,
        "shadows": scenario.evaluation.shadows,
        "fedunlearn": __version__,
        "sources": sources.digest(training_modules(scenario.model.kind), [__name__]),
        **environment.told(volumes(cohort)),
    }
    return [
        {
            **common,
            "shadow": number,
            "training_seed": _seed(scenario, number),
            "half": _digest(mask.tobytes()),
        }
        for number, mask in enumerate(cohort.members.T)
    ]


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/fedunlearn/shadows``, by default that of ``~/.cache``."""
    return files.cache() / "shadows"


def _seed(scenario: Scenario, number: int) -> int:
    return derive(scenario.seed, "shadow", number)


def _file(number: int) -> str:
    return f"shadows/{number}.parquet"


def _digest(*parts: bytes) -> str:
    """The sha256 of ``parts``, each with its length, so that none can be taken for a piece of another."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part)
    return sha.hexdigest()
