"""What can become of a request, and what cannot: a small machine, the same for every policy.

::

    received ──► accepted ──► unlearned ──► purged | recorded; purged ──► recorded
       │  │          └──► barred ──► purged | recorded
       │  └────► refused ──────────────────────────────► recorded
       └► extended ──► accepted | refused

Barred is what nothing was to be unlearned of: an opt-out, an erasure of what no model was trained on, or one of what
earlier requests had already.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import Literal

from fedunlearn.core import RunError
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import Entry
from fedunlearn.intake.policies import Agenda

State = Literal["received", "extended", "accepted", "refused", "barred", "unlearned", "purged", "recorded"]
"""Where a request is. Extended: held back beyond the meeting that would have decided it. Barred: nobody trains on what
it names, and there was nothing to unlearn. Purged: nothing is stored any more that was made of what it names. Recorded:
there is a record of it; the end."""

Event = Literal["extend", "accept", "refuse", "bar", "unlearn", "purge", "record"]
"""What can happen to a request."""

ALLOWED: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        ("received", "extend"): "extended",
        ("received", "accept"): "accepted",
        ("received", "refuse"): "refused",
        ("extended", "accept"): "accepted",
        ("extended", "refuse"): "refused",
        ("accepted", "unlearn"): "unlearned",
        ("accepted", "bar"): "barred",
        ("unlearned", "purge"): "purged",
        ("barred", "purge"): "purged",
        ("unlearned", "record"): "recorded",
        ("purged", "record"): "recorded",
        ("barred", "record"): "recorded",
        ("refused", "record"): "recorded",
    }
)
"""Where each event leads; what is not here is not allowed."""


def advance(state: State, event: Event) -> State:
    """The state after ``event``.

    Raises:
        RunError: it must not happen there.
    """
    if (state, event) not in ALLOWED:
        able = ", ".join(one for known, one in ALLOWED if known == state) or "nothing: that is the end"
        raise RunError(f"a request that is {state} cannot {event}; expected {able}")
    return ALLOWED[state, event]


def history(entry: Entry, agenda: Agenda, calendar: Calendar) -> list[tuple[State, date]]:
    """The states that a request has gone through by the end of the rounds, each with its day.

    Where there is nothing to unlearn, it is barred on the day of its acceptance, and that is its answer.
    """
    state: State = "received"
    told = [(state, entry.petition.received)]
    for event, day in _events(entry, agenda, calendar):
        state = advance(state, event)
        told.append((state, day))
    return told


def _events(entry: Entry, agenda: Agenda, calendar: Calendar) -> list[tuple[Event, date]]:
    events = list[tuple[Event, date]]()
    if entry.held is not None:
        events.append(("extend", calendar.day(entry.held)))
    if entry.boundary is None:
        return events
    decided = calendar.day(entry.boundary)
    if entry.state == "refused":
        return [*events, ("refuse", decided)]
    events.append(("accept", decided))
    if not entry.erases:
        return [*events, ("bar", decided)]
    done = [turn.round for turn in agenda.turns if entry.petition.id in turn.erases]
    return [*events, *(("unlearn", calendar.day(boundary)) for boundary in done)]
