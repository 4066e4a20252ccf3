"""The engine without a network: hospitals work in threads of this process, one torch thread each, or on its GPU."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
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
from fedunlearn.learning import devices
from fedunlearn.learning.local import load_each_gradient
from fedunlearn.learning.models import Network
from sites.hospital import Federation

T = TypeVar("T")
_LOOK = 0.2  # seconds between looks for hospitals that are late, at the most
_WAITING = 2  # answers of a worker that may wait

_HOST = socket.gethostname()  # asked once: it is a call of the system, and a task may take less


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
    """A queue of asks, some threads that work on them, a queue of answers.

    The threads are daemons: a hospital that hangs must not keep the process from ending.
    """

    def __init__(
        self, federation: Federation, workers: int, timeout: float, device: str, machine: Machine
    ) -> None:
        self._federation, self._timeout, self._device = federation, timeout, device
        self.machines = (machine,)
        self._asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        # Full when the server is slower than the hospitals: then they wait, instead of their answers in memory.
        self._answers: queue.Queue[Answer] = queue.Queue(_WAITING * workers)
        self._started: dict[int, float] = {}
        self._looked = time.monotonic()
        self._threads: list[threading.Thread] = []
        for _ in range(workers):
            self._hire()

    def submit(self, asks: Sequence[Ask]) -> None:
        """See `Link`."""
        for ask in asks:
            self._asks.put(ask)

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
            with contextlib.suppress(queue.Empty):
                return [self._answers.get(timeout=pause)]

    def close(self) -> None:
        """Drop what nobody waits for and let the threads end."""
        with contextlib.suppress(queue.Empty):  # not `while not empty(): get()`: a worker may be faster
            while True:
                self._asks.get_nowait()
        with contextlib.suppress(queue.Empty):  # a worker may wait for room
            while True:
                self._answers.get_nowait()
        for _ in self._threads:
            self._asks.put(None)
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
        late = [ticket for ticket, since in list(self._started.items()) if now - since > self._timeout]
        error = f"no answer within {self._timeout:g} s"
        # Whoever takes a ticket out of `_started` answers for it: never both this and the late worker.
        given_up = [ticket for ticket in late if self._started.pop(ticket, None) is not None]
        for _ in given_up:
            self._hire()  # or nobody would be left to try again
        return [Answer(ticket, None, error, self._timeout, 0, self.machines[0].host) for ticket in given_up]

    def _work(self, network: Network) -> None:
        torch.set_num_threads(1)
        while (ask := self._asks.get()) is not None:
            self._started[ask.ticket] = time.monotonic()
            answer = perform(self._federation, network, ask)
            if self._started.pop(ask.ticket, None) is None:
                return  # answered for already, and another works in its place
            self._answers.put(answer)


def perform(federation: Federation, network: Network, ask: Ask) -> Answer:
    """Let one hospital do one task: the worker's half of every engine. Whatever it raises becomes the answer."""
    answer = _performed(federation, network, ask)
    if answer.error is not None and not answer.unfit:
        devices.tidy(network.device)  # not in there, where the error still holds what the task had made
    return answer


def _performed(federation: Federation, network: Network, ask: Ask) -> Answer:
    if getattr(ask.task, "each_image", False):
        load_each_gradient()
    began, host = time.perf_counter(), _HOST
    try:
        hospital = federation.hospital(ask.site, network)
        reply = ask.task(hospital)
        return Answer(ask.ticket, reply, None, time.perf_counter() - began, hospital.work, host)
    except Exception as error:  # a hospital may fail in any way; the driver stops the run and names it
        wrong, seconds = devices.told(error, network.device), time.perf_counter() - began
        return Answer(ask.ticket, None, wrong, seconds, 0, host, unfit=devices.lost(error))
