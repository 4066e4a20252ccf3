"""What a look at a cluster found, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from fedunlearn.federation.engines.flower.probe import Sighting
from fedunlearn.federation.engines.machines import Machine, notes
from fedunlearn.results.wording import cell, plain


def show(expected: Machine, found: Sequence[Sighting], console: Console) -> None:
    """Print one row for every machine, and in what they differ that may work together.

    Args:
        expected: the machine that the others have to be like.
        found: what `probe.look` found.
        console: where to print.
    """
    rows = [_cells(expected, seen) for seen in found]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row.values()))
    console.print(table)
    for text in notes(_machines(expected, found)):
        console.print(plain(text), soft_wrap=True)


def as_json(expected: Machine, found: Sequence[Sighting]) -> dict[str, Any]:
    """The same, for programs: ``machines``, each with its ``problems``, and ``notes``."""
    return {
        "machines": [_about(expected, seen) for seen in found],
        "notes": notes(_machines(expected, found)),
    }


def _machines(expected: Machine, found: Sequence[Sighting]) -> list[Machine]:
    return [expected, *(seen.machine for seen in found if seen.machine is not None)]


def _cells(expected: Machine, seen: Sighting) -> dict[str, str]:
    about = _about(expected, seen)
    versions: Mapping[str, str] = about["versions"]
    return {
        "machine": seen.host,
        "address": seen.address,
        "CPUs free": _of(seen, "CPU"),
        "GPUs free": _of(seen, "GPU"),
        "Python": versions.get("python", "-"),
        "torch": versions.get("torch", "-"),
        "our code": {True: "the same", False: "another", None: "-"}[about["same_code"]],
        "processor": f"{about['processor']}, {about['cpu']}" if about["processor"] else "-",
        "GPU": about["device"] or "-",
        "sees folder": {True: "yes", False: "no", None: "-"}[seen.sees],
        "can work": "no" if seen.faults else "yes" if seen.used else "has no room",
    }


def _about(expected: Machine, seen: Sighting) -> dict[str, Any]:
    machine = seen.machine
    return {
        "host": seen.host,
        "address": seen.address,
        "node": seen.node,
        "has": dict(seen.has),
        "free": dict(seen.free),
        "used": seen.used,
        "versions": dict(machine.versions) if machine else {},
        "same_code": machine.code == expected.code if machine else None,
        "processor": machine.processor if machine else "",
        "cpu": machine.cpu if machine else "",
        "device": machine.device if machine else None,
        "sees": seen.sees,
        "problems": list(seen.faults),
    }


def _of(seen: Sighting, what: str) -> str:
    return f"{seen.free.get(what, 0.0):g} of {seen.has.get(what, 0.0):g}"
