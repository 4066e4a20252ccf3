"""What goes wrong, as one tree.

With exit codes of the command line in brackets::

    FedunlearnError
    ├── InputError [2]        what the user gave cannot be used; carries every problem found, nothing was run
    ├── RunError [1]          the run could not go on
    │   └── SiteError [1]     a hospital failed, hung or answered something that cannot be used
    └── UndeclaredNeed [1]    a strategy touched what it had not declared

Being told to stop is no error: `Interrupted` [128 + the signal's number] is a KeyboardInterrupt.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedunlearn.core.exchange import SERVER, SiteId


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with the input, with its place where it has one (lines and columns count from 1)."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" if place else self.message


class FedunlearnError(Exception):
    """The root of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class InputError(FedunlearnError):
    """What was given cannot be used. Every problem that could be found is in ``problems``; nothing was run.

    Its text has so many lines at most that a terminal still shows the first.
    """

    exit_code = 2
    SHOWN: ClassVar[int] = 38
    """Problems that the text tells; of the others, how many there are."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems = (Problem(problems),) if isinstance(problems, str) else tuple(problems)
        left = len(self.problems) - self.SHOWN
        told = [str(problem) for problem in self.problems[: self.SHOWN]]
        super().__init__("\n".join([*told, *([f"and {left:,} more problems"] if left > 0 else [])]))


class RunError(FedunlearnError):
    """The run could not go on."""


class SiteError(RunError):
    """A hospital failed: it raised, did not answer in time, or answered something that cannot be used."""

    def __init__(
        self, site: SiteId, reason: str, procedure: str = "", round: int | None = None, machine: str = ""
    ) -> None:
        self.site, self.reason, self.procedure, self.round = site, reason, procedure, round
        self.machine = machine
        where = f" in {procedure}" if procedure else ""
        when = f", round {round + 1}" if round is not None else ""
        place = f" on machine {machine!r}" if machine else ""
        who = "the server" if site == SERVER else f"hospital {site!r}"
        super().__init__(f"{who} failed{where}{when}{place}: {reason}")


class UndeclaredNeed(FedunlearnError):
    """A strategy used something its `needs` do not declare."""


class Interrupted(KeyboardInterrupt):
    """A signal told the process to stop (`fedunlearn.interrupts`).

    No `FedunlearnError`, so that nothing that deals with errors takes it for one: it unwinds whatever runs.

    Attributes:
        signal: which one.
        exit_code: what the process ends with, as a shell would say it: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, number: int, text: str = "") -> None:
        self.signal = signal.Signals(number)
        self.exit_code = 128 + number
        super().__init__(text or f"interrupted ({self.signal.name})")
