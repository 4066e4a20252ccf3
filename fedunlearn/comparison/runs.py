"""What is compared: finished runs, and the finished cells of sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fedunlearn import sweep
from fedunlearn.core import InputError
from fedunlearn.results import overview
from fedunlearn.results.overview import Overview
from fedunlearn.results.runfolder import RunFolder


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
    """

    name: str
    cell: str
    about: str
    overviews: Mapping[str, Overview]
    scores: pd.DataFrame
    statistics: pd.DataFrame


def read(paths: Sequence[Path]) -> list[Compared]:
    """The runs in some folders, a sweep's cells one by one.

    Raises:
        InputError: a folder holds no finished run, or one that an older version judged.
        RunError: a file is missing or damaged.
    """
    return [run for path in paths for run in (_cells(path) if sweep.is_sweep(path) else [_run(path)])]


def _cells(path: Path) -> Iterator[Compared]:
    finished = [slug for slug in sweep.slugs(path) if (path / "cells" / slug / "DONE").is_file()]
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
    )
