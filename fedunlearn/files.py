"""Files that are whole or not there: written beside their place and moved into it, and never believed unread.

What a run leaves behind must outlive a killed process, a full disk and a power cut, and whoever reads it later must
know that it is what was written. So every file is written through `replacing`, and every file that says what others
hold is *sealed*: it carries the sha256 of its own content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedunlearn.core import RunError

SEAL = "seal"
"""The key of a sealed file's own checksum."""
PART = ".part"
"""The ending of a file that is being written: what is left of one was never finished."""


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Lend a place to write to; what is written there becomes ``path`` if the block ends well, all of it at once.

    Args:
        path: the file to make or to replace; its folder is made if it is not there.
        durable: wait until it is on the disk, so that it survives a power cut too.

    Raises:
        RunError: it cannot be written; names the file and the free space. What was there before is still there.
    """
    temporary = path.with_name(f"{path.name}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
        if durable:
            _flush(path.parent)
    except OSError as error:
        raise RunError(unwritten(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


_WATCH = """
import fcntl, os, shutil, signal, sys
os.setsid()
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if os.fork():
    os._exit(0)
sys.stdin.buffer.read()
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


def vanishing(folder: Path) -> int:
    """Have a folder removed once this process has ended, however it ends, and nobody else holds a lock on it.

    A small process waits for that. It is nobody's child, so it is not ended with this one's children; and it is out of
    this one's group before this returns, so it is not ended with that. Of this one's environment it has nothing that
    others might tell by whose it is.

    Args:
        folder: must have a name that no other process will give to another.

    Returns:
        A file descriptor: when it is closed, this process counts as ended.
    """
    read, write = os.pipe()
    with open(read, "rb") as pipe:
        subprocess.run(
            [sys.executable, "-IS", "-c", _WATCH, str(folder)],
            stdin=pipe,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={
                name: os.environ[name]
                for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
                if name in os.environ
            },
            check=True,
        )
    return write


def write(path: Path, content: bytes) -> None:
    """Make or replace a file.

    Raises:
        RunError: see `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Make or replace files, and wait once for all of them to be on the disk: any of them may be there before that.

    Raises:
        RunError: see `replacing`; some of them may be there.
    """
    for path, content in contents.items():
        with replacing(path, durable=False) as temporary:
            temporary.write_bytes(content)
    for path in (*contents, *dict.fromkeys(path.parent for path in contents)):
        try:
            _flush(path)
        except OSError as error:
            raise RunError(unwritten(path, error)) from error


def copy(source: Path, target: Path) -> None:
    """Make ``target`` a copy of ``source``.

    Raises:
        RunError: see `replacing`.
    """
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def unwritten(path: Path, error: OSError) -> str:
    """Why ``path`` could not be written, in words."""
    return f"cannot write {path}: {error.strerror or error} ({_free(path)})"


def forbidden(error: BaseException) -> bool:
    """Whether ``error`` was raised since nothing may be written at a place: it is read-only, or somebody else's."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def sha256(path: Path) -> str:
    """The checksum of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked(path: Path, known: str | None) -> bytes:
    """The content of a file whose checksum is known.

    Raises:
        RunError: it is missing, or is not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    if known is None:
        raise RunError(f"{path} has no recorded checksum: it is not what a run wrote there")
    if (found := hashlib.sha256(content).hexdigest()) != known:
        raise RunError(f"{path} is damaged: found sha256 {found}, recorded was {known}")
    return content


def sealed(content: Mapping[str, Any]) -> bytes:
    """``content`` as JSON that carries its own checksum."""
    body = {key: value for key, value in content.items() if key != SEAL}
    return (json.dumps({**body, SEAL: _seal(body)}, indent=1, ensure_ascii=False) + "\n").encode()


def unsealed(path: Path) -> dict[str, Any]:
    """The content of a file that `sealed` made.

    Raises:
        RunError: it is missing, or is not what was written.
    """
    try:
        raw = path.read_bytes()
        content = json.loads(raw)
        whole = isinstance(content, dict) and content.get(SEAL) == _seal(content) and sealed(content) == raw
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    if not whole:
        raise RunError(f"{path} is damaged: its seal does not match its content")
    del content[SEAL]
    return dict(content)


def data_root(given: Path | None = None) -> Path:
    """Where data files are: as ``given``, else ``$FEDUNLEARN_DATA``, else this user's `cache`."""
    if given is not None:
        return given
    if from_environment := os.environ.get("FEDUNLEARN_DATA"):
        return Path(from_environment)
    return cache()


def cache() -> Path:
    """The folder of this user's caches: `$XDG_CACHE_HOME` or `~/.cache`, then ``fedunlearn``.

    Where none can be made at home, as in a container whose user has none, it is one in the temporary folder.

    Raises:
        RunError: that one belongs to somebody else.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "fedunlearn"
    home = Path.home() / ".cache" / "fedunlearn"
    with suppress(OSError):  # a home that is not there, or is somebody else's
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    own = Path(tempfile.gettempdir()) / f"fedunlearn-{os.getuid()}"
    with suppress(OSError):  # told when something is to be written
        own.mkdir(exist_ok=True, mode=0o700)
        if own.stat().st_uid != os.getuid():
            raise RunError(f"{own} belongs to somebody else: set XDG_CACHE_HOME to a folder of your own")
    return own


def _seal(content: Mapping[str, Any]) -> str:
    body = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or which files a folder holds, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(paths: Iterable[Path]) -> None:
    """Wait until files, or which files folders hold, are on the disk.

    Raises:
        OSError: the disk refuses one.
    """
    for path in paths:
        _flush(path)


def _free(path: Path) -> str:
    """How much room there is on the disk that ``path`` would be on, in words."""
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return "free space unknown"
    return f"{free / 1e6:,.0f} MB free"
