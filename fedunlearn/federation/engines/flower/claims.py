"""Temporary folders that belong to a process as long as it lives.

Whoever works in a folder holds a lock on it that he shares with others who do, and that ends with his process however
that ends. A folder of ours that can be locked for one alone has been left behind: whoever starts next on that machine
clears it. A number of a process would not do, since containers may share a temporary folder and have numbers of their
own.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def usual_places() -> list[str]:
    """Where temporary folders are made on this machine, the best first."""
    return list(dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]))


def claim(place: str, prefix: str) -> tuple[Path, int]:
    """Make a folder that nobody else can read, and lock it before it has a name that others look for.

    Returns:
        The folder, and the lock: a file descriptor to keep open, and to close at the end.

    Raises:
        OSError: it cannot be made there.
    """
    hidden = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=place))
    lock = share(hidden)
    try:
        return hidden.rename(hidden.with_name(hidden.name[1:])), lock
    except OSError:
        os.close(lock)
        raise


def share(folder: Path) -> int:
    """Lock a folder so that nobody clears it; it may be claimed by another process.

    Returns:
        The lock: a file descriptor to keep open for as long as the folder is used.

    Raises:
        OSError: it is gone, or is being cleared.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def clear_abandoned(place: str, prefix: str, clear: Callable[[Path], object]) -> None:
    """Call ``clear`` with each folder that a process of this user claimed at a place and that is nobody's now."""
    for left in sorted(Path(place).glob(f"{prefix}*")):
        # It is no folder, somebody works there, or another process was faster.
        with suppress(OSError):
            if left.lstat().st_uid == os.getuid():
                _clear_if_free(left, clear)


def _clear_if_free(left: Path, clear: Callable[[Path], object]) -> None:
    lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        clear(left)
    finally:
        os.close(lock)
