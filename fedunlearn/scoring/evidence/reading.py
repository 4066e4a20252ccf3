"""A run folder as values. Whatever is missing, damaged or does not fit together is an error that names the file."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn import files
from fedunlearn.core import RequestId, RunError, derive
from fedunlearn.core.kinds import kinds
from fedunlearn.scoring.evidence import (
    Bools,
    Floats,
    Frame,
    Ints,
    Relearnt,
    Shadow,
    Spent,
    WithLosses,
)
from fedunlearn.scoring.evidence.groups import attributes
from fedunlearn.scoring.evidence.margins import Margins, declared
from fedunlearn.scoring.evidence.once import Once
from fedunlearn.scoring.evidence.year import Year, year as year_of
from fedunlearn.scoring.kinds import scored

IMAGES = ("image", "patient", "site", "split", "forgotten_by")
DIFFICULTY = ("image", "seed", "learnt_after")
LEDGER = (
    "phase",
    "request",
    "strategy",
    "seed",
    "round",
    "sites",
    "down_bytes",
    "up_bytes",
    "site_seconds",
    "server_seconds",
    "images",
    "epochs",
    "stored_bytes",
)

RELEARN, RELEARNT = "relearn", "probes/relearn.parquet"
CURVES = ("request", "strategy", "seed", "epoch", "loss", "goal")


@dataclass(frozen=True)
class Comparison:
    """The models of one request and seed: an entry of the manifest's ``scored``.

    Attributes:
        request, seed: which.
        original, retrained: the references.
        strategies: by label; what a strategy had in hand at a horizon comes before its last model, as ``label@epochs``.
        stops: by label of those at a horizon, whose they are and after how many rounds: all of them if None.
    """

    request: RequestId
    seed: int
    original: str
    retrained: str
    strategies: Mapping[str, str]
    stops: Mapping[str, tuple[str, int | None]] = field(default_factory=dict)

    def spending(self, label: str) -> tuple[str, int | None]:
        """Whose cost a model of ``label`` has, and that of how many rounds (None: all)."""
        return self.stops.get(label, (label, None))


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder's content, images in the order of their ids whatever order the files have.

    Attributes:
        path: the folder.
        kind: of task.
        classes: how many there are.
        comparisons: what to score.
        forgets: by request as scored, the ids that `forgotten_by` uses: first the request's own, then those of requests
            honoured earlier.
        diverged: models known to answer nothing finite, and where that came about; they need no file of signals.
        images: `sites.parquet`, sorted by image.
        order: (N,) where each of its rows stands in the files.
        ledger: `ledger.parquet`.
        probes: what was done to every model that did not diverge, to measure it again (`fedunlearn.campaign.probing`).
        relearning: `probes/relearn.parquet`, if that is one of them.
        learnt: `difficulty.parquet`; None in a run without it.
        costs: (C, C) of mistakes, by true and given class (`Frame.costs`); None where none were given.
        sums: the sha256 of every file by its place, which it must have when it is read; None for files that this
            process wrote itself.
        references: by request as scored, the retrained models of further seeds, which nothing else was trained with.
        margins: how much worse than retraining a model may be.
        year: when requests came in and were answered; None of a run without a calendar.
        once: what was read for several requests.
    """

    path: Path
    kind: str
    classes: int
    comparisons: tuple[Comparison, ...]
    forgets: Mapping[RequestId, tuple[RequestId, ...]]
    diverged: Mapping[str, str]
    images: pd.DataFrame
    order: Ints
    ledger: pd.DataFrame
    probes: tuple[str, ...] = ()
    relearning: pd.DataFrame | None = None
    learnt: pd.DataFrame | None = None
    costs: Floats | None = None
    sums: Mapping[str, str] | None = None
    references: Mapping[RequestId, Mapping[int, str]] = field(default_factory=dict)
    margins: Margins = field(default_factory=Margins)
    year: Year | None = None
    once: Once = field(default_factory=Once, repr=False)

    @cached_property
    def steps(self) -> Mapping[RequestId, list[str]]:
        """By policy, what its steps of unlearning are called in the ledger."""
        policies = self.year.policies if self.year else ()
        return {one.label: [step for turn in one.turns for step in turn.steps] for one in policies}

    @cached_property
    def patients(self) -> tuple[str, ...]:
        """Patients' names, by their code in `Frame.patients`."""
        return tuple(str(name) for name in np.unique(self.images["patient"].astype(str)))

    def frame(self, request: RequestId) -> Frame:
        """The images as a request divides them.

        Raises:
            RunError: it names no training image.
        """
        table, (own, *earlier) = self.images, self.forgets[request]
        labels = _labels(table)
        site_names, sites = np.unique(table["site"].astype(str), return_inverse=True)
        frame = Frame(
            patients=np.unique(table["patient"].astype(str), return_inverse=True)[1],
            sites=sites,
            site_names=tuple(str(name) for name in site_names),
            labels=labels,
            classes=self.classes,
            train=(table["split"] == "train").to_numpy(bool),
            test=(table["split"] == "test").to_numpy(bool),
            forgotten=_named(table, [own]),
            gone=_named(table, earlier),
            seed=derive(0, "scoring", "patients", request),
            attributes=attributes(table, labels, self.learnt, scored(self.kind).divided),
            canary=table["canary"].to_numpy(bool) if "canary" in table.columns else None,
            costs=self.costs,
        )
        if not frame.rows("forget").any():
            raise RunError(
                f"{self.path / 'sites.parquet'}: request {own!r} names no training image to forget"
            )
        return frame

    def named(self, request: RequestId) -> Bools:
        """(N,) the training images that a request names; none of a request that was refused."""
        named = np.zeros(len(self.images), dtype=bool)
        named[self._asked.get(request, [])] = True
        return named

    @cached_property
    def _asked(self) -> Mapping[RequestId, list[int]]:
        """By request, the numbers of the training images that it names; there may be a thousand requests."""
        train = (self.images["split"] == "train").to_numpy(bool)
        found: dict[RequestId, list[int]] = {}
        for row, names in enumerate(self.images["forgotten_by"]):
            for name in names if train[row] and names is not None else ():
                found.setdefault(str(name), []).append(row)
        return found

    def answers(self, model: str, frame: Frame) -> WithLosses | None:
        """What a model answers, whatever the request; None if it diverged.

        Raises:
            RunError: its file of signals is missing or does not fit the images.
        """
        read = partial(self._finite, model, frame)
        return self.once(("answers", model), read) if model in self._shared else read()

    def _finite(self, model: str, frame: Frame) -> WithLosses | None:
        if model in self.diverged:
            return None
        answers = self._answers(f"signals/{model}.parquet", frame)
        return answers if answers.finite else None

    @cached_property
    def _shared(self) -> frozenset[str]:
        """The models that stand in several comparisons: the original ones, where there are several requests."""
        names = Counter(name for one in self.comparisons for name in (one.original, one.retrained))
        return frozenset(name for name, count in names.items() if count > 1)

    def on_copies(self, model: str, frame: Frame) -> Floats | None:
        """What a model answers for changed copies of images (`fedunlearn.learning.copies`).

        (N,) the mean over an image's copies of the logit-scaled margin of the right answer (`WithLosses.margin`); NaN
        where it was not asked about the image, and where what it answers is not finite. None if the run has no copies.

        Raises:
            RunError: the model's file is missing, or does not fit the images.
        """
        if not any(file.startswith("copies/") for file in self.sums or ()):
            return None
        read = partial(self._on_copies, model, frame)
        return self.once(("copies", model), read) if model in self._shared else read()

    def _on_copies(self, model: str, frame: Frame) -> Floats:
        name, blank = f"copies/{model}.parquet", np.full(len(self.images), np.nan)
        if model in self.diverged:
            return blank
        table = _table(self.path, name, self.sums, ("image", "copy"))
        rows = self._numbers.get_indexer(pd.Index(table["image"]))
        numbers, which = np.unique(table["copy"], return_inverse=True)
        if (rows < 0).any() or np.bincount(which * len(blank) + rows).max(initial=0) > 1:
            raise RunError(f"{self.path / name} is of images that are not in sites.parquet, or of some twice")
        signals = table.drop(columns=["image", "copy"])
        if not np.isfinite(signals.to_numpy(np.float64)).all():
            return blank
        margin = scored(self.kind).margin(signals, frame, rows, str(self.path / name))
        margins = np.full((len(numbers), len(blank)), np.nan)
        margins[which, rows] = margin
        found: Floats = np.mean(margins, axis=0)
        return found

    @cached_property
    def _numbers(self) -> pd.Index[Any]:
        """The images, to find their numbers by."""
        index: pd.Index[Any] = pd.Index(self.images["image"])
        return index

    @property
    def shadows(self) -> tuple[Shadow[WithLosses], ...]:
        """The shadow models; none if the run has none.

        Raises:
            RunError: a file is missing or does not fit the images, or a shadow diverged.
        """
        return self.once("shadows", self._shadows)

    def _shadows(self) -> tuple[Shadow[WithLosses], ...]:
        members = "shadows/members.parquet"
        if self.sums is None or members not in self.sums:
            return ()
        who, frame = self._rows(members), self.frame(self.comparisons[0].request)
        return tuple(self._shadow(str(name), who[name].to_numpy(bool), frame) for name in who.columns)

    def _shadow(self, number: str, members: Bools, frame: Frame) -> Shadow[WithLosses]:
        name = f"shadows/{number}.parquet"
        answers = self._answers(name, frame)
        if not answers.finite:
            raise RunError(f"{self.path / name}: the shadow model diverged (answers not finite)")
        return Shadow(answers, members)

    def probed(self, request: RequestId, strategy: str, seed: int, frame: Frame) -> Mapping[str, WithLosses]:
        """What a model answers after each probe of the run, finite or not.

        Raises:
            RunError: a file is missing or does not fit the images.
        """
        return {
            probe: self._answers(f"probes/{probe}/{request}/{strategy}-{seed}.parquet", frame)
            for probe in self.probes
            if probe != RELEARN
        }

    def relearnt(self, request: RequestId, strategy: str, seed: int) -> Relearnt | None:
        """How a model learnt again what it was asked to forget; None if the run did not try.

        Raises:
            RunError: the run did, but not with this model.
        """
        if self.relearning is None:
            return None
        table = self.relearning
        rows = table[
            (table["request"] == request) & (table["strategy"] == strategy) & (table["seed"] == seed)
        ].sort_values("epoch")
        if rows.empty:
            raise RunError(
                f"{self.path / RELEARNT} has no row of request {request!r}, strategy {strategy!r}, seed {seed}"
            )
        return Relearnt(rows["loss"].to_numpy(np.float64), float(rows["goal"].iloc[0]))

    def _answers(self, name: str, frame: Frame) -> WithLosses:
        return scored(self.kind).read(self._rows(name), frame, str(self.path / name))

    def _rows(self, name: str) -> pd.DataFrame:
        """A table with one row per image, in the order of their ids."""
        table = _table(self.path, name, self.sums)
        if len(table) != len(self.order):
            raise RunError(
                f"{self.path / name} has {len(table)} rows; expected one per image, {len(self.order)}"
            )
        return table.iloc[self.order]

    def spent(
        self, phase: str, request: RequestId, strategy: str, seed: int, rounds: int | None = None
    ) -> Spent:
        """What a procedure cost, or its first ``rounds`` rounds.

        Of a year, unlearning under a policy, which is scored as a request, is all of its steps, of which there may be
        none; retraining goes from look to look.

        Raises:
            RunError: the ledger does not know it.
        """
        ledger, called = self.ledger, [request]
        policy = phase == "unlearn" and request in self.steps
        if policy:
            called = self.steps[request]
        elif phase == "retrained" and self.year is not None:
            called += {f"{request}@{look.round}" for look in self.year.looks}
        rows = ledger[
            (ledger["phase"] == phase)
            & ledger["request"].isin(called)
            & (ledger["strategy"] == strategy)
            & (ledger["seed"] == seed)
        ]
        if rows.empty and not policy:
            asked = f"phase {phase!r}, request {request!r}, strategy {strategy!r}, seed {seed}"
            raise RunError(f"{self.path / 'ledger.parquet'} has no row of {asked}")
        if rounds is not None:
            rows = rows[rows["round"] < rounds]
        tuning = ledger[(ledger["phase"] == "tune") & (ledger["strategy"] == strategy)]
        return Spent(
            site_seconds=float(rows["site_seconds"].sum()),
            server_seconds=float(rows["server_seconds"].sum()),
            bytes=int(rows["down_bytes"].sum() + rows["up_bytes"].sum()),
            storage_bytes=int(rows["stored_bytes"].max()) if len(rows) else 0,
            rounds=int((rows["sites"] > 0).sum()),
            images=int(rows["images"].sum()),
            epochs=int(rows["epochs"].sum()),
            tuning_seconds=float(tuning["site_seconds"].sum()),
        )


