"""A run folder as values. Whatever is missing, damaged or does not fit together is an error that names the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn.core import RequestId, RunError, derive
from fedunlearn.scoring.evidence import Answers, Bools, Frame, Ints, Spent
from fedunlearn.scoring.groups import attributes
from fedunlearn.scoring.measures import READERS, measures_of

IMAGES = ("image", "patient", "site", "split", "forgotten_by")
DIFFICULTY = ("image", "seed", "learnt_after")
LEDGER = (
    "phase",
    "request",
    "strategy",
    "seed",
    "sites",
    "down_bytes",
    "up_bytes",
    "site_seconds",
    "server_seconds",
    "images",
    "stored_bytes",
)


@dataclass(frozen=True)
class Comparison:
    """The models of one request and seed: an entry of the manifest's ``scored``."""

    request: RequestId
    seed: int
    original: str
    retrained: str
    strategies: Mapping[str, str]


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
        learnt: `difficulty.parquet`; None in a run without it.
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
    learnt: pd.DataFrame | None = None

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
            attributes=attributes(table, labels, self.learnt),
        )
        if not frame.rows("forget").any():
            raise RunError(
                f"{self.path / 'sites.parquet'}: request {own!r} names no training image to forget"
            )
        return frame

    def answers(self, model: str, frame: Frame) -> Answers | None:
        """What a model answers; None if it diverged.

        Raises:
            RunError: its file of signals is missing or does not fit the images.
        """
        if model in self.diverged:
            return None
        path = self.path / "signals" / f"{model}.parquet"
        signals = _table(path)
        if len(signals) != len(self.order):
            raise RunError(f"{path} has {len(signals)} rows; expected one per image, {len(self.order)}")
        answers = READERS[self.kind](signals.iloc[self.order], frame, str(path))
        return answers if answers.finite else None

    def spent(self, phase: str, request: RequestId, strategy: str, seed: int) -> Spent:
        """What a procedure cost.

        Raises:
            RunError: the ledger does not know it.
        """
        ledger = self.ledger
        rows = ledger[
            (ledger["phase"] == phase)
            & (ledger["request"] == request)
            & (ledger["strategy"] == strategy)
            & (ledger["seed"] == seed)
        ]
        if rows.empty:
            asked = f"phase {phase!r}, request {request!r}, strategy {strategy!r}, seed {seed}"
            raise RunError(f"{self.path / 'ledger.parquet'} has no row of {asked}")
        tuning = ledger[(ledger["phase"] == "tune") & (ledger["strategy"] == strategy)]
        return Spent(
            site_seconds=float(rows["site_seconds"].sum()),
            server_seconds=float(rows["server_seconds"].sum()),
            bytes=int(rows["down_bytes"].sum() + rows["up_bytes"].sum()),
            storage_bytes=int(rows["stored_bytes"].max()),
            rounds=int((rows["sites"] > 0).sum()),
            images=int(rows["images"].sum()),
            tuning_seconds=float(tuning["site_seconds"].sum()),
        )


def read(path: Path) -> Run:
    """Read a run folder (signals are read when asked for).

    Raises:
        RunError: a file is missing or damaged, or is not what a run leaves behind.
    """
    file = path / "manifest.json"
    manifest = _manifest(file)
    try:
        kind, classes = str(manifest["kind"]), int(manifest["classes"])
        comparisons = tuple(_comparison(entry) for entry in manifest["scored"])
        forgets = {c.request: _forgets(manifest, c.request) for c in comparisons}
        diverged = {str(entry["model"]): str(entry["where"]) for entry in manifest.get("diverged", ())}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{file} is not the manifest of a run: {type(error).__name__}: {error}") from error
    measures_of(kind)  # refuses what cannot be scored
    if not comparisons:
        raise RunError(f"{file}: nothing to score, 'scored' is empty")
    images, ledger = _table(path / "sites.parquet", IMAGES), _table(path / "ledger.parquet", LEDGER)
    order = np.argsort(images["image"].to_numpy(), kind="stable")
    measured = path / "difficulty.parquet"
    learnt = _table(measured, DIFFICULTY) if measured.exists() else None
    return Run(path, kind, classes, comparisons, forgets, diverged, images.iloc[order], order, ledger, learnt)


def _manifest(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{file} is not the manifest of a run: expected an object")
    return content


def _comparison(entry: Mapping[str, Any]) -> Comparison:
    for reference in ("original", "retrained"):
        if not entry[reference]:
            raise ValueError(f"request {entry['request']!r}, seed {entry['seed']} has no {reference} model")
    strategies = {str(label): str(model) for label, model in entry["strategies"].items()}
    return Comparison(
        str(entry["request"]), int(entry["seed"]), str(entry["original"]), str(entry["retrained"]), strategies
    )


def _forgets(manifest: Mapping[str, Any], request: RequestId) -> tuple[RequestId, ...]:
    """The request's id in `forgotten_by`, then those honoured before it; ``id@round`` forgets ``id``."""
    told = [
        entry for key in ("moments", "requests") for entry in manifest.get(key, ()) if entry["id"] == request
    ]
    own = next((str(e["forgets"]) for e in told if "forgets" in e), request.partition("@")[0])
    earlier = next((e["earlier"] for e in told if "earlier" in e), ())
    return (own, *(str(other) for other in earlier))


def _table(file: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    try:
        table = pd.read_parquet(file)
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
