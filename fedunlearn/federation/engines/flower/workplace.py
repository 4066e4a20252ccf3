"""Ray as a crew's workplace: actors that come, are given messages, and are ended.

Nothing here waits for Ray: what becomes of a call is put into a queue of events, as something to tell the crew.

- Actors are ours, not those of Flower's simulation, whose pool binds tasks to actors that may never be placed, counts
  what a cluster has and not what it has free, and keeps dead ones. Ray restarts none of them: the crew hires another.
- Arrays that many messages have are put into Ray's store once, from where the actors of a machine take them.
- An actor works in one thread and answers its door in another, so one that computes is not taken for lost.
"""

from __future__ import annotations

import copy
import functools
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import ray
from flwr.app import ArrayRecord, Message, RecordDict
from ray.exceptions import RayError, RayTaskError

from fedunlearn.core import InputError
from fedunlearn.federation.engines.flower.crew import TICK, Crew, Worker
from fedunlearn.federation.engines.flower.recent import ROOM, Recent
from fedunlearn.federation.engines.flower.worker import ARRAYS, DOOR, Actor, fit
from fedunlearn.federation.engines.machines import Machine

Event = Callable[[Crew[Message]], None]

_SMALL = 100_000  # bytes that Ray sends with a call
_ROUNDED = 1e-6  # Ray counts shares
_PATIENT = 1.0  # seconds to try whether somebody listens


class Workplace:
    """Actors on Ray (see `fedunlearn.federation.engines.flower.crew.Workplace`).

    Args:
        gpus: the share of a GPU that each gets; 0 to work on the CPU.
        supply: has the hospitals' images brought to a machine, and tells where they are in an event.
        put: is given every event.

    Raises:
        InputError: no machine has room for even one.
    """

    def __init__(self, gpus: float, supply: Callable[[str], None], put: Callable[[Event], None]) -> None:
        self._gpus, self._supply, self._put = gpus, supply, put
        remote: Any = ray.remote  # Ray's types know no groups
        self._actor = remote(
            num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0, concurrency_groups={DOOR: 1}
        )(Actor)
        self._hired: dict[Worker[Message], Any] = {}
        self._stored: Recent[tuple[ArrayRecord, Any]] = Recent(ROOM)
        if not self.fits():
            raise InputError(
                f"Ray has {self._told(_total())}; expected one CPU and gpus_per_client: {gpus:g} GPU for each worker: "
                "lower gpus_per_client or use a larger cluster"
            )

    def room(self) -> int:
        """See `crew.Workplace`."""
        return self._places(_free())

    def fits(self) -> int:
        """See `crew.Workplace`."""
        return self._places(_total())

    def taken(self) -> int:
        """See `crew.Workplace`."""
        return self.fits() - self.room()

    def busy(self) -> str:
        """See `crew.Workplace`."""
        total, free = _total(), _free()
        return f"the Ray cluster is busy: of its {self._told(total)}, {self._told(free)} are free"

    def hire(self, worker: Worker[Message]) -> None:
        """See `crew.Workplace`."""
        self._hired[worker] = actor = self._actor.remote(self._gpus)

        def event(found: Future[Machine]) -> Event:
            return lambda crew: crew.came(worker, found.result())

        self._when(actor.hello.remote(), worker, event)

    def supply(self, machine: Machine) -> None:
        """See `crew.Workplace`."""
        self._supply(machine.node)

    def give(self, worker: Worker[Message], message: Message) -> None:
        """See `crew.Workplace`."""

        def event(found: Future[Message]) -> Event:
            reply = found.result()
            return lambda crew: crew.done(worker, message, reply, fit(reply))

        rest, arrays = self._apart(message)
        self._when(self._hired[worker].work.remote(rest, arrays, worker.data), worker, event, message)

    def knock(self, worker: Worker[Message]) -> None:
        """See `crew.Workplace`."""
        door = self._hired[worker].door.options(concurrency_group=DOOR)
        self._when(door.remote(), worker, lambda found: lambda crew: crew.answered(worker))

    def dismiss(self, worker: Worker[Message]) -> None:
        """See `crew.Workplace`."""
        with suppress(RayError, ValueError):  # it is gone already
            ray.kill(self._hired.pop(worker))

    def close(self) -> None:
        """Let go of everything of Ray's, while Ray is up.

        Ray counts the objects of a thread from one, for every cluster anew. A reference that outlived its cluster would
        take the object of the same number out of the next one when it is collected.
        """
        self._put = lambda event: None  # answers that come now are nobody's
        self._hired.clear()
        self._stored = Recent(ROOM)

    def _apart(self, message: Message) -> tuple[Message, Any]:
        """A message without its arrays, and these; small ones as they are, others in Ray's store."""
        content = dict(message.content)
        arrays = content.pop(ARRAYS)
        assert isinstance(arrays, ArrayRecord)
        rest = copy.copy(message)
        rest.content = RecordDict(content)
        if (size := arrays.count_bytes()) < _SMALL:
            return rest, arrays
        return rest, self._stored.get(id(arrays), size, lambda: (arrays, ray.put(arrays)))[1]

    def _when(
        self,
        reference: Any,
        worker: Worker[Message],
        event: Callable[[Future[Any]], Event],
        message: Message | None = None,
    ) -> None:
        """Once ``reference`` is there, or never will be, put what it means; it may be what comes of ``message``."""

        def told(found: Future[Any]) -> None:
            match found.exception():
                case None:
                    self._put(event(found))
                case error:
                    # What an actor raises is of that message; whatever ends an actor, of what it worked on.
                    raised = message if isinstance(error, RayTaskError) else None
                    self._put(
                        functools.partial(Crew.lost, worker=worker, reason=_line(error), message=raised)
                    )

        reference.future().add_done_callback(told)

    def _places(self, of: dict[str, dict[str, float]]) -> int:
        """How many workers have room in resources, by machine: none is on two."""
        places = 0
        for has in of.values():
            here = int(has.get("CPU", 0.0) + _ROUNDED)
            places += min(here, self._shares(has.get("GPU", 0.0))) if self._gpus else here
        return places

    def _shares(self, gpus: float) -> int:
        """How many workers have room on so many GPUs: none is on two."""
        whole = int(gpus + _ROUNDED)
        return whole * int(1 / self._gpus + _ROUNDED) + int((gpus - whole) / self._gpus + _ROUNDED)

    def _told(self, of: dict[str, dict[str, float]]) -> str:
        cpus, gpus = (sum(has.get(what, 0.0) for has in of.values()) for what in ("CPU", "GPU"))
        return f"{cpus:g} CPUs and {gpus:g} GPUs" if self._gpus else f"{cpus:g} CPUs"