def read(path: Path) -> Run:
    """Read a run folder (signals are read when asked for).

    Raises:
        RunError: a file is missing or damaged, or is not what a run leaves behind.
    """
    file = path / "manifest.json"
    manifest = files.unsealed(file)
    try:
        sums = {str(name): str(known) for name, known in manifest["sha256"].items()}
        kind, classes = str(manifest["kind"]), int(manifest["classes"])
        comparisons = tuple(_comparison(entry) for entry in manifest["scored"])
        forgets = {c.request: _forgets(manifest, c.request) for c in comparisons}
        probes = tuple(str(name) for name in manifest.get("probes", {}).get("names", ()))
        costs = _costs(manifest.get("costs"), classes)
        diverged = {str(entry["model"]): str(entry["where"]) for entry in manifest.get("diverged", ())}
        references, margins = _extra(manifest.get("references", ())), declared(manifest)
        year = year_of(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{file} is not the manifest of a run: {type(error).__name__}: {error}") from error
    if kind not in kinds():
        raise RunError(f"{file}: cannot read a run of kind {kind!r}; known are {', '.join(kinds())}")
    if not comparisons:
        raise RunError(f"{file}: nothing to score, 'scored' is empty")
    images = _table(path, "sites.parquet", sums, IMAGES)
    ledger = _table(path, "ledger.parquet", sums, LEDGER)
    order = np.argsort(images["image"].to_numpy(), kind="stable")
    measured = "difficulty.parquet"
    learnt = _table(path, measured, sums, DIFFICULTY) if measured in sums else None
    relearning = _table(path, RELEARNT, sums, CURVES) if RELEARN in probes else None
    return Run(
        path,
        kind,
        classes,
        comparisons,
        forgets,
        diverged,
        images.iloc[order],
        order,
        ledger,
        probes,
        relearning,
        learnt,
        costs,
        sums,
        references,
        margins,
        year,
    )


def _comparison(entry: Mapping[str, Any]) -> Comparison:
    for reference in ("original", "retrained"):
        if not entry[reference]:
            raise ValueError(f"request {entry['request']!r}, seed {entry['seed']} has no {reference} model")
    models = {str(label): str(model) for label, model in entry["strategies"].items()}
    stops = {
        str(label): (str(one["of"]), None if one["rounds"] is None else int(one["rounds"]))
        for label, one in entry.get("horizons", {}).items()
    }
    references = str(entry["original"]), str(entry["retrained"])
    return Comparison(str(entry["request"]), int(entry["seed"]), *references, models, stops)


def _extra(entries: Iterable[Mapping[str, Any]]) -> dict[RequestId, dict[int, str]]:
    """By request and seed, the models of the manifest's ``references``, in their order."""
    found: dict[RequestId, dict[int, str]] = {}
    for entry in entries:
        found.setdefault(str(entry["request"]), {})[int(entry["seed"])] = str(entry["model"])
    return found


def _forgets(manifest: Mapping[str, Any], request: RequestId) -> tuple[RequestId, ...]:
    """The request's id in `forgotten_by`, then those honoured before it; ``id@round`` forgets ``id``."""
    told = [
        entry for key in ("moments", "requests") for entry in manifest.get(key, ()) if entry["id"] == request
    ]
    own = next((str(e["forgets"]) for e in told if "forgets" in e), request.partition("@")[0])
    earlier = next((e["earlier"] for e in told if "earlier" in e), ())
    return (own, *(str(other) for other in earlier))


def _costs(given: object, classes: int) -> Floats | None:
    if given is None:
        return None
    costs = np.asarray(given, dtype=np.float64)
    if costs.shape != (classes, classes):
        raise ValueError(f"costs of shape {costs.shape}; expected {classes} rows of {classes} numbers")
    return costs


def _table(
    folder: Path, name: str, sums: Mapping[str, str] | None, columns: Sequence[str] = ()
) -> pd.DataFrame:
    """A table of the run, after its checksum."""
    file = folder / name
    try:
        content = io.BytesIO(files.checked(file, sums.get(name))) if sums is not None else file
        table = pd.read_parquet(content)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise RunError(f"cannot read {file}: {error}") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise RunError(f"{file} has no column {', '.join(missing)}")
    return table


def _labels(table: pd.DataFrame) -> Ints:
    """(N,) int64; -1 where there is no label."""
    if "label" not in table.columns:
        return np.full(len(table), -1)
    return pd.to_numeric(table["label"]).fillna(-1).to_numpy(np.int64)


def _named(table: pd.DataFrame, requests: Sequence[RequestId]) -> Bools:
    """(N,) whether any of the requests names the image."""
    wanted = set(requests)
    named = [names is not None and not wanted.isdisjoint(names) for names in table["forgotten_by"]]
    return np.asarray(named, dtype=bool)
