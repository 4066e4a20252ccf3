"""What determines the bits of each result of a run: its origin, in clear.

Two runs that write the same origin do the same work. An origin names everything that counts: images by their content,
hospital by hospital; the model, the training, the seed; a strategy's fields; the work it starts from, by its own
origin; the source files that do the work; the libraries and the kinds of machines. It leaves out what does not count:
the name of a scenario or a label, other strategies, other requests, the engine and its workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fedunlearn.campaign import sources
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.core import (
    Case,
    Choice,
    Course,
    Every,
    Last,
    Needs,
    RequestId,
    Select,
    SiteId,
    Strategy,
    Weights,
)
from fedunlearn.core.kinds import module
from fedunlearn.federation.engines.machines import Machine
from fedunlearn.learning.models import origin as pretrained
from fedunlearn.results.store import digest
from fedunlearn.scenario import Scenario
from fedunlearn.scoring.kinds import scored
from fedunlearn.weights import digest as weights_digest

Origin = Mapping[str, object]

_TRAINING = ("fedunlearn.federation.procedures", "fedunlearn.federation.engines.inline")
_LIBRARIES = ("torch", "numpy")  # that compute what hospitals answer
_OF_VOLUMES = ("monai", "scipy")  # and with them what they answer of volumes: networks, patches, surfaces
_ROUNDING = "fedunlearn.federation.rows"  # of updates that are kept in 16 bits


def training_modules(kind: str) -> tuple[str, ...]:
    """The modules that train networks of one kind: what they import comes with them.

    The kind's own, with the loss, are found by its name, so no import tells of them.
    """
    return (*_TRAINING, module(kind, ""), module(kind, "learnt"))


def curve_modules(kind: str) -> tuple[str, ...]:
    """The modules that tell how models do, round by round: how good answers are is told by the kind."""
    return (*training_modules(kind), scored(kind).glanced.__module__)


@dataclass(frozen=True)
class Environment:
    """Libraries and kinds of machines, as far as bits depend on them.

    Attributes:
        here: the machine where the server is, which averages.
        machines: those that hospitals work on.
    """

    here: Machine
    machines: tuple[Machine, ...]

    def told(self, volumes: bool) -> dict[str, str]:
        """In clear: what machines are, never which, or how many. Several kinds are told in their order.

        ``volumes``: whether images are volumes.
        """
        everywhere, libraries = (self.here, *self.machines), _LIBRARIES + (_OF_VOLUMES if volumes else ())
        return {
            **{name: _kinds(machine.versions.get(name, "") for machine in everywhere) for name in libraries},
            "machine": _kinds(machine.architecture for machine in everywhere),
            "processor": _kinds(machine.processor for machine in everywhere),
            "cpu": _kinds(machine.cpu for machine in everywhere),
            "instructions": _kinds(
                ", ".join(f"{name}={value}" for name, value in sorted(machine.instructions.items()))
                for machine in everywhere
            ),
            "device": _kinds(machine.device or "cpu" for machine in self.machines),
        }


def _kinds(values: Iterable[str]) -> str:
    return "; ".join(sorted(set(values)))


def volumes(cohort: Cohort) -> bool:
    """Whether images are volumes, for which further libraries compute."""
    return len(cohort.shape) > 3


@dataclass(frozen=True)
class Origins:
    """The origins of a scenario's work."""

    scenario: Scenario
    cohort: Cohort
    environment: Environment

    # -------------------------------------------------------------------------------------- what is trained

    def training(
        self, sites: Sequence[SiteId], without: Sequence[RequestId], rounds: range, seed: int
    ) -> Origin:
        """Federated training from the start."""
        start = {"initial": self._model}
        return self._trained(sites, without, rounds, seed, start)

    def nothing(self, seed: int) -> Origin:
        """The model that training starts from."""
        return {"initial": self._model, "seed": seed}

    def further(
        self, sites: Sequence[SiteId], without: Sequence[RequestId], rounds: range, seed: int, of: Origin
    ) -> Origin:
        """Training that goes on from work that is known by its origin."""
        return self._trained(sites, without, rounds, seed, {"work": digest(of)})

    def preparation(self, strategy: Strategy, course: Course) -> Origin:
        """A strategy's own training."""
        images = {site: self._images(site, course.select) for site in course.sites}
        return {
            **self._common(self._of(strategy)),
            "work": "preparation",
            "strategy": _fields(strategy),
            "seed": course.seed,
            "rounds": course.rounds,
            "roster": list(course.roster),
            "sites": list(course.sites),
            "images": images,
            "validation": {site: self._images(site, Select(split="val")) for site in course.sites},
        }

    def unlearning(self, strategy: Strategy, case: Case, of: Origin, history: Origin) -> Origin:
        """A strategy's answer to a request, from work that is known by its origin, with the history of another's.

        Draws depend on earlier requests (`Case.purpose`), also on those for which nothing had to be done.
        """
        earlier = list(case.forget.without)
        return {
            **({"earlier": earlier} if earlier else {}),
            **self._common(self._of(strategy)),
            "work": "unlearning",
            "strategy": _fields(strategy),
            "request": case.request,
            "seed": case.seed,
            "rounds": case.rounds,
            "start": digest(of),
            "history": digest(self._stored(strategy, history)),
            "needs": _needs(strategy.needs),
            "roster": list(case.roster),
            "sites": list(case.sites),
            "leaver": case.leaver,
            "horizons": list(self.scenario.horizons),
            "images": {site: self._view(site, case) for site in self.cohort.sites},
        }

    # ------------------------------------------------------------------------------------- what is asked then

    def answers(self, weights: Weights) -> Origin:
        """What a model answers for every image."""
        return {
            **self._common(self._training),
            "work": "answers",
            "weights": weights_digest(weights),
            "images": {site: self._images(site, Select(split="all")) for site in self.cohort.sites},
        }

    def copies(self, weights: Weights, sites: Sequence[SiteId], selects: Sequence[Select]) -> Origin:
        """What a model answers for changed copies of some images, which are drawn by row number."""
        return {
            **self._common(self._training),
            "work": "copies",
            "weights": weights_digest(weights),
            "images": {site: [self._images(site, select) for select in selects] for site in sites},
        }

    def lessons(self, of: Origin) -> Origin:
        """How early every image was learnt in a training that is known by its origin."""
        everything = {site: self._images(site, Select(split="all")) for site in self.cohort.sites}
        common = self._common(self._training, "fedunlearn.campaign.difficulty")
        return {**common, "work": "lessons", "of": digest(of), "images": everything}

    def curve(self, of: Origin, parts: Iterable[tuple[Select, int]], whole: bool) -> Origin:
        """How models of work that is known by its origin do on some images, round by round.

        ``parts`` are where images are from, and how many of them; ``whole``: not just at the start and at the end.
        """
        return {
            **self._common(
                curve_modules(self._kind), "fedunlearn.campaign.curves", "fedunlearn.learning.glancing"
            ),
            "work": "curve",
            "of": digest(of),
            "images": [
                [count, {site: self._images(site, select) for site in self.cohort.sites}]
                for select, count in parts
            ],
            "whole": whole,
        }

    def probe(
        self, probe: str, weights: Weights, original: Weights, selects: Mapping[str, Select], settings: Origin
    ) -> Origin:
        """What becomes of a model under a probe."""
        everything = {site: self._images(site, Select(split="all")) for site in self.cohort.sites}
        return {
            **self._common(self._training, "fedunlearn.campaign.probing"),
            "work": f"probe {probe}",
            "weights": weights_digest(weights),
            "original": weights_digest(original),
            "images": everything,
            "selected": {
                name: {site: self._images(site, select) for site in self.cohort.sites}
                for name, select in selects.items()
            },
            **settings,
        }

    # -------------------------------------------------------------------------------------------- pieces

    def _trained(
        self, sites: Sequence[SiteId], without: Sequence[RequestId], rounds: range, seed: int, start: Origin
    ) -> Origin:
        select = Select(without=tuple(without))
        return {
            **self._common(self._training),
            "work": "training",
            "seed": seed,
            "rounds": [rounds.start, rounds.stop],
            "start": start,
            "sites": list(sites),  # averages round in their order
            "images": {site: self._images(site, select) for site in sites},
        }

    def _common(self, modules: Sequence[str], *alone: str) -> dict[str, object]:
        return {
            **self.environment.told(volumes(self.cohort)),
            "model": self._model,
            "training": asdict(self.scenario.training),
            "classes": self.cohort.classes,
            "shape": list(self.cohort.shape),
            "sources": sources.digest(modules, alone),
        }

    def _of(self, strategy: Strategy) -> tuple[str, ...]:
        return (*self._training, type(strategy).__module__)

    def _stored(self, strategy: Strategy, history: Origin) -> Origin:
        """What a strategy reads of a training's history: of updates that were kept otherwise, how."""
        precision = self.scenario.history.precision
        same = strategy.needs.updates is None or precision == "float32"
        if same:
            return history
        rounding = sources.digest((), (_ROUNDING,))
        return {"of": digest(history), "precision": precision, "sources": rounding}

    @property
    def _kind(self) -> str:
        return self.scenario.model.kind

    @property
    def _training(self) -> tuple[str, ...]:
        return training_modules(self._kind)

    @cached_property
    def _model(self) -> dict[str, object]:
        model, cohort = self.scenario.model, self.cohort
        weights: Path | None = getattr(model, "weights", None)
        return {
            **{
                key: str(value) if isinstance(value, Path) else value for key, value in _fields(model).items()
            },
            "pretrained": pretrained(model, cohort.form),
            "file": None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest(),
        }

    @cached_property
    def _contents(self) -> npt.NDArray[np.uint8]:
        """(N, 32) the sha256 of each image's pixels, target and companions, with its row number."""
        cohort = self.cohort
        arrays = cohort.pixels, cohort.targets, *(x for _, x in sorted(cohort.companions.items()))
        found = [
            hashlib.sha256(
                b"".join([row.to_bytes(8, "big"), *(np.ascontiguousarray(x).tobytes() for x in of_one)])
            ).digest()
            for row, of_one in enumerate(zip(*arrays, strict=True))
        ]
        return np.frombuffer(b"".join(found), np.uint8).reshape(len(found), 32)

    def _images(self, site: SiteId, select: Select) -> str:
        """The digest of some images of a hospital, in their order."""
        return hashlib.sha256(self._contents[self.cohort.picked(site, select)].tobytes()).hexdigest()

    def _view(self, site: SiteId, case: Case) -> str:
        """The digest of all images of a hospital and of all that a strategy can know of them in this case."""
        cohort = self.cohort
        own = cohort.rows(site)
        parts = ",".join(map(str, cohort.split[own])).encode()
        gone = np.logical_or.reduce([cohort.forgotten[request][own] for request in case.retain.without])
        wanted = Select(only=case.forget.only, without=case.forget.without, split="all")
        asked = np.isin(own, cohort.picked(site, wanted))
        known = (self._contents[own].tobytes(), parts, gone.tobytes(), asked.tobytes())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in known)).hexdigest()


def _fields(value: object) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(cast(Any, value)).items()}


def _needs(needs: Needs) -> dict[str, object]:
    def rounds(kept: Every | Last | Choice | None) -> object:
        match kept:
            case None:
                return None
            case Every(k):
                return k
            case Last():
                return "last"
            case _:
                return repr(kept)

    return {
        "updates": rounds(needs.updates),
        "cumulative": needs.cumulative,
        "checkpoints": rounds(needs.checkpoints),
        "preparation": needs.preparation,
    }
