"""The engine on Flower and Ray: hospitals work in Ray actors, on this machine or on a cluster.

The only module that knows Flower and Ray. Asks and answers are Flower messages with typed records: one JSON text
(`fedunlearn.federation.wire`) and named arrays, never pickled code. The server half stays in the caller's thread and
uses Flower's `Grid` from there, so Ctrl-C, progress bars and errors behave as with any other engine; Flower's
simulation runs beside it in a thread that may be left behind.

What is done here about Flower and Ray themselves (measured with flwr 1.41.0 and ray 2.55.1):

- A Flower node takes one message per 0.1 s. Here a node is not a hospital but a lane: the message names the
  hospital, a lane carries one message at a time, and there are more lanes than workers, so none waits for the poll.
- A killed actor goes back to Flower's pool and fails every message at once: Ray is told to restart it and to run
  its message again. Tasks give the same bits each time.
- A worker thread of Flower that waits for a busy actor cannot be stopped, and would keep this process alive: on
  the way out the actors are killed.
- The worker itself answers when a task takes too long, counting from the task's own start. Only for a worker that
  cannot answer (a lost machine) does the server count, from when the message's turn came.
- Connecting to a Ray address where nothing listens takes minutes and then ends the process: it is tried first.
- Flower counts on min(32, cores + 4) threads, whatever the cluster: no more tasks than that run at once.
- Telemetry, usage reports and update checks are off; nothing is written outside the federation's folder but Ray's
  session, in a temporary folder that is removed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import logging
import os
import queue
import re
import socket
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from fedunlearn.core import InputError, RunError
from fedunlearn.federation import wire
from fedunlearn.federation.engines import Answer, Ask, Link
from fedunlearn.federation.engines.inline import perform
from fedunlearn.installation import ROOT, require_no_rivals
from sites.hospital import Federation

if TYPE_CHECKING:
    from flwr.app import Context, Message, RecordDict
    from flwr.serverapp import Grid

T = TypeVar("T")

_POLL = 0.02  # seconds between looks at the grid
_LANES = 3  # messages in flight per worker: one at work, the others already waiting at its door
_GRACE = 60.0  # seconds a worker may need to start, or to start again, before it begins with a task
_FAREWELL = 10.0  # seconds that Flower gets to end
_STORE = 1 << 30  # bytes of Ray's object store, claimed as they are used; it spills to disk beyond


@dataclass(frozen=True)
class Flower:
    """Works in Ray actors, through Flower.

    Attributes:
        workers: how many hospitals work at once; None for one per CPU core, or as many as the cluster has room for.
        gpus_per_client: the share of a GPU each of them gets; 0 to work on the CPU.
        address: a running Ray cluster, "host:port" or "auto"; None for $RAY_ADDRESS, else a cluster of its own.
        timeout: seconds a hospital may take for one task.
    """

    workers: int | None = None
    gpus_per_client: float = 0.0
    address: str | None = None
    timeout: float = 600.0

    def run(self, federation: Path, body: Callable[[Link], T]) -> T:
        """See `Engine`.

        Raises:
            InputError: there is no Ray cluster at ``address``.
            RunError: Ray or Flower could not start, or stopped.
        """
        federation = federation.resolve()
        address = self.address or os.environ.get("RAY_ADDRESS")
        with _environment(federation), _quiet(), _cluster(self, address) as workers:
            simulation = _Simulation(workers * _LANES, _resources(self.gpus_per_client))
            clean = False
            errand = functools.partial(
                _Errand, federation=str(federation), timeout=self.timeout, gpu=self.gpus_per_client > 0
            )
            try:
                result = body(_Link(simulation, workers, self.timeout, errand))
                clean = True
                return result
            finally:
                simulation.close(wait=clean)


# ------------------------------------------------------------------------------------------ the server half


@dataclass(frozen=True)
class _Errand:
    """What a worker is sent.

    Attributes:
        ask: the task, and at which hospital.
        federation: the folder where the hospitals are, the same on every machine of a cluster.
        timeout: seconds the task may take.
        gpu: whether to work on the GPU.
    """

    ask: Ask
    federation: str
    timeout: float
    gpu: bool


@dataclass
class _Sent:
    """An ask in flight, the lane it took, and when its turn came as far as the server can tell."""

    ask: Ask
    lane: int
    since: float | None = None


class _Link:
    """Asks in a queue, as many of them in flight as there are lanes."""

    def __init__(
        self, simulation: _Simulation, workers: int, timeout: float, errand: Callable[[Ask], _Errand]
    ) -> None:
        self._simulation, self._workers = simulation, workers
        self._timeout, self._errand = timeout, errand
        self._waiting: deque[Ask] = deque()
        self._sent: dict[str, _Sent] = {}
        self._lanes = deque(simulation.lanes)

    def submit(self, asks: Sequence[Ask]) -> None:
        """See `Link`."""
        self._waiting.extend(asks)
        self._push()

    def collect(self) -> Sequence[Answer]:
        """See `Link`.

        Raises:
            RunError: every worker is lost, and tasks still wait; or Flower stopped.
        """
        while True:
            if answers := self._pull() or self._late():
                self._push()
                return answers
            if self._waiting and not self._sent:
                raise RunError(f"all workers are lost, and {len(self._waiting)} tasks still wait for one")
            self._simulation.check()
            time.sleep(_POLL)

    def _push(self) -> None:
        from flwr.app import Message

        while self._waiting and self._lanes:
            ask, lane = self._waiting.popleft(), self._lanes.popleft()
            record = _record(self._errand(ask))
            message = Message(record, lane, "train.ask", ttl=4 * (self._timeout + _GRACE))
            [number] = self._simulation.grid.push_messages([message])
            self._sent[number] = _Sent(ask, lane)
        for sent in list(self._sent.values())[: self._workers]:  # first sent, first served
            sent.since = sent.since or time.monotonic()

    def _pull(self) -> list[Answer]:
        answers = []
        for message in self._simulation.grid.pull_messages(list(self._sent)):
            sent = self._sent.pop(message.metadata.reply_to_message_id)
            self._lanes.append(sent.lane)
            if message.has_error():
                answers.append(Answer(sent.ask.ticket, None, _last_line(message.error.reason or ""), 0.0, 0))
            else:
                answers.append(_value(message.content))
        return answers

    def _late(self) -> list[Answer]:
        """Answer for workers that are lost; their lanes are given up."""
        long_ago = time.monotonic() - self._timeout - _GRACE
        late = [number for number, sent in self._sent.items() if sent.since and sent.since < long_ago]
        return [_overdue(self._sent.pop(number).ask, self._timeout) for number in late]


class _Simulation:
    """Flower's simulation in a thread of its own, which lends its grid until `close`.

    Attributes:
        grid: where messages are pushed and pulled.
        lanes: the ids of its nodes.
    """

    def __init__(self, lanes: int, resources: Mapping[str, float]) -> None:
        self._opened: queue.SimpleQueue[Grid | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        # A daemon, and so are the threads it starts: none of them may keep the process from ending.
        self._thread = threading.Thread(target=self._simulate, args=(lanes, resources), daemon=True)
        self._thread.start()
        try:
            self.grid, self.lanes = self._open(lanes)
        except BaseException:
            self.close(wait=False)
            raise

    def check(self) -> None:
        """Make sure that Flower still runs.

        Raises:
            RunError: it stopped, and why.
        """
        if not self._thread.is_alive():
            raise RunError(f"Flower's simulation stopped: {_root(self._failure)}") from self._failure

    def close(self, wait: bool) -> None:
        """End it, and the actors with it; unless ``wait``, kill those at work first."""
        self._over.set()
        if wait:
            self._thread.join(_FAREWELL)
        if self._thread.is_alive():
            _kill_actors()
            self._thread.join(_FAREWELL)

    def _open(self, lanes: int) -> tuple[Grid, list[int]]:
        grid = self._opened.get()
        while grid is not None and self._thread.is_alive():
            if len(nodes := list(grid.get_node_ids())) == lanes:  # the server half starts before the nodes do
                return grid, nodes
            time.sleep(_POLL)
        self._thread.join()
        self.check()
        raise AssertionError("unreachable")

    def _simulate(self, lanes: int, resources: Mapping[str, float]) -> None:
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        server = ServerApp()

        @server.main()
        def lend(grid: Grid, context: Context) -> None:
            self._opened.put(grid)
            self._over.wait()

        try:
            run_simulation(server, _client_app(), lanes, backend_config={"client_resources": dict(resources)})
        except Exception as error:  # it goes to the thread that waits for answers
            self._failure = error
        finally:
            self._opened.put(None)


def _kill_actors() -> None:
    """Kill every actor of this process's Ray session: all are workers of ours, and Flower's pool keeps them hidden."""
    import ray

    for found in gc.get_objects():
        if issubclass(type(found), ray.actor.ActorHandle):  # isinstance asks objects, and some of them warn
            with contextlib.suppress(ValueError):  # one of an earlier session
                ray.kill(found)


# ------------------------------------------------------------------------------------------ the worker half


def _client_app() -> Any:
    """Flower's client half. It travels by the name of `handle`."""
    from flwr.clientapp import ClientApp

    app = ClientApp()
    app.train("ask")(handle)
    return app


