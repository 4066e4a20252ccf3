"""The command line: reads arguments, calls one function, turns errors into messages and exit codes. No logic."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TextIO

import typer
from rich.console import Console

import fedunlearn
from fedunlearn import account, files, installation, interrupts
from fedunlearn.core import FedunlearnError, Interrupted
from fedunlearn.results.wording import safe

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=fedunlearn.__doc__
)

cluster = typer.Typer(no_args_is_help=True, help="Ray clusters.")
app.add_typer(cluster, name="cluster")

ScenarioFile = Annotated[
    Path, typer.Argument(metavar="SCENARIO", help="A scenario file (YAML), or a name of `list scenarios`.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
ReportPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or that of a sweep.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the scenario.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Where data files are (default: $FEDUNLEARN_DATA, else a per-user cache)."),
]


def _or_before(context: typer.Context, debug: bool) -> bool:
    """``--debug`` counts before the command as well as after it."""
    return debug or bool(context.find_root().params.get("debug"))


Debug = Annotated[bool, typer.Option("--debug", callback=_or_before, help="Show the traceback of an error.")]


@app.callback()
def start(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Before any command: make sure that it would run our code."""
    with _errors(debug):
        installation.require_own_packages()


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
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no summary.")] = False,
    debug: Debug = False,
) -> None:
    """Train, retrain, unlearn and score a scenario; write a run folder; print its summary."""
    with _errors(debug):
        file = installation.scenario_file(scenario)

        from fedunlearn import sweep
        from fedunlearn.results import report, runfolder
        from fedunlearn.simulate import simulate as run_scenario

        overrides = [*(set or ()), *([f"engine.name={engine}"] if engine else ())]
        read = sweep.read(file, overrides)
        console = _console()
        if isinstance(read, sweep.Sweep):
            place = out or Path("runs") / read.name
            folder = sweep.run(read, place, _root(data_root), console, quiet, reuse or ())
            if not quiet:
                sweep.show(folder, console)
                _say(f"sweep folder: {folder}")
            return
        with runfolder.placed(out, Path("runs") / read.name, resume) as place:
            run = run_scenario(read, place, _root(data_root), console, quiet, resume, reuse or ())
        if not quiet:
            report.show(run, console)
            _say(f"run folder: {run.path}")


@app.command()
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
    debug: Debug = False,
) -> None:
    """Report every problem of a scenario, with its place; run nothing."""
    with _errors(debug):
        file = installation.scenario_file(scenario)

        from fedunlearn import sweep
        from fedunlearn.federation.progress import watching

        watch, read = watching(_console()), sweep.read(file, set or ())
        _say("\n".join(sweep.check(read, _root(data_root), watch=watch, pictures=pictures)))
        _say(f"{file}: no problems")


