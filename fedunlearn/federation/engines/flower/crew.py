"""Who works on what: workers that come, are given messages, are lost and replaced. It knows neither Ray nor Flower.

- A message is given to a worker that is there and has nothing to do, never to one that is only expected. While as many
  wait as there are workers, expected ones too, each is given a second one, to go on with at once: it would idle while
  its reply is on its way and the next message comes. When fewer wait, none does so behind another one while somebody
  may soon be free.
- A worker that is lost, however, is no hospital's failure: its messages go to other workers and come to the same
  bits. Only one that `MOST_LOSSES` workers were lost over is given up: it may well be what kills them.
- A worker that does not answer its door for `SILENCE` looks is lost too, whatever it does, and so is one that has a
  message for much longer than a task may take. Looks are counted, not seconds, so that a computer that slept blames
  nobody.
- A worker on a machine that differs from this one keeps its place and is given nothing. If it were let go, the next one
  would come to the same place.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from fedunlearn.core import RunError
from fedunlearn.federation.engines.machines import Machine

M = TypeVar("M")

TICK = 2.0
"""Seconds between looks at all workers."""
SILENCE = 8
"""So many looks in a row without an answer, and a worker is lost."""
DEPTH = 2
"""Messages that a worker has at the most, the one that it works on among them."""
MOST_LOSSES = 5
"""A message that loses so many workers is given up."""
_MOST_SUPPLIES = 3  # tries to have the images on a machine, after which it is not used
_GRACE = 60.0  # seconds that a message may take beside its task: on its way, for images that are read first
_START = 60.0  # seconds that workers may take to start, however little patience there is for others
_MOST_FALLEN = 3  # times as many as are wanted may be lost before they come, if nobody is there
_SAID = 5.0  # seconds without any worker after which it is said that others take the cluster,
_AT_LAST = 30.0  # and where those whose CPUs are taken may be our own, who still start


@dataclass(eq=False)
class Worker(Generic[M]):
    """A worker, expected or there.

    Attributes:
        machine: where it is; None until it has come.
        data: the folder where the hospitals are on that machine; None until they are there.
        messages: what it works on, then what it will go on with; empty if it has nothing to do.
        differs: how its machine differs from this one, for which it is given nothing, or None.
        without: why its machine cannot have the hospitals' images, for which it is given nothing, or None.
        silent: looks in a row that it has not answered.
        looks: how often it was looked at since it works on its message.
    """

    machine: Machine | None = None
    data: str | None = None
    messages: deque[M] = field(default_factory=deque)
    differs: str | None = None
    without: str | None = None
    silent: int = 0
    looks: int = 0

    @property
    def refused(self) -> str | None:
        """Why it is given nothing, or None."""
        return self.differs or self.without

    @property
    def host(self) -> str:
        """The name of its machine, as far as it is known."""
        return self.machine.host if self.machine is not None else "a machine it never came to"


class Workplace(Protocol[M]):
    """Where workers are: what is told to them returns at once, what comes of it is told to the crew."""

    def room(self) -> int:
        """How many more workers would be placed right now."""
        ...

    def fits(self) -> int:
        """How many workers there is room for in all, if nobody else were there."""
        ...

    def taken(self) -> int:
        """How many workers' places are taken, by whomever."""
        ...

    def busy(self) -> str:
        """How busy it is, in words."""
        ...

    def hire(self, worker: Worker[M]) -> None:
        """Have a worker come: `Crew.came` or `Crew.lost` follows."""
        ...

    def supply(self, machine: Machine) -> None:
        """Have the hospitals' images on a machine: `Crew.supplied` follows."""
        ...

    def give(self, worker: Worker[M], message: M) -> None:
        """Give a worker a message, after those that it has: `Crew.done` or `Crew.lost` follows."""
        ...

    def knock(self, worker: Worker[M]) -> None:
        """See whether a worker is there: `Crew.answered` or `Crew.lost` follows, or nothing."""
        ...

    def dismiss(self, worker: Worker[M]) -> None:
        """End a worker, whatever it does."""
        ...


