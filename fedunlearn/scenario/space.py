"""Where the tuner may look: what `core.Search` beside a hyper-parameter's range means, and a trial's values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from fedunlearn.core import Search, Strategy

T = TypeVar("T")

DIGITS = 3
"""Significant digits of a value: a scenario is read by people, and no method is sharper than that."""


class Trial(Protocol):
    """As much of an Optuna trial as is used here."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number in [low, high]."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in [low, high]."""
        ...

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of ``choices``."""
        ...


@dataclass(frozen=True)
class Dimension:
    """One hyper-parameter to search.

    Attributes:
        type: int, float, bool or str.
        search: where.
        choices: all values, of one that is no number.
    """

    type: type
    search: Search
    choices: tuple[Any, ...] = ()


def space(strategy: type[Strategy]) -> Mapping[str, Dimension]:
    """The hyper-parameters that the tuner searches, by name; of a value within a strategy, ``recovery.rounds``."""
    return _space(strategy)


def _space(cls: type[Any]) -> dict[str, Dimension]:
    hints = get_type_hints(cls, include_extras=True)
    options = {
        name: get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        for name, hint in hints.items()
    }
    own = {
        name: _dimension(get_args(option)[0], mark)
        for name, parts in options.items()
        for option in parts
        if get_origin(option) is Annotated
        for mark in get_args(option)[1:]
        if isinstance(mark, Search)
    }
    within = {
        f"{name}.{key}": dimension
        for name, hint in hints.items()
        if dataclasses.is_dataclass(hint) and isinstance(hint, type)
        for key, dimension in _space(hint).items()
    }
    return own | within


def suggest(trial: Trial, strategy: Strategy) -> Strategy:
    """``strategy`` with every searched hyper-parameter as ``trial`` suggests."""
    changed = strategy
    for name, dimension in space(type(strategy)).items():
        changed = replaced(changed, name, _value(trial, name, dimension))
    return changed


def setting(value: object, name: str) -> object:
    """The dataclass ``value``'s setting of this name, as `space` names it."""
    key, _, rest = name.partition(".")
    return setting(getattr(value, key), rest) if rest else getattr(value, key)


def replaced(value: T, name: str, new: object) -> T:
    """The dataclass ``value`` with another setting of this name, as `space` names it."""
    key, _, rest = name.partition(".")
    changed: T = dataclasses.replace(
        cast(Any, value), **{key: replaced(getattr(value, key), rest, new) if rest else new}
    )
    return changed


def _dimension(inner: Any, search: Search) -> Dimension:
    if get_origin(inner) is Literal:
        return Dimension(str, search, get_args(inner))
    return Dimension(bool, search, (False, True)) if inner is bool else Dimension(inner, search)


def _value(trial: Trial, name: str, dimension: Dimension) -> Any:
    low, high = dimension.search.low, dimension.search.high
    if low is None or high is None:
        return trial.suggest_categorical(name, dimension.choices)
    if dimension.type is int:
        return trial.suggest_int(name, int(low), int(high), log=dimension.search.log)
    value = trial.suggest_float(name, low, high, log=dimension.search.log)
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)