@app.command()
def check_strategy(
    strategy: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A Python file with a strategy, or a name of `list strategies`."),
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
    with _errors(debug):
        from fedunlearn.contract import checking
        from fedunlearn.core import InputError

        console, broken = _console(), list[str]()
        for one in checking.named(strategy, set or ()):
            findings = checking.check(one, excuse or ())
            checking.show(one, findings, console)
            broken += [finding.promise.name for finding in findings if finding.broken]
        if broken:
            raise InputError(f"{strategy}: {len(broken)} promises are not kept: {', '.join(broken)}")
        _say(f"{strategy}: all promises are kept")


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
        file = installation.scenario_file(scenario)

        from fedunlearn import sweep, tuning
        from fedunlearn.results import runfolder

        overrides = [*(set or ()), *([f"engine.name={engine}"] if engine else ())]
        read, console = sweep.read_one(file, overrides), _console()
        budget = tuning.Budget(trials, site_seconds)
        with runfolder.placed(out, Path("runs") / f"{read.name}-tuning") as place:
            found = tuning.tune(read, place, _root(data_root), budget, console, repeats, seed, quiet)
        if not quiet:
            tuning.show(found, console)
        _say(f"tuned scenario: {found.folder / 'tuned.yaml'}")


@app.command()
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
    with _errors(debug):
        from fedunlearn.simulate import rescore

        rescore(run, margins)
        _say(f"{run}: scored; `report` shows the summary")


@app.command()
def report(
    run: ReportPath,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, for a document.")] = False,
    details: Annotated[
        bool, typer.Option("--details", help="All measures, reasons and controls instead of the summary.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Print the summary of a run, or of a sweep."""
    with _errors(debug):
        from fedunlearn import sweep
        from fedunlearn.results import report as reports
        from fedunlearn.results.runfolder import RunFolder

        if sweep.is_sweep(run):
            _say(sweep.markdown(run)) if markdown else sweep.show(run, _console())
            return
        folder = RunFolder.open(run)
        if markdown:
            _say(reports.markdown(folder))
        else:
            reports.show(folder, _console(), details)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders, or those of sweeps.")],
    expect: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ranges (YAML), or a name of `list scenarios` that has some; exit 1 outside of one.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print runs side by side, or beside what was expected of them."""
    with _errors(debug):
        file = None if expect is None else installation.expected_file(expect)

        from fedunlearn import comparison

        expected = None if file is None else comparison.expected(file)
        found, console = comparison.read(runs), _console()
        if expected is None:
            comparison.show(found, console)
        else:
            comparison.check(found, expected, console)


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
        from fedunlearn.verification import verify as verify_run

        _say("\n".join(verify_run(run, replay, _root(data_root), _console())))


@app.command()
def discard(run: RunPath, debug: Debug = False) -> None:
    """Remove the folder of an unfinished run."""
    with _errors(debug):
        from fedunlearn.results import runfolder

        runfolder.discard(run)
        _say(f"{run}: removed")


@app.command(name="list")
def list_(
    what: Annotated[
        Literal["strategies", "measures", "data", "models", "partitions", "scenarios"], typer.Argument()
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    debug: Debug = False,
) -> None:
    """List what a scenario can name, or the scenarios that come with fedunlearn."""
    with _errors(debug):
        from fedunlearn.scenario import catalogue

        _say(json.dumps(catalogue.entries(what), indent=1) if as_json else "\n".join(catalogue.lines(what)))


@app.command()
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `list scenarios`.")],
    to: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: NAME.yaml, here.")] = None,
    debug: Debug = False,
) -> None:
    """Copy a scenario that comes with fedunlearn to a new file, to be changed."""
    with _errors(debug):
        to = to or Path(f"{name}.yaml")
        installation.copy_scenario(name, to)
        _say(f"scenario file: {to}")


@app.command()
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
    with _errors(debug):
        from sites.folder.layout import write

        _say("\n".join(write(folder, to, layout)))


@cluster.command("check")
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
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    debug: Debug = False,
) -> None:
    """Look at every machine of a Ray cluster, as a run would before anything else; run nothing."""
    with _errors(debug):
        from fedunlearn.core import InputError
        from fedunlearn.federation.engines.flower import overview, probe
        from fedunlearn.federation.engines.machines import here

        own, found = here(), probe.look(address, gpus_per_client, folder)
        if as_json:
            _say(json.dumps(overview.as_json(own, found), indent=2))
        else:
            overview.show(own, found, _console())
        if problems := probe.problems(found):
            raise InputError(problems)


@contextmanager
def _errors(debug: bool) -> Iterator[None]:
    """Turn errors into one message and an exit code; with ``debug`` let them through."""
    try:
        with interrupts.interruptible():
            yield
    except KeyboardInterrupt as stop:
        raise _interrupted(stop) from None
    except FedunlearnError as error:
        if stopped := interrupts.arrived():
            raise _interrupted(stopped, _notes(error)) from None
        if debug:
            raise
        several = "\n" in str(error)  # then every problem has a line of its own, which starts with its place
        _say("\n".join((f"error:{chr(10) if several else ' '}{error}", *_notes(error))), sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except Exception as error:  # the rim: a full disk, a defect; a traceback is for those who ask for one
        if stopped := interrupts.arrived():  # it may have met a terminal that is gone
            raise _interrupted(stopped, _notes(error)) from None
        if debug or (isinstance(error, BrokenPipeError) and _unread()):
            raise
        message = f"error: {type(error).__name__}: {error} (--debug shows where)"
        _say("\n".join((message, *_notes(error))), sys.stderr)
        raise typer.Exit(1) from None


def _say(text: str, file: TextIO | None = None) -> None:
    """Print what may hold anything: no part of it reaches a terminal as a command."""
    print(safe(text), file=file, flush=True)


def _notes(error: BaseException) -> list[str]:
    """What to do about it, where somebody on the way noted that."""
    return list(getattr(error, "__notes__", ()))


def _interrupted(stop: KeyboardInterrupt, notes: Sequence[str] = ()) -> typer.Exit:
    """Say that the run was interrupted and what to do about it; the exit that goes with it."""
    with contextlib.suppress(OSError):  # whoever hung up reads nothing
        _say("\n".join((str(stop) or "interrupted", *_notes(stop), *notes)), sys.stderr)
    return typer.Exit(stop.exit_code if isinstance(stop, Interrupted) else 130)


def _console() -> Console:
    """As wide as the terminal; wide enough for the tables where there is none."""
    terminal = sys.stdout is not None and sys.stdout.isatty()  # None where it was closed from the start
    return Console() if terminal else Console(width=100)


def _root(given: Path | None) -> Path:
    """``--data-root``, else ``$FEDUNLEARN_DATA``, else a per-user cache."""
    if given is not None:
        return given
    if from_environment := os.environ.get("FEDUNLEARN_DATA"):
        return Path(from_environment)
    return files.cache()


_UNREAD = 128 + 13  # SIGPIPE's number: what a shell says of any program whose reader has gone


def _unread() -> bool:
    """Whether nobody reads standard output any more. A pipe of the engine's that broke is another matter."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _ended(status: int) -> int:
    """Let go of what was printed; the exit code, which tells of it if not all could go and ``status`` is 0."""
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except BrokenPipeError:
        return status or _UNREAD
    except OSError as error:
        if not status:
            print(f"error: cannot write standard output: {error.strerror}", file=sys.stderr)
        return status or 1
    return status


def main() -> None:
    """Run the command line and end the process."""
    account.name_the_user(os.environ)
    try:
        with interrupts.listening(interrupts.DEADLINE):
            _run()
    except Interrupted as stop:  # in the last moment
        os._exit(_ended(stop.exit_code))


_OWN_THREADS = 2  # the main one, and the one that watches for signals that take too long


def _run() -> None:
    try:
        app()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.__context__, BrokenPipeError):  # click has seen it, and says 1
            status = _UNREAD
        if stop := interrupts.arrived():
            status = stop.exit_code
        status = _ended(status)
        # With a hospital still at work, torch aborts if Python ends under it.
        if status or threading.active_count() > _OWN_THREADS:
            os._exit(status)
        raise
    except Exception as error:  # for --debug; a traceback quotes messages, which may hold anything
        _say("".join(traceback.format_exception(error)).rstrip(), sys.stderr)
        os._exit(_ended(1))


if __name__ == "__main__":
    # `python -m` has put the current folder first. Unless that is where we are ourselves, what lies in it, such as a
    # user's own package `sites`, must not be taken for ours: look there last, as the command `fedunlearn` never does.
    if not sys.flags.safe_path and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
        sys.path.append(sys.path.pop(0))
    main()
