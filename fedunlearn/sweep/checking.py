"""What a sweep, or a single scenario, comes to, before anything is run. None of what only a run needs is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedunlearn import guests, scenario as scenarios
from fedunlearn.campaign import docket
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.estimate import Estimate, estimate, of_all, require_room
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.survey import draw, survey
from fedunlearn.campaign.timing import duration
from fedunlearn.core import InputError, Problem, Rota, Select
from fedunlearn.erasure import returning
from fedunlearn.intake.desk import ALL
from fedunlearn.learning.models import origin
from fedunlearn.results.contact import writable
from fedunlearn.scenario import Scenario
from fedunlearn.sweep.cells import Sweep
from sites.watching import Watch, unwatched


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        lines: all of it in words.
        requests: of every scenario with a calendar, by the cell's name, which is empty without a sweep, how many
            requests come in and what becomes of them.
    """

    lines: list[str] = field(default_factory=list)
    requests: dict[str, docket.Counts] = field(default_factory=dict)


def check(
    read: Scenario | Sweep,
    data_root: Path,
    out: Path = Path("runs"),
    watch: Watch = unwatched,
    pictures: Path | None = None,
    tombstones: Collection[Path] = (),
) -> Checked:
    """What the data is, what requests mean, what is not run for them, what it takes; of a sweep, for every cell.

    Args:
        read: what to check.
        data_root: where the data's files are.
        out: where it is to be run.
        watch: is shown how far reading is.
        pictures: where to draw a few images of every hospital and class; of a sweep, those of its first cell.
        tombstones: of what was purged, which must not be in the data again.

    Raises:
        InputError: data is missing or damaged, or has what was purged, a request names what is not there, there is no
            room for all cells, or pictures cannot be written there; all problems of all cells.
    """
    several = isinstance(read, Sweep)
    cells = [(cell.slug, cell.scenario) for cell in read.cells] if isinstance(read, Sweep) else [("", read)]
    if pictures is not None:
        writable(pictures)
    checked, found, needed, seen = Checked(), list[Problem](), list[Estimate](), set[str]()
    lines = checked.lines
    for slug, scenario in cells:
        mark = f"{slug}: " if several else ""
        try:
            cohort = gather(scenario, data_root, watch)
            returning.refuse(tombstones, cohort.table, cohort.pixels)
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
        if cohort.docket is not None:
            checked.requests[slug] = cohort.docket.counts
    if found:
        raise scenarios.together(found)
    if several and needed:  # none, if all cells are finished
        require_room(of_all(needed), out, [out / "cells" / slug for slug, _ in cells])
    if len(needed) > 1:
        lines.append(f"all cells: {of_all(needed)}")
    return checked


def _told(scenario: Scenario, cohort: Cohort, needed: Estimate) -> Iterator[str]:
    """What a scenario takes, what its requests mean, and what is not run for them."""
    yield str(needed)
    yield duration(scenario, cohort)
    if scenario.training.participation < 1:
        images = cohort.counts(Select())
        rota = Rota.among(cohort.sites, images, scenario.training.participation)
        held = "" if all(images.values()) else " that have images to train on"
        yield f"training: a round asks {rota.size:,} of {len(rota.sites):,} hospitals{held}, drawn anew in each"
    if start := origin(scenario.model, cohort.form):
        yield f"model: {start}"
    for plan in scenario.strategies:
        for kind, name in guests.origin(type(plan.strategy)).items():
            yield f"{plan.label}: runs code that does not come with fedunlearn, {kind} {name}"
    if cohort.docket is not None:
        yield from docket.told(cohort.docket, scenario)
        told = (*cohort.warnings(ALL), *cohort.few(ALL))
        yield from (f"all requests: {sentence}" for sentence in told)
    for request in scenario.requests if cohort.docket is None else ():
        yield f"{request.id}: {cohort.summary(request)}"
        yield from (
            f"{request.id}: {sentence}"
            for sentence in (*cohort.warnings(request.id), *cohort.few(request.id))
        )
    for label, request_id, reason in scenarios.skipped(scenario):
        yield f"{label}: will not run for {request_id}: {reason}"
