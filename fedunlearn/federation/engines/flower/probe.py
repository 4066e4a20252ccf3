"""A look at every machine before anything else: whether it can work, and is like the one that starts the run.

Another process meets Ray (`scout`). So the signals that Ray takes over, what it does to a driver whose cluster is
lost, and what torch takes of a GPU concern nobody here.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedunlearn import interrupts
from fedunlearn.core import InputError, Problem
from fedunlearn.federation.engines.flower import cluster
from fedunlearn.federation.engines.machines import Machine, faults, here, read

SCOUT = "fedunlearn.federation.engines.flower.scout"
"""The program of the other process."""
PATIENCE = 60.0
"""Seconds that all machines together have to answer."""
_ATTACH = 60.0  # seconds to import Ray and to attach; some five are usual
_SPARE = 10.0  # seconds to ask, and to write down
_POLL = 0.05


@dataclass(frozen=True)
class Sighting:
    """A machine of a cluster, as it was found.

    Attributes:
        address: its IP address.
        host: its name.
        node: the id that Ray knows it by.
        has: what it has, as Ray counts: CPU, GPU.
        free: what of that is free.
        used: whether hospitals would work there: it has a CPU, and a GPU if that is asked for.
        machine: what it says of itself; None if it was not asked or did not answer.
        sees: whether it sees the folder that it was asked for; None if it was asked for none.
        faults: all that keeps it from being used.
    """

    address: str
    host: str
    node: str
    has: Mapping[str, float]
    free: Mapping[str, float]
    used: bool
    machine: Machine | None
    sees: bool | None
    faults: tuple[str, ...]

    @property
    def called(self) -> str:
        """What a person calls it."""
        return f"{self.host!r} ({self.address})"


def usable(address: str, gpus: float) -> tuple[Machine, ...]:
    """The machines of a running cluster that hospitals would work on.

    Raises:
        InputError: there is no such cluster, or a machine cannot be used; tells all problems of all of them.
    """
    found = look(address, gpus)
    if wrong := problems(found):
        raise InputError(wrong)
    return tuple(seen.machine for seen in found if seen.machine is not None)


def problems(found: Sequence[Sighting]) -> list[Problem]:
    """All that is wrong with machines, one by one."""
    return [Problem(f"machine {seen.called}: {fault}") for seen in found for fault in seen.faults]


def look(address: str, gpus: float = 0.0, folder: Path | None = None) -> tuple[Sighting, ...]:
    """All machines of a running cluster, in the order of their addresses.

    Args:
        address: of the cluster, "host:port" or "auto".
        gpus: the share of a GPU that each hospital is to have; with 0, GPUs are not looked at.
        folder: also see whether they see this folder.

    Raises:
        InputError: there is no such cluster, it does not answer, or none of its machines can be used for that.
    """
    with _token(folder) as token:
        rows = _asked({"address": address, "gpus": gpus, "token": token})
    expected = here()
    found = [sighting(expected, row) for row in sorted(rows, key=lambda row: str(row["address"]))]
    if not any(seen.used for seen in found):
        what = "a CPU and a GPU" if gpus else "a CPU"
        raise InputError(
            f"found no machine with {what} in the Ray cluster at {address!r}, of {len(found)}; expected one at least: "
            "`ray start --address` with --num-cpus"
            + (" and --num-gpus, or set gpus_per_client to 0" if gpus else "")
        )
    return tuple(found)


def alone(gpus: float) -> Machine:
    """This machine, with its GPU if hospitals are to have a share of one.

    Raises:
        InputError: there is no GPU that torch can use.
    """
    if not gpus:
        return here()
    [row] = _asked({"address": None, "gpus": gpus, "token": None})
    machine = read(row["facts"])
    if machine.fault is not None:
        raise InputError(f"{machine.fault} (engine: {{gpus_per_client: 0}})")
    return machine


def sighting(expected: Machine, row: Mapping[str, Any]) -> Sighting:
    """What a row of the other process says of a machine.

    Args:
        expected: the machine that the others have to be like.
        row: address, host, node, has, free, used, facts, sees, and silence: why there are no facts.
    """
    machine = read(row["facts"], row["node"]) if row["facts"] is not None else None
    found = [row["silence"]] if row["silence"] else list(faults(expected, machine)) if machine else []
    return Sighting(
        row["address"],
        machine.host if machine else row["host"],
        row["node"],
        row["has"],
        row["free"],
        row["used"],
        machine,
        row["sees"],
        tuple(found),
    )


@contextmanager
def _token(folder: Path | None) -> Iterator[tuple[str, str] | None]:
    """A file with something in a folder that nobody can guess; removed at the end.

    Raises:
        InputError: it cannot be written there.
    """
    if folder is None:
        yield None
        return
    content = secrets.token_hex(16)
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".fedunlearn-seen-") as file:
            file.write(content)
            file.flush()
            yield str(Path(file.name).resolve()), content
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; expected a folder in which runs are to be made"
        ) from error


def _asked(question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What another process found out.

    Raises:
        InputError: that went wrong; it tells how.
        Interrupted: a signal came.
    """
    with tempfile.TemporaryDirectory(prefix="fedunlearn-probe-") as name, cluster.environment(Path(name)):
        answer, attached, errors = (Path(name) / part for part in ("answer", "attached", "errors"))
        places = {"patience": PATIENCE, "answer": str(answer), "attached": str(attached)}
        # With -P, nothing in the current folder is taken for a module of ours.
        command = [sys.executable, "-P", "-m", SCOUT, json.dumps({**question, **places})]
        with errors.open("wb") as stream:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stream
            )
        try:
            _wait(child, attached)
        finally:
            child.kill()
            child.wait()
        if not answer.is_file():
            raise InputError(_silence(question["address"], attached.exists(), _last_line(errors)))
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise InputError(found["error"])
    return list(found["rows"])


def _wait(child: subprocess.Popen[bytes], attached: Path) -> None:
    """Until it ends, or has had its time to attach, or then to look."""
    began, since = time.monotonic(), None
    while child.poll() is None:
        interrupts.check()
        time.sleep(_POLL)
        now = time.monotonic()
        if since is None and attached.exists():
            since = now
        if now > (began + _ATTACH if since is None else since + PATIENCE + _SPARE):
            return


def _silence(address: str | None, attached: bool, said: str) -> str:
    """Why there is no answer."""
    if address is None:
        return f"the GPU of this machine could not be looked at: {said}; expected one that torch can use"
    if attached:
        return (
            f"the Ray cluster at {address!r} was lost while machines were looked at: {said}; see `ray status`"
        )
    return (
        f"could not join the Ray cluster at {address!r} within {_ATTACH:g} s: {said}; expected host:port of a "
        "running one, as `ray start --head` tells it"
    )


def _last_line(errors: Path) -> str:
    """The last that it said, without what Ray puts before it: time, process, line of its code."""
    said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return said[-1].rpartition("] ")[2] if said else "no answer"
