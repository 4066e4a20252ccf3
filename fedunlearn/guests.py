"""Strategies that come from elsewhere: from a file of the user's, or from an installed package.

A file becomes a module that is called after its content. So a class says by its name which code it is of, wherever it
goes: in an ask, in an origin, in a journal. An edited file is another module, and a process that lacks the file can be
sent its content (`File`, `admit`). Packages offer strategies as entry points of the group `GROUP`; they have to be
installed wherever hospitals work, as fedunlearn has to be.

To load either is to run its code.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.abc
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fedunlearn.core import InputError, Problem, Strategy

GROUP = "fedunlearn.strategies"
"""The entry points of installed packages that offer a strategy: its name, and the class."""

LARGEST = 1_000_000
"""Bytes that a file may have."""

_PREFIX = "guest_"
_DIGITS = 16  # of the digest, in a module's name
_NEEDED = ("needs", "guarantee", "granularity")

TAKEN = ("as", "requests", "tuned", "file", "sha256")
"""What a scenario says of a strategy beside its settings: no field may be called so."""


@dataclass(frozen=True)
class File:
    """A file of the user's.

    Attributes:
        path: where it was read, for messages.
        content: its bytes.
    """

    path: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Of its content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def module(self) -> str:
        """What its module is called."""
        return f"{_PREFIX}{self.sha256[:_DIGITS]}"


class _Loader(importlib.abc.ExecutionLoader):
    """Makes a module of a file's content; nothing is looked up on disk, and nothing is written there."""

    def __init__(self, file: File) -> None:
        self.file = file

    def get_filename(self, fullname: str) -> str:
        return self.file.path

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.file.content)


def read(path: Path) -> File:
    """A file as it is now.

    Raises:
        InputError: it cannot be read, or is too large to be a strategy's.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            [Problem(f"cannot read it: {reason}; expected a Python file with a strategy", str(path))]
        ) from error
    if len(content) > LARGEST:
        raise InputError([Problem("found more than 1 MB; expected a file with a strategy", str(path))])
    return File(str(path), content)


def admit(file: File) -> ModuleType:
    """The module of a file. The same content is run once, whatever the files are called, and gives the same classes.

    Raises:
        InputError: it cannot be imported; tells the line.
    """
    if isinstance(loader := getattr(sys.modules.get(file.module), "__loader__", None), _Loader):
        loader.file = file  # whatever it was called before
        return sys.modules[file.module]
    spec = importlib.util.spec_from_loader(file.module, _Loader(file))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.module] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)  # type: ignore[union-attr]  # it is ours
    except SyntaxError as error:
        del sys.modules[file.module]
        problem = Problem(f"it is not Python: {error.msg}", file.path, error.lineno, error.offset)
        raise InputError([problem]) from error
    except Exception as error:  # the user's code may raise anything
        del sys.modules[file.module]
        raise InputError([_failed(file, error)]) from error
    return module


def held(module: str) -> File | None:
    """The file that a module was made of; None if it is no guest, or none that this process knows."""
    loader = getattr(sys.modules.get(module), "__loader__", None)
    return loader.file if isinstance(loader, _Loader) else None


def offered(file: File) -> Mapping[str, type[Strategy]]:
    """The strategies of a file, by name.

    Raises:
        InputError: it cannot be imported, has none, or has classes that are nearly one; all of it is told.
    """
    module = admit(file)
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "unlearn")
    ]
    problems = [Problem(text, file.path) for cls in classes for text in lacking(cls)]
    if not classes:
        problems = [
            Problem(
                "found no strategy in it; expected a frozen dataclass with a `name`, `needs`, `guarantee`, "
                "`granularity` and a method `unlearn`",
                file.path,
            )
        ]
    if problems:
        raise InputError(problems)
    return {_name(cls) or "": cls for cls in classes}


def origin(cls: type[Strategy]) -> Mapping[str, str]:
    """Where a strategy comes from: the sha256 of its file, or its package with the version; empty if it is ours."""
    if (file := held(cls.__module__)) is not None:
        return {"sha256": file.sha256}
    top = cls.__module__.partition(".")[0]
    points = [point for point in installed().values() if point.module.partition(".")[0] == top]
    return {"package": source(points[0])} if points else {}


def lacking(cls: type[Any]) -> Iterator[str]:
    """What a class with a method ``unlearn`` still needs to be a strategy."""
    if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # typeshed does not know it
        yield f"{cls.__name__} is no frozen dataclass: write @dataclass(frozen=True) above it"
    for field in {*TAKEN} & {*getattr(cls, "__dataclass_fields__", ())}:
        yield f"{cls.__name__} has a field {field!r}, which a scenario says of every strategy: rename it"
    if not _name(cls):
        yield f'{cls.__name__} has no name: write `name: Literal["my_method"] = "my_method"` as its first field'
    for what in _NEEDED:
        if not hasattr(cls, what):
            yield f"{cls.__name__} does not say its {what}: see `fedunlearn.core.Strategy`"


# ---------------------------------------------------------------------------------------------- packages


@functools.cache
def installed() -> Mapping[str, EntryPoint]:
    """What installed packages offer, by name; nothing of them is imported."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def packages() -> frozenset[str]:
    """The packages that offer a strategy."""
    return frozenset(point.module.partition(".")[0] for point in installed().values())


