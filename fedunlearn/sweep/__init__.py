"""A sweep: one scenario run once for every combination of some of its values, and one table of all of it.

A scenario's ``sweep`` block names keys as ``--set`` does, each with its values::

    sweep:
      requests.0.patients.fraction: [0.05, 0.1, 0.3]
      training.augmentation: [none, flips_crops]

Every combination is a *cell*: an ordinary scenario without a ``sweep``, and an ordinary run folder ``cells/<slug>`` in
the sweep's own, beside ``sweep.json`` (which cells there are) and ``summary.parquet``. Cells that are finished are not
run again, so that a sweep goes on where it was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from fedunlearn import guests, scenario as scenarios
from fedunlearn.campaign.cohort import Cohort, gather
from fedunlearn.campaign.estimate import Estimate, estimate, of_all, require_room
from fedunlearn.campaign.survey import draw, survey
from fedunlearn.campaign.timing import duration
from fedunlearn.core import InputError, Problem, RunError
from fedunlearn.learning.models import origin
from fedunlearn.results.contact import writable
from fedunlearn.results.runfolder import ABOUT, RunFolder, in_use, locked
from fedunlearn.results.wording import plain
from fedunlearn.scenario import Scenario
from fedunlearn.simulate import simulate
from fedunlearn.sweep.cells import Cell, Sweep, read, read_one
from fedunlearn.sweep.table import about, markdown, show, summary
from sites.watching import Watch, unwatched

__all__ = [
    "Cell",
    "Sweep",
    "check",
    "is_sweep",
    "markdown",
    "read",
    "read_one",
    "run",
    "show",
    "slugs",
    "summary",
]


def check(
    read: Scenario | Sweep,
    data_root: Path,
    out: Path = Path("runs"),
    watch: Watch = unwatched,
    pictures: Path | None = None,
) -> list[str]:
    """What the data is, what requests mean, what is not run for them, what it takes; of a sweep, for every cell.

    Args:
        read: what to check.
        data_root: where the data's files are.
        out: where it is to be run.
        watch: is shown how far reading is.
        pictures: where to draw a few images of every hospital and class; of a sweep, those of its first cell.

    Raises:
        InputError: data is missing or damaged, a request names what is not there, there is no room for all cells, or
            pictures cannot be written there; all problems of all cells.
    """
    several = isinstance(read, Sweep)
    cells = [(cell.slug, cell.scenario) for cell in read.cells] if isinstance(read, Sweep) else [("", read)]
    if pictures is not None:
        writable(pictures)
    lines, found, needed, seen = list[str](), list[Problem](), list[Estimate](), set[str]()
    for slug, scenario in cells:
        mark = f"{slug}: " if several else ""
        try:
            cohort = gather(scenario, data_root, watch)
            needed.append(estimate(scenario, cohort))
            require_room(needed[-1], out, [out / "cells" / slug] if several else [])  # before a step is timed
        except InputError as error:
            found += error.problems
            continue
        if pictures is not None and not seen:
            draw(cohort, scenario.name, pictures)
            lines += [f"{mark}pictures: {pictures}", ""]
        if cohort.digest not in seen:  # cells mostly have the same data
            lines += [*survey(cohort), ""]
            seen.add(cohort.digest)
        lines += [f"{mark}{told}" for told in _told(scenario, cohort, needed[-1])]
    if found:
        raise scenarios.together(found)
    if several and needed:  # none, if all cells are finished
        require_room(of_all(needed), out, [out / "cells" / slug for slug, _ in cells])
    return lines + ([f"all cells: {of_all(needed)}"] if len(needed) > 1 else [])


def _told(scenario: Scenario, cohort: Cohort, needed: Estimate) -> Iterator[str]:
    """What a scenario takes, what its requests mean, and what is not run for them."""
    yield str(needed)
    yield duration(scenario, cohort)
    if start := origin(scenario.model, cohort.shape, cohort.classes):
        yield f"model: {start}"
    for plan in scenario.strategies:
        for kind, name in guests.origin(type(plan.strategy)).items():
            yield f"{plan.label}: runs code that does not come with fedunlearn, {kind} {name}"
    for request in scenario.requests:
        yield f"{request.id}: {cohort.summary(request)}"
        yield from (f"{request.id}: {sentence}" for sentence in cohort.warnings(request.id))
    for label, request_id, reason in scenarios.skipped(scenario):
        yield f"{label}: will not run for {request_id}: {reason}"


def run(
    sweep: Sweep,
    out: Path,
    data_root: Path,
    console: Console,
    quiet: bool = False,
    reuse: Sequence[Path] = (),
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

    Raises:
        InputError: something about a cell, the data or the folder is wrong; nothing was run.
        RunError: a cell failed; the ones before it are kept.
    """
    with locked(out):
        return _run(sweep, out, data_root, console, quiet, reuse)


def _run(
    sweep: Sweep, out: Path, data_root: Path, console: Console, quiet: bool, reuse: Sequence[Path]
) -> Path:
    if out.exists() and not is_sweep(out) and (not out.is_dir() or in_use(out)):
        raise InputError(f"output folder {out} is in use, and not by a sweep: name another with --out")
    folders = {cell.slug: out / "cells" / cell.slug for cell in sweep.cells}
    open_ = [cell for cell in sweep.cells if not _is_finished(folders[cell.slug], cell)]
    check(replace(sweep, cells=tuple(open_)), data_root, out)
    _write_about(out, sweep)
    for number, cell in enumerate(sweep.cells, 1):
        if not quiet:
            state = "" if cell in open_ else ": finished already"
            console.print(plain(f"cell {number}/{len(sweep.cells)} {cell.slug}{state}"))
        if cell in open_:
            done = [other for other in folders.values() if (other / "DONE").is_file()]
            _run_cell(cell, folders[cell.slug], data_root, console, quiet, (*done, *reuse))
    RunFolder(out).write_table("summary.parquet", summary(out))
    return out


def is_sweep(folder: Path) -> bool:
    """Whether ``folder`` is that of a sweep."""
    return (folder / "sweep.json").is_file()


def slugs(folder: Path) -> list[str]:
    """The names of a sweep's cells, whether they are finished or not.

    Raises:
        RunError: what the folder says of its cells is missing or damaged.
    """
    return [str(cell["slug"]) for cell in about(folder)["cells"]]


def _run_cell(
    cell: Cell, folder: Path, data_root: Path, console: Console, quiet: bool, reuse: Sequence[Path]
) -> None:
    resume = (folder / ABOUT).is_file()
    if not resume:
        RunFolder(folder).discard()  # what was interrupted before it began
    try:
        simulate(cell.scenario, folder, data_root, console, quiet, resume, reuse)
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
            same = scenarios.read(file) == cell.scenario
        except InputError:  # of another version, or damaged: not what would be run
            same = False
        if same:
            return (folder / "DONE").is_file()
    elif not folder.exists() or not in_use(folder) or (folder / ABOUT).is_file():
        return False
    raise InputError(
        f"{folder} holds something else than cell {cell.slug} of this sweep: remove it, or name another folder "
        "with --out"
    )


def _write_about(out: Path, sweep: Sweep) -> None:
    about = {
        "name": sweep.name,
        "cells": [{"slug": cell.slug, "values": dict(cell.values)} for cell in sweep.cells],
    }
    (out / "cells").mkdir(parents=True, exist_ok=True)
    RunFolder(out).write_text("sweep.json", json.dumps(about, indent=1) + "\n")
