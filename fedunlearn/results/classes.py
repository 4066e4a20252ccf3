"""Classes, and structures of volumes, in the words of the data: tables and verdicts have their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedunlearn.core.kinds import facts
from fedunlearn.results.kinds import words

_CLASS = re.compile(r"^class (\d+)(?=: )")
"""How a reason begins that is about a class (`scoring.judgement.verdict`)."""
_MINUS_ZERO = re.compile(r"(?<![^\s(])-0 %")


def called(kind: str, number: str, names: Sequence[str], count: int) -> str:
    """A class: by its name, or where the data has none, by its number and those that there are.

    Args:
        kind: of task.
        number: of the class, from 0.
        names: of all classes, perhaps their numbers; empty where they have none.
        count: of all classes, the background among them; 0 where that is not known.
    """
    part, first = words(kind).part, int(facts(kind).background)
    if number.isdecimal() and int(number) < len(names) and names[int(number)] != number:
        return named(part, names[int(number)])
    return f"{part} {number} (of {first} to {count - 1})" if count else f"{part} {number}"


def named(part: str, name: str) -> str:
    """A class by its name, which may say itself what it is: ``class benign``, but ``finding 3``."""
    return name if name.startswith(f"{part} ") else f"{part} {name}"


def numbered(number: str, names: Sequence[str]) -> str:
    """A class's number, as the data has it: classes that are numbers there may begin with another one than 0."""
    own = names[int(number)] if number.isdecimal() and int(number) < len(names) else number
    return own if own.replace(".", "", 1).isdecimal() else number


def reason(text: str, kind: str, names: Sequence[str], count: int) -> str:
    """A reason of a verdict, with the class that it is about as `called`, and without a sign where a share is 0 %."""
    return _MINUS_ZERO.sub("0 %", _CLASS.sub(lambda found: called(kind, found[1], names, count), text))


def reasons(texts: Iterable[str], manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Reasons of a verdict of the run that a manifest is of."""
    names = tuple(map(str, manifest.get("names", ())))
    count = len(names) or int(manifest.get("classes", 0))
    return tuple(reason(text, manifest["kind"], names, count) for text in texts)
