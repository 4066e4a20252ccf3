"""Ray, in a thread of its own, which serves a crew until it is closed.

- Ray takes over SIGTERM if it is started in the main thread: it is started in the other one. That thread blocks the
  signals that stop a run, and Ray's processes inherit this: those that a terminal or a batch system sends to all
  processes are answered by the driver alone. The kernel kills Ray's processes when the thread that started them ends.
- Ray's native half handles SIGTERM too, with a stack trace on the terminal, until it is shut down; from then on SIGTERM
  would end this process on the spot. Both are undone as soon as they are done.
- A call of Ray's may never return once its cluster is gone. Only that thread makes any, and it can be left behind.
- Ray's processes do not all end with it, nor with a driver that is killed: `scratch`.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedunlearn import interrupts
from fedunlearn.core import FedunlearnError, RunError
from fedunlearn.federation.engines.flower import scratch
from fedunlearn.federation.engines.flower.cluster import Wanted, cluster
from fedunlearn.federation.engines.flower.crew import TICK, Crew
from fedunlearn.federation.engines.flower.parcels import Parcels
from fedunlearn.federation.engines.machines import Machine, faults, here, strange
from sites.hospital import Federation

if TYPE_CHECKING:
    from flwr.app import Message

    from fedunlearn.federation.engines.flower.workplace import Event, Lifeline

_POLL = 0.02  # seconds between looks at what starts
_BLINK = 0.005  # seconds in which a signal is not heard while Ray shuts down
_BOOT = 120.0  # seconds that Ray may take to start; some five are usual
_FAREWELL = 10.0  # seconds that Ray gets to end
_HASTE = 2.0  # seconds that it gets where it is to end at once
_GONE = 10.0  # seconds without Ray's head, or the raylet beside us, after which the cluster is lost
_STUCK = 25.0  # seconds that one call of Ray's may take


class Session:
    """Ray, and workers on it, in a thread of their own, until `close`.

    Attributes:
        grid: where messages to hospitals go in and come out.

    Args:
        wanted: what cluster, and what of it.
        folder: for Ray's own files.
        federation: the folder where the hospitals are.
        tell: is told what a person may want to know, in the thread that waits.
    """

    def __init__(self, wanted: Wanted, folder: Path, federation: Path, tell: Callable[[str], None]) -> None:
        from fedunlearn.federation.engines.flower.grid import HospitalGrid

        self._wanted, self._folder, self._federation = wanted, folder, federation
        self._tell = tell
        self.grid = HospitalGrid(Federation.open(federation).sites, self._give)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._over, self._up, self._ready = threading.Event(), threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._crew: Crew[Any] | None = None
        self._lifeline: Lifeline | None = None
        self._alive, self._farewell = time.monotonic(), _FAREWELL
        self._watched = (self._alive, 0.0, self._alive)
        # A daemon, and so are the threads it starts: none of them may keep the process from ending.
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def open(self) -> None:
        """Start Ray.

        Raises:
            InputError: the cluster is not what was asked for.
            RunError: it could not start, or did not in time.
            Interrupted: a signal came.
        """
        interrupts.check()  # importing took its time
        self._thread.start()
        deadline = time.monotonic() + _BOOT
        while not self._ready.wait(_POLL):
            interrupts.take_back()
            interrupts.check()
            self.check()
            if time.monotonic() > deadline:
                raise RunError(
                    f"Ray did not start within {_BOOT:g} s, where some five are usual: close other programs and try "
                    "again, or use --engine inline"
                )
        interrupts.take_back()

    def check(self) -> None:
        """Make sure that all is well, and tell what there is to tell.

        Raises:
            RunError: it is not, and why.
        """
        while not self._notes.empty():
            self._tell(self._notes.get())
        if not self._thread.is_alive():
            if isinstance(self._failure, FedunlearnError):
                raise self._failure
            raise RunError(f"Ray stopped: {_root(self._failure)}") from self._failure
        if self._lifeline is not None and (stuck := self._stuck()) > 2 * TICK:
            self._look(self._lifeline)  # a call of Ray's may hang because there is nobody any more
            if stuck > _STUCK:
                raise RunError(f"the Ray cluster has not answered for {_STUCK:g} s: it hangs")

    @property
    def room(self) -> int:
        """How many messages should be on their way at once."""
        return 2 * max(1, len(self._crew.ready) if self._crew is not None else 1)

    @property
    def machines(self) -> Sequence[Machine]:
        """The machines that workers have come from."""
        return tuple(self._crew.machines.values()) if self._crew is not None else ()

    def close(self) -> None:
        """Dismiss all workers, whatever they do, and end Ray."""
        import ray

        self._over.set()
        self._events.put(lambda crew: None)
        processes = scratch.inhabitants(self._folder)
        self._ended()
        scratch.end(processes, timeout=_HASTE)  # Ray kills some and does not wait for them
        if self._thread.is_alive():
            atexit.unregister(ray.shutdown)  # it would wait at the end of the process for what never returns

    def _stuck(self) -> float:
        """Seconds since Ray's thread last went round, as far as this one watched: a computer may have slept."""
        now, (alive, seconds, looked) = time.monotonic(), self._watched
        seconds = 0.0 if alive != self._alive else seconds + min(now - looked, 1.0)
        self._watched = (self._alive, seconds, now)
        return seconds

    def _ended(self) -> None:
        """Wait for the thread, and kill the processes that Ray would only wait for once it is shut down."""
        import ray

        deadline = time.monotonic() + self._farewell
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(_BLINK)
            interrupts.take_back()
            if self._up.is_set() and not ray.is_initialized():
                scratch.kill(self._folder, but=_LAST)

    def _serve(self) -> None:
        # All that is started from here inherits it.
        signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
        try:
            with cluster(self._wanted, self._folder):
                self._up.set()
                if not self._over.is_set():  # interrupted while Ray started
                    self._work()
        except BaseException as error:  # it goes to the thread that waits for answers
            self._failure = error
        finally:
            self.grid.wake()

    def _work(self) -> None:
        from fedunlearn.federation.engines.flower.workplace import Lifeline, Workplace

        def deliver(node: str, data: str | None, how: str) -> None:
            self._events.put(lambda crew: crew.supplied(node, data, how))

        def have(node: str) -> None:
            deliver(node, str(self._federation), "shared")

        expected, known = here(), self._wanted.machines
        # A cluster of our own is on this machine alone.
        parcels = Parcels(self._federation, deliver) if self._wanted.joined else None
        place = Workplace(self._wanted.gpus_per_client, parcels.want if parcels else have, self._events.put)
        self._crew = crew = Crew(
            place,
            self._wanted.workers,
            self._wanted.wait,
            self._wanted.timeout,
            lambda machine: "; ".join([*faults(expected, machine), *strange(known, machine)]) or None,
            self.grid.reply,
            self._note,
        )
        lifeline, looked, due = Lifeline(), time.monotonic(), 0.0
        try:
            while not self._over.is_set():
                self._alive = now = time.monotonic()
                if now >= due:
                    if self._look(lifeline):
                        crew.tick(now - looked)
                    looked, due, self._lifeline = now, now + TICK, lifeline
                    self._ready.set()
                with contextlib.suppress(queue.Empty):
                    self._events.get(timeout=max(0.0, due - time.monotonic()))(crew)
        finally:
            crew.end()
            if parcels is not None:
                parcels.close()

    def _look(self, lifeline: Lifeline) -> bool:
        """Whether Ray is there.

        Raises:
            RunError: it has not been for too long.
        """
        lost = lifeline.lost()
        if lost > _GONE:
            self._farewell = _HASTE  # nobody answers
            host, port = lifeline.head
            raise RunError(
                f"the Ray cluster at {host}:{port} is gone: its head, or Ray on this machine, has not been there for "
                f"{_GONE:g} s"
            )
        return lost == 0.0

    def _give(self, message: Message) -> None:
        self._events.put(lambda crew: crew.take([message]))

    def _note(self, text: str) -> None:
        self._notes.put(text)
        self.grid.wake()


@contextlib.contextmanager
def opened(session: Session) -> Iterator[Session]:
    """A session that is open, and closed whatever happens."""
    try:
        session.open()
        yield session
    finally:
        session.close()


_LAST = "gcs_server"
"""The last of Ray's processes to be killed: without it, a driver waits for seconds when it shuts down."""


def _root(error: BaseException | None) -> str:
    """What an error goes back to, in one line."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return (
        "it gave no reason"
        if error is None
        else f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    )
