"""How many processor cores this process may use: the one place that says so.

`os.cpu_count` counts the machine's. A batch system or `taskset` gives a process some of them, a container or systemd a
share of time. joblib, which scikit-learn needs, has such a function too, but knows only the topmost control group and
takes .3 s to import.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNTED = Path("/sys/fs/cgroup")


def usable() -> int:
    """How many cores this process may use at once, 1 or more.

    Those it may run on, and no more than it is given time of; a quota of one core and a half counts as two.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(own, quota())))


def quota(groups: Path = _GROUPS, mounted: Path = _MOUNTED) -> float:
    """How many cores' time the control groups that this process is in allow it; infinite where they do not say.

    Args:
        groups: lists the groups that it is in, as Linux does.
        mounted: where the groups' settings are, of version 2, or of version 1 in a folder ``cpu``.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return math.inf
    return min((share for line in lines for share in _shares(line, mounted)), default=math.inf)


def _shares(line: str, mounted: Path) -> Iterator[float]:
    """What the group of a line and all those above it allow, in cores; those that set no limit are left out."""
    _, kinds, path = line.split(":", 2)
    root, read = (mounted / "cpu", _first) if "cpu" in kinds.split(",") else (mounted, _second)
    if kinds and root == mounted:
        return  # of version 1, about something else
    own = root / path.lstrip("/")
    # A container may see its own group as the topmost, and be told its path from outside: then only that one is there.
    for folder in (own, *own.parents):
        with suppress(OSError, ValueError):
            if (share := read(folder)) > 0:
                yield share
        if folder == root:
            return


def _first(folder: Path) -> float:
    """Of version 1; -1 or less for no limit."""
    took, of = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
    return int(took) / int(of)


def _second(folder: Path) -> float:
    """Of version 2: "quota period", or "max period" for no limit, which is no number."""
    took, of = (folder / "cpu.max").read_text(encoding="ascii").split()
    return int(took) / int(of)
