"""Which source files a module rests on: what must be the same for the same work to come to the same bits."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedunlearn import guests

PACKAGES = ("fedunlearn", "sites", "strategies")
"""Our own, to which those come that strategies are from (`fedunlearn.guests`); libraries are told by their versions."""


def closure(modules: Iterable[str]) -> dict[str, Path]:
    """The files of some modules and of all of ours that these import, wherever in the file, by module name.

    A package's ``__init__`` counts only where something is imported from it. What is imported by a name that is made
    at run time is not seen: a strategy, a data source or a kind of task must be named here itself.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name not in found and file is not None:
            found[name] = file
            waiting += _imported(name, file)
    return dict(sorted(found.items()))


def digests(modules: Iterable[str]) -> dict[str, str]:
    """By module name, the sha256 of each file of `closure`."""
    return {name: _sha256(name, file) for name, file in closure(modules).items()}


def digest(modules: Iterable[str], alone: Iterable[str] = ()) -> str:
    """One sha256 for all files of `closure`, and for those of modules ``alone``, without what these import."""
    found = digests(modules) | {
        name: _sha256(name, file) for name in alone if (file := _file(name)) is not None
    }
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


@functools.cache
def _file(name: str) -> Path | None:
    """The file of a module; None if it is not one of ours, or no module."""
    if (guest := guests.held(name)) is not None:
        return Path(guest.path)
    if (top := name.partition(".")[0]) not in PACKAGES and top not in guests.packages():
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # what is imported from a module is no module
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


@functools.cache
def _sha256(name: str, file: Path) -> str:
    return hashlib.sha256(_content(name, file)).hexdigest()


@functools.cache
def _imported(name: str, file: Path) -> tuple[str, ...]:
    return tuple(_names(ast.parse(_content(name, file))))


def _content(name: str, file: Path) -> bytes:
    """What a module was made of; a user's file may be another by now."""
    guest = guests.held(name)
    return file.read_bytes() if guest is None else guest.content


def _names(tree: ast.AST) -> Iterator[str]:
    """What is imported: the modules, and whatever is taken from them, which may be modules too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
