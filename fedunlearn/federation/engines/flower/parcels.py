"""The hospitals' images on machines that do not see the run folder: sent there once, removed at the end.

Every machine has a `keeper.Keeper`, an actor that takes up no CPU. It is asked whether it sees a file that only this
user can read and whose content is random. If so, the machine works on the run folder itself; if not, the images are
sent, and each file is compared by its checksum. Should the keeper be lost and not its machine, they are sent again.

- Images travel inside Ray's calls, in pieces below the size from which Ray would put them into its object store: what
  is in there is written to disk, in a folder that others can read, once the store is full.
- A thread for each machine: one that is slow or hangs holds up no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedunlearn import files
from fedunlearn.core import RunError
from fedunlearn.federation.engines.flower.keeper import NAME, Keeper

Deliver = Callable[[str, str | None, str], None]
"""Told of a node: the folder with the images there, then "shared" or "sent", and another folder should they have to be
sent again; or None, then why there is none."""

_PIECE = 64 << 10  # bytes; Ray sends arguments of up to 100 KB along with a call
_PART = 4 << 20  # bytes of a call; Ray sends along 10 MB of arguments
_UNDER_WAY = 4  # calls
_START = 120.0  # seconds that a keeper may take to start: it imports torch
_PATIENCE = 30.0  # seconds that one call may take: the disk may be slow, but not 130 KB/s
_LOOK = 0.5  # seconds between looks at whether all is over
_FAREWELL = 4.0  # seconds in which folders are removed


class Parcels:
    """Brings the images to machines, and takes them away in `close`. Ray must be up from the first `want` until then.

    Raises:
        RunError: the federation's folder cannot be written to.
    """

    def __init__(self, federation: Path, deliver: Deliver) -> None:
        self._federation, self._deliver = federation.resolve(), deliver
        self._token, self._secret = self._federation / f".seen-{secrets.token_hex(8)}", secrets.token_hex(32)
        with files.replacing(self._token, durable=False) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(self._secret, encoding="utf-8")
        self._over, self._lock = threading.Event(), threading.Lock()
        self._threads: dict[str, threading.Thread] = {}

    def want(self, node: str) -> None:
        """See that a machine has the images; returns at once. Nothing happens if it has them, or soon will.

        Args:
            node: Ray's id of the machine.
        """
        with self._lock:
            if node in self._threads or self._over.is_set():
                return
            self._threads[node] = thread = threading.Thread(target=self._serve, args=(node,), daemon=True)
        thread.start()

    def close(self) -> None:
        """Remove what was sent, on all machines at once; those that do not answer are passed over."""
        with self._lock:
            self._over.set()
            threads = [*self._threads.values()]  # one that fails meanwhile takes itself out
        deadline = time.monotonic() + _FAREWELL + 2 * _LOOK
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._token.unlink(missing_ok=True)

    def _serve(self, node: str) -> None:
        """Deliver to one machine, and stay until all is over or the machine is lost."""
        import ray

        try:
            while self._bring(node):
                pass
            return
        except _Over:
            return
        except ray.exceptions.RayTaskError as error:
            reason = str(error.cause)
        except ray.exceptions.RayError as error:
            reason = f"the machine was lost: {_line(error)}"
        except (RunError, OSError) as error:
            reason = str(error)
        except (
            Exception
        ) as error:  # a fault of ours or of Ray's: whoever waits for the images must hear of it
            reason = f"{type(error).__name__}: {error}"
        with self._lock:
            del self._threads[node]  # it may be wanted again
        self._deliver(node, None, reason)

    def _bring(self, node: str) -> bool:
        """Deliver to one machine; whether its keeper was lost after that, and the images should be sent anew."""
        import ray

        with self._keeper(node) as keeper:
            if self._result(keeper.sees.remote(str(self._token), self._secret), _START):
                self._deliver(node, str(self._federation), "shared")
                return False
            self._deliver(node, self._send(keeper), "sent")
            with contextlib.suppress(ray.exceptions.RayError):
                self._result(keeper.stay.remote(), float("inf"))
            return True

    def _send(self, keeper: Any) -> str:
        """Send all files and compare them; the folder where they are."""
        sizes = contents(self._federation)
        folder = str(self._result(keeper.make.remote(sizes), _PATIENCE))
        for name in sizes:
            sent, under_way = hashlib.sha256(), deque[Any]()
            for start, pieces in parts(self._federation / name):
                for piece in pieces:
                    sent.update(piece)
                under_way.append(keeper.take.remote(name, start, *pieces))
                if len(under_way) == _UNDER_WAY:
                    self._result(under_way.popleft(), _PATIENCE)
            for call in under_way:
                self._result(call, _PATIENCE)
            # It reads the whole file, at 10 MB/s or more.
            if self._result(keeper.sha256.remote(name), _PATIENCE + sizes[name] / 1e7) != sent.hexdigest():
                raise RunError(f"the hospitals' images arrived damaged: {name} has another sha256")
        return folder

    def _result(self, call: Any, seconds: float) -> Any:
        """What a call came to.

        Raises:
            RayError: the call failed, or its machine was lost.
            RunError: it took too long.
        """
        import ray

        deadline = time.monotonic() + seconds
        while not ray.wait([call], timeout=_LOOK)[0]:
            if self._over.is_set():
                raise _Over
            if time.monotonic() > deadline:
                raise RunError(f"the machine did not answer within {seconds:g} s")
        return ray.get(call)

    @contextlib.contextmanager
    def _keeper(self, node: str) -> Iterator[Any]:
        """An actor on that machine and nowhere else; removes the images at the end."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        keeper: Any = (
            ray.remote(Keeper)
            .options(
                num_cpus=0,
                max_restarts=0,
                enable_task_events=False,  # Ray keeps them for a while, with the calls' arguments
                max_concurrency=_UNDER_WAY + 2,  # `stay` and `leave` beside them
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote()
        )
        try:
            yield keeper
        finally:
            # The machine is lost, or hangs: its images go with the keeper.
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(keeper.leave.remote(), timeout=_FAREWELL)
            with contextlib.suppress(ray.exceptions.RayError, ValueError):  # it is gone already
                ray.kill(keeper)


class _Over(Exception):
    """Nobody waits for the images any more."""


def contents(federation: Path) -> dict[str, int]:
    """The files of a federation by their names within its folder, and how many bytes each has."""
    found = (path for path in sorted(federation.rglob("*")) if path.is_file())
    names = {path.relative_to(federation).as_posix(): path.stat().st_size for path in found}
    return {name: size for name, size in names.items() if NAME.fullmatch(name)}


def parts(file: Path, part: int = _PART, piece: int = _PIECE) -> Iterator[tuple[int, list[bytes]]]:
    """A file's content in parts, each with where it starts and in pieces; one part is in memory at once."""
    with file.open("rb") as opened:
        while content := opened.read(part):
            start = opened.tell() - len(content)
            yield start, [content[at : at + piece] for at in range(0, len(content), piece)]


def _line(error: Exception) -> str:
    """The first line of what Ray says."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
