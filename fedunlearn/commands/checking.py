"""Commands that say beforehand what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedunlearn import installation
from fedunlearn.commands import completing, rim
from fedunlearn.commands.arguments import AsJson, DataRoot, Debug, Overrides, ScenarioFile, Tombstones

if TYPE_CHECKING:
    from fedunlearn.core import Problem
    from fedunlearn.sweep.checking import Checked


def check(
    scenario: ScenarioFile,
    set: Overrides = None,
    data_root: DataRoot = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw a few images of every hospital and class (.png, .pdf, .svg)."
        ),
    ] = None,
    tombstones: Tombstones = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Report every problem of a scenario, with its place; run nothing."""
    from fedunlearn.core import InputError

    with rim.errors(debug):
        try:
            file = installation.scenario_file(scenario)

            with rim.loading():
                from fedunlearn.federation.progress import watching
                from fedunlearn.sweep import cells, checking

            watch, read = watching(rim.aside()), cells.read(file, set or ())
            found = checking.check(
                read, rim.data_root(data_root), watch=watch, pictures=pictures, tombstones=tombstones or ()
            )
        except InputError as error:
            if as_json:
                rim.say(_as_json(scenario, error.problems, None))
            raise
        plain = "\n".join([*found.lines, f"{file}: no problems"])
        rim.say(_as_json(scenario, (), found) if as_json else plain)


def _as_json(scenario: Path, problems: Sequence[Problem], found: Checked | None) -> str:
    """What a check found, as JSON."""
    told = {
        "scenario": str(scenario),
        "problems": [asdict(one) for one in problems],
        "requests": [{"cell": cell, **asdict(of)} for cell, of in found.requests.items()] if found else [],
        "told": [line for line in found.lines if line] if found else [],
    }
    return json.dumps(told, indent=2)


def check_strategy(
    strategy: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A Python file with a strategy, or a name of `list strategies`.",
            autocompletion=completing.strategies,
        ),
    ],
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change one of its settings.")
    ] = None,
    excuse: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMISE", help="Leave out what the method cannot keep (repeatable)."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Try on a toy federation whether a strategy keeps what every strategy promises."""
    with rim.errors(debug):
        from fedunlearn.contract import checking
        from fedunlearn.core import InputError

        console, broken = rim.console(), list[str]()
        for one in checking.named(strategy, set or ()):
            findings = checking.check(one, excuse or ())
            checking.show(one, findings, console)
            broken += [finding.promise.name for finding in findings if finding.broken]
        if broken:
            raise InputError(f"{strategy}: {len(broken)} promises are not kept: {', '.join(broken)}")
        rim.say(f"{strategy}: all promises are kept")


def check_cluster(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="host:port of a Ray cluster, or auto for this machine's.")
    ],
    gpus_per_client: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The share of a GPU that every worker is to have.")
    ] = 0.0,
    folder: Annotated[
        Path | None, typer.Option(help="Also tell which machines see this folder, such as one for runs.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look at every machine of a Ray cluster, as a run would before anything else; run nothing."""
    with rim.errors(debug):
        from fedunlearn.core import InputError
        from fedunlearn.federation.engines.flower import overview, probe
        from fedunlearn.federation.engines.machines import here

        own, found = here(), probe.look(address, gpus_per_client, folder)
        if as_json:
            rim.say(json.dumps(overview.as_json(own, found), indent=2))
        else:
            overview.show(own, found, rim.console())
        if problems := probe.problems(found):
            raise InputError(problems)