@dataclass(eq=False)
class Crew(Generic[M]):
    """The workers of one run.

    Attributes:
        place: where they are.
        wanted: how many; None for as many as there is room for.
        patience: seconds without any worker after which the run is stopped; workers may take a minute to start anyway.
            Before there are hospitals (`move`) nobody waits for workers.
        timeout: seconds that a task may take; the worker sees to it, if it can.
        differs: how a machine differs from this one, in words that forbid it to work, or None.
        reply: is told what came of a message: what the worker replied, or why nobody could.
        tell: is told what a person may want to know.
    """

    place: Workplace[M]
    wanted: int | None
    patience: float
    timeout: float
    differs: Callable[[Machine], str | None]
    reply: Callable[[M, M | None, str], None]
    tell: Callable[[str], None]
    workers: list[Worker[M]] = field(default_factory=list)
    machines: dict[str, Machine] = field(default_factory=dict)
    waiting: deque[M] = field(default_factory=deque)
    _losses: Counter[int] = field(default_factory=Counter)
    _data: dict[str, str | None] = field(default_factory=dict)
    _unsupplied: Counter[str] = field(default_factory=Counter)
    _moved: bool = False  # there are hospitals
    _without: float = 0.0  # seconds since anybody was there, while there are hospitals
    _said: bool = False
    _fallen: int = 0  # workers in a row that were lost before they came
    _useful: int = 0  # workers that may work at the last look, expected ones too

    # ------------------------------------------------------------------------------------------ what happens

    def take(self, messages: Iterable[M]) -> None:
        """Messages to be worked on."""
        self.waiting.extend(messages)
        self._assign()

    def came(self, worker: Worker[M], machine: Machine) -> None:
        """A worker is there."""
        if worker not in self.workers:
            return
        self._fallen, worker.silent, worker.machine = 0, 0, machine
        worker.differs = self.differs(machine)
        if worker.differs is not None:
            self.tell(f"machine {machine.host!r} is given nothing to do: {worker.differs}")
            return
        worker.machine = self.machines.setdefault(machine.node, machine)
        if machine.node not in self._data:
            self._data[machine.node] = None
            self.place.supply(machine)
        worker.data = self._data[machine.node]
        self._assign()

    def supplied(self, node: str, data: str | None, how: str) -> None:
        """The hospitals' images are in the folder ``data`` of a machine, or cannot get there, and why.

        Then it is tried again with other workers there, some times; after that, it is given nothing to do.
        """
        machine = self.machines[node]
        there = [
            worker for worker in self.workers if worker.machine is not None and worker.machine.node == node
        ]
        if data is not None:
            self._data[node], self.machines[node] = data, replace(machine, images=how)
            for worker in there:
                worker.data = data
            self._assign()
            return
        del self._data[node]
        self._unsupplied[node] += 1
        if self._unsupplied[node] < _MOST_SUPPLIES:
            for worker in there:
                self.lost(worker, how)
            return
        self.tell(
            f"machine {machine.host!r} is given nothing to do, it cannot have the hospitals' images: {how}"
        )
        for worker in there:
            worker.data, worker.without = None, how

    def move(self) -> None:
        """Other hospitals from now on: their images are to be brought, and whoever works for those before goes."""
        self._moved, self._without, self._said = True, 0.0, False
        self.waiting.clear()
        self._losses.clear()
        self._unsupplied.clear()
        for worker in list(self.workers):
            worker.data = worker.without = None
            if worker.messages:
                worker.messages.clear()
                self._part(worker)
        self._data = dict.fromkeys(self.machines)
        for machine in list(self.machines.values()):
            self.place.supply(machine)

    def done(self, worker: Worker[M], message: M, reply: M, fit: bool) -> None:
        """A worker has done a message; one that is not ``fit`` any more goes, and another comes."""
        if worker not in self.workers:
            return  # it was thought lost, and another works on it
        worker.messages = deque(other for other in worker.messages if other is not message)
        worker.silent, worker.looks = 0, 0
        self._losses.pop(id(message), None)
        self.reply(message, reply, "")
        if not fit:
            self._part(worker)
        self._assign()

    def lost(self, worker: Worker[M], reason: str, message: M | None = None) -> None:
        """A worker is no more, or could not do what every worker can.

        Args:
            worker: the worker.
            reason: why, in words.
            message: which message it could not take; None for what it worked on, the first that it has.

        Raises:
            RunError: one after the other is lost before it has come, and nobody is there.
        """
        if worker not in self.workers:
            return
        if worker.machine is None:
            self._fallen += 1
            alone = all(other.machine is None for other in self.workers)
            if alone and self._fallen > _MOST_FALLEN * max(4, len(self.workers)):
                raise RunError(f"workers end as soon as they start, {self._fallen} in a row: {reason}")
        if message is None and worker.messages:
            message = worker.messages[0]  # the others, it had not begun
        if message is not None and any(message is one for one in worker.messages):
            self._losses[id(message)] += 1
            if self._losses[id(message)] >= MOST_LOSSES:
                del self._losses[id(message)]
                worker.messages = deque(one for one in worker.messages if one is not message)
                times = f"{MOST_LOSSES} workers were lost while they worked on it"
                self.reply(message, None, f"{times}, the last on machine {worker.host!r}: {reason}")
        self._part(worker)
        self._assign()

    def answered(self, worker: Worker[M]) -> None:
        """A worker answered its door."""
        worker.silent = 0

    def tick(self, seconds: float = TICK) -> None:
        """Look at all workers, hire where there is room, and see whether anybody is there.

        Raises:
            RunError: nobody has been for too long.
        """
        for worker in list(self.workers):
            if worker.machine is None:
                continue
            if worker.silent >= SILENCE:
                self.lost(worker, f"it has not answered for {SILENCE * TICK:g} s")
                continue
            if worker.messages and worker.looks * TICK > self.timeout + _GRACE:
                self.lost(worker, f"it has not replied for {worker.looks * TICK:g} s, though it is there")
                continue
            worker.silent, worker.looks = worker.silent + 1, worker.looks + 1
            self.place.knock(worker)
        self._fill()
        self._wait(seconds)

    def end(self) -> None:
        """Dismiss everybody."""
        for worker in self.workers:
            self.place.dismiss(worker)
        self.workers.clear()

    # ------------------------------------------------------------------------------------------------ pieces

    @property
    def ready(self) -> Sequence[Worker[M]]:
        """Those who are there and can work."""
        return [worker for worker in self.workers if worker.data is not None and worker.refused is None]

    def _assign(self) -> None:
        """Give messages to those who have none; then, of many that wait, second ones."""
        ready, useful = self.ready, sum(worker.refused is None for worker in self.workers)
        useful = max(useful, self._useful)  # in the place of one that was just lost another comes
        for most, least in ((1, 1), (DEPTH, useful)):
            for worker in ready:
                if len(self.waiting) >= least and len(worker.messages) < most:
                    self._give(worker, self.waiting.popleft())

    def _give(self, worker: Worker[M], message: M) -> None:
        if not worker.messages:
            worker.looks = 0
        worker.messages.append(message)
        self.place.give(worker, message)

    def _fill(self) -> None:
        """Hire those who are missing."""
        useful = [worker for worker in self.workers if worker.refused is None]
        expected = sum(worker.machine is None for worker in useful)
        if self.wanted is None:
            missing = self.place.room() - expected
            if not useful:
                missing = max(missing, 1)  # to stand in the queue
        else:
            most = self.place.fits() - (len(self.workers) - len(useful))
            missing = min(self.wanted, most) - len(useful)
        for _ in range(missing):
            worker = Worker[M]()
            self.workers.append(worker)
            self.place.hire(worker)
        self._useful = sum(worker.refused is None for worker in self.workers)

    def _part(self, worker: Worker[M]) -> None:
        """Let a worker go; what it had waits before all else.

        Another one is hired at the next look: now, the whole cluster may be gone.
        """
        self.waiting.extendleft(reversed(worker.messages))
        worker.messages.clear()
        self.workers.remove(worker)
        self.place.dismiss(worker)

    def _wait(self, seconds: float) -> None:
        # Whoever is there has images or waits for them, which take as long as they take.
        there = any(worker.machine is not None and worker.refused is None for worker in self.workers)
        if there or not self._moved:
            self._without, self._said = 0.0, False
            return
        self._without += seconds
        if refused := {f"machine {w.host!r}: {w.refused}" for w in self.workers if w.refused}:
            why = "no machine can be used: " + "; ".join(sorted(refused))
        else:
            why = self.place.busy()
        if self._without >= (limit := max(self.patience, _START)):
            raise RunError(f"{why}: no worker could start within {limit:g} s (engine.wait)")
        expected = sum(worker.machine is None for worker in self.workers)
        others = self._without >= _SAID and not self.place.room() and self.place.taken() > expected
        if not self._said and (others or self._without >= _AT_LAST):
            self._said = True
            self.tell(f"{why}: waiting for room for {limit:g} s at most (engine.wait)")