class Lifeline:
    """Whether the two processes without which a driver can do nothing listen: Ray's head, and the raylet beside us.

    Ray itself would wait for them without a word. This asks nothing of Ray, so any thread may.

    Attributes:
        head: the address of Ray's head.
    """

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        host, _, port = context.gcs_address.rpartition(":")
        own = next(node for node in _nodes() if node["NodeID"] == context.get_node_id())
        self.head = (host, int(port))
        self._raylet = (own["NodeManagerAddress"], own["NodeManagerPort"])
        self._tried, self._lost = time.monotonic(), 0.0

    def lost(self) -> float:
        """Seconds since both were there, after one more try; those of a computer that slept do not count."""
        there = all(listens(host, port, _PATIENT) for host, port in (self.head, self._raylet))
        now = time.monotonic()
        self._lost = 0.0 if there else self._lost + min(now - self._tried, 2 * TICK)
        self._tried = now
        return self._lost


def listens(host: str, port: int, seconds: float) -> bool:
    """Whether somebody listens at an address."""
    try:
        socket.create_connection((host, port), seconds).close()
    except OSError:
        return False
    return True


def _nodes() -> list[dict[str, Any]]:
    """The machines of the cluster that are still there."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray's own


def _free() -> dict[str, dict[str, float]]:
    """What every machine of the cluster has free. Ray's public function knows sums only."""
    free: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def _total() -> dict[str, dict[str, float]]:
    """What every machine of the cluster has."""
    return {node["NodeID"]: node["Resources"] for node in _nodes()}


def _line(error: BaseException) -> str:
    """What an error of Ray's is about, in one line: the last of a traceback, the first of what Ray itself says."""
    lines = str(error).strip().splitlines() or ["Ray gave no reason"]
    return lines[-1 if isinstance(error, RayTaskError) else 0].strip()
