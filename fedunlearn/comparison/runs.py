"""What is compared: finished runs, and the finished cells of sweeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedunlearn.core import InputError
from fedunlearn.exports.settings import flat, settings
from fedunlearn.results import overview, years
from fedunlearn.results.overview import Overview
from fedunlearn.results.places import is_sweep
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.sweep.table import slugs


@dataclass(frozen=True)
class Compared:
    """A finished run.

    Attributes:
        name: its folder; of a sweep's cell, the sweep's folder and the cell's name.
        cell: the cell's name; empty if it is none.
        about: its seeds and its data, a sentence.
        overviews: what it came to, by request, at each moment that was scored.
        scores: its `scores.parquet`.
        statistics: its `statistics.parquet`.
        facts: what it was made and judged with, in words, by what it is about (`FACTS`).
        settings: its scenario's, by dotted key; those that change no bit and those among `FACTS` left out.
        trained: the seeds of all its trainings, further retrained models among them.
        probes: what finished models were asked beside.
        policies: `results.years.policies`; no rows without a calendar.
        stream: tells its requests, and whom they name, from those of others; empty without a calendar.
    """

    name: str
    cell: str
    about: str
    overviews: Mapping[str, Overview]
    scores: pd.DataFrame
    statistics: pd.DataFrame
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    trained: frozenset[int] = frozenset()
    probes: tuple[str, ...] = ()
    policies: pd.DataFrame = field(default_factory=pd.DataFrame)
    stream: str = ""


def read(paths: Sequence[Path]) -> list[Compared]:
    """The runs in some folders, a sweep's cells one by one.

    Raises:
        InputError: a folder holds no finished run, or one that an older version judged.
        RunError: a file is missing or damaged.
    """
    return [run for path in paths for run in (_cells(path) if is_sweep(path) else [_run(path)])]


def _cells(path: Path) -> Iterator[Compared]:
    finished = [slug for slug in slugs(path) if (path / "cells" / slug / "DONE").is_file()]
    if not finished:
        raise InputError(f"{path} is a sweep of which no cell is finished: run `simulate` again to go on")
    for slug in finished:
        yield _run(path / "cells" / slug, f"{path}: {slug}", slug)


def _run(path: Path, name: str = "", cell: str = "") -> Compared:
    run = RunFolder.open(path)
    manifest, tables = run.read_manifest(), overview.read(run)
    seeds = ", ".join(map(str, manifest["seeds"]))
    return Compared(
        name=name or str(path),
        cell=cell,
        about=f"{'seed' if len(manifest['seeds']) == 1 else 'seeds'} {seeds}; {manifest['data']['note']}",
        overviews={m["id"]: overview.overview(tables, manifest, m) for m in manifest["moments"]},
        scores=tables["scores"],
        statistics=tables["statistics"],
        facts=_facts(manifest),
        settings=_settings(run),
        trained=frozenset(int(s) for m in manifest["moments"] for s in _seeds(manifest, m["id"])),
        probes=tuple(manifest.get("probes", {}).get("names", ())),
        policies=years.policies(run),
        stream=_stream(run, manifest),
    )


def _stream(run: RunFolder, manifest: Mapping[str, Any]) -> str:
    """A hash of what the desk decided of whom."""
    if "docket" not in manifest:
        return ""
    table = run.read_table("sites.parquet").sort_values("image")
    named = [sorted(map(str, () if names is None else names)) for names in table["forgotten_by"]]
    whom = [(str(image), names) for image, names in zip(table["image"], named, strict=True) if names]
    return hashlib.sha256(json.dumps([manifest["docket"], whom], sort_keys=True).encode()).hexdigest()


DATA, SEEDS, RETRAININGS, MARGINS = "data", "seeds", "retrainings", "margins"
FACTS = (DATA, "task", SEEDS, RETRAININGS, MARGINS, "fedunlearn", "torch", "python", "processor", "device")
"""What is known of a run beside its settings, in the order of what it does to a comparison."""


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    """By `FACTS`; those that an older run does not tell are not there."""
    versions, machines = manifest.get("versions", {}), manifest.get("machines", ())
    margins = manifest.get("verdict", {}).get("margins", {})
    told = {
        DATA: f"{manifest['data'].get('digest', '')[:12]} ({manifest['data']['note']})",
        "task": str(manifest["kind"]),
        SEEDS: _listed(manifest["seeds"]),
        RETRAININGS: _listed(len({*_seeds(manifest, m["id"])}) for m in manifest["moments"]),
        MARGINS: ", ".join(f"{name} {value:g}" for name, value in sorted(margins.items())),
        "fedunlearn": str(manifest.get("fedunlearn", "")),
        "torch": str(versions.get("torch", "")),
        "python": str(versions.get("python", "")),
        "processor": _listed(f"{one.get('processor')} {one.get('cpu')}" for one in machines),
        "device": _listed(one.get("device") or "CPU" for one in machines),
    }
    return {name: told[name] for name in FACTS if told[name]}


def _seeds(manifest: Mapping[str, Any], request: str) -> Iterator[int]:
    """Of a request's retrained models."""
    for entry in (*manifest.get("scored", ()), *manifest.get("references", ())):
        if entry["request"] == request:
            yield entry["seed"]


def _settings(run: RunFolder) -> dict[str, str]:
    """A setting that a strategy has for all of its requests stands once."""
    if not (run.path / "scenario.yaml").is_file():
        return {}
    known = settings(run)
    rest = {key: value for key, value in known.rest.items() if key not in _ELSEWHERE}
    found = {key: _worded(value) for key, value in flat(rest).items()}
    for request in known.requests:
        about = flat({"name": "asked", **{key: value for key, value in request.items() if key != "id"}})
        found |= {f"requests.{request['id']}.{key}": _worded(value) for key, value in about.items()}
    of_strategies = dict[str, list[str]]()
    for (label, _), plan in known.strategies.items():
        for key, value in flat({key: value for key, value in plan.items() if key != "as"}).items():
            of_strategies.setdefault(f"strategies.{label}.{key}", []).append(_worded(value))
    return found | {key: _listed(values) for key, values in of_strategies.items()}


_ELSEWHERE = ("name", "seeds", "references", "engine", "verdict")
"""Keys of a scenario that are among `FACTS`, or change no bit."""


def _worded(value: object) -> str:
    """A setting's value as a scenario has it, the items of a list beside one another."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_worded(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        nested = any(isinstance(item, Mapping | list | tuple) for item in value)
        return ("; " if nested else ", ").join(map(_worded, value)) or "none"
    return str(value)


def _listed(values: Iterable[object]) -> str:
    """Each once."""
    return ", ".join(dict.fromkeys(map(str, values)))
