"""How loss and accuracy go, round by round, while a model is trained, retrained, unlearns and is trained on.

After every round the model in hand (`fedunlearn.federation.traces`) is kept for a while, and once its procedure is over
all of them are shown some images: those to forget, and validation images, which no model is trained on or judged by.
That is a job of its own, so weights, scores and the cost of strategies are the same without it; the ledger has it as
phase ``evaluate``. A procedure that asks hospitals for no model between its start and its end has just these two. So
has one that was taken from an earlier run without its curve, or with the curve of other requests' images: its models on
the way are gone. The manifest tells which these are (``ends_only``).

Few images are enough to see where a curve goes: as many of each part as keep this under `SHARE` of the passes of a
round of training, at least as many as the kind of task asks for (`Scored.fewest`) and at most `MOST`, spread evenly
over the part's images in the order of ``sites.parquet``. They are the same for all models of a request. Validation
images are those of all hospitals, of one that leaves too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.counting import share
from fedunlearn.campaign.keeping import ArrayFile, ModelFile
from fedunlearn.campaign.origins import Origin, Origins
from fedunlearn.campaign.timeline import chains
from fedunlearn.core import Procedure, RequestId, Select, SiteId, Weights
from fedunlearn.federation.jobs import Job, Label, Work
from fedunlearn.federation.traces import Traces
from fedunlearn.learning.glancing import Glance
from fedunlearn.results.store import Store
from fedunlearn.scenario import Scenario
from fedunlearn.scoring.kinds import Scored, scored

Floats = npt.NDArray[np.float64]

SHARE = 0.03
"""Passes of images to measure a model, at most, as a share of those of a round of training."""
MOST = 500
"""Images of a part, at most."""
MOST_ROUNDS = 64
"""Models of one procedure, at most; fewer of large ones, so that they take no more than `MOST_BYTES`."""
MOST_BYTES = 2**30
_AT_ONCE = 2**24  # bytes of models in one message, or a single one

COLUMNS = (
    *("phase", "request", "strategy", "seed", "after", "round", "step"),
    *("part", "measure", "value", "images"),
)
"""Of `fedunlearn.results.runfolder.CURVES`."""


@dataclass(frozen=True)
class Part:
    """Some images that models are shown.

    Attributes:
        request: whose images to forget these are; empty for validation images.
        select: where they are from.
        places: by hospital, (n,) int64, which of that hospital's images of ``select``.
    """

    request: RequestId
    select: Select
    places: Mapping[SiteId, Tensor]

    @property
    def images(self) -> int:
        """How many these are."""
        return sum(map(len, self.places.values()))


@dataclass(frozen=True)
class Span:
    """A procedure whose models are measured.

    Attributes:
        label: whose it is.
        file: what its result is called.
        of: the origin of its result.
        after: how many rounds training had had when it began.
        requests: in whose rows it is told of.
        parts: what its models are shown.
    """

    label: Label
    file: str
    of: Origin
    after: int
    requests: tuple[RequestId, ...]
    parts: tuple[Part, ...]


# ---------------------------------------------------------------------------------------- what is measured


def budget(scenario: Scenario, cohort: Cohort) -> int:
    """How many images of a part to show to each model, at the most."""
    passes = scenario.training.local.epochs * share(scenario, cohort) * int((cohort.split == "train").sum())
    return int(np.clip(SHARE * passes / 2, scored(scenario.model.kind).fewest, MOST))


def kept(size: int) -> int:
    """How many models of ``size`` bytes each are kept of one procedure, at the most."""
    return int(np.clip(MOST_BYTES // max(size, 1), 8, MOST_ROUNDS))


def spread(cohort: Cohort, select: Select, most: int) -> dict[SiteId, Tensor]:
    """At most ``most`` images of ``select``, evenly spread over all hospitals': by hospital, their places there."""
    counts = cohort.counts(select)
    total = sum(counts.values())
    few = min(total, most)
    drawn, found, first = np.arange(few) * total // max(few, 1), dict[SiteId, Tensor](), 0
    for site, count in counts.items():
        own = drawn[(drawn >= first) & (drawn < first + count)] - first
        first += count
        if len(own):
            found[site] = torch.from_numpy(own)
    return found


