"""Commands that train."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedunlearn import installation
from fedunlearn.commands import rim
from fedunlearn.commands.arguments import (
    DataRoot,
    Debug,
    Engine,
    EventsAsJson,
    Overrides,
    ScenarioFile,
    Tombstones,
)


def simulate(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The run folder to make (default: runs/NAME, then runs/NAME-2, …; of a sweep, to go on with: "
            "runs/NAME)."
        ),
    ] = None,
    engine: Engine = None,
    set: Overrides = None,
    data_root: DataRoot = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished run in --out; nothing is done twice.")
    ] = False,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN", help="Take from an earlier run what would come to the same (repeatable)."
        ),
    ] = None,
    tombstones: Tombstones = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")] = False,
    as_json: EventsAsJson = False,
    debug: Debug = False,
) -> None:
    """Train, retrain, unlearn and score a scenario; write a run folder; print its summary."""
    with rim.working(debug, as_json, "simulate", scenario) as console:
        file = installation.scenario_file(scenario)

        with rim.loading():
            from fedunlearn.results import events, places, report, telling
            from fedunlearn.story import simulate as run_scenario
            from fedunlearn.sweep import cells, running, table

        stones = tombstones or ()
        read, told = cells.read(file, _overrides(set, engine)), events.of(console)
        if isinstance(read, cells.Sweep):
            place = out or Path("runs") / read.name
            folder = running.run(read, place, rim.data_root(data_root), console, quiet, reuse or (), stones)
            if told is not None:
                running.tell(folder, told)
            elif not quiet:
                table.show(folder, rim.console())
                rim.say(f"sweep folder: {folder}")
            return
        with places.placed(out, Path("runs") / read.name, resume) as place:
            root, given = rim.data_root(data_root), _given(scenario, engine, set, data_root, reuse, stones)
            run = run_scenario(
                read, place, root, console, quiet, resume, reuse or (), given, tombstones=stones
            )
        if told is not None:
            telling.finished(run, told)
        elif not quiet:
            report.show(run, rim.console())
            rim.say(f"run folder: {run.path}; its page for people: report.html")


def _overrides(set: Sequence[str] | None, engine: str | None) -> list[str]:
    """What is changed of a scenario; the engine that is asked for goes last, so it counts."""
    return [*(set or ()), *([f"engine.name={engine}"] if engine else ())]


def _given(
    scenario: Path,
    engine: str | None,
    set: Sequence[str] | None,
    data_root: Path | None,
    reuse: Sequence[Path] | None,
    tombstones: Sequence[Path],
) -> str:
    """What decides what is run, as a shell takes it: a run that was stopped goes on with the same only."""
    named = (
        *([("--engine", engine)] if engine else ()),
        *(("--set", one) for one in set or ()),
        *([("--data-root", str(data_root))] if data_root else ()),
        *(("--reuse", str(one)) for one in reuse or ()),
        *(("--tombstones", str(one)) for one in tombstones),
    )
    return shlex.join([str(scenario), *(word for pair in named for word in pair)])


def tune(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to make (default: runs/NAME-tuning, then runs/NAME-tuning-2, …)."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try for every strategy.")] = 20,
    site_seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Start no trial of a strategy after so much work of the hospitals."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rehearsals of every request.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of rehearsals and settings.")] = 0,
    engine: Engine = None,
    set: Overrides = None,
    data_root: DataRoot = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
    as_json: EventsAsJson = False,
    debug: Debug = False,
) -> None:
    """Find settings for every strategy on rehearsed requests, at the same budget; write a scenario with them."""
    with rim.working(debug, as_json, "tune", scenario) as console:
        file = installation.scenario_file(scenario)

        with rim.loading():
            from fedunlearn import tuning
            from fedunlearn.results import events, places
            from fedunlearn.sweep import cells

        read = cells.read_one(file, _overrides(set, engine))
        budget = tuning.Budget(trials, site_seconds)
        with places.placed(out, Path("runs") / f"{read.name}-tuning") as place:
            found = tuning.tune(read, place, rim.data_root(data_root), budget, console, repeats, seed, quiet)
        if (told := events.of(console)) is not None:
            tuning.tell(found, told)
            return
        if not quiet:
            tuning.show(found, rim.console())
        rim.say(f"tuned scenario: {found.folder / 'tuned.yaml'}")
