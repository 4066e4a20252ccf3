"""A Ray cluster of two machines that are both this one: the second has an address of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HEAD, OTHER = "127.0.0.1", "127.0.0.2"
_RAY = (
    str(Path(sys.executable).with_name("ray")),
    "start",
    "--block",
    "--disable-usage-stats",
    "--num-cpus=1",
)


@contextmanager
def two_machines(logs: Path) -> Iterator[tuple[str, Path]]:
    """The cluster's address, and the folder of Ray's session.

    Args:
        logs: a folder for what Ray says.
    """
    with socket.socket() as free:
        free.bind((HEAD, 0))
        port = free.getsockname()[1]
    session = Path(f"/tmp/p-{port}")  # pytest's own are too deep for Ray's sockets
    head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={session}")
    try:
        with ExitStack() as machines:
            machines.enter_context(_machine(logs / "head.log", f"--node-ip-address={HEAD}", *head))
            there = (f"--address={HEAD}:{port}", f"--node-ip-address={OTHER}")
            machines.enter_context(_machine(logs / "other.log", *there))
            yield f"{HEAD}:{port}", session
    finally:
        shutil.rmtree(session, ignore_errors=True)


@contextmanager
def _machine(log: Path, *options: str) -> Iterator[None]:
    """One that has joined."""
    with log.open("wb") as file:
        process = subprocess.Popen([*_RAY, *options], stdout=file, stderr=subprocess.STDOUT)
    try:  # the next one starts after it: two that start at once in a session's folder may choose the same socket
        until(lambda: "Ray runtime started" in log.read_text(errors="replace"), f"Ray started, see {log}", 90)
        yield
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Ask it to, and after some time make it."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
