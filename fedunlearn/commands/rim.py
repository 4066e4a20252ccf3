"""Where commands meet the outside: what is printed, what errors and signals become, where files are."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import select
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import typer
from rich.console import Console

from fedunlearn import __version__, account, files, interrupts
from fedunlearn.core import FedunlearnError, Interrupted
from fedunlearn.results import events
from fedunlearn.results.events import SCHEMA, Events
from fedunlearn.results.wording import safe


@contextmanager
def errors(debug: bool, told: Events | None = None) -> Iterator[None]:
    """Turn errors into one message and an exit code, and into an event; with ``debug`` let them through."""
    try:
        with interrupts.interruptible():
            yield
    except KeyboardInterrupt as stop:
        raise _interrupted(stop, told=told) from None
    except FedunlearnError as error:
        if stopped := interrupts.arrived():
            raise _interrupted(stopped, _notes(error), told) from None
        if debug:
            raise
        several = "\n" in str(error)  # then every problem has a line of its own, which starts with its place
        message = "\n".join((f"error:{chr(10) if several else ' '}{error}", *_notes(error)))
        raise _failed(message, error.exit_code, told) from None
    except Exception as error:  # the rim: a full disk, a defect; a traceback is for those who ask for one
        if stopped := interrupts.arrived():  # it may have met a terminal that is gone
            raise _interrupted(stopped, _notes(error), told) from None
        if debug or (isinstance(error, BrokenPipeError) and _unread()):
            raise
        message = f"error: {type(error).__name__}: {error} (--debug shows where)"
        raise _failed("\n".join((message, *_notes(error))), 1, told) from None


@contextmanager
def working(debug: bool, as_json: bool, command: str, of: Path) -> Iterator[Console]:
    """`errors`, and where a command shows its work: `aside`, or with ``as_json`` as events, begin to end.

    Standard output then holds nothing else than events: what others print goes to standard error.

    Args:
        debug: let errors through.
        as_json: as events.
        command: which command it is.
        of: the scenario or the run that it was given.
    """
    if not as_json:
        with errors(debug):
            yield aside()
        return
    told, status = Events(sys.stdout), 0
    try:
        with contextlib.redirect_stdout(sys.stderr), errors(debug, told):
            told.tell("begin", schema=SCHEMA, fedunlearn=__version__, command=command, scenario=str(of))
            yield events.console(told)
    except typer.Exit as end:
        status = end.exit_code
        raise
    except BaseException:
        status = 1
        raise
    finally:
        with contextlib.suppress(OSError):  # nobody reads any more
            told.tell("end", exit_code=status, seconds=told.seconds())


@contextmanager
def loading() -> Iterator[None]:
    """Let Python look for no garbage while modules are loaded: there is next to none, and it takes an eighth of it."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def say(text: str, file: TextIO | None = None) -> None:
    """Print what may hold anything: no part of it reaches a terminal as a command."""
    print(safe(text), file=file, flush=True)


def _notes(error: BaseException) -> list[str]:
    """What to do about it, where somebody on the way noted that."""
    return list(getattr(error, "__notes__", ()))


def _failed(message: str, code: int, told: Events | None) -> typer.Exit:
    """Say what went wrong; the exit that goes with it."""
    say(message, sys.stderr)
    if told is not None:
        told.tell("error", message=message, exit_code=code)
    return typer.Exit(code)


def _interrupted(
    stop: KeyboardInterrupt, notes: Sequence[str] = (), told: Events | None = None
) -> typer.Exit:
    """Say that the run was interrupted and what to do about it; the exit that goes with it."""
    code = stop.exit_code if isinstance(stop, Interrupted) else 130
    with contextlib.suppress(OSError):  # whoever hung up reads nothing
        return _failed("\n".join((str(stop) or "interrupted", *_notes(stop), *notes)), code, told)
    return typer.Exit(code)


def console() -> Console:
    """For results: standard output, as wide as the terminal; wide enough for the tables where there is none."""
    terminal = sys.stdout is not None and sys.stdout.isatty()  # None where it was closed from the start
    return Console() if terminal else Console(width=100)


def aside() -> Console:
    """For progress, and what there is to know of the work: standard error, so that it is in nobody's results."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return Console(stderr=True) if terminal else Console(stderr=True, width=100)


def columns() -> int | None:
    """Of the terminal; None where there is none."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if terminal else None


def data_root(given: Path | None) -> Path:
    """``--data-root``, else ``$FEDUNLEARN_DATA``, else a per-user cache."""
    return files.data_root(given)


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


def run(app: Callable[[], object]) -> None:
    """Run the command line and end the process."""
    account.name_the_user(os.environ)
    try:
        with interrupts.listening(interrupts.DEADLINE):
            _run(app)
    except Interrupted as stop:  # in the last moment
        os._exit(_ended(stop.exit_code))


_OWN_THREADS = 2  # the main one, and the one that watches for signals that take too long


def _run(app: Callable[[], object]) -> None:
    try:
        app()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.__context__, BrokenPipeError):  # click has seen it, and says 1
            status = _UNREAD
        if stop := interrupts.arrived():
            status = stop.exit_code
        status = _ended(status)
        # Python's own end takes apart all that was loaded, object by object, which takes longer than some commands; and
        # with a hospital still at work, torch aborts in it. So libraries have their last word, and that is all.
        if not status and threading.active_count() <= _OWN_THREADS:
            atexit._run_exitfuncs()
        os._exit(_ended(status))
    except Exception as error:  # for --debug; a traceback quotes messages, which may hold anything
        say("".join(traceback.format_exception(error)).rstrip(), sys.stderr)
        os._exit(_ended(1))
