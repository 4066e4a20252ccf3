"""A Ray cluster of our own, or one that runs already; and what Flower and Ray read when they start.

- A killed actor goes back to Flower's pool and fails every message at once: Ray is told to restart it and to run
  its message again. Tasks give the same bits each time.
- Ray runs workers at niceness 15, so that anything else on the machine goes first: here at the driver's own.
- Connecting to a Ray address where nothing listens takes minutes and then ends the process: it is tried first.
- Flower counts on min(32, cores + 4) threads, whatever the cluster: no more tasks than that run at once.
- Telemetry, usage reports and update checks are off; nothing is written but into a temporary folder that is removed.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedunlearn.core import InputError, RunError
from fedunlearn.federation.engines.flower import scratch
from fedunlearn.installation import ROOT, require_no_rivals


@dataclass(frozen=True)
class Wanted:
    """What cluster is wanted: see `fedunlearn.federation.engines.flower.Flower`."""

    workers: int | None
    gpus_per_client: float
    address: str | None


def resources(gpus: float) -> dict[str, float]:
    """Of one actor. What Flower does not know of it hands on to Ray: restart an actor, run its message again."""
    return {"num_cpus": 1, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": 2}


@contextlib.contextmanager
def cluster(wanted: Wanted, folder: Path) -> Iterator[int]:
    """A Ray session, and how many tasks run at once in it. A cluster of others is left as it was."""
    import ray
    from flwr.simulation.ray_transport.ray_actor import pool_size_from_resources

    if ray.is_initialized():
        raise RunError("Ray is in use in this process already; expected none: call ray.shutdown() first")
    try:
        if address := wanted.address or os.environ.get("RAY_ADDRESS"):
            _attach(address)
        else:
            _start(wanted, folder)
        try:
            actors = pool_size_from_resources(resources(wanted.gpus_per_client))
        except ValueError:
            total = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's own
            has = f"Ray has {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"
            raise InputError(
                f"{has}; expected one CPU and gpus_per_client: {wanted.gpus_per_client:g} GPU for each worker: "
                "lower gpus_per_client or use a larger cluster"
            ) from None
        yield min(actors, wanted.workers or actors, _flower_threads())
    finally:
        ray.shutdown()


def _start(wanted: Wanted, folder: Path) -> None:
    import ray

    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    with scratch.marked(folder):
        ray.init(
            address="local",
            num_cpus=wanted.workers or os.cpu_count(),
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
def environment(folder: Path) -> Iterator[None]:
    """Environment variables that Flower and Ray read when imported or started; put back at the end."""
    require_no_rivals(Path.cwd())  # where Ray's actors look first
    paths = filter(
        None, (str(ROOT), os.environ.get("PYTHONPATH"))
    )  # where they find us, `sites` and `strategies`
    new = {"FLWR_HOME": str(folder / "flwr"), "PYTHONPATH": os.pathsep.join(paths)}
    with scratch.variables({**_ENVIRONMENT, **new}):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
