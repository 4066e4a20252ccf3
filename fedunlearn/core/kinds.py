"""Kinds of task, found by their names: each is a folder of `fedunlearn.kinds`, and nobody keeps a list of them.

What a kind brings lies in files of its folder that are called alike, one for each room that asks: that room says what
it asks for (`fedunlearn.learning.kinds`, `fedunlearn.scoring.kinds`, `fedunlearn.results.kinds`), looks it up here, and
so knows no kind by name.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = "fedunlearn.kinds"
_FOLDER = Path(__file__).resolve().parents[1] / "kinds"


@dataclass(frozen=True)
class Facts:
    """What anybody may ask of a kind before there is data or a network.

    Attributes:
        what: what a person calls one of its images: image, volume.
        one_class: every image has one class of its own, which groups of classes and costs of mistakes need.
        one_answer: and nothing else is asked of it, targets are (N,): methods on classes and canaries need that.
        pictures: forgotten images can be shown as a strip of pictures with what each model says.
        background: class 0 says that a place is of nothing that is looked for.
        slices: some volumes can be shown in slices, as models segment them.
    """

    what: str
    one_class: bool
    one_answer: bool
    pictures: bool
    background: bool
    slices: bool = False


@cache
def kinds() -> tuple[str, ...]:
    """The names of all kinds."""
    return tuple(sorted(path.parent.name for path in _FOLDER.glob("*/__init__.py")))


def facts(kind: str) -> Facts:
    """What anybody may ask of a kind.

    Raises:
        KeyError: there is none of this name.
    """
    found: Facts = brought(kind, "", "FACTS")
    return found


@cache
def brought(kind: str, file: str, name: str) -> Any:
    """What a kind calls ``name`` in one of its files ("": the folder's own).

    Raises:
        KeyError: there is no kind of this name.
    """
    if kind not in kinds():
        raise KeyError(f"no kind of task {kind!r}; known are {', '.join(kinds())}")
    return getattr(importlib.import_module(module(kind, file)), name)


def module(kind: str, file: str) -> str:
    """The module of one of a kind's files ("": the folder's own): nobody imports it by this name."""
    return ".".join(filter(None, (_PACKAGE, kind, file)))
