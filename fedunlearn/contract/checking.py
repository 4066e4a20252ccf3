"""All promises on one strategy, anybody's: the work of ``check-strategy``."""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import strategies
from fedunlearn import guests
from fedunlearn.contract import PROMISES, Broken, Promise
from fedunlearn.core import InputError, Problem, Strategy
from fedunlearn.results.wording import cell
from fedunlearn.scenario.typed import build, listed, meant
from fedunlearn.yaml.source import override
from fedunlearn.yaml.tree import Node, Place, Scalar, Table as Settings


@dataclass(frozen=True)
class Finding:
    """What was found of one promise.

    Attributes:
        promise: which.
        broken: why it is not kept, each reason once; empty if it is.
        excused: whether it was not tried.
    """

    promise: Promise
    broken: tuple[str, ...] = ()
    excused: bool = False


def named(given: Path, settings: Sequence[str] = ()) -> list[Strategy]:
    """The strategies of a file, or the one of ours or of a package that is called so, with some settings.

    Args:
        given: the file, or a name.
        settings: ``FIELD=VALUE``, as for ``--set``.

    Raises:
        InputError: there is none, or a setting cannot be used; all problems together.
    """
    known = guests.Offers(strategies.catalogue(), guests.installed())
    if not os.path.isfile(given) and str(given) in known:
        classes = {str(given): known[str(given)]}
    else:
        classes = dict(guests.offered(guests.read(given)))
        if taken := sorted(classes.keys() & {*known}):
            raise InputError(
                [Problem(f"there is a strategy called {taken[0]!r} already: rename it", str(given))]
            )
    found, made = list[Problem](), list[Strategy]()
    for name, cls in classes.items():
        place = Place(str(given))
        tree: Node = Settings(place, ((Scalar(place, "name", False), Scalar(place, name, True)),))
        for setting in settings:
            tree = override(tree, setting)
        if (strategy := build(tree, cls, found)) is not None:
            made.append(strategy)
    if found:
        raise InputError(found)
    return made


def check(strategy: Strategy, excused: Collection[str] = ()) -> list[Finding]:
    """Try all promises on a strategy.

    Args:
        strategy: whose promises.
        excused: names of promises that are not tried.

    Raises:
        InputError: a name is no promise's.
    """
    names = [promise.name for promise in PROMISES]
    if unknown := [name for name in excused if name not in names]:
        hint = meant(unknown[0], names)
        raise InputError(f"found no promise called {unknown[0]!r}{hint}; expected {listed(names)}")
    torch.set_num_threads(1)  # as in every worker: bits depend on it
    findings = []
    for promise in PROMISES:
        if promise.name in excused:
            findings.append(Finding(promise, excused=True))
            continue
        reasons = [_reason(promise, strategy, arguments) for arguments in promise.arguments(strategy)]
        findings.append(Finding(promise, tuple(dict.fromkeys(filter(None, reasons)))))
    return findings


def show(strategy: Strategy, findings: Iterable[Finding], console: Console) -> None:
    """Print a table: what is promised, whether it is kept, and if not, why, and what to do."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    for heading in ("promise", "kept", "why not, and what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        answer = "excused" if finding.excused else "no" if finding.broken else "yes"
        reasons = "\n".join((finding.promise.name, *finding.broken)) if finding.broken else ""
        table.add_row(cell(finding.promise.says), answer, cell(reasons))
    console.print(cell(str(strategy)), soft_wrap=True)
    console.print(table)


def _reason(promise: Promise, strategy: Strategy, arguments: Sequence[str]) -> str:
    """Why a promise is not kept; empty if it is."""
    try:
        promise.check(strategy, *arguments)
    except Broken as broken:
        return f"{_when(arguments)}{broken}"
    except Exception as error:  # the strategy's code may raise anything
        return f"{_when(arguments)}{type(error).__name__}: {error}{_line(strategy, error)}"
    return ""


def _when(arguments: Sequence[str]) -> str:
    return f"({', '.join(arguments)}) " if arguments else ""


def _line(strategy: Strategy, error: Exception) -> str:
    """Where in the strategy's own file an error came up, if it did."""
    file = inspect.getfile(type(strategy))
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" (line {lines[-1]})" if lines else ""
