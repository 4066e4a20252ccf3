"""On a machine that does not see the run folder: a private folder for the hospitals' images while they are needed.

- The folder goes when the driver says so, and with the processes that use it, the keeper and the workers that hold it
  by `hold`, however they end (`files.vanishing`). Ray ends an actor with its driver, and with the machine's raylet, and
  kills its children. Should what removes the folder be killed too, as when the whole machine stops, the next keeper
  on that machine clears it (`claims`).
- Nothing but the folder is believed to be the driver's to write in: names are checked, sizes are kept to.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedunlearn import files
from fedunlearn.core import RunError
from fedunlearn.federation.engines.flower import claims

PREFIX = "fedimages-"
"""How the folders are called."""

NAME = re.compile(r"federation\.json|[0-9]+/[a-z]+\.npy")
"""The files of a federation, by their paths within it (`sites.hospital`)."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep a folder of images meanwhile, for as long as this process lives, should its keeper be lost: workers do.

    A folder that no keeper made is left as it is.

    Raises:
        OSError: it is gone.
    """
    if not folder.name.startswith(PREFIX):
        yield
        return
    lock = claims.share(folder)
    try:
        yield
    finally:
        os.close(lock)


class Keeper:
    """What a driver asks of one machine, through Ray; calls may come at once from several threads."""

    def __init__(self) -> None:
        for place in claims.usual_places():
            claims.clear_abandoned(place, PREFIX, _remove)
        self._sizes: Mapping[str, int] = {}
        self._folder: Path | None = None
        self._lock = self._watcher = -1
        self._over = threading.Event()

    def sees(self, file: str, content: str) -> bool:
        """Whether this process can read a file, and it is that very file."""
        try:
            return Path(file).read_text(encoding="utf-8") == content
        except (OSError, ValueError):  # not there, another user's, or something else of that name
            return False

    def make(self, sizes: Mapping[str, int]) -> str:
        """Make the folder, with room for files of such names and sizes in bytes.

        Raises:
            RunError: there is no room on this machine, or a name is none of a federation's.
        """
        if wrong := [name for name in sizes if not NAME.fullmatch(name)]:
            raise RunError(f"found a file called {wrong[0]!r} to be kept, expected those of a federation")
        self._sizes = dict(sizes)
        self._folder, self._lock = _claim(sum(sizes.values()))
        self._watcher = files.vanishing(self._folder)
        for folder in {(self._folder / name).parent for name in sizes} - {self._folder}:
            folder.mkdir(mode=0o700)
        for name in sizes:
            (self._folder / name).touch(mode=0o600)
        return str(self._folder)

    def take(self, name: str, start: int, *pieces: bytes) -> None:
        """Write a part of a file, ``start`` bytes from its beginning; parts may come in any order.

        Raises:
            RunError: it cannot be written.
            ValueError: it is no part of a file that was announced.
        """
        if start + sum(map(len, pieces)) > self._sizes.get(name, 0):
            raise ValueError(f"a part of {name!r} from {start} on is more than was announced")
        file = self._made() / name
        try:
            opened = os.open(file, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                _write(opened, start, pieces)
            finally:
                os.close(opened)
        except OSError as error:
            needed = sum(self._sizes.values())
            raise RunError(
                f"{socket.gethostname()}: {files.unwritten(file, error)}; the hospitals' images take {needed:,} bytes"
            ) from error

    def sha256(self, name: str) -> str:
        """The checksum of a file as it lies in the folder."""
        return files.sha256(self._made() / name)

    def stay(self) -> None:
        """Return when the folder is gone; the driver sees by it that this process lives."""
        self._over.wait()

    def leave(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            _remove(self._folder)
            os.close(self._watcher)
            os.close(self._lock)
            self._folder = None
        self._over.set()

    def _made(self) -> Path:
        if self._folder is None:
            raise RunError("the images' folder on this machine has been removed")
        return self._folder


def _claim(needed: int) -> tuple[Path, int]:
    """A folder at the first usual place that has room, and its lock."""
    found = []
    for place in claims.usual_places():
        try:
            if (free := shutil.disk_usage(place).free) > needed:
                return claims.claim(place, PREFIX)
            found.append(f"{free:,} bytes are free in {place}")
        except OSError as error:
            found.append(f"{place}: {error.strerror}")
    raise RunError(
        f"{socket.gethostname()} has no room for the hospitals' images: they take {needed:,} bytes, and "
        f"{', '.join(found)}; start Ray there with TMPDIR set to a larger disk, or keep the run folder where this "
        "machine sees it"
    )


def _write(opened: int, start: int, pieces: Sequence[bytes]) -> None:
    """Write all of ``pieces``; a disk that is nearly full takes a part of them first, and then complains."""
    for piece in pieces:
        left = memoryview(piece)
        while left:
            written = os.pwrite(opened, left, start)
            start, left = start + written, left[written:]


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
