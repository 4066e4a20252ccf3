"""Ray, in a thread of its own, which serves a crew until it is closed, one federation after the other.

It starts, and workers come, while the caller prepares what they are to work on.

- Ray takes over SIGTERM if it is started in the main thread: it is started in the other one. That thread blocks the
  signals that stop a run, and Ray's processes inherit this: those that a terminal or a batch system sends to all
  processes are answered by the driver alone. The kernel kills Ray's processes when the thread that started them ends.
- Ray's native half is told to leave signals alone (`cluster`). Should it have been imported before anybody could tell
  it, it handles SIGTERM with a stack trace on the terminal, until it is shut down; from then on SIGTERM would end this
  process on the spot. Both are undone where this thread waits for Ray.
- A call of Ray's may never return once its cluster is gone. Only that thread makes any, and it can be left behind.
- Ray has one state for the whole process. A thread that was left behind while Ray started may go on with it at any
  time, and end what another one has started since, or keep a lock that every start takes: the next one waits for it,
  and gives up if it does not end.
- Ray's processes do not all end with it, nor with a driver that is killed: `scratch`.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fedunlearn import interrupts
from fedunlearn.core import FedunlearnError, RunError
from fedunlearn.federation.engines.flower import scratch
from fedunlearn.federation.engines.flower.cluster import Wanted, cluster
from fedunlearn.federation.engines.flower.crew import DEPTH, TICK, Crew
from fedunlearn.federation.engines.flower.parcels import Deliver, Parcels
from fedunlearn.federation.engines.machines import Machine, faults, here, strange
from sites.hospital import Federation

if TYPE_CHECKING:
    from flwr.app import Message

    from fedunlearn.federation.engines.flower.grid import HospitalGrid
    from fedunlearn.federation.engines.flower.workplace import Event, Lifeline, Workplace

_POLL = 0.02  # seconds between looks at what starts
_BLINK = 0.005  # seconds in which a signal is not heard while Ray shuts down
_BOOT = 120.0  # seconds that Ray may take to start; some five are usual
_FAREWELL = 10.0  # seconds that Ray gets to end
_STUBBORN = 3.0  # the last of them, in which what it still starts is killed, should it start slowly
_HASTE = 2.0  # seconds that it gets where it is to end at once
_GONE = 10.0  # seconds without Ray's head, or the raylet beside us, after which the cluster is lost
_STUCK = 25.0  # seconds that one call of Ray's may take
_LEFT = 30.0  # seconds that the thread of an earlier session may take to end
_THREAD = "fedunlearn-ray"  # how such threads are called


class Session:
    """Ray, and workers on it, in a thread of their own, from `start` until `close`.

    Args:
        wanted: what cluster, and what of it.
        folder: for Ray's own files.
        tell: is told what a person may want to know, in the thread that waits.
    """

    def __init__(self, wanted: Wanted, folder: Path, tell: Callable[[str], None]) -> None:
        self._wanted, self._folder, self._tell = wanted, folder, tell
        self._grid: HospitalGrid | None = None
        self._federation: Federation | None = None
        self._supplier: _Supplier | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._over, self._up, self._ready = threading.Event(), threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._crew: Crew[Any] | None = None
        self._lifeline: Lifeline | None = None
        self._began = self._alive = time.monotonic()
        self._farewell = _FAREWELL
        self._watched = (self._alive, 0.0, self._alive)
        # A daemon, and so are the threads it starts: none of them may keep the process from ending.
        self._thread = threading.Thread(target=self._serve, name=_THREAD, daemon=True)

    @property
    def grid(self) -> HospitalGrid:
        """Where messages to the hospitals that are served go in and come out."""
        assert self._grid is not None, "no federation is served"
        return self._grid

    @property
    def federation(self) -> Federation:
        """The hospitals that are served."""
        assert self._federation is not None, "no federation is served"
        return self._federation

    def start(self) -> None:
        """Start Ray; returns at once.

        Raises:
            Interrupted: a signal came.
        """
        interrupts.check()  # importing took its time
        self._began = time.monotonic()
        self._thread.start()

    def serve(self, federation: Path) -> None:
        """Have the hospitals in a folder from now on; whoever still works for those before is let go.

        Raises:
            InputError: the cluster is not what was asked for.
            RunError: it could not start, or did not in time.
            Interrupted: a signal came.
        """
        from fedunlearn.federation.engines.flower.grid import HospitalGrid

        self._started()
        self._federation = Federation.open(federation)
        self._grid = HospitalGrid(self._federation.sites, self._give)
        self._events.put(lambda crew: self._moved(crew, federation))

    def _started(self) -> None:
        """Wait until Ray is there."""
        deadline = self._began + _BOOT
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
        return (DEPTH + 1) * self.workers

    @property
    def workers(self) -> int:
        """How many can work, as far as they have come; 1 at least."""
        return max(1, len(self._crew.ready) if self._crew is not None else 1)

    @property
    def machines(self) -> Sequence[Machine]:
        """The machines that workers have come from."""
        return tuple(self._crew.machines.values()) if self._crew is not None else ()

    def close(self) -> None:
        """Dismiss all workers, whatever they do, and end Ray."""
        import ray

        self._over.set()
        self._events.put(lambda crew: None)
        if not self._thread.ident:  # it never started
            return
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
        """Wait for the thread, and kill the processes that Ray would only wait for once it is shut down.

        A Ray that starts has some time for it, since one that is killed meanwhile may never return, and keep this
        process from starting another.
        """
        import ray

        deadline = time.monotonic() + self._farewell
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(_BLINK)
            interrupts.take_back()
            late = time.monotonic() > deadline - _STUBBORN
            if not ray.is_initialized() if self._up.is_set() else late:
                scratch.kill(self._folder, but=_LAST)

    def _serve(self) -> None:
        # All that is started from here inherits it.
        signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
        try:
            self._others_ended()
            if self._over.is_set():
                return
            with cluster(self._wanted, self._folder):
                self._up.set()
                if not self._over.is_set():  # interrupted while Ray started
                    self._work()
        except BaseException as error:  # it goes to the thread that waits for answers
            self._failure = error
            _clear(error)
        finally:
            self._wake()

    def _others_ended(self) -> None:
        """Wait for the threads of sessions before, whose Ray this one's would meet.

        Raises:
            RunError: one of them hangs.
        """
        deadline = time.monotonic() + _LEFT
        while not self._over.is_set() and any(
            thread.name == _THREAD and thread is not self._thread for thread in threading.enumerate()
        ):
            if time.monotonic() > deadline:
                raise RunError(
                    f"Ray of an earlier run in this process has not ended for {_LEFT:g} s, it was stopped while it "
                    "started; expected one Ray at a time: start another process, or use --engine inline"
                )
            self._over.wait(_POLL)

    def _work(self) -> None:
        from fedunlearn.federation.engines.flower.workplace import Lifeline, Workplace

        expected, known = here(), self._wanted.machines
        place = Workplace(self._wanted.gpus_per_client, self._supply, self._events.put)
        self._crew = crew = Crew(
            place,
            self._wanted.workers,
            self._wanted.wait,
            self._wanted.timeout,
            lambda machine: "; ".join([*faults(expected, machine), *strange(known, machine)]) or None,
            lambda message, reply, reason: self.grid.reply(message, reply, reason),
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
            with contextlib.ExitStack() as stack:  # all of it, whatever of it fails
                stack.callback(self._let_go, place)
                stack.callback(self._take_away)
                stack.callback(crew.end)

    def _moved(self, crew: Crew[Message], federation: Path) -> None:
        """Other hospitals from now on."""
        self._take_away()

        def deliver(node: str, data: str | None, how: str) -> None:
            def supplied(crew: Crew[Message]) -> None:
                if self._supplier is own:  # else it is about hospitals before
                    crew.supplied(node, data, how)

            self._events.put(supplied)

        # A cluster of our own is on this machine alone.
        self._supplier = own = (
            Parcels(federation, deliver) if self._wanted.joined else _Shared(federation, deliver)
        )
        crew.move()

    def _supply(self, node: str) -> None:
        """Have the images brought to a machine, once it is known which."""
        if self._supplier is not None:
            self._supplier.want(node)

    def _take_away(self) -> None:
        """Remove what was brought."""
        supplier, self._supplier = self._supplier, None
        if supplier is not None:
            supplier.close()

    def _let_go(self, place: Workplace) -> None:
        """Of everything of Ray's, while it is up; answers that nobody waits for hold on to its objects."""
        place.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._events.get_nowait()

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
        self._wake()

    def _wake(self) -> None:
        """Let whoever waits for replies look."""
        if self._grid is not None:
            self._grid.wake()


class _Supplier(Protocol):
    """Brings images to machines."""

    def want(self, node: str) -> None:
        """See that a machine has them."""
        ...

    def close(self) -> None:
        """Remove what was brought."""
        ...


@dataclass(frozen=True, eq=False)
class _Shared:
    """On the machine where the images are, nothing has to be brought."""

    federation: Path
    deliver: Deliver

    def want(self, node: str) -> None:
        """See `_Supplier`."""
        self.deliver(node, str(self.federation), "shared")

    def close(self) -> None:
        """See `_Supplier`."""


@contextlib.contextmanager
def started(session: Session) -> Iterator[Session]:
    """A session that starts, and is closed whatever happens."""
    try:
        session.start()
        yield session
    finally:
        session.close()


_LAST = "gcs_server"
"""The last of Ray's processes to be killed: without it, a driver waits for seconds when it shuts down."""


def _clear(error: BaseException | None) -> None:
    """Empty the frames of an error and of what it came from: they may hold on to Ray's objects."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _root(error: BaseException | None) -> str:
    """What an error goes back to, in one line."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return (
        "it gave no reason"
        if error is None
        else f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    )
