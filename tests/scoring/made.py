"""Made-up run folders that can be scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn.results.runfolder import RunFolder

SEEDS = (7, 8, 9)
SITES = ("north", "east", "west")
REQUESTS = {"some": "north", "east-leaves": "east"}


@dataclass(frozen=True)
class Made:
    """How a made-up model behaves: how well it knows each part of the images, as a mean margin in nats."""

    retain: float = 4.0
    forget: float = 1.0
    test: float = 1.0


MODELS: Mapping[str, Made] = {
    "original": Made(forget=4.0),
    "retrained": Made(),
    "good": Made(),
    "lazy": Made(forget=4.0),
    "overdone": Made(forget=-1.0),
    "destroyed": Made(retain=-2.0, forget=-2.0, test=-2.0),
}


def images(patients: int = 20, per_patient: int = 7, classes: int = 4) -> pd.DataFrame:
    """``patients`` at each of three hospitals, split 60/10/30 by patient; requests as in `REQUESTS`."""
    rows = []
    for s, site in enumerate(SITES):
        for p in range(patients):
            split = "train" if p < 0.6 * patients else "val" if p < 0.7 * patients else "test"
            asked = ["some"] if site == "north" and p < 0.3 * patients else []
            asked += ["east-leaves"] if site == "east" else []
            for i in range(per_patient):
                image, label = f"{site}-{p:03}-{i}", (s + p + i) % classes
                rows.append((image, f"{site}-{p:03}", site, split, label, asked))
    return pd.DataFrame(rows, columns=["image", "patient", "site", "split", "label", "forgotten_by"])


def logits(table: pd.DataFrame, request: str, made: Made, seed: int, classes: int = 4) -> pd.DataFrame:
    """Scores whose true class leads by a normal margin with the mean that ``made`` gives the image's part.

    An image is as hard for one model as for another, up to a little luck of the model's own.
    """
    rng, own = np.random.default_rng(0), np.random.default_rng(seed)
    asked = np.array([request in names for names in table["forgotten_by"]])
    train = (table["split"] == "train").to_numpy()
    mean = np.select([train & asked, train], [made.forget, made.retain], made.test)
    noise = rng.normal(size=(len(table), classes)) + 0.2 * own.normal(size=(len(table), classes))
    noise[np.arange(len(table)), table["label"]] += mean
    columns = [f"logits_{c}" for c in range(classes)]
    return pd.DataFrame(noise.astype(np.float32), columns=columns)


def ledger_row(
    phase: str, request: str, strategy: str, seed: int, round: int, **more: float
) -> dict[str, Any]:
    counts = {"sites": 3, "down_bytes": 10, "up_bytes": 20, "images": 100, "epochs": 3, "stored_bytes": 0}
    times = {"site_seconds": 2.0, "server_seconds": 0.5}
    key = {"phase": phase, "request": request, "strategy": strategy, "seed": seed, "round": round}
    return {**key, **counts, **times, **more}


def make_run(
    folder: Path,
    models: Mapping[str, Made] = MODELS,
    seeds: tuple[int, ...] = SEEDS,
    table: pd.DataFrame | None = None,
    classes: int = 4,
) -> Path:
    """A run folder with everything that scoring reads."""
    table = images(classes=classes) if table is None else table
    (folder / "signals").mkdir(parents=True)
    scored, ledger = [], [ledger_row("original", "", "original", s, r) for s in seeds for r in range(4)]
    for request in REQUESTS:
        for seed in seeds:
            names = {m: f"{m}-{request}-{seed}" for m in models}
            for i, (model, name) in enumerate(names.items()):
                signal = logits(table, request, models[model], 100 * seed + i, classes)
                signal.to_parquet(folder / "signals" / f"{name}.parquet", index=False)
            original, retrained = names.pop("original"), names.pop("retrained")
            entry = {"request": request, "seed": seed, "original": original, "retrained": retrained}
            scored.append({**entry, "strategies": names})
            ledger += [ledger_row("retrained", request, "retrained", seed, r) for r in range(4)]
            for strategy in names:
                ledger.append(
                    ledger_row("unlearn", request, strategy, seed, 0, stored_bytes=5, site_seconds=1)
                )
                ledger.append(ledger_row("unlearn", request, strategy, seed, 1, sites=0, site_seconds=0))
    ledger.append(ledger_row("tune", "", "good", seeds[0], 20, sites=0, site_seconds=30))
    requests = [{"id": r, "site": s, "whole_site": r == "east-leaves"} for r, s in REQUESTS.items()]
    manifest = {"kind": "classification", "classes": classes, "seeds": list(seeds)}
    (folder / "scenario.yaml").write_text("name: made\n", encoding="utf-8")
    table.to_parquet(folder / "sites.parquet", index=False)
    pd.DataFrame(ledger).to_parquet(folder / "ledger.parquet", index=False)
    RunFolder(folder).write_manifest({**manifest, "requests": requests, "scored": scored})
    return folder


def change_manifest(folder: Path, **entries: Any) -> None:
    """Seal a folder again, as if a run had written what is there now."""
    run = RunFolder(folder)
    run.write_manifest(run.read_manifest() | entries)


def pick(scores: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    for column, value in columns.items():
        scores = scores[scores[column] == value]
    return scores
