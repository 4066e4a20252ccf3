"""A Ray cluster of our own, or one that runs already; and what Flower and Ray read when they start.

- Ray runs workers at niceness 15, so that anything else on the machine goes first: here at the driver's own.
- Connecting to a Ray address where nothing listens takes minutes and then ends the process: it is tried first. ("auto"
  names none; the look at all machines, by another process, has found it by then.)
- Ray ends a driver that has not reached its head for a minute, without a word: it is told to wait, and we look.
- Ray's native half handles signals such as SIGTERM itself, with a stack trace on the terminal: it is told not to.
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

from fedunlearn import cores
from fedunlearn.core import InputError, RunError
from fedunlearn.federation.engines.flower import scratch
from fedunlearn.federation.engines.machines import Machine
from fedunlearn.installation import ROOT, require_no_rivals


@dataclass(frozen=True)
class Wanted:
    """What cluster is wanted, and what for: see `fedunlearn.federation.engines.flower.Flower`."""

    workers: int | None
    gpus_per_client: float
    address: str | None
    timeout: float
    wait: float
    machines: tuple[Machine, ...]

    @property
    def joined(self) -> str | None:
        """The address of the running cluster that is to be joined; None for one of our own, in Ray's word "local"."""
        found = self.address or os.environ.get("RAY_ADDRESS") or None
        return None if found == "local" else found


@contextlib.contextmanager
def cluster(wanted: Wanted, folder: Path) -> Iterator[None]:
    """A Ray session. A cluster of others is left as it was."""
    import ray

    if ray.is_initialized():
        raise RunError("Ray is in use in this process already; expected none: call ray.shutdown() first")
    try:
        if address := wanted.joined:
            attach(address)
        else:
            _start(wanted, folder)
        yield
    finally:
        ray.shutdown()


def _start(wanted: Wanted, folder: Path) -> None:
    import ray

    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    with scratch.marked(folder):
        ray.init(
            address="local",
            num_cpus=wanted.workers or cores.usable(),
            include_dashboard=False,
            object_store_memory=scratch.store_size(shared, shutil.disk_usage(folder).free),
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            _temp_dir=str(folder),
        )


def attach(address: str) -> None:
    """Connect to a running cluster.

    Raises:
        InputError: there is none, or it is of another Ray or Python, or this machine is not in it.
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
    except RuntimeError as error:
        raise InputError(
            f"cannot work with the Ray cluster at {address!r}: {' '.join(str(error).split())}; expected the same Ray "
            "and Python as here, and this machine in it: install them, `ray start --address` on this machine too"
        ) from error


_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_worker_niceness": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
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
        importlib.import_module("flwr.clientapp")
        importlib.import_module("flwr.serverapp")
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
