"""Commands that answer a request: keys, and its record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.commands import rim
from fedunlearn.commands.arguments import Debug, RunPath


def keys(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A new folder, outside of run folders and of what is shared."),
    ],
    debug: Debug = False,
) -> None:
    """Make a pair of keys that signs erasure records."""
    with rim.errors(debug):
        from fedunlearn.erasure import keys as pairs

        made = pairs.make(folder)
        rim.say(
            f"{folder / pairs.SECRET}: keep it secret; {folder / pairs.PUBLIC}: give it to whoever checks records "
            f"(key {pairs.fingerprint(made.public)})"
        )


def record(
    run: RunPath,
    folder: Annotated[Path, typer.Option("--keys", metavar="DIR", help="The folder that `keys` made.")],
    facts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What people know of the requests (YAML): days, decisions, reasons."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write an erasure record for every request of a run, signed, for people and programs (records/)."""
    with rim.errors(debug):
        from fedunlearn.erasure import record as records

        rim.say("\n".join(records.write(run, folder, facts)))