def source(point: EntryPoint) -> str:
    """The package that an entry point is of, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module


def load(point: EntryPoint) -> type[Strategy]:
    """The strategy of an entry point.

    Raises:
        InputError: it cannot be imported, or is no strategy of this name.
    """
    try:
        cls = point.load()
    except Exception as error:  # a package's code may raise anything
        message = (
            f"cannot import {point.value} of the package {source(point)}: {type(error).__name__}: {error}"
        )
        raise InputError(message) from error
    if not isinstance(cls, type) or not hasattr(cls, "unlearn"):
        raise InputError(f"{point.value} of the package {source(point)} is no strategy: it has no `unlearn`")
    if problems := [Problem(f"{text} (package {source(point)})") for text in lacking(cls)]:
        raise InputError(problems)
    if _name(cls) != point.name:
        raise InputError(
            f"{point.value} of the package {source(point)} is called {_name(cls)!r}, but offered as {point.name!r}: "
            "both must be the same"
        )
    return cls


@dataclass(frozen=True)
class Offers(Mapping[str, type[Strategy]]):
    """Strategies by name, those of installed packages after ours; a package is imported when it is asked for.

    Attributes:
        own: those that come with fedunlearn.
        others: those of packages.
    """

    own: Mapping[str, type[Strategy]]
    others: Mapping[str, EntryPoint]

    def __getitem__(self, name: str) -> type[Strategy]:
        """See `Mapping`.

        Raises:
            InputError: a package's cannot be loaded, or has a name of ours.
        """
        if name in self.own and name in self.others:
            raise InputError(
                f"the package {source(self.others[name])} offers a strategy called {name!r}, as one of "
                "fedunlearn's own is: uninstall it, or have it renamed"
            )
        return self.own[name] if name in self.own else load(self.others[name])

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self.others

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.own, *self.others]))

    def __len__(self) -> int:
        return len({*self.own, *self.others})


# ------------------------------------------------------------------------------------------------ pieces


def _name(cls: type[Any]) -> str | None:
    name = getattr(cls, "name", None)
    return name if isinstance(name, str) and name else None


def _failed(file: File, error: Exception) -> Problem:
    """What importing a file ended with, at the line of it that was being run."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file.path
    ]
    advice = ""
    if isinstance(error, ModuleNotFoundError):
        advice = (
            ": a strategy's file stands alone, beside what is installed; put what it needs into it, or make a "
            f"package of it with an entry point ({GROUP})"
        )
    message = f"importing it failed: {type(error).__name__}: {error}{advice}"
    return Problem(message, file.path, lines[-1] if lines else None)
