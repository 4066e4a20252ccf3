"""The command line: reads arguments, calls one function, turns errors into messages and exit codes. No logic."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from fedunlearn.core import FedunlearnError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file (YAML).")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
ReportPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or that of a sweep.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the scenario.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Where data files are (default: $FEDUNLEARN_DATA, else a per-user cache)."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def simulate(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The run folder to make (default: runs/NAME, then runs/NAME-2, …; of a sweep, to go on with: "
            "runs/NAME)."
        ),
    ] = None,
    engine: Annotated[
        Literal["inline", "flower"] | None, typer.Option(help="Instead of the scenario's.")
    ] = None,
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
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
    debug: Debug = False,
) -> None:
    """Train, retrain, unlearn and score a scenario; write a run folder; print the table."""
    with _errors(debug):
        from fedunlearn import sweep
        from fedunlearn.results import report, runfolder
        from fedunlearn.simulate import simulate as run_scenario

        overrides = [*(set or ()), *([f"engine.name={engine}"] if engine else ())]
        read = sweep.read(scenario, overrides)
        console = _console()
        if isinstance(read, sweep.Sweep):
            place = out or Path("runs") / read.name
            folder = sweep.run(read, place, _root(data_root), console, quiet, reuse or ())
            if not quiet:
                sweep.show(folder, console)
                console.print(f"sweep folder: {folder}", highlight=False, markup=False)
            return
        place = runfolder.placed(out, Path("runs") / read.name, resume)
        run = run_scenario(read, place, _root(data_root), console, quiet, resume, reuse or ())
        if not quiet:
            report.show(run, console)
            console.print(f"run folder: {run.path}", highlight=False, markup=False)


@app.command()
def check(
    scenario: ScenarioFile, set: Overrides = None, data_root: DataRoot = None, debug: Debug = False
) -> None:
    """Report every problem of a scenario, with its place; run nothing."""
    with _errors(debug):
        from fedunlearn import sweep

        print("\n".join(sweep.check(sweep.read(scenario, set or ()), _root(data_root))))
        print(f"{scenario}: no problems")


@app.command()
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
    engine: Annotated[
        Literal["inline", "flower"] | None, typer.Option(help="Instead of the scenario's.")
    ] = None,
    set: Overrides = None,
    data_root: DataRoot = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table.")] = False,
    debug: Debug = False,
) -> None:
    """Find settings for every strategy on rehearsed requests, at the same budget; write a scenario with them."""
    with _errors(debug):
        from fedunlearn import sweep, tuning
        from fedunlearn.results import runfolder

        overrides = [*(set or ()), *([f"engine.name={engine}"] if engine else ())]
        read, console = sweep.read_one(scenario, overrides), _console()
        out = runfolder.placed(out, Path("runs") / f"{read.name}-tuning")
        budget = tuning.Budget(trials, site_seconds)
        found = tuning.tune(read, out, _root(data_root), budget, console, repeats, seed, quiet)
        if not quiet:
            tuning.show(found, console)
        print(f"tuned scenario: {found.folder / 'tuned.yaml'}")


@app.command()
def score(run: RunPath, debug: Debug = False) -> None:
    """Score a run again from its folder alone."""
    with _errors(debug):
        from fedunlearn.simulate import rescore

        rescore(run)
        print(f"{run}: scored; `report` shows the tables")


@app.command()
def report(
    run: ReportPath,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, for a document.")] = False,
    debug: Debug = False,
) -> None:
    """Print the table of a run, or the summary of a sweep."""
    with _errors(debug):
        from fedunlearn import sweep
        from fedunlearn.results import report as reports
        from fedunlearn.results.runfolder import RunFolder

        if sweep.is_sweep(run):
            print(sweep.markdown(run)) if markdown else sweep.show(run, _console())
            return
        folder = RunFolder.open(run)
        if markdown:
            print(reports.markdown(folder))
        else:
            reports.show(folder, _console())


@app.command()
def verify(
    run: RunPath,
    replay: Annotated[
        int, typer.Option(min=0, metavar="N", help="Train N of its models again, and compare all bits.")
    ] = 0,
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Check that a run folder is what the run wrote: checksums, audit log, scores; train models again if asked to."""
    with _errors(debug):
        from fedunlearn import verification

        print("\n".join(verification.verify(run, replay, _root(data_root), _console())))


@app.command()
def discard(run: RunPath, debug: Debug = False) -> None:
    """Remove the folder of an unfinished run."""
    with _errors(debug):
        from fedunlearn.results import runfolder

        runfolder.discard(run)
        print(f"{run}: removed")


@app.command(name="list")
def list_(
    what: Annotated[Literal["strategies", "measures", "data", "models", "partitions"], typer.Argument()],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    debug: Debug = False,
) -> None:
    """List what a scenario can name."""
    with _errors(debug):
        from fedunlearn.scenario import catalogue

        print(json.dumps(catalogue.entries(what), indent=1) if as_json else "\n".join(catalogue.lines(what)))


@contextmanager
def _errors(debug: bool) -> Iterator[None]:
    """Turn errors into one message and an exit code; with ``debug`` let them through."""
    try:
        yield
    except KeyboardInterrupt as error:
        print("interrupted", *_notes(error), sep="\n", file=sys.stderr)
        raise typer.Exit(130) from None
    except FedunlearnError as error:
        if debug:
            raise
        several = "\n" in str(error)  # then every problem has a line of its own, which starts with its place
        print("error:\n" if several else "error: ", error, sep="", file=sys.stderr)
        print(*_notes(error), sep="\n", end="\n" if _notes(error) else "", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except Exception as error:  # the rim: a full disk, a defect; a traceback is for those who ask for one
        if debug:
            raise
        print(f"error: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        raise typer.Exit(1) from None


def _notes(error: BaseException) -> list[str]:
    """What to do about it, where somebody on the way noted that."""
    return list(getattr(error, "__notes__", ()))


def _console() -> Console:
    """As wide as the terminal; wide enough for the tables where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=100)


def _root(given: Path | None) -> Path:
    """``--data-root``, else ``$FEDUNLEARN_DATA``, else a per-user cache."""
    if given is not None:
        return given
    if from_environment := os.environ.get("FEDUNLEARN_DATA"):
        return Path(from_environment)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedunlearn"


def main() -> None:
    """Run the command line and end the process."""
    try:
        app()
    except SystemExit as end:
        if (
            end.code or threading.active_count() > 1
        ):  # a hospital still at work: torch aborts if Python ends under it
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise


if __name__ == "__main__":
    main()
