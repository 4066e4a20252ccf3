"""Commands that tell what a scenario can name, and write files to begin with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedunlearn import installation
from fedunlearn.commands import asking, completing, rim
from fedunlearn.commands.arguments import AsJson, DataRoot, Debug

if TYPE_CHECKING:
    from fedunlearn.beginning import Found
    from sites.folder.layout import Layout
    from sites.watching import Watch


def init(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="A folder of images, a manifest (.csv, .parquet), an .npz file, or phantom_cells, phantom_chest, "
            "breastmnist, …",
        ),
    ] = None,
    hospitals: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|NUMBER", help="What tells hospitals apart, or how many to deal patients to."
        ),
    ] = None,
    forget: Annotated[
        str | None,
        typer.Option(metavar="patients|hospital|both|ID,ID,…", help="Who is to be forgotten."),
    ] = None,
    time: Annotated[
        Literal["quick", "normal"] | None, typer.Option(help="A first look, or enough models for answers.")
    ] = None,
    layout: Annotated[
        Literal["class/patient", "site/patient", "site/class/patient"] | None,
        typer.Option(
            help="What folders without a table are, from the outermost on, where their names do not tell."
        ),
    ] = None,
    to: Annotated[Path, typer.Option(metavar="FILE.yaml", help="The new scenario file.")] = Path(
        "scenario.yaml"
    ),
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Write a first scenario for the data at hand, with comments; asks for what is not given."""
    with rim.errors(debug):
        given = {"DATA": data, "--hospitals": hospitals, "--forget": forget, "--time": time}
        from fedunlearn import beginning
        from fedunlearn.core import InputError
        from fedunlearn.federation.progress import watching

        if to.exists():  # before anything is asked for or read
            raise InputError(f"{to} is there already; expected a new file: name another with --to")
        watch = watching(rim.aside())
        root = rim.data_root(data_root)
        if data is not None:  # what is wrong with it is told before anything is asked for
            found = _looked_at(data, time or "quick", root, watch, layout)
        ask = asking.asker(given)
        if data is None:
            data = ask("Which data? A folder of images, a manifest, an .npz file, or phantom_cells", None)
            found = _looked_at(data, time or "quick", root, watch, layout)
        rim.say(f"found: {found.note}")
        pace: str = time or ask(
            "How much time? quick for a first look, normal for answers", "quick", beginning.EDGES
        )
        if time is None and pace != "quick":  # images are read larger
            found = beginning.find(data, pace, root, watch, found.layout)
        columns = beginning.columns(found)
        told = f"column {', '.join(columns)}, or " if columns else ""
        hospitals = hospitals or ask(
            f"What tells hospitals apart? {told}a number to deal patients to", columns[0] if columns else "3"
        )
        forget = forget or ask("Who is to be forgotten? patients, hospital, both, or ids", "both")
        wanted = beginning.wishes(hospitals, forget, pace, found)
        rim.say("\n".join(beginning.begin(found, wanted, to, None, watch)))


def _looked_at(data: str, time: str, root: Path, watch: Watch, layout: Layout | None) -> Found:
    """The data, after it was asked what the folders are where nothing else tells."""
    from fedunlearn import beginning

    try:
        return beginning.find(data, time, root, watch, layout)
    except beginning.Undecided as error:
        if not asking.present():
            raise
        return beginning.find(data, time, root, watch, asking.which(error.question, error.readings))


def list_(
    what: Annotated[
        Literal["strategies", "measures", "data", "models", "partitions", "policies", "scenarios"],
        typer.Argument(),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="One of them in full.", autocompletion=completing.entries),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List what a scenario can name, or the scenarios that come with fedunlearn; with NAME, one of them in full."""
    with rim.errors(debug):
        from fedunlearn import listing

        if as_json:
            found = listing.entries(what) if name is None else listing.entry(what, name)
            rim.say(json.dumps(found, indent=1))
        elif name is None:
            rim.say("\n".join(listing.lines(what, rim.columns())))
        else:
            rim.say("\n".join(listing.full(what, name, rim.columns() or 100)))


def schema(debug: Debug = False) -> None:
    """Print a JSON schema of scenarios, for editors: fedunlearn schema > scenario.schema.json."""
    with rim.errors(debug):
        from fedunlearn.scenario import json_schema

        rim.say(json.dumps(json_schema.schema(), indent=1))


def copy(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A name of `list scenarios`.", autocompletion=completing.scenarios
        ),
    ],
    to: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: NAME.yaml, here.")] = None,
    debug: Debug = False,
) -> None:
    """Copy a scenario that comes with fedunlearn to a new file, to be changed."""
    with rim.errors(debug):
        to = to or Path(f"{name}.yaml")
        installation.copy_scenario(name, to)
        rim.say(f"scenario file: {to}")


def manifest(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the images are.")],
    layout: Annotated[
        Literal["class/patient", "site/patient", "site/class/patient"] | None,
        typer.Option(help="What the folders are, from the outermost on."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Default: manifest.csv in the folder.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a manifest of the images in a folder, to be checked by you."""
    with rim.errors(debug):
        from sites.folder.layout import write

        rim.say("\n".join(write(folder, to, layout)))
