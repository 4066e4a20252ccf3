"""Commands that answer a request: keys, its record, and what is purged for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.commands import rim
from fedunlearn.commands.arguments import DataRoot, Debug, RunPath


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


def purge(
    run: RunPath,
    request: Annotated[
        list[str] | None, typer.Option("--request", metavar="ID", help="Whose images (repeatable).")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All requests of the run.")] = False,
    keep: Annotated[
        str,
        typer.Option(
            metavar="STRATEGY",
            help="The remedy in use, whose models stay (of a year POLICY/STRATEGY); retrained ones always do.",
        ),
    ] = "retrained",
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="DIR", help="The folder that `keys` made, for slips and tombstones."),
    ] = None,
    without_images: Annotated[
        bool,
        typer.Option("--without-images", help="The data is not at hand: know what is gone by ids alone."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do nothing, and say what would be done.")
    ] = False,
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Remove from a finished run what the images of a request left in it: models that saw them, rows, ids, pictures."""
    with rim.errors(debug):
        from fedunlearn.core import InputError
        from fedunlearn.erasure import purge as purges

        if bool(request) == everything:
            raise InputError("expected --request ID, as often as needed, or --all")
        root = None if without_images else rim.data_root(data_root)
        order = purges.Order(tuple(request or ()), keep, keys, root)
        rim.say("\n".join(purges.purge(run, order, dry_run)))
