"""The engine without a network: hospitals work in threads of this process, one torch thread each, or on its GPU."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from fedunlearn import cores, interrupts
from fedunlearn.core import InputError
from fedunlearn.federation.engines import Answer, Ask, Link
from fedunlearn.federation.engines.machines import Machine, here
from fedunlearn.federation.engines.stacks import Stacks
from fedunlearn.federation.engines.work import perform
from fedunlearn.learning import devices
from fedunlearn.learning.models import Network
from sites.hospital import Federation

T = TypeVar("T")
_LOOK = 0.2  # seconds between looks for hospitals that are late, at the most
_WAITING = 2  # answers of a worker that may wait


@dataclass(frozen=True)
class Inline:
    """Works in this process.

    Attributes:
        workers: how many hospitals work at once; None for one per CPU core it may use, or on a GPU for just one.
        timeout: seconds a hospital may take for one task.
        device: what they compute on, "cpu" or "cuda".
    """

    workers: int | None = None
    timeout: float = 600.0
    device: str = "cpu"

    def inspect(self) -> tuple[Machine, ...]:
        """See `Engine`: this machine."""
        return (self._machine(),)

    def staff(self) -> AbstractContextManager[Inline]:
        """See `Engine`: threads start in no time, so they come to each run anew."""
        return contextlib.nullcontext(self)

    def run(self, federation: Path, body: Callable[[Link], T]) -> T:
        """See `Engine`.

        Raises:
            InputError: the device cannot be used.
            Interrupted: a signal came.
        """
        machine = self._machine()
        devices.prepare(self.device)
        with interrupts.listening(), interrupts.deferred():  # the link's wait looks for signals
            usual = 1 if self.device != "cpu" else cores.usable()  # one worker keeps a GPU busy
            workers = self.workers or usual
            link = _Link(Federation.open(federation), workers, self.timeout, self.device, machine)
            try:
                return body(link)
            finally:
                link.close()

    def _machine(self) -> Machine:
        if wrong := devices.ready(self.device):
            raise InputError(f"{wrong} (engine: {{name: inline, device: cpu}})")
        return here(device=devices.describe(self.device))


class _Link:
    """Asks that wait, some threads that work on them, a queue of answers.

    The threads are daemons: a hospital that hangs must not keep the process from ending.
    """

    def __init__(
        self, federation: Federation, workers: int, timeout: float, device: str, machine: Machine
    ) -> None:
        self._federation, self._timeout, self._device = federation, timeout, device
        self.machines = (machine,)
        self._asks = _Waiting(Stacks(federation))
        # Full when the server is slower than the hospitals: then they wait, instead of their answers in memory.
        self._answers: queue.Queue[Sequence[Answer]] = queue.Queue(_WAITING * workers)
        self._started: dict[int, tuple[float, tuple[Ask, ...]]] = {}  # by the first ask's ticket
        self._looked = time.monotonic()
        self._threads: list[threading.Thread] = []
        for _ in range(workers):
            self._hire()

    def submit(self, asks: Sequence[Ask]) -> None:
        """See `Link`."""
        self._asks.add(asks)

    def collect(self) -> Sequence[Answer]:
        """See `Link`.

        Raises:
            Interrupted: a signal came.
        """
        pause = min(_LOOK, self._timeout / 4)
        while True:
            interrupts.check()
            # Also while others answer, who may do so for hours.
            if time.monotonic() - self._looked >= pause and (late := self._late()):
                return late
            if self._answers.empty():
                self._asks.settle()
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=pause)

    def close(self) -> None:
        """Drop what nobody waits for and let the threads end."""
        self._asks.close()
        with contextlib.suppress(queue.Empty):  # not `while not empty(): get()`: a worker may be faster
            while True:  # it may wait for room
                self._answers.get_nowait()
        deadline = time.monotonic() + 2.0  # for all together; one that hangs is left behind
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _hire(self) -> None:
        """One more worker; called by one thread only, since making a network draws from the global RNG."""
        network = self._federation.network(self._device)
        self._threads.append(threading.Thread(target=self._work, args=(network,), daemon=True))
        self._threads[-1].start()

    def _late(self) -> list[Answer]:
        self._looked = now = time.monotonic()
        late = [ticket for ticket, (since, _) in list(self._started.items()) if now - since > self._timeout]
        error, host = f"no answer within {self._timeout:g} s", self.machines[0].host
        answers = list[Answer]()
        for ticket in late:
            # Whoever takes a ticket out of `_started` answers for it: never both this and the late worker.
            if (begun := self._started.pop(ticket, None)) is not None:
                answers += [Answer(ask.ticket, None, error, self._timeout, 0, host) for ask in begun[1]]
                self._hire()  # or nobody would be left to try again
        return answers

    def _work(self, network: Network) -> None:
        torch.set_num_threads(1)
        while asks := self._asks.take():
            self._started[asks[0].ticket] = time.monotonic(), asks
            answers = perform(self._federation, network, asks)
            if self._started.pop(asks[0].ticket, None) is None:
                return  # answered for already, and another works in its place
            self._asks.stir()
            self._answers.put(answers)


class _Waiting:
    """Asks that wait for a thread, in the order in which they came, but that full stacks go first."""

    def __init__(self, stacks: Stacks) -> None:
        self._alone, self._stacks = deque[Ask](), stacks
        self._news = threading.Condition()
        self._settled = self._closed = False

    def add(self, asks: Sequence[Ask]) -> None:
        """Asks that come after all others."""
        with self._news:
            self._settled = False
            self._alone.extend(ask for ask in asks if not self._stacks.add(ask))
            self._news.notify_all()

    def settle(self) -> None:
        """No ask will come before there is another answer."""
        with self._news:
            self._settled = True
            if len(self._stacks):
                self._news.notify_all()

    def stir(self) -> None:
        """There is an answer: asks may come."""
        with self._news:
            self._settled = False

    def take(self) -> tuple[Ask, ...]:
        """What to do next, as soon as there is something; empty once nobody waits for anything."""
        with self._news:
            while not self._closed:
                if asks := self._stacks.full():
                    return asks
                if self._alone:
                    return (self._alone.popleft(),)
                if self._settled and (asks := self._stacks.rest()):
                    return asks
                self._news.wait()
        return ()

    def close(self) -> None:
        """Nobody waits for anything any more."""
        with self._news:
            self._closed = True
            self._news.notify_all()
