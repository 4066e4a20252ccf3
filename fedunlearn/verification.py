"""Is a run folder what the run wrote? Checksums, audit log, records, scores computed again, models trained again."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from fedunlearn import files, scenario as scenarios
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.shadows import Shadows
from fedunlearn.core import InputError, RunError, derive
from fedunlearn.erasure import keys, record, residue, tombstones as stones
from fedunlearn.erasure.tombstones import Tombstone
from fedunlearn.results import audit
from fedunlearn.results.purged import purges, require_evidence
from fedunlearn.results.runfolder import RunFolder, parquet
from fedunlearn.results.sentences import counted
from fedunlearn.results.store import Store, recorded
from fedunlearn.scenario import Evaluation, Scenario
from fedunlearn.scoring.score import ADDED, tables
from fedunlearn.story import engine, produce, surveyed, train

_PURGED = "scores cannot be computed again, since what they rest on was purged; tables are what was written"


def verify(
    path: Path,
    replay: int,
    data_root: Path,
    console: Console,
    key: Path | None = None,
    tombstones: Sequence[Path] = (),
) -> list[str]:
    """Check a finished run; return what was found good, a line each.

    Args:
        path: the run folder.
        replay: how many of its models to train again; all bits must be the same.
        data_root: where the data's files are, for ``replay``.
        console: where progress of training is shown.
        key: the public key that erasure records must be signed with; None if any will do.
        tombstones: of purges, of this run or another: what they tell of is looked for, whatever was purged here; with
            those of hospitals ids of patients and images, too.

    Raises:
        InputError: there is no finished run, its data is not at hand, or the key or a tombstone cannot be read.
        RunError: something is not what the run wrote; all of it is told.
    """
    run, by = RunFolder.open(path), None if key is None else keys.public(key)
    manifest = run.read_manifest()
    if replay:
        require_evidence(manifest, "replayed")
    others = [stones.read(one) for one in tombstones]
    if problems := [*_damage(run, manifest), *_left(run, manifest, others)]:
        raise RunError("\n".join(problems))
    good = [f"{len(manifest['sha256'])} files are what the run wrote"]
    good.append(f"{manifest['audit']['lines']} lines of the audit log are chained, none is missing")
    good += record.check(run, by)
    own = stones.of_run(run.path)
    good += _gone(others if own is None else [own, *others])
    good += [_PURGED] if purges(manifest) else _scores(run, manifest)
    if replay:
        good.append(_replay(run, manifest, replay, data_root, console))
    return good


def _damage(run: RunFolder, manifest: Mapping[str, Any]) -> list[str]:
    """What is missing, damaged or was not there when the run ended."""
    known, found = manifest["sha256"], run.listed()
    problems = [f"{run.path / name} was not written by the run" for name in found if name not in known]
    for name in known:
        problems += _problem(files.checked, run.path / name, known[name])
    return problems + _problem(audit.verify, run.path / audit.FILE, manifest["audit"])


def _problem(check: Callable[..., object], *arguments: object) -> list[str]:
    """What a check complains of, if it does."""
    try:
        check(*arguments)
    except RunError as error:
        return [str(error)]
    return []


def _scores(run: RunFolder, manifest: Mapping[str, Any]) -> list[str]:
    """Score again, and compare; tables that came with later versions need not be there.

    Raises:
        RunError: a table comes out otherwise, or is missing.
    """
    again = tables(run.path)
    absent = [name for name in again if name in ADDED and name not in manifest["sha256"]]
    for name in (name for name in again if name not in absent):
        fresh, known = pd.read_parquet(io.BytesIO(parquet(again[name]))), run.read_table(name)
        if not fresh.equals(known):
            raise RunError(f"{run.path / name}: scoring again came to something else: {_apart(fresh, known)}")
    count = len(again) - len(absent)
    good = [f"{counted(count, 'table')} {'comes' if count == 1 else 'come'} out the same when scored again"]
    if absent:
        told = ", ".join(absent)
        good.append(f"written by an older version: `fedunlearn score {run.path}` adds {told}")
    return good


def _left(run: RunFolder, manifest: Mapping[str, Any], others: Sequence[Tombstone]) -> list[str]:
    """What is left of what was purged, here or by ``others``; files that the run did not write are looked through."""
    known, file = list(others), run.path / stones.FILE
    if purges(manifest):
        if not file.is_file():
            return [f"{file} is missing, expected the tombstones of what was purged"]
        with suppress(InputError):  # it is damaged, as its checksum tells
            known.insert(0, stones.read(file))
    if not known:
        return []
    hits = residue.scan(run.path, known, manifest["sha256"])
    return [f"{run.path / hit.file}: left of what was purged: {hit.what}" for hit in hits]


def _gone(known: Sequence[Tombstone]) -> list[str]:
    """What was found to be gone, of which there are tombstones, and what was looked for."""
    if not known:
        return []
    names = list(dict.fromkeys(name for one in known for name in one.requests))
    looked = {
        "images": any(one.images for one in known),
        "ids": any(one.secret for one in known),
        "answers about them": any(one.rows for one in known),
        "removed models": any(one.tensors or one.removed for one in known),
    }
    hint = "" if looked["ids"] else "; for ids, `--tombstones FILE` is needed, which the hospital has"
    return [
        f"nothing is left of {', '.join(names)}, which {'were' if len(names) > 1 else 'was'} purged: looked for "
        f"{', '.join(what for what, there in looked.items() if there)} in every file{hint}"
    ]


def _flat(value: object) -> object:
    """A value that can be compared with one ``==``; lists come from Parquet as arrays."""
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else value


def _apart(fresh: pd.DataFrame, known: pd.DataFrame) -> str:
    """Where two tables differ first, in words."""
    if fresh.shape != known.shape or list(fresh.columns) != list(known.columns):
        return f"found {known.shape[0]} rows of {list(known.columns)}, now {fresh.shape[0]} of {list(fresh.columns)}"
    for column in fresh.columns:
        one, other = (of[column].map(_flat) for of in (fresh, known))
        equal = (one == other) | (one.isna() & other.isna())
        if not equal.all():
            row = int(np.flatnonzero(~equal.to_numpy())[0])
            return f"column {column}, row {row}: found {known[column].iloc[row]!r}, now {fresh[column].iloc[row]!r}"
    return "its columns have other types"


# ------------------------------------------------------------------------------------------------- replay


def _replay(
    run: RunFolder, manifest: Mapping[str, Any], count: int, data_root: Path, console: Console
) -> str:
    """Train some models again, with all else taken from the run.

    Raises:
        RunError: data, code, libraries or processor are others than those of the run; or bits differ.
    """
    scenario = _plain(scenarios.read(run.path / "scenario.yaml"))
    cohort = gather(scenario, data_root)
    if cohort.digest != manifest["data"]["digest"]:
        raise RunError(
            f"cannot train models of {run.path} again: the images are not those that it was run on"
        )
    chosen = _chosen(run, count)
    with tempfile.TemporaryDirectory(prefix="fedunlearn-replay-") as folder:
        again = RunFolder.create(Path(folder) / "run")
        environment = surveyed(scenario, console)
        shadows = Shadows(scenario, cohort, environment)
        made = produce(scenario, cohort, environment, shadows, Store(again, (run.path,), chosen))
        for seed in scenario.seeds:
            job = made.campaign.references.original(seed, history=False)
            if job.work is not None:
                _comparable(run, job.work.keeping.file, job.work.origin)
        with engine(scenario, environment.machines, console, quiet=True).staff() as staff:
            train(made, staff, console, quiet=True)
        other = [name for name in chosen if files.sha256(again.path / name) != manifest["sha256"][name]]
    if other:
        raise RunError(f"trained again, these came to other bits than in {run.path}: {', '.join(other)}")
    return f"{len(chosen)} models trained again came to the same bits: {', '.join(chosen)}"


def _plain(scenario: Scenario) -> Scenario:
    """A scenario without what is asked of finished models."""
    bare = Evaluation(canary=scenario.evaluation.canary, slices=False, curves=False)
    return replace(scenario, evaluation=bare)


def _chosen(run: RunFolder, count: int) -> list[str]:
    """So many of the run's models, drawn the same way each time; those that diverged were never trained to an end."""
    names = sorted(name for name in recorded(run.path) if name.startswith("weights/"))
    rng = np.random.default_rng(derive(0, "replay"))
    return sorted(rng.permutation(names)[:count].tolist())


def _comparable(run: RunFolder, file: str, origin: Mapping[str, object]) -> None:
    """Make sure that work done here would be the run's.

    Raises:
        RunError: it would be other work; tells in what.
    """
    known = recorded(run.path)[file].origin
    other = sorted(key for key in known.keys() | origin.keys() if known.get(key) != origin.get(key))
    if other:
        told = "; ".join(f"{key}: was {known.get(key)}, is {origin.get(key)}" for key in other)
        raise RunError(f"cannot train models of {run.path} again and expect the same bits: {told}")
