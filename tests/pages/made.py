"""Run folders to write pages of: made-up answers of models, scored as a run's are, and what else a run leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedunlearn.results import audit
from fedunlearn.results.runfolder import RunFolder, parquet
from fedunlearn.scoring.score import score
from tests.scoring.made import MODELS, SEEDS, change_manifest, images, make_run

SCRIPT = "<script>alert(1)</script>"
TURNED = "right‮tfel"
BROKEN = "two\nlines\r\t\x1b[31m"
LONG = "n" * 10_000
SPACED = "a b " * 2_500
HOSTILE = (
    SCRIPT,
    TURNED,
    BROKEN,
    LONG,
    SPACED,
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }}",
    "&lt;b&gt;",
    "]]>-->",
)
"""Names that data may hold, and a page may not obey."""


def folder(
    place: Path,
    patients: Mapping[str, str] | None = None,
    seeds: tuple[int, ...] = SEEDS,
    models: Mapping[str, Any] = MODELS,
    **entries: Any,
) -> RunFolder:
    """A finished run.

    Args:
        place: of the folder.
        patients: what some patients are called instead.
        seeds: of trainings.
        models: as of `make_run`.
        entries: of the manifest, instead of the usual ones.
    """
    table = images(patients=10)
    table["patient"] = table["patient"].replace(dict(patients or {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        make_run(place, models, seeds=seeds, table=table)
        curves(models, seeds).to_parquet(place / "curves.parquet", index=False)
        score(place)
    (place / "scenario.yaml").write_text(f"name: made\nseeds: {list(seeds)}\n", encoding="utf-8")
    audit.append(place / audit.FILE, "run-started", {})
    change_manifest(place, **{**_usual(seeds), **entries})
    (place / "DONE").touch()
    return RunFolder(place)


REFERENCES = ("original", "retrained", "retrained_other")
"""Models that a run has once, however many strategies it has."""


def large(
    small: RunFolder, place: Path, strategies: int, seeds: int, patients: int, groups: int
) -> RunFolder:
    """A run folder as `folder` makes it, with many of everything: its rows, again and again under other names.

    Args:
        small: whose rows.
        place: of the new folder.
        strategies, seeds: how many there are.
        patients: for each that there is.
        groups: for each that there is of unseen images, but all of them.
    """
    shutil.copytree(small.path, place)
    run, numbers = RunFolder(place), tuple(range(seeds))
    for file in place.glob("*.parquet"):
        table = pd.read_parquet(file)
        if file.name != "requests.parquet" and "strategy" in table and "request" in table:
            run.renew({file.name: parquet(_repeated(table, strategies, numbers, patients, groups))})
    models = [*REFERENCES[:2], *(f"strategy number {i}" for i in range(strategies))]
    rounds = curves(models, numbers, 64)
    requests = pd.concat([rounds, rounds.assign(request="east-leaves")], ignore_index=True)
    asked = pd.read_parquet(place / "requests.parquet").assign(seeds=seeds)
    run.renew({"curves.parquet": parquet(requests), "requests.parquet": parquet(asked)})
    change_manifest(place, seeds=list(numbers))
    return run


def _repeated(
    table: pd.DataFrame, strategies: int, seeds: tuple[int, ...], patients: int, groups: int
) -> pd.DataFrame:
    """See `large`."""
    ours = [name for name in dict.fromkeys(table["strategy"]) if name not in REFERENCES]
    whose = [(name, name) for name in REFERENCES]
    whose += [(ours[i % len(ours)], f"strategy number {i}") for i in range(strategies)]
    found = [table[table["strategy"] == old].assign(strategy=new) for old, new in whose]
    if "seed" in table:
        known, every = sorted(set(table["seed"])), found
        found = [
            one[one["seed"] == known[i % len(known)]].assign(seed=seed)
            for one in every
            for i, seed in enumerate(seeds)
        ]
    whole = pd.concat(found, ignore_index=True)
    if "patient" in table:
        again = [whole.assign(patient=whole["patient"] + f" the {i}th") for i in range(patients)]
        return pd.concat(again, ignore_index=True)
    if "group" in table:
        split = whole[whole["group"] != "all"]
        again = [split.assign(group=split["group"] + f"-{i}") for i in range(1, groups)]
        return pd.concat([whole, *again], ignore_index=True)
    return whole


def curves(models: Iterable[str], seeds: tuple[int, ...], steps: int = 4) -> pd.DataFrame:
    """A measure per round of training, training anew and unlearning, of the first request."""
    phases = {"original": ("original", 0), "retrained": ("retrained", 0)}
    rows = [
        {
            "phase": phase,
            "request": "some",
            "strategy": strategy,
            "seed": seed,
            "after": after,
            "round": step,
            "step": step,
            "part": part,
            "measure": measure,
            "value": (1 + step + seed / 10) / (5 if part == "forget" else 6),
            "images": 18,
        }
        for strategy in models
        for phase, after in [phases.get(strategy, ("unlearn", 5))]
        for seed in seeds
        for step in range(steps)
        for part in ("forget", "validation")
        for measure in ("accuracy", "loss")
    ]
    return pd.DataFrame(rows)


def _usual(seeds: tuple[int, ...]) -> dict[str, Any]:
    return {
        "name": "made",
        "fedunlearn": "0.1.0",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "platform": "Linux x86_64",
        "machines": [{"host": "here", "processor": "a processor", "cpu": "AVX2", "tasks": 12}],
        "machine_notes": [],
        "seeds": list(seeds),
        "data": {"note": "Made up.", "notes": ["2 images show the same."], "digest": "d1" * 32},
        "moments": [
            _moment("some", "forget 3 patients of north"),
            _moment("east-leaves", "forget all of hospital east"),
        ],
        "skipped": [{"strategy": "late", "request": "some", "reason": "it is late"}],
        "diverged": [
            {"strategy": "wild", "request": "some", "seed": 8, "model": "some-wild-8", "where": "in round 2"}
        ],
        "wall_seconds": 61.25,
    }


def _moment(name: str, summary: str) -> dict[str, Any]:
    return {"id": name, "forgets": name, "earlier": [], "round": 5, "summary": summary, "warnings": []}


def names(hostile: tuple[str, ...] = HOSTILE) -> dict[str, str]:
    """New names for patients, those of the request among them."""
    table: pd.DataFrame = images(patients=10)
    asked = table[[bool(of) for of in table["forgotten_by"]]]["patient"].drop_duplicates()
    return dict(zip(asked, hostile, strict=False))
