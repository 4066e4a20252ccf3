"""Running a sweep's cells one by one, and what they came to as events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.campaign import resuming
from fedunlearn.core import InputError, RunError
from fedunlearn.erasure import returning
from fedunlearn.results import events, telling
from fedunlearn.results.events import Events
from fedunlearn.results.places import SWEEP, in_use, is_sweep, locked
from fedunlearn.results.runfolder import ABOUT, RunFolder
from fedunlearn.results.wording import plain
from fedunlearn.story import Hired, hired, simulate, surveyed
from fedunlearn.sweep.cells import Cell, Sweep
from fedunlearn.sweep.checking import check
from fedunlearn.sweep.table import slugs, summary


def run(
    sweep: Sweep,
    out: Path,
    data_root: Path,
    console: Console,
    quiet: bool = False,
    reuse: Sequence[Path] = (),
    tombstones: Sequence[Path] = (),
) -> Path:
    """Run every cell that is not finished into ``out``, and write the summary; return ``out``.

    Cells take from one another what would come to the same, and go on where they were interrupted.

    Args:
        sweep: what to run.
        out: the sweep's folder, new or to go on with.
        data_root: where the data's files are.
        console: where progress is shown.
        quiet: show none.
        reuse: earlier run folders to take work from.
        tombstones: of what was purged, which must be neither in the data nor in what earlier runs were trained on.

    Raises:
        InputError: something about a cell, the data or the folder is wrong; nothing was run.
        RunError: a cell failed; the ones before it are kept.
    """
    returning.refuse_reuse(tombstones, reuse)
    with locked(out):
        return _run(sweep, out, data_root, console, quiet, reuse, tombstones)


def _run(
    sweep: Sweep,
    out: Path,
    data_root: Path,
    console: Console,
    quiet: bool,
    reuse: Sequence[Path],
    tombstones: Sequence[Path],
) -> Path:
    if out.exists() and not is_sweep(out) and (not out.is_dir() or in_use(out)):
        raise InputError(f"output folder {out} is in use, and not by a sweep: name another with --out")
    folders = {cell.slug: out / "cells" / cell.slug for cell in sweep.cells}
    open_ = [cell for cell in sweep.cells if not _is_finished(folders[cell.slug], cell)]
    check(replace(sweep, cells=tuple(open_)), data_root, out, tombstones=tombstones)
    _write_about(out, sweep)
    with _hired(open_, console, quiet) as hands:
        _run_all(sweep, open_, folders, data_root, console, quiet, reuse, hands)
    RunFolder(out).write_table("summary.parquet", summary(out))
    return out


@contextlib.contextmanager
def _hired(cells: Sequence[Cell], console: Console, quiet: bool) -> Iterator[Hired | None]:
    """Who plays the hospitals of all cells, one after the other; None if every cell has to see to that itself.

    Workers start once then, not for each cell; it cannot be where cells want engines that differ.
    """
    first, *others = (cell.scenario for cell in cells) if cells else (None,)
    if first is None or not others or any(one.engine != first.engine for one in others):
        yield None
        return
    machines = surveyed(first, console).machines
    with hired(first, machines, console, quiet) as hands:
        yield hands


def _run_all(
    sweep: Sweep,
    open_: Sequence[Cell],
    folders: Mapping[str, Path],
    data_root: Path,
    console: Console,
    quiet: bool,
    reuse: Sequence[Path],
    hands: Hired | None,
) -> None:
    for number, cell in enumerate(sweep.cells, 1):
        if (told := events.of(console)) is not None:
            of = {"number": number, "of": len(sweep.cells), "finished": cell not in open_}
            told.tell("cell", cell=cell.slug, **of)
        elif not quiet:
            state = "" if cell in open_ else ": finished already"
            console.print(plain(f"cell {number}/{len(sweep.cells)} {cell.slug}{state}"))
        if cell in open_:
            done = [other for other in folders.values() if (other / "DONE").is_file()]
            _run_cell(cell, folders[cell.slug], data_root, console, quiet, (*done, *reuse), hands)


def tell(folder: Path, told: Events) -> None:
    """What all cells came to, and where they are, as events."""
    for slug in slugs(folder):
        telling.answers(RunFolder.open(folder / "cells" / slug), told, cell=slug)
    told.tell("written", folder=str(folder))


def _run_cell(
    cell: Cell,
    folder: Path,
    data_root: Path,
    console: Console,
    quiet: bool,
    reuse: Sequence[Path],
    hands: Hired | None,
) -> None:
    resume = (folder / ABOUT).is_file()
    if not resume:
        RunFolder(folder).discard()  # what was interrupted before it began
    try:
        simulate(cell.scenario, folder, data_root, console, quiet, resume, reuse, hands=hands)
    except RunError as error:
        raise RunError(f"cell {cell.slug}: {error}") from error


def _is_finished(folder: Path, cell: Cell) -> bool:
    """Whether the cell's run is there and done; an interrupted one is not.

    Raises:
        InputError: what is there is another scenario's, or no run at all.
    """
    file = folder / "scenario.yaml"
    if file.is_file():
        try:
            same = resuming.same(scenarios.read(file), cell.scenario)
        except InputError:  # of another version, or damaged: not what would be run
            same = False
        if same:
            return (folder / "DONE").is_file()
    elif not folder.exists() or not in_use(folder) or (folder / ABOUT).is_file():
        return False
    raise InputError(
        f"{folder} holds something else than cell {cell.slug} of this sweep: name another folder with --out (with "
        "--reuse, what did not change is taken from a run), or remove it"
    )


def _write_about(out: Path, sweep: Sweep) -> None:
    about = {
        "name": sweep.name,
        "cells": [{"slug": cell.slug, "values": dict(cell.values)} for cell in sweep.cells],
    }
    (out / "cells").mkdir(parents=True, exist_ok=True)
    RunFolder(out).write_text(SWEEP, json.dumps(about, indent=1) + "\n")
