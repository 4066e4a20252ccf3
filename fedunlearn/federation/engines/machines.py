"""The machines that hospitals work on: what counts for the bits they come to, and how they differ."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

LIBRARIES = ("torch", "numpy", "flwr", "ray")


@dataclass(frozen=True)
class Machine:
    """One machine, as found when it was looked at.

    Attributes:
        host: its name.
        node: the id that Ray knows it by; empty for this process alone.
        versions: of Python and of the libraries that compute or carry, by name.
        code: one sha256 over all source files of ours.
        processor: its kind; libraries choose instructions by it.
        cpu: the instructions that torch uses (`torch.backends.cpu.get_cpu_capability`).
        device: the GPU that is worked on, with driver and libraries; None on the CPU.
        images: how it has the hospitals' images: "shared", in the run folder, which it sees, or "sent"; empty before.
    """

    host: str
    node: str
    versions: Mapping[str, str]
    code: str
    processor: str
    cpu: str
    device: str | None = None
    images: str = ""


def here(node: str = "", device: str | None = None) -> Machine:
    """This machine."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return Machine(
        socket.gethostname(),
        node,
        {"python": platform.python_version(), **versions},
        "",
        processor(),
        torch.backends.cpu.get_cpu_capability(),
        device,
    )


def processor() -> str:
    """The kind of processor: libraries choose instructions by it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part")))
    return next(names, platform.processor())
