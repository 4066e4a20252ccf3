"""What a machine says of itself. It may lack our code and torch, so this file needs neither: it travels as it is."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import socket
from pathlib import Path

PACKAGES = ("fedunlearn", "sites", "strategies")
LIBRARIES = ("torch", "numpy", "scipy", "monai", "flwr", "ray")
GUESTS = "fedunlearn.strategies"
DEVICES = "fedunlearn.learning.devices"
INSTRUCTIONS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Variables by which a person may tell libraries which instructions to use."""


def facts(gpu: bool = False) -> dict[str, object]:
    """All that counts for the bits that this machine comes to, as JSON knows it; what is missing is empty.

    Args:
        gpu: also look at the GPU, which takes some of its memory until this process ends.
    """
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    device, fault = _gpu() if gpu and torch else (None, None)
    return {
        "host": socket.gethostname(),
        "versions": versions(),
        "code": code(),
        "architecture": platform.machine(),
        "processor": processor(),
        "cpu": torch.backends.cpu.get_cpu_capability() if torch else "",
        "instructions": {name: os.environ[name] for name in INSTRUCTIONS if name in os.environ},
        "device": device,
        "fault": fault,
    }


def versions() -> dict[str, str]:
    """Of Python, of the libraries that compute or carry, and of packages that strategies are from."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a folder of it on the path, which nobody installed
            found[name] = "of no known version"
    points = importlib.metadata.entry_points(group=GUESTS)
    return found | {point.dist.name: point.dist.version for point in points if point.dist is not None}


def code() -> str:
    """One sha256 over our source files, by their paths and content; empty if a package of ours is missing."""
    sha = hashlib.sha256()
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return ""
        folder = Path(spec.origin).parent
        for file in sorted(folder.rglob("*.py")):
            content = file.read_bytes()
            sha.update(f"{name}/{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return sha.hexdigest()


def processor() -> str:
    """The kind of processor: libraries choose instructions by it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part")))
    return next(names, platform.processor())


def sees(file: str, content: str) -> bool:
    """Whether a file is there for this process, with this content."""
    try:
        return Path(file).read_text(encoding="utf-8") == content
    except (OSError, UnicodeDecodeError):
        return False


def _gpu() -> tuple[str | None, str | None]:
    """The GPU that torch works on, or what is wrong with it."""
    if importlib.util.find_spec("fedunlearn") is None or importlib.util.find_spec(DEVICES) is None:
        return None, None  # other code than ours, which is told anyway
    devices = importlib.import_module(DEVICES)
    fault = devices.ready("cuda")
    return (None if fault else devices.describe("cuda")), fault
