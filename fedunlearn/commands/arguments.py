"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fedunlearn.commands import completing

ScenarioFile = Annotated[
    Path,
    typer.Argument(
        metavar="SCENARIO",
        help="A scenario file (YAML), or a name of `list scenarios`.",
        autocompletion=completing.scenarios,
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
ReportPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or that of a sweep.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the scenario.")
]
Engine = Annotated[Literal["inline", "flower"] | None, typer.Option(help="Instead of the scenario's.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Where data files are (default: $FEDUNLEARN_DATA, else a per-user cache)."),
]
Tombstones = Annotated[
    list[Path] | None,
    typer.Option(
        "--tombstones", metavar="FILE", help="Of `purge`: what it tells of must not be there (repeatable)."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]

EventsAsJson = Annotated[
    bool,
    typer.Option("--json", help="For programs: one event a line on standard output, and nothing else."),
]


def _or_before(context: typer.Context, debug: bool) -> bool:
    """``--debug`` counts before the command as well as after it."""
    return debug or bool(context.find_root().params.get("debug"))


Debug = Annotated[bool, typer.Option("--debug", callback=_or_before, help="Show the traceback of an error.")]
