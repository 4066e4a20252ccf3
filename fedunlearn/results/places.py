"""Where a run may write: one writer to a folder, and a new folder for whoever names none.

Whoever writes to a folder holds its lock, which ends with the process that took it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from fedunlearn import files
from fedunlearn.core import InputError

LOCK = ".lock"
SWEEP = "sweep.json"
"""Which cells a sweep has: what tells its folder from a run's."""
PARTS = ("weights", "signals", "work")
"""Folders of a run folder that are made before the run begins."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one that writes to ``folder``, which is made if it is not there; the lock of a dead process is none.

    Raises:
        InputError: another process writes to it, or it cannot be made.
    """
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise InputError(
            f"output folder {folder} is in use: another process is writing to it; wait for that to end, or name "
            "another with --out"
        ) from error
    except OSError as error:
        raise InputError(f"cannot write to output folder {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
        _remove_if_empty(folder)


@contextmanager
def placed(out: Path | None, default: Path, resume: bool = False) -> Iterator[Path]:
    """The folder to write to: the one asked for, else a new one called as ``default`` or after it (`claimed`).

    A new one in which nothing was written is removed at the end.

    Raises:
        InputError: the folder to resume is not named; or none can be made.
    """
    if out is None and resume:
        raise InputError("--resume needs --out RUN, the folder of the run to go on with")
    if out is not None:
        yield out
        return
    around = default.parent.exists()
    new = claimed(default)
    try:
        yield new
    finally:
        with suppress(OSError):  # it is there no more, or it is in use
            new.rmdir()
            if not around:
                new.parent.rmdir()


def claimed(folder: Path) -> Path:
    """``folder``, or the first of folder-2, folder-3, … that was not there yet: made now, so that nobody else gets it.

    Raises:
        InputError: it cannot be made.
    """
    for number in itertools.count(1):
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"cannot make output folder {path}: {error.strerror}") from error
        return path
    raise AssertionError("unreachable")


def is_sweep(folder: Path) -> bool:
    """Whether ``folder`` is that of a sweep."""
    return (folder / SWEEP).is_file()


def in_use(folder: Path) -> bool:
    """Whether there is anything in a folder but its lock and what a run had made before it began."""
    return any(entry.name != LOCK and not _blank(entry) for entry in folder.iterdir())


def _blank(entry: Path) -> bool:
    """Whether it is one of a run folder's parts, and nothing in it was finished."""
    if entry.name not in PARTS or not entry.is_dir():
        return False
    return all(path.is_dir() or path.name.endswith(files.PART) for path in entry.rglob("*"))


def _remove_if_empty(folder: Path) -> None:
    """Leave nothing behind where nothing was written."""
    with suppress(OSError):
        if [entry.name for entry in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
