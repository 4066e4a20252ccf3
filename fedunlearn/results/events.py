"""What a run says to programs: one JSON object a line, for schedulers and whoever watches many runs.

Every line has ``event`` and ``time`` (UTC, ISO 8601). Fields are added in later versions, never renamed; a program
leaves out events and fields that it does not know. ``begin`` is the first line and says which ``schema`` this is, and
``end`` is the last.

========== ===========================================================================================================
event      fields
========== ===========================================================================================================
begin      ``schema``, ``fedunlearn`` (version), ``command``, ``scenario`` or ``run``
message    ``text``: what a person would be told in passing
warning    ``text``, and ``request`` where it is about one
phase      ``phase`` (original, prepare, retrained, unlearn, continue, shadow, probe …, tune, score, page),
           ``state`` (begun, ended), ``procedures``: how many it has
procedure  one ended: ``phase``, ``request``, ``strategy``, ``seed``, ``rounds``, ``done``, ``total``
progress   about every 5 s, and at least every 30 s, while procedures run: ``done`` and ``total`` procedures,
           ``share`` (0 to 1, of the expected work), ``images`` passed through networks, ``images_per_second``,
           ``seconds`` gone and ``seconds_left`` (null as long as nothing can be said)
cell       of a sweep, one begins: ``cell``, ``number``, ``of``, ``finished`` (it was before)
result     one answer: ``request``, ``strategy``, ``forgotten``, ``useful``, ``verdict`` (of a sweep also ``cell``);
           original, retrained_other and damaged are controls. Of tuning: ``strategy``, ``trials``, ``distance``,
           ``settings``
written    ``folder`` of a run, a sweep or a tuning
error      ``message`` (also on standard error), ``exit_code``
end        ``exit_code``, ``seconds``
========== ===========================================================================================================
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console

SCHEMA = 1
"""The version of the events; another one where a program that knows this one would go wrong."""


class Events:
    """A text file of events. Whatever is printed to it, as a console does, becomes a ``message``, line by line.

    Args:
        stream: where the lines go.
        now: seconds since 1970, UTC.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.time) -> None:
        self._stream, self._now = stream, now
        self._began, self._text = now(), ""
        self._lock = threading.RLock()  # a thread tells of progress

    def tell(self, event: str, **fields: object) -> None:
        """Write one event, at once.

        Raises:
            OSError: nobody reads any more.
        """
        stamp = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"event": event, "time": stamp, **_finite(fields)}, allow_nan=False)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def seconds(self) -> float:
        """Since these events began."""
        return round(self._now() - self._began, 3)

    # ------------------------------------------------------------------------------------ as a text file

    def write(self, text: str) -> int:
        """Text for people: every line of it that is complete becomes an event."""
        with self._lock:
            *lines, self._text = (self._text + text).split("\n")
        for line in filter(str.strip, lines):
            self.tell("message", text=line.rstrip())
        return len(text)

    def flush(self) -> None:
        """Nothing waits but a line that is not complete."""

    def isatty(self) -> bool:
        """It is no terminal."""
        return False


def console(events: Events) -> Console:
    """A console that turns what it is told into events; lines are as long as they are."""
    return Console(file=events, width=10_000, force_jupyter=False, no_color=True)  # type: ignore[arg-type]  # what a console uses of a file


def of(console: Console) -> Events | None:
    """The events that ``console`` prints to, if it does."""
    file: object = console.file
    return file if isinstance(file, Events) else None


def _finite(value: Any) -> Any:
    """The same with null for NaN and infinity, however deep they lie: JSON knows neither."""
    if isinstance(value, Mapping):
        return {key: _finite(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