def handle(message: Message, context: Context) -> Message:
    """Do the task in ``message`` and reply its answer; runs in an actor. The context is never used."""
    from flwr.app import Message

    errand: _Errand = _value(message.content)
    answer = _desk(errand.federation, errand.gpu).perform(errand.ask, errand.timeout)
    return Message(_record(answer), reply_to=message)


class _Desk:
    """Where an actor works: the hospitals, one network, and one thread that is left behind if it hangs."""

    def __init__(self, federation: Path, device: str) -> None:
        importlib.import_module(
            "torch._dynamo"
        )  # torch's optimizers do, for seconds: not in the first task's time

        self._federation = Federation.open(federation)
        self._network = self._federation.network(device)
        self._asks: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def perform(self, ask: Ask, timeout: float) -> Answer:
        """The answer to ``ask``, whatever becomes of it."""
        self._asks.put(ask)
        try:
            return self._answers.get(timeout=timeout)
        except queue.Empty:
            _desk.cache_clear()  # the thread that hangs keeps its network; whoever asks next gets a desk of his own
            return _overdue(ask, timeout)

    def _work(self) -> None:
        torch.set_num_threads(1)
        while True:
            self._answers.put(perform(self._federation, self._network, self._asks.get()))


@functools.lru_cache(maxsize=1)
def _desk(federation: str, gpu: bool) -> _Desk:
    return _Desk(Path(federation), "cuda" if gpu else "cpu")


