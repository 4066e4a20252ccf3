"""Commands that look at run folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from fedunlearn import files, installation
from fedunlearn.commands import rim
from fedunlearn.commands.arguments import DataRoot, Debug, ReportPath, RunPath, Tombstones
from fedunlearn.core import InputError, RunError


def score(
    run: RunPath,
    margins: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=NUMBER,…",
            help="Judge with other margins from now on, such as test=.05,memory_left=.3; the rest stay.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Score a run again from its folder alone."""
    with rim.errors(debug):
        with rim.loading():
            from fedunlearn.finished import rescore

        rescore(run, margins)
        rim.say(f"{run}: scored; `report` shows the summary")


def report(
    run: ReportPath,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, for a document.")] = False,
    details: Annotated[
        bool, typer.Option("--details", help="All measures, reasons and controls instead of the summary.")
    ] = False,
    form: Annotated[
        Literal["csv", "latex", "markdown", "parquet"] | None,
        typer.Option(
            "--format",
            help="As a table for papers or programs, of a sweep too; csv and parquet round nothing.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what --format asks for there.")
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Write for MLflow: to a folder, or to a server's or database's address."
        ),
    ] = None,
    cards: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write a card for every model, and one for the data, without patients' ids."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print the summary of a run, or of a sweep; of a run, write its page (report.html) anew."""
    with rim.errors(debug):
        if form or out or mlflow or cards:
            with rim.loading():
                from fedunlearn.sweep import exporting

            rim.say("\n".join(exporting.export(run, form, out, mlflow, cards)))
            return

        with rim.loading():
            from fedunlearn.results import places, report as reports
            from fedunlearn.results.runfolder import RunFolder

        if places.is_sweep(run):
            from fedunlearn.sweep import table

            rim.say(table.markdown(run)) if markdown else table.show(run, rim.console())
            return
        folder = RunFolder.open(run)
        if markdown:
            rim.say(reports.markdown(folder))
        else:
            reports.show(folder, rim.console(), details)
            _page(run)


def _page(run: Path) -> None:
    """Write the page of a run and say where it is; a folder that may only be read can be looked at without.

    Raises:
        InputError, RunError: see `finished.page`; whatever else stops drawing is raised too.
    """
    with rim.loading():
        from fedunlearn import finished

    try:
        rim.say(f"page: {finished.page(run)}")
    except (InputError, RunError) as error:
        if not files.forbidden(error):
            raise
        rim.say(f"page: not written: {error}", sys.stderr)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders, or those of sweeps.")],
    expect: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ranges (YAML), or a name of `list scenarios` that has some; exit 1 outside of one.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as one page too, with all that differs.")
    ] = None,
    form: Annotated[
        Literal["csv", "markdown"] | None,
        typer.Option(
            "--format",
            help="Print instead, as a table, what policies came to over all runs with a calendar; csv rounds nothing.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print runs side by side, or beside what was expected of them."""
    with rim.errors(debug):
        file = None if expect is None else installation.expected_file(expect)

        with rim.loading():
            from fedunlearn import comparison

        expected = None if file is None else comparison.expected(file)
        found, console = comparison.read(runs), rim.console()
        if html is not None:
            comparison.write(found, html)
        if form is not None:
            rim.say(comparison.formatted(found, form))
        elif expected is None:
            comparison.show(found, console)
        else:
            comparison.check(found, expected, console)


def verify(
    run: RunPath,
    replay: Annotated[
        int, typer.Option(min=0, metavar="N", help="Train N of its models again, and compare all bits.")
    ] = 0,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The public key that its erasure records must be signed with."),
    ] = None,
    tombstones: Tombstones = None,
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Check that a run folder is what the run wrote: checksums, audit log, records, scores; train models again too."""
    with rim.errors(debug):
        with rim.loading():
            from fedunlearn.verification import verify as verify_run

        rim.say(
            "\n".join(verify_run(run, replay, rim.data_root(data_root), rim.aside(), key, tombstones or ()))
        )


def discard(run: RunPath, debug: Debug = False) -> None:
    """Remove the folder of an unfinished run."""
    with rim.errors(debug):
        from fedunlearn.results import runfolder

        runfolder.discard(run)
        rim.say(f"{run}: removed")
