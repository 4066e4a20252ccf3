"""From a scenario file to cells: every combination of the swept values as a scenario of its own, read and checked."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedunlearn import scenario as scenarios
from fedunlearn.core import InputError, Problem
from fedunlearn.scenario import Scenario
from fedunlearn.sweep.naming import slug
from fedunlearn.yaml.source import load
from fedunlearn.yaml.tree import Items, Node, Place, Scalar, Table, assigned, described, plain, shown

MOST_CELLS = 1000


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        slug: its folder's name, made of its values alone: the same wherever it stands in the sweep.
        values: by swept key, as in the YAML.
        scenario: what is run.
    """

    slug: str
    values: Mapping[str, Any]
    scenario: Scenario


@dataclass(frozen=True)
class Sweep:
    """All combinations, the last key's values changing fastest."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class _Axis:
    """A swept key, where it stands, and its values."""

    key: str
    place: Place
    values: tuple[Node, ...]


def read(path: Path, overrides: Sequence[str] = ()) -> Scenario | Sweep:
    """Read a scenario file, with or without a sweep.

    Args:
        path: the YAML file.
        overrides: as for `fedunlearn.scenario.read`; they come before the sweep. ``sweep=null`` leaves it out.

    Raises:
        InputError: the file, an override or a cell cannot be used; all problems of all cells together.
    """
    found: list[Problem] = []
    tree = scenarios.overridden(load(path), overrides, found)
    block = tree.get("sweep") if isinstance(tree, Table) else None
    if block is None or not isinstance(tree, Table):
        return scenarios.read_tree(tree, found)
    single = replace(tree, entries=tuple(entry for entry in tree.entries if entry[0].text != "sweep"))
    if isinstance(block, Scalar) and plain(block) is None:
        return scenarios.read_tree(single, found)
    axes = _axes(block, found)
    found += _swept_anyway(axes, overrides)
    if found:
        raise scenarios.together(found)
    cells = tuple(_cells(single, axes, found))
    if found:
        raise scenarios.together(found)
    return Sweep(cells[0].scenario.name, cells)


def read_one(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """Read a scenario file that must not sweep; see `read`."""
    found = read(path, overrides)
    if isinstance(found, Sweep):
        example = " ".join(f"--set {key}={json.dumps(value)}" for key, value in found.cells[0].values.items())
        raise InputError(
            f"{path} sweeps over {len(found.cells)} scenarios, expected a single one: choose it, for example with "
            f"--set sweep=null {example}"
        )
    return found


def _axes(block: Node, found: list[Problem]) -> list[_Axis]:
    """The swept keys; what cannot be swept is told."""
    if not isinstance(block, Table) or not block.entries:
        example = "a mapping of keys to lists of values, such as {training.lr: [0.001, 0.01]}"
        found.append(block.place.problem(f"sweep: expected {example}, found {described(block)}"))
        return []
    axes: list[_Axis] = []
    for key, values in block.entries:
        if not isinstance(values, Items) or not values.items:
            message = f"sweep: {shown(key.text)}: expected a list of values, found {described(values)}"
            found.append(values.place.problem(message))
        elif key.text == "name" or not all(key.text.split(".")):
            message = "names no value that can be swept; expected a key such as training.lr"
            found.append(key.place.problem(f"sweep: {shown(key.text)} {message}"))
        elif other := next((axis.key for axis in axes if _overlap(axis.key, key.text)), None):
            message = f"and {shown(other)} are about the same value; sweep one of them"
            found.append(key.place.problem(f"sweep: {shown(key.text)} {message}"))
        else:
            found += _twice(key.text, values.items)
            axes.append(_Axis(key.text, key.place, values.items))
    if (count := math.prod(len(axis.values) for axis in axes)) > MOST_CELLS:
        found.append(block.place.problem(f"sweep: found {count} cells, expected at most {MOST_CELLS}"))
    return axes


def _twice(key: str, values: Iterable[Node]) -> Iterator[Problem]:
    seen = set()
    for value in values:
        text = json.dumps(plain(value), sort_keys=True)
        if text in seen:
            yield value.place.problem(f"sweep: {shown(key)} has the value {text} twice; keep one of them")
        seen.add(text)


def _swept_anyway(axes: Sequence[_Axis], overrides: Iterable[str]) -> Iterator[Problem]:
    """Overrides that the sweep would override in turn."""
    for assignment in overrides:
        key = assignment.partition("=")[0].strip()
        for axis in axes:
            if _overlap(axis.key, key):
                message = (
                    f"{shown(axis.key)} is swept, so this would change nothing: set sweep={{…}} or sweep=null"
                )
                yield Place(f"--set {shown(assignment, quote='')}").problem(message)


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _cells(single: Node, axes: Sequence[_Axis], found: list[Problem]) -> Iterator[Cell]:
    """Every cell that can be read; problems of the others are told."""
    for chosen in itertools.product(*(axis.values for axis in axes)):
        tree, values = single, dict[str, Any]()
        try:
            for axis, value in zip(axes, chosen, strict=True):
                tree = assigned(tree, axis.key.split("."), value, axis.place)
                values[axis.key] = plain(value)
            yield Cell(slug(values), values, scenarios.read_tree(tree))
        except InputError as error:
            found += error.problems
