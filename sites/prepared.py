"""Arrays that were made from files once and then kept, so that the next command need not make them again.

They lie in a per-user cache (`$XDG_CACHE_HOME` or `~/.cache`, then `fedunlearn`) that only its owner can read, each
entry under a name that depends on the files they were made from and on every setting, so that it is never stale. Data
files are looked for in that cache, too, where nobody says where they are; so entries have a hidden `FOLDER` of their
own, and nothing that was made is taken for somebody's data. An entry appears whole or not at all, and any may be
deleted at any time. It holds the checksums of its arrays, which are compared before they are used: what was damaged on
the disk is made again. What was not used for `DAYS` days is removed when something new is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fedunlearn import files
from fedunlearn.core import RunError
from sites.arrays import write_header

Array = npt.NDArray[Any]

FOLDER = ".prepared"
DAYS = 30
_ABOUT = "about.json"
_TRIES = 3  # for an entry that is damaged, or taken away by another process that found it so


@dataclass(frozen=True)
class Prepared:
    """What was kept.

    Attributes:
        arrays: memory-mapped, by name.
        about: what was said of them when they were made, as JSON has it.
    """

    arrays: Mapping[str, Array]
    about: Mapping[str, Any]


class Growing:
    """The arrays of an entry while it is made, each growing row by row; all of one array's rows have one shape."""

    def __init__(self, folder: Path, shown: Path, names: Sequence[str], count: int, stack: ExitStack) -> None:
        self._shown, self._count = shown, count
        self._opened: dict[str, IO[bytes]] = {
            name: stack.enter_context((folder / _file(name)).open("wb")) for name in names
        }

    def append(self, name: str, row: Array) -> None:
        """Write a row, all the way to the disk's file system: a full one is met here.

        Raises:
            RunError: it cannot be written; names the file and the free space.
        """
        opened = self._opened[name]
        try:
            if not opened.tell():
                write_header(opened, (self._count, *row.shape), row.dtype)
            opened.write(np.ascontiguousarray(row).data)
            opened.flush()
        except OSError as error:
            raise RunError(files.unwritten(self._shown / _file(name), error)) from error


def prepared(
    room: str,
    key: Mapping[str, Any],
    names: Sequence[str],
    count: int,
    make: Callable[[Growing], Mapping[str, Any]],
) -> Prepared:
    """Arrays kept by an earlier call or made now.

    Args:
        room: a folder in `FOLDER`.
        key: all that they depend on, as JSON has it.
        names: of the arrays.
        count: how many rows each of them gets.
        make: appends that many rows to each and tells what is to be known of them. What it raises leaves no entry.

    Raises:
        RunError: the cache cannot be written, or what it gives back is not what was written.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    entry = files.cache() / FOLDER / room / name
    for _ in range(_TRIES):
        if entry.exists():
            try:
                return _opened(entry, names)
            except RunError:
                _discard(entry)  # and make it again: the files it was made from are there
        _make(entry, names, count, make)
    return _opened(entry, names)


def stamp(file: str) -> list[Any]:
    """What tells a file, or a folder of files, from what it was before, without reading it: path, sizes and times.

    The time of the last change of its record is one of them, which no program can set back.
    """
    try:
        found = [(file, os.stat(file))]
        if stat.S_ISDIR(found[0][1].st_mode):
            members = sorted(os.path.join(file, name) for name in os.listdir(file))
            found = [(member, os.stat(member)) for member in members]
    except OSError as error:  # whoever reads it will say so
        return [[file, str(error)]]
    return [[name, about.st_size, about.st_mtime_ns, about.st_ctime_ns] for name, about in found]


def _make(
    entry: Path, names: Sequence[str], count: int, make: Callable[[Growing], Mapping[str, Any]]
) -> None:
    """Make an entry whose errors say what to do.

    Raises:
        RunError: the cache cannot be written.
    """
    try:
        try:
            entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _forget(entry.parent)
            new = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
        except OSError as error:
            raise RunError(files.unwritten(entry, error)) from error
        try:
            with ExitStack() as stack:
                about = make(Growing(new, entry, names, count, stack))
            sums = {name: files.sha256(new / _file(name)) for name in names}
            files.write(new / _ABOUT, files.sealed({"about": about, "files": sums}))
            _publish(new, entry)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except RunError as error:
        advice = "make space there, or set XDG_CACHE_HOME to another folder"
        raise RunError(f"cannot keep prepared images: {error}: {advice}") from error


def _file(name: str) -> str:
    return f"{name}.npy"


def _publish(new: Path, entry: Path) -> None:
    try:
        new.rename(entry)
    except OSError as error:
        if not entry.exists():  # else another process was faster, with the same arrays
            raise RunError(files.unwritten(entry, error)) from error


def _discard(entry: Path) -> None:
    """Remove an entry in one step, so that nobody meets half of it; another process may have done so."""
    away = Path(tempfile.mkdtemp(prefix=".old-", dir=entry.parent))
    with suppress(OSError):
        entry.rename(away / entry.name)
    shutil.rmtree(away, ignore_errors=True)


def _forget(room: Path) -> None:
    """Remove what was not used for long: images of patients are kept no longer than they are of use."""
    before = time.time() - DAYS * 86400
    for entry in room.iterdir():
        with suppress(OSError):  # another process may have done so
            if entry.stat().st_mtime < before:
                shutil.rmtree(entry, ignore_errors=True)


def _opened(entry: Path, names: Sequence[str]) -> Prepared:
    """The arrays of an entry, which are what was once written.

    Raises:
        RunError: they are damaged or not there.
    """
    content = files.unsealed(entry / _ABOUT)
    if set(content) != {"about", "files"} or set(content["files"]) != set(names):
        raise RunError(f"{entry} is of another version")
    try:
        for name, recorded in content["files"].items():
            if (found := files.sha256(entry / _file(name))) != recorded:
                message = f"{entry / _file(name)} is damaged: found sha256 {found}, recorded was {recorded}"
                raise RunError(message)
        arrays = {name: np.load(entry / _file(name), mmap_mode="r", allow_pickle=False) for name in names}
    except OSError as error:
        raise RunError(f"cannot read prepared images in {entry}: {error}") from error
    with suppress(OSError):  # of somebody else, or on a disk that cannot be written
        os.utime(entry)
    return Prepared(arrays, content["about"])
