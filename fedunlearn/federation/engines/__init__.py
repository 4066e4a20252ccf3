"""Engines carry asks to hospitals and answers back. `inline` works in this process, `flower` on Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from fedunlearn.core import Reply, SiteId, Task
from fedunlearn.federation.engines.machines import Machine

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """One task for one hospital (or `SERVER`); ``ticket`` is unique within a link."""

    ticket: int
    site: SiteId
    task: Task


@dataclass(frozen=True)
class Answer:
    """What came of an ask.

    Attributes:
        ticket: that of the ask.
        reply: the hospital's reply, or None if it failed.
        error: what went wrong, in one line, or None.
        seconds: wall time the hospital worked.
        images: passes of one image through the network.
        machine: the host on which it worked; empty if none did.
        unfit: the worker must not be asked again: it hangs, or its device is lost to it.
    """

    ticket: int
    reply: Reply | None
    error: str | None
    seconds: float
    images: int
    machine: str = ""
    unfit: bool = False


class Link(Protocol):
    """A working connection to all hospitals."""

    def submit(self, asks: Sequence[Ask]) -> None:
        """Send asks; returns at once. Asks are worked on in the order submitted, as workers become free."""
        ...

    def collect(self) -> Sequence[Answer]:
        """Wait for at least one answer. A hospital that takes too long is answered for, with an error."""
        ...

    @property
    def machines(self) -> Sequence[Machine]:
        """Those that take part, as far as they have come."""
        ...


class Staff(Protocol):
    """Workers that play the hospitals of one federation after the other."""

    def run(self, federation: Path, body: Callable[[Link], T]) -> T:
        """Serve the hospitals stored in ``federation`` (`sites.hospital.Federation`) while ``body`` runs."""
        ...


class Engine(Staff, Protocol):
    """Opens a link to a federation, runs ``body`` with it, and closes it whatever happens."""

    def inspect(self) -> tuple[Machine, ...]:
        """Look at every machine that hospitals would work on, and leave nothing behind.

        Raises:
            InputError: there is none, or some cannot be used; tells all problems of all of them.
        """
        ...

    def staff(self) -> AbstractContextManager[Staff]:
        """Have workers come, if that takes time, and let them go at the end, whatever happens.

        Returns at once: what is prepared meanwhile need not wait. What goes wrong with them is told by `Staff.run`.
        """
        ...