# ----------------------------------------------------------------------------------------- records and errors


def _record(value: _Errand | Answer) -> RecordDict:
    """``value`` as Flower sends it."""
    from flwr.app import ArrayRecord, ConfigRecord, RecordDict

    text, arrays = wire.pack(value)
    tensors = {name: array.contiguous() for name, array in arrays.items()}
    return RecordDict({"value": ConfigRecord({"json": text}), "arrays": ArrayRecord(tensors)})


def _value(record: RecordDict) -> Any:
    """What `_record` was given."""
    arrays = record.array_records["arrays"].to_torch_state_dict()
    return wire.unpack(str(record.config_records["value"]["json"]), arrays)


def _overdue(ask: Ask, timeout: float) -> Answer:
    return Answer(ask.ticket, None, f"no answer within {timeout:g} s", timeout, 0)


def _last_line(reason: str) -> str:
    """The error itself, from Flower's reason, which is a whole traceback of Ray's."""
    text = re.sub(r"'>\s*$", "", reason)
    return text.splitlines()[-1].strip()


def _root(error: BaseException | None) -> str:
    """What an error goes back to, in one line."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return (
        "it gave no reason"
        if error is None
        else f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    )


# ----------------------------------------------------------------------------------------- Ray and its habits


def _resources(gpus: float) -> dict[str, float]:
    """Of one actor. What Flower does not know of it hands on to Ray: restart an actor, run its message again."""
    return {"num_cpus": 1, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": 2}


@contextlib.contextmanager
def _cluster(engine: Flower, address: str | None) -> Iterator[int]:
    """A Ray session, and how many tasks run at once in it. A cluster of others is left as it was."""
    import ray
    from flwr.simulation.ray_transport.ray_actor import pool_size_from_resources

    if ray.is_initialized():
        raise RunError("Ray is in use in this process already; expected none: call ray.shutdown() first")
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:
        try:
            if address:
                _attach(address)
            else:
                _start(engine, scratch)
            try:
                actors = pool_size_from_resources(_resources(engine.gpus_per_client))
            except ValueError:
                total = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's own
                has = f"Ray has {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"
                raise InputError(
                    f"{has}; expected one CPU and gpus_per_client: {engine.gpus_per_client:g} GPU for each worker: "
                    "lower gpus_per_client or use a larger cluster"
                ) from None
            yield min(actors, engine.workers or actors, _flower_threads())
        finally:
            ray.shutdown()


def _start(engine: Flower, scratch: str) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=engine.workers or os.cpu_count(),
        include_dashboard=False,
        object_store_memory=_STORE,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        _temp_dir=scratch,
    )


def _attach(address: str) -> None:
    """Connect to a running cluster.

    Raises:
        InputError: there is none.
    """
    import ray

    host, _, port = address.rpartition(":")
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=10).close()
        names = ("PYTHONPATH", *_ENVIRONMENT)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            runtime_env={"env_vars": {name: os.environ[name] for name in names}},
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Ray cluster at {address!r} ({error}); expected host:port of a running one: start it by "
            "`ray start --head --port=6379`, or leave out address to have one started"
        ) from error


def _flower_threads() -> int:
    """As many as `concurrent.futures` has by default, which Flower uses."""
    return min(32, (os.cpu_count() or 1) + 4)


_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of it; without gpus_per_client we use no GPU anyway
}


@contextlib.contextmanager
def _environment(federation: Path) -> Iterator[None]:
    """Environment variables that Flower and Ray read when imported or started; put back at the end."""
    require_no_rivals(Path.cwd())  # where Ray's actors look first
    paths = filter(
        None, (str(ROOT), os.environ.get("PYTHONPATH"))
    )  # where they find us, `sites` and `strategies`
    new = {
        **_ENVIRONMENT,
        "FLWR_HOME": str(federation / "flwr"),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    old = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Import Flower and Ray, and keep their logs off the terminal: what matters reaches the caller as an error."""
    with warnings.catch_warnings():  # they change the filters, and their own dependencies warn
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("flwr.simulation")
        importlib.import_module("flwr.server.superlink.fleet.vce.backend.raybackend")
        import ray._private.worker as ray_worker

    logger = logging.getLogger("flwr")
    level, logs = logger.level, ray_worker._worker_logs_enabled
    logger.setLevel(logging.CRITICAL + 1)
    ray_worker._worker_logs_enabled = False  # Ray prints "task failed, will be retried" past all logging
    try:
        yield
    finally:
        logger.setLevel(level)
        ray_worker._worker_logs_enabled = logs
