"""Temporary folders that belong to a process as long as it lives.

Whoever works in a folder holds a lock on it, which ends with its process however that ends. A folder of ours that can
be locked has been left behind: whoever starts next on that machine clears it. A number of a process would not do,
since containers may share a temporary folder and have numbers of their own.
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
    lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return hidden.rename(hidden.with_name(hidden.name[1:])), lock
    except OSError:
        os.close(lock)
        raise


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