def glances(
    kind: Scored, models: Iterable[Weights], parts: Sequence[Part], sites: Sequence[SiteId]
) -> Procedure[Floats]:
    """What each of ``models`` is like: (models, 2 parts) mean loss and quality on each part, NaN where undefined.

    Args:
        kind: of task: what quality is.
        models: taken as they are needed, so that they need not all be in memory.
        parts: the images.
        sites: the hospitals, some of which may hold none.
    """
    none = torch.zeros(0, dtype=torch.int64)
    places = {site: tuple(part.places.get(site, none) for part in parts) for site in sites}
    places = {site: own for site, own in places.items() if any(map(len, own))}
    selects, found = tuple(part.select for part in parts), list[Floats]()
    for some in together(models):
        replies = yield {site: Glance(some, selects, own) for site, own in places.items()}
        each = [_apart(reply.arrays, places[site]) for site, reply in replies.items()]
        columns = list[Floats]()
        for number in range(len(parts)):
            whole = {name: np.concatenate([one[name][number] for one in each], axis=1) for name in each[0]}
            losses = _loss(whole["loss"])
            # Of scores that are no numbers, something is the largest: a model without a loss has no answers either.
            columns += [losses, np.where(np.isfinite(losses), kind.glanced(whole), np.nan)]
        found.append(np.stack(columns, axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2 * len(parts)))


def together(models: Iterable[Weights]) -> Iterator[tuple[Weights, ...]]:
    """As many models at a time as fit into a message; a large one alone."""
    waiting = list[Weights]()
    for model in models:
        waiting.append(model)
        if (len(waiting) + 1) * w.nbytes(model) > _AT_ONCE:
            yield tuple(waiting)
            waiting.clear()
    if waiting:
        yield tuple(waiting)


def _apart(arrays: Mapping[str, Tensor], places: Sequence[Tensor]) -> dict[str, list[Floats]]:
    """A hospital's reply part by part: by name, (models, images, …) of each."""
    ends = np.cumsum([len(own) for own in places])[:-1]
    return {name: np.split(values.numpy().astype(np.float64), ends, 1) for name, values in arrays.items()}


def _loss(losses: Floats) -> Floats:
    """(models,) the mean of (models, images), NaN where one is not finite (`Learnt.glance`)."""
    found: Floats = np.where((losses < 0).any(axis=1), np.nan, losses.mean(axis=1))
    return found


# ------------------------------------------------------------------------------------------------ the jobs


def wanted(scenario: Scenario) -> bool:
    """Whether anything is to be measured round by round; with a calendar, looks tell how models do over time."""
    return scenario.evaluation.curves and scenario.calendar is None


