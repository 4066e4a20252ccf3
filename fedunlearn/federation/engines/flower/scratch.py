"""A temporary folder for Ray's session, and an end to everything that belongs to it.

- Ray puts sockets into its folder, whose paths may have 107 bytes: where the usual temporary folder is too deep, or
  cannot be written, a folder at another usual place is taken.
- Ray's processes outlive a driver that is killed, some of them for good. All of them are started with the variable
  `MARK` in their environment, so they are found whatever they call themselves and whoever adopted them.
- Whoever works in a folder holds a lock on it: the next run clears what is nobody's (`claims`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

from fedunlearn import interrupts
from fedunlearn.core import InputError
from fedunlearn.federation.engines.flower import claims

MARK = "FEDUNLEARN_SCRATCH"
"""The environment variable of a folder's processes; its value is the folder."""

STORE = 1 << 30
"""Bytes of Ray's object store, claimed as they are used; it spills to disk beyond."""

_DYING = 1.0  # seconds to wait for the end of what was killed; it takes some milliseconds
_BORN = 1.0  # seconds that a new program may take to have an environment; on a busy machine some take 20 ms
_PREFIX = "fedun-"
_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"  # Ray's longest
_LONGEST = 107 - len(_SOCKET)  # of our folder's path
_LEAST_STORE = 1 << 28  # in shared memory; Ray needs 75 MB, and messages of one round should fit


@contextmanager
def folder(places: Sequence[str] | None = None) -> Iterator[Path]:
    """A new empty folder, cleared with all processes that carry its `MARK` at the end.

    Args:
        places: where it may be, the first that can be used is; None for the usual temporary folders.

    Raises:
        InputError: none can be used.
    """
    places = places or _usual_places()
    for place in places:
        claims.clear_abandoned(place, _PREFIX, clear)
    made, lock = _claim(places)
    with interrupts.last_resort(partial(clear, made)):
        try:
            yield made
        finally:
            clear(made)
            os.close(lock)


@contextmanager
def marked(folder: Path) -> Iterator[None]:
    """While this lasts, processes that are started carry the folder's `MARK`, and so do all that those start."""
    # Without SPT_NOENV, Ray's processes write their titles over their environment.
    with variables({MARK: str(folder), "SPT_NOENV": "1"}):
        yield


@contextmanager
def variables(new: Mapping[str, str]) -> Iterator[None]:
    """Environment variables, put back at the end."""
    old = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def clear(folder: Path, tries: int = 40) -> None:
    """Kill the processes of a folder and remove it, as often as it takes for both to be gone."""
    for _ in range(tries):
        found = kill(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if not found and not folder.exists():
            return
        time.sleep(0.05)


def kill(folder: Path, but: str = "") -> list[psutil.Process]:
    """Kill the `inhabitants` of a folder that are not called ``but``; those that were there."""
    found = [process for process in inhabitants(folder) if _name(process) != but]
    end(found, timeout=_DYING)
    return found


def inhabitants(folder: Path) -> list[psutil.Process]:
    """The processes that carry the folder's `MARK`; none of other users, whom we cannot ask, and not this one."""
    return [process for process in psutil.process_iter() if _carries(process, folder)]


def end(processes: Sequence[psutil.Process], timeout: float) -> None:
    """Kill what of ``processes`` still lives, and wait for their end, so that none stays as a dead child."""
    for process in processes:
        with suppress(psutil.Error):  # ended meanwhile
            process.kill()
    psutil.wait_procs(processes, timeout)


def store_size(shared: int, disk: int) -> int:
    """How many bytes Ray's object store may have: `STORE`, or less if shared memory is scarce.

    Ray keeps the store on disk, in its folder, if it is larger than what is free in shared memory.

    Args:
        shared: free bytes in /dev/shm.
        disk: free bytes where Ray's folder is.

    Raises:
        InputError: there is room in neither.
    """
    if (fits := min(STORE, shared * 9 // 10)) >= _LEAST_STORE:
        return fits
    if disk >= 2 * STORE:
        return STORE
    raise InputError(
        f"Ray's object store has no room: {shared >> 20} MB are free in /dev/shm, {disk >> 20} MB in the temporary "
        f"folder; expected {_LEAST_STORE >> 20} MB in the first or {2 * STORE >> 20} MB in the second: in a container "
        "add `--shm-size=2g` (docker), set TMPDIR to a larger disk, or use --engine inline"
    )


def _carries(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and f"{MARK}={folder}".encode() in _environment(process)
    except (psutil.Error, OSError):  # another user's, or ended meanwhile
        return False


def _environment(process: psutil.Process) -> list[bytes]:
    """What a process was started with. Where a title has been written over the beginning, psutil stops to read."""
    if (block := Path(f"/proc/{process.pid}/environ")).exists():
        until = time.monotonic() + _BORN
        while _being_born(block.parent) and time.monotonic() < until:
            time.sleep(0.001)
        return block.read_bytes().split(b"\0")
    return [f"{name}={value}".encode() for name, value in process.environ().items()]


def _being_born(process: Path) -> bool:
    """Whether a program has been loaded whose arguments and environment are not there yet: `execve` is not done.

    `subprocess.Popen` returns before it is. The kernel's own threads, and the dead, have no program.

    Args:
        process: its folder in /proc.
    """
    return not (process / "cmdline").read_bytes() and (process / "exe").exists()


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:  # ended meanwhile
        return ""


def _usual_places() -> list[str]:
    return list(dict.fromkeys([*claims.usual_places(), "/dev/shm"]))


def _claim(places: Sequence[str]) -> tuple[Path, int]:
    """Make a folder at the first place where it can be, and lock it before it has a name that others look for."""
    reasons = []
    for place in places:
        if len(os.fsencode(place)) + len(f"/{_PREFIX}") + 8 > _LONGEST:
            reasons.append(f"{place}: its path is too long for Ray's sockets")
            continue
        try:
            return claims.claim(place, _PREFIX)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
    raise InputError(
        f"Ray needs a temporary folder that can be written and whose path has at most {_LONGEST - len(_PREFIX) - 9} "
        f"bytes; found none ({'; '.join(reasons)}): set TMPDIR to one, or use --engine inline"
    )
