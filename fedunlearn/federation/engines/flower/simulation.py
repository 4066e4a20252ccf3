"""Ray and Flower's simulation, in a thread of their own.

- Ray takes over SIGTERM if it is started in the main thread: it is started in the other one. That thread blocks the
  signals that stop a run, and Ray's processes inherit this: those that a terminal or a batch system sends to all
  processes are answered by the driver alone. The kernel kills Ray's processes when the thread that started them ends.
- Ray's native half handles SIGTERM too, with a stack trace on the terminal, until it is shut down; from then on SIGTERM
  would end this process on the spot. Both are undone as soon as they are done.
- Flower's pool would start a second Ray once the first is shut down, and so would any call of Ray's: both are told
  not to.
- A worker thread of Flower that waits for a busy actor cannot be stopped, and would keep this process alive: on
  the way out the actors are killed.
- Ray's processes do not all end with it, nor with a driver that is killed: `scratch`.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fedunlearn import interrupts
from fedunlearn.core import FedunlearnError, RunError
from fedunlearn.federation.engines.flower import scratch
from fedunlearn.federation.engines.flower.cluster import Wanted, cluster, resources
from fedunlearn.federation.engines.flower.worker import client_app

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid

T = TypeVar("T")

LANES = 3  # messages in flight per worker: one at work, the others already waiting at its door
_POLL = 0.02  # seconds between looks at what starts
_BLINK = 0.005  # seconds in which a signal is not heard while Ray shuts down
_BOOT = 120.0  # seconds that Ray, and then Flower, may take to start; some ten are usual
_FAREWELL = 10.0  # seconds that Flower and Ray get to end
_HASTE = 2.0  # seconds that Ray gets to kill actors


class Simulation:
    """Ray and Flower's simulation in a thread of their own, which lends its grid until `close`.

    Attributes:
        workers: how many tasks run at once.
        grid: where messages are pushed and pulled.
        lanes: the ids of its nodes.
    """

    def __init__(self, wanted: Wanted, folder: Path) -> None:
        self._workers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._grids: queue.SimpleQueue[Grid | None] = queue.SimpleQueue()
        self._over, self._up = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._folder = folder
        # A daemon, and so are the threads it starts: none of them may keep the process from ending.
        self._thread = threading.Thread(target=self._simulate, args=(wanted,), daemon=True)

    def open(self) -> None:
        """Start Ray, then Flower.

        Raises:
            InputError: the cluster is not what was asked for.
            RunError: one of them could not start, or did not in time.
            Interrupted: a signal came.
        """
        interrupts.check()  # importing took its time
        self._thread.start()
        self.workers = self._wait_for(self._workers, "Ray")
        self.grid = self._wait_for(self._grids, "Flower's server half")
        deadline = time.monotonic() + _BOOT
        # They start after the grid.
        while len(nodes := list(self.grid.get_node_ids())) < self.workers * LANES:
            self._wait("Flower's nodes", deadline)
            time.sleep(_POLL)
        self.lanes = nodes

    def check(self) -> None:
        """Make sure that Flower still runs.

        Raises:
            RunError: it stopped, and why.
        """
        if not self._thread.is_alive():
            if isinstance(self._failure, FedunlearnError):
                raise self._failure
            raise RunError(f"Flower's simulation stopped: {_root(self._failure)}") from self._failure

    def close(self, clean: bool) -> None:
        """End both, and the actors with them; unless it is a ``clean`` end, kill those at work first."""
        self._over.set()
        processes = scratch.inhabitants(self._folder)
        if not (clean and self._ended()) and self._thread.is_alive():
            # In a thread: without its cluster Ray may not answer.
            killer = threading.Thread(target=_kill_actors, daemon=True)
            killer.start()
            killer.join(_HASTE)
            self._ended()
        scratch.end(processes, timeout=_HASTE)  # Ray kills some and does not wait for them

    def _ended(self) -> bool:
        """Whether the thread ends in time; kill the processes that Ray would only wait for once it is shut down."""
        import ray

        deadline = time.monotonic() + _FAREWELL
        while self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(_BLINK)
            interrupts.take_back()
            if self._up.is_set() and not ray.is_initialized():
                scratch.kill(self._folder, but=_LAST)
        return not self._thread.is_alive()

    def _wait_for(self, news: queue.SimpleQueue[T | None], what: str) -> T:
        deadline = time.monotonic() + _BOOT
        while True:
            with contextlib.suppress(queue.Empty):
                if (got := news.get(timeout=_POLL)) is not None:
                    interrupts.take_back()
                    return got
                self._thread.join(_FAREWELL)  # None is the last that it says
            self._wait(what, deadline)

    def _wait(self, what: str, deadline: float) -> None:
        """One look around while waiting for ``what``."""
        interrupts.take_back()
        interrupts.check()
        self.check()
        if time.monotonic() > deadline:
            raise RunError(
                f"{what} did not start within {_BOOT:g} s, where some ten are usual: close other programs and try "
                "again, or use --engine inline"
            )

    def _simulate(self, wanted: Wanted) -> None:
        # All that is started from here inherits it.
        signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
        try:
            with cluster(wanted, self._folder) as workers:
                self._up.set()
                self._workers.put(workers)
                if not self._over.is_set():  # interrupted while Ray started
                    self._lend(workers * LANES, resources(wanted.gpus_per_client))
        except BaseException as error:  # it goes to the thread that waits for answers
            self._failure = error
        finally:
            self._workers.put(None)
            self._grids.put(None)

    def _lend(self, lanes: int, resources: Mapping[str, float]) -> None:
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        server = ServerApp()

        @server.main()
        def lend(grid: Grid, context: Context) -> None:
            self._grids.put(grid)
            self._over.wait()

        config: dict[str, dict[str, Any]] = {
            "client_resources": dict(resources),
            "init_args": dict(NO_RAY),
        }
        run_simulation(server, client_app(), lanes, backend_config=config)


@contextlib.contextmanager
def opened(wanted: Wanted, folder: Path) -> Iterator[Simulation]:
    """A simulation that is open, and closed whatever happens."""
    simulation, clean = Simulation(wanted, folder), False
    try:
        simulation.open()
        yield simulation
        clean = True
    finally:
        simulation.close(clean)


NO_RAY = {"fedunlearn_has_shut_ray_down": True}
"""Flower hands it on to Ray, which refuses at once to start with what it does not know."""

_LAST = "gcs_server"
"""The last of Ray's processes to be killed: without it, a driver waits for seconds when it shuts down."""


def _kill_actors() -> None:
    """Kill every actor of this process's Ray session: all are workers of ours, and Flower's pool keeps them hidden."""
    import ray

    for found in gc.get_objects():
        if issubclass(type(found), ray.actor.ActorHandle):  # isinstance asks objects, and some of them warn
            # One of an earlier session, or Ray has just ended.
            with contextlib.suppress(ValueError, ray.exceptions.RayError):
                ray.kill(found)


def _root(error: BaseException | None) -> str:
    """What an error goes back to, in one line."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return (
        "it gave no reason"
        if error is None
        else f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    )