class Curves:
    """The jobs that measure, and what they came to.

    Args:
        scenario: whose procedures.
        cohort: the hospitals.
        origins: what determines results.
        store: where they are kept.
        size: bytes of one model.

    Attributes:
        traces: to be told of all rounds, if `wanted`.
        ends_only: procedures of several rounds of which only start and end are known.
    """

    def __init__(self, scenario: Scenario, cohort: Cohort, origins: Origins, store: Store, size: int) -> None:
        self.scenario, self.cohort, self.origins, self.store = scenario, cohort, origins, store
        self.traces = Traces(store.run.scratch / "traces", kept(size))
        self._earlier = {
            step.asked.id: step.earlier for chain in chains(scenario, cohort.entries) for step in chain.asking
        }
        self._parts = dict[RequestId, Part]()
        self._found: dict[Label, tuple[Span, Floats]] = {}
        self.ends_only: list[Label] = []

    @property
    def kind(self) -> Scored:
        """Of task."""
        return scored(self.scenario.model.kind)

    @property
    def wanted(self) -> bool:
        """Whether anything is to be measured."""
        return wanted(self.scenario)

    def jobs(
        self, label: Label, file: str, of: Origin, start: Weights | None, end: Weights | None, after: int = 0
    ) -> list[Job[Any]]:
        """What to do when a procedure is over: measure its models.

        Args:
            label: whose it was.
            file: what its result is called.
            of: the origin of its result.
            start: the model that it began with; None if that is gone.
            end: its result; None if it diverged.
            after: how many rounds training had had when it began.
        """
        if not self.wanted:
            return []
        span, place = self._span(label, file, of, after), f"curves/{file}.npy"
        if not span.parts:
            return []
        whole = self.traces.whole(label)
        # What an earlier run did not measure is gone with that run's scratch: then there are just a start and an end.
        whole = whole or self.store.known(place, self._origin(span, whole=True)) is not None

        def then(found: Floats) -> list[Job[Any]]:
            self._found[label] = span, found
            if not whole and len(found) and found[-1, 0] > 1:
                self.ends_only.append(label)
            self.traces.drop(label)
            return []

        asked = Label("evaluate", "", f"{file}@rounds", label.seed)
        work = Work(ArrayFile(place), self._origin(span, whole))
        return [Job(asked, self._measured(span, start, end), then, work=work)]

    def table(self) -> pd.DataFrame | None:
        """``curves.parquet``; None if nothing was to be measured."""
        if not self.wanted:
            return None
        rows = [row for span, found in self._found.values() for row in self._rows(span, found)]
        keys = ["request", "strategy", "phase", "seed", "step", "part", "measure"]
        return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(keys, ignore_index=True)

    # ------------------------------------------------------------------------------------------- pieces

    def _span(self, label: Label, file: str, of: Origin, after: int) -> Span:
        """Models that a request is about are shown its images; those of no request, the images of all requests."""
        requests = (label.request,) if label.request else tuple(self._earlier)
        parts = (*(self._part(request) for request in requests), self._part(""))
        return Span(label, file, of, after, requests, tuple(part for part in parts if part.images))

    def _part(self, request: RequestId) -> Part:
        """A request's images to forget, or for none, validation images."""
        if request not in self._parts:
            earlier = self._earlier[request] if request else ()
            select = Select(only=request, without=earlier) if request else Select(split="val")
            places = spread(self.cohort, select, budget(self.scenario, self.cohort))
            self._parts[request] = Part(request, select, places)
        return self._parts[request]

    def _origin(self, span: Span, whole: bool) -> Origin:
        return self.origins.curve(span.of, [(part.select, part.images) for part in span.parts], whole)

    def _measured(self, span: Span, start: Weights | None, end: Weights | None) -> Procedure[Floats]:
        """(steps, 1 + 2 parts) how many rounds were done, then what `glances` says of the model in hand."""
        steps = self._in_hand(span, start, end)
        keys = list(dict.fromkeys(key for _, key in steps))
        read = list[int | str]()  # all, unless a file is damaged

        def models() -> Iterator[Weights]:
            for key in keys:
                if (model := self._read(span, key, start, end)) is not None:
                    read.append(key)
                    yield model

        found = yield from glances(self.kind, models(), span.parts, self.cohort.sites)
        known = [(number, read.index(key)) for number, key in steps if key in read]
        rounds = np.array([number for number, _ in known], dtype=np.float64)
        return np.column_stack([rounds, found[[row for _, row in known]]])

    def _in_hand(self, span: Span, start: Weights | None, end: Weights | None) -> list[tuple[int, int | str]]:
        """The rounds done at each step, and which model was in hand: the start, the end, or one of the traces'."""
        label, traces = span.label, self.traces
        between = list[tuple[int, int | str]](traces.numbers(label))
        if start and between and between[0][0] == 0:
            first = between[0][1]
            sent = self._read(span, first, start, end)
            if sent is not None and _same(start, sent):  # else the server itself began with something
                between = [(number, "start" if file == first else file) for number, file in between[1:]]
        before = [(0, "start")] if start else []
        return [*before, *between, *([(self._rounds(span), "end")] if end else [])]

    def _rounds(self, span: Span) -> int:
        """How many rounds a procedure took."""
        if (rounds := self.traces.rounds(span.label)) is not None:
            return rounds
        record = self.store.known(ModelFile(span.file).file, span.of)
        return int(record.facts["rounds"]) if record is not None else 0

    def _read(self, span: Span, key: int | str, start: Weights | None, end: Weights | None) -> Weights | None:
        return start if key == "start" else end if key == "end" else self.traces.model(span.label, int(key))

    def _rows(self, span: Span, found: Floats) -> Iterator[tuple[Any, ...]]:
        label, quality = span.label, self.kind.rounds or self.kind.quality
        for step, (rounds, *values) in enumerate(found.tolist()):
            for number, part in enumerate(span.parts):
                for request in (part.request,) if part.request else span.requests:
                    whose = label.phase, request, label.strategy, label.seed, span.after, int(rounds), step
                    name = "forget" if part.request else "validation"
                    for measure, value in zip(("loss", quality), values[2 * number :], strict=False):
                        if np.isfinite(value):
                            yield (*whose, name, measure, value, part.images)


def _same(one: Weights, other: Weights) -> bool:
    """Whether two models of one form are the same."""
    return all(torch.equal(one[name], other[name]) for name in one)
