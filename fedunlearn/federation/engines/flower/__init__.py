"""The engine on Flower and Ray: hospitals work in Ray actors, on this machine or on a cluster.

The only room that knows Flower and Ray. Asks and answers are Flower messages with typed records: one JSON text
(`fedunlearn.federation.wire`) and named arrays, never pickled code. A hospital is a node of a Flower `Grid` (`grid`)
and does its tasks in a Flower `ClientApp` (`worker`): both could meet over Flower's own network instead. Between them,
on Ray, is a crew of workers of ours (`crew`, which knows neither Flower nor Ray, and `workplace`, its half on Ray), in
the place of Flower's simulation.

The server half stays in the caller's thread (`messages`), so signals, progress bars and errors behave as with any other
engine; Ray is served by a thread that may be left behind (`session`). How a cluster is started or joined is in
`cluster`, what Ray leaves on a machine in `scratch`.

Each file says what is done there about Flower and Ray themselves (measured with flwr 1.41.0 and ray 2.55.1).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from threadpoolctl import threadpool_limits

from fedunlearn import interrupts
from fedunlearn.federation.engines import Link
from fedunlearn.federation.engines.flower import probe, scratch
from fedunlearn.federation.engines.flower.cluster import Wanted, environment, quiet
from fedunlearn.federation.engines.flower.last_words import last_words
from fedunlearn.federation.engines.flower.session import Session, started
from fedunlearn.federation.engines.flower.worker import Errand, code
from fedunlearn.federation.engines.machines import Machine

T = TypeVar("T")


def _silently(text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Flower:
    """Works in Ray actors, through Flower.

    Attributes:
        workers: how many hospitals work at once; None for one per usable core, or as many as there is room for.
        gpus_per_client: the share of a GPU each of them gets; 0 to work on the CPU.
        address: a running Ray cluster, "host:port" or "auto"; None for $RAY_ADDRESS, else a cluster of its own.
        timeout: seconds a hospital may take for one task, from when it begins.
        wait: seconds to wait for room on a busy cluster; a minute at least.
        machines: those that `inspect` found; one of another kind that joins later is given nothing to do.
        tell: is told what a person may want to know: that a cluster is busy, that a machine is not used.
    """

    workers: int | None = None
    gpus_per_client: float = 0.0
    address: str | None = None
    timeout: float = 600.0
    wait: float = 600.0
    machines: tuple[Machine, ...] = ()
    tell: Callable[[str], None] = _silently

    @property
    def _wanted(self) -> Wanted:
        return Wanted(
            self.workers, self.gpus_per_client, self.address, self.timeout, self.wait, self.machines
        )

    def inspect(self) -> tuple[Machine, ...]:
        """See `Engine`: those of a running cluster that have room for work, else this machine."""
        if address := self._wanted.joined:
            return probe.usable(address, self.gpus_per_client)
        return (probe.alone(self.gpus_per_client),)

    @contextlib.contextmanager
    def staff(self) -> Iterator[Hospitals]:
        """See `Engine`. Importing Flower and Ray takes a second; Ray starts, and its workers come, beside the caller.

        Raises:
            InputError: there is no room for Ray's own files.
            Interrupted: a signal came.
        """
        with interrupts.listening(), interrupts.deferred(), contextlib.ExitStack() as stack:
            stack.enter_context(last_words())
            folder = stack.enter_context(scratch.folder())
            stack.enter_context(environment(folder))
            stack.enter_context(quiet())
            # Ray forks beside the caller, and before a fork OpenBLAS ends its threads: whoever waits for them in a
            # product of matrices waits for ever.
            stack.enter_context(threadpool_limits(1, "blas"))
            session = stack.enter_context(started(Session(self._wanted, folder, self.tell)))
            with interrupts.interruptible():
                yield Hospitals(session, self.timeout)

    def run(self, federation: Path, body: Callable[[Link], T]) -> T:
        """See `Staff`.

        Raises:
            InputError: there is no Ray cluster at ``address``, or no room for one of our own.
            RunError: Ray could not start, or its cluster is gone, or busy for too long.
            Interrupted: a signal came.
        """
        with self.staff() as hospitals:
            return hospitals.run(federation, body)


@dataclass(frozen=True)
class Hospitals:
    """Workers on Ray (`Staff`), of one session.

    Attributes:
        session: where they are.
        timeout: seconds a hospital may take for one task.
    """

    session: Session
    timeout: float

    def run(self, federation: Path, body: Callable[[Link], T]) -> T:
        """See `Staff`.

        Raises:
            InputError, RunError, Interrupted: see `Flower.run`.
        """
        from fedunlearn.federation.engines.flower.messages import Messages

        # Ray, Flower and logging hold locks; the link's waits look for signals.
        with interrupts.listening(), interrupts.deferred():
            self.session.serve(federation.resolve())
            return body(Messages(self.session, functools.partial(Errand, timeout=self.timeout, code=code())))
