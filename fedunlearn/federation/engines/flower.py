"""The engine on Flower and Ray: hospitals work in Ray actors, on this machine or on a cluster.

The only module that knows Flower and Ray. Asks and answers are Flower messages with typed records: one JSON text
(`fedunlearn.federation.wire`) and named arrays, never pickled code. The server half stays in the caller's thread and
uses Flower's `Grid` from there, so signals, progress bars and errors behave as with any other engine; Ray is started
and Flower's simulation runs beside it in a thread that may be left behind.

What is done here about Flower and Ray themselves (measured with flwr 1.41.0 and ray 2.55.1):

- A Flower node takes one message per 0.1 s. Here a node is not a hospital but a lane: the message names the
  hospital, a lane carries one message at a time, and there are more lanes than workers, so none waits for the poll.
- A killed actor goes back to Flower's pool and fails every message at once: Ray is told to restart it and to run
  its message again. Tasks give the same bits each time.
- A worker thread of Flower that waits for a busy actor cannot be stopped, and would keep this process alive: on
  the way out the actors are killed.
- The worker itself answers when a task takes too long, counting from the task's own start. Only for a worker that
  cannot answer (a lost machine) does the server count, from when the message's turn came.
- Ray takes over SIGTERM if it is started in the main thread: it is started in the other one. That thread blocks the
  signals that stop a run, and Ray's processes inherit this: those that a terminal or a batch system sends to all
  processes are answered by the driver alone. The kernel kills Ray's processes when the thread that started them ends.
- Ray's native half handles SIGTERM too, with a stack trace on the terminal, until it is shut down; from then on SIGTERM
  would end this process on the spot. Both are undone as soon as they are done.
- Flower's pool would start a second Ray once the first is shut down, and so would any call of Ray's: both are told
  not to.
- Ray's processes do not all end with it, nor with a driver that is killed: `fedunlearn.federation.engines.scratch`.
- Ray runs workers at niceness 15, so that anything else on the machine goes first: here at the driver's own.
- Connecting to a Ray address where nothing listens takes minutes and then ends the process: it is tried first.
- Flower counts on min(32, cores + 4) threads, whatever the cluster: no more tasks than that run at once.
- Telemetry, usage reports and update checks are off; nothing is written but into a temporary folder that is removed.
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
import shutil
import signal
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from fedunlearn import interrupts
from fedunlearn.core import FedunlearnError, InputError, RunError
from fedunlearn.federation import wire
from fedunlearn.federation.engines import Answer, Ask, Link, scratch
from fedunlearn.federation.engines.inline import perform
from fedunlearn.installation import ROOT, require_no_rivals
from sites.hospital import Federation

if TYPE_CHECKING:
    from flwr.app import Context, Message, RecordDict
    from flwr.serverapp import Grid

T = TypeVar("T")

_POLL = 0.02  # seconds between looks at the grid
_BLINK = 0.005  # seconds in which a signal is not heard while Ray shuts down
_LANES = 3  # messages in flight per worker: one at work, the others already waiting at its door
_GRACE = 60.0  # seconds a worker may need to start, or to start again, before it begins with a task
_BOOT = 120.0  # seconds that Ray, and then Flower, may take to start; some ten are usual
_FAREWELL = 10.0  # seconds that Flower and Ray get to end
_HASTE = 2.0  # seconds that Ray gets to kill actors


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
            InputError: there is no Ray cluster at ``address``, or no room for one of our own.
            RunError: Ray or Flower could not start, or stopped.
            Interrupted: a signal came.
        """
        federation = federation.resolve()
        with (
            interrupts.listening(),
            interrupts.deferred(),  # Ray, Flower and logging hold locks; the link's waits look for signals
            scratch.folder() as folder,
            _environment(folder),
            _quiet(),
            _simulation(self, folder) as simulation,
        ):
            errand = functools.partial(
                _Errand, federation=str(federation), timeout=self.timeout, gpu=self.gpus_per_client > 0
            )
            return body(_Link(simulation, self.timeout, errand))


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

    def __init__(self, simulation: _Simulation, timeout: float, errand: Callable[[Ask], _Errand]) -> None:
        self._simulation, self._timeout, self._errand = simulation, timeout, errand
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
            Interrupted: a signal came.
        """
        while True:
            interrupts.check()
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
        for sent in list(self._sent.values())[: self._simulation.workers]:  # first sent, first served
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
    """Ray and Flower's simulation in a thread of their own, which lends its grid until `close`.

    Attributes:
        workers: how many tasks run at once.
        grid: where messages are pushed and pulled.
        lanes: the ids of its nodes.
    """

    def __init__(self, engine: Flower, folder: Path) -> None:
        self._workers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._grids: queue.SimpleQueue[Grid | None] = queue.SimpleQueue()
        self._over, self._up = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._folder = folder
        # A daemon, and so are the threads it starts: none of them may keep the process from ending.
        self._thread = threading.Thread(target=self._simulate, args=(engine,), daemon=True)

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
        while len(nodes := list(self.grid.get_node_ids())) < self.workers * _LANES:
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

    def _simulate(self, engine: Flower) -> None:
        # All that is started from here inherits it.
        signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
        try:
            with _cluster(engine, self._folder) as workers:
                self._up.set()
                self._workers.put(workers)
                if not self._over.is_set():  # interrupted while Ray started
                    self._lend(workers * _LANES, _resources(engine.gpus_per_client))
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
            "init_args": dict(_NO_RAY),
        }
        run_simulation(server, _client_app(), lanes, backend_config=config)


@contextlib.contextmanager
def _simulation(engine: Flower, folder: Path) -> Iterator[_Simulation]:
    simulation, clean = _Simulation(engine, folder), False
    try:
        simulation.open()
        yield simulation
        clean = True
    finally:
        simulation.close(clean)


_NO_RAY = {"fedunlearn_has_shut_ray_down": True}
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
def _cluster(engine: Flower, folder: Path) -> Iterator[int]:
    """A Ray session, and how many tasks run at once in it. A cluster of others is left as it was."""
    import ray
    from flwr.simulation.ray_transport.ray_actor import pool_size_from_resources

    if ray.is_initialized():
        raise RunError("Ray is in use in this process already; expected none: call ray.shutdown() first")
    try:
        if address := engine.address or os.environ.get("RAY_ADDRESS"):
            _attach(address)
        else:
            _start(engine, folder)
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


def _start(engine: Flower, folder: Path) -> None:
    import ray

    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    with scratch.marked(folder):
        ray.init(
            address="local",
            num_cpus=engine.workers or os.cpu_count(),
            include_dashboard=False,
            object_store_memory=scratch.store_size(shared, shutil.disk_usage(folder).free),
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            _temp_dir=str(folder),
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
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of it; without gpus_per_client we use no GPU anyway
}


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Environment variables that Flower and Ray read when imported or started; put back at the end."""
    require_no_rivals(Path.cwd())  # where Ray's actors look first
    paths = filter(
        None, (str(ROOT), os.environ.get("PYTHONPATH"))
    )  # where they find us, `sites` and `strategies`
    new = {"FLWR_HOME": str(folder / "flwr"), "PYTHONPATH": os.pathsep.join(paths)}
    with scratch.variables({**_ENVIRONMENT, **new}):
        yield


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
