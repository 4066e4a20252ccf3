"""Promises about a strategy's form: what can be seen without asking a hospital."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

import annotated_types

import strategies
from fedunlearn import guests
from fedunlearn.contract.promise import Broken, hold
from fedunlearn.core import Granularity, Problem, Search, Strategy
from fedunlearn.scenario.space import replaced, space
from fedunlearn.scenario.typed import build
from fedunlearn.yaml.source import parse

LINES = 115
"""That a strategy's file of ours may have beside its imports."""

_BEYOND: Mapping[type[Any], tuple[str, int]] = {
    annotated_types.Gt: ("gt", 0),
    annotated_types.Ge: ("ge", -1),
    annotated_types.Le: ("le", 1),
    annotated_types.Lt: ("lt", 0),
}
"""By the kind of a range, where its end is, and the way from there to the nearest number that is outside."""

_SHARED = (
    "tasks",
    "mechanics",
    "embeddings",
    "objectives",
    "constraints",
    "labels",
    "local",
    "kinds",
    "models",
)
_ALLOWED = {
    *(f"fedunlearn.{module}" for module in ("core", "core.kinds", "weights", "federation.procedures")),
    *(f"fedunlearn.learning.{module}" for module in _SHARED),
}
_ROOMS = ("fedunlearn", "fedunlearn.federation", "fedunlearn.learning")


def is_ours(strategy: Strategy) -> bool:
    """Whether a strategy comes with fedunlearn."""
    return type(strategy).__module__.partition(".")[0] == "strategies"


def frozen_hashable_and_constructible(strategy: Strategy) -> None:
    """It is a frozen dataclass whose fields all have defaults, and can be hashed."""
    cls: Any = type(strategy)
    hold(cls.__dataclass_params__.frozen, "it is not frozen: write @dataclass(frozen=True)")
    lacking = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    hold(
        not lacking,
        f"{', '.join(lacking)} has no default: give it one, so that `name: …` alone says something",
    )
    hold(cls() == cls(), "two of the same settings are not equal: let the dataclass write __eq__")
    try:
        same = hash(strategy) == hash(replace(cast(Any, strategy)))
    except TypeError as error:
        same, reason = False, f"it cannot be hashed ({error}): let fields be numbers, texts, tuples"
    else:
        reason = "two of the same settings have different hashes: let the dataclass write __hash__"
    hold(same, reason)
    try:
        strategy.name = "other"  # type: ignore[misc]
    except dataclasses.FrozenInstanceError:
        return
    hold(False, "its name can be changed: let the dataclass write __setattr__")


def the_file_is_named_as_the_strategy(strategy: Strategy) -> None:
    """Its file is called as it is, and it is found there by its name."""
    cls, name = type(strategy), strategy.name
    file = guests.held(cls.__module__)
    if file is None:
        stem, known = cls.__module__.rpartition(".")[2], _known(name)
    else:
        stem, known = Path(file.path).stem, guests.offered(file).get(name)
        stem = stem.removesuffix(f"-{file.sha256[:16]}")  # a copy in a run folder
    hold(stem == name, f"the file is called {stem}, the strategy {name}: call both the same")
    hold(known is cls, f"under the name {name} another class is found: give each strategy a name of its own")


def the_constructor_only_stores(strategy: Strategy) -> None:
    """Its constructor does nothing but store its settings."""
    cls = type(strategy)
    hold(cls.__init__.__code__.co_filename == "<string>", "write no __init__: the dataclass makes it")
    hold(
        not hasattr(cls, "__post_init__"),
        "it has a __post_init__: check ranges in the annotations, which the scenario reads",
    )
    for f in dataclasses.fields(cast(Any, cls)):
        hold(
            getattr(strategy, f.name) is strategy.__dict__[f.name],
            f"{f.name} is not what was stored: let fields be plain",
        )


def yaml_round_trip(strategy: Strategy) -> None:
    """Its settings can be written to a scenario and read again."""
    again, problems = _read(strategy, dataclasses.asdict(cast(Any, strategy)))
    told = "; ".join(problem.message for problem in problems)
    hold(again == strategy, f"read again it is {again}: {told or 'let fields be numbers, texts, tuples'}")


def every_number_has_a_range_that_is_kept(strategy: Strategy) -> None:
    """Every number among its settings has a range, and what is beyond is refused."""
    for name, hint in get_type_hints(type(strategy), include_extras=True).items():
        for part in get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]:
            number = get_args(part)[0] if get_origin(part) is Annotated else part
            rules = [rule for rule in getattr(part, "__metadata__", ()) if not isinstance(rule, Search)]
            if number in (int, float) and not rules:
                hold(False, f"{name} has no range: write Annotated[{number.__name__}, Ge(…)]")
            for rule in rules:
                hold(type(rule) in _BEYOND, f"the range of {name} is {rule}: write it as Gt, Ge, Le or Lt")
                end, step = _BEYOND[type(rule)]
                value = getattr(rule, end) + step
                taken, _ = _read(strategy, {name: value})
                hold(taken is None, f"{name}: {value} is taken, though {rule} says no")


def what_tune_searches_lies_in_the_range(strategy: Strategy) -> None:
    """Where `tune` searches lies in the range, and does not change what training must keep."""
    start: Any = type(strategy)()
    for name, dimension in space(type(strategy)).items():
        low, high = dimension.search.low, dimension.search.high
        hold(
            bool(dimension.choices) or (low is not None and high is not None and low < high),
            f"{name} is searched from {low} to {high}: write Search(low, high) with low < high",
        )
        for value in dimension.choices or (low, high):
            changed = replaced(start, name, value)
            again, _ = _read(strategy, dataclasses.asdict(changed))
            hold(again == changed, f"{name}: {value} is searched, but out of the range: narrow the Search")
            hold(
                stored(changed) == stored(start),
                f"with {name}: {value} the server has to keep other history: the tuner cannot change what training "
                "must keep, so leave out the Search",
            )


def stored(strategy: Strategy) -> tuple[object, ...]:
    """What the server has to keep of training."""
    needs = strategy.needs
    return needs.updates, needs.cumulative, needs.checkpoints


def documented(strategy: Strategy) -> None:
    """It says what it is, where it is from, in what it deviates, and what each setting means."""
    doc = inspect.getdoc(type(strategy)) or ""
    hold(doc.partition("\n")[0].endswith("."), "the docstring's first line is no sentence that ends there")
    for section in ("Reference", "Deviations"):
        hold(
            f"\n{section}:\n" in doc,
            f"the docstring has no section `{section}:`; add it, and say none if it is none",
        )
    hold(
        "arXiv" in doc or not is_ours(strategy),
        "the docstring does not say which arXiv number the method has",
    )
    for f in dataclasses.fields(cast(Any, type(strategy))):
        hold(
            f.name == "name" or f"\n    {f.name}: " in doc,
            f"{f.name} is not described: write `{f.name}: …` under `Attributes:` in the docstring",
        )


def the_file_is_short_and_imports_only_what_it_may(strategy: Strategy) -> None:
    """Of fedunlearn it imports only what strategies are made of; a file of ours is short."""
    text = inspect.getsource(sys.modules[type(strategy).__module__])
    imports = [node for node in ast.parse(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines = len(text.splitlines()) - sum((node.end_lineno or 0) - node.lineno + 1 for node in imports)
    hold(
        lines <= LINES or not is_ours(strategy),
        f"{lines} lines beside the imports: move what others could use to fedunlearn",
    )
    for node in ast.walk(ast.parse(text)):
        for name in _imported(node):
            top = name.partition(".")[0]
            standard = top in ("torch", "annotated_types") or top in sys.stdlib_module_names
            elsewhere = top not in ("fedunlearn", "sites", "strategies", "tests") and not is_ours(strategy)
            hold(
                name in _ALLOWED or standard or elsewhere,
                f"a strategy may not import {name}: of ours only {', '.join(sorted(_ALLOWED))}",
            )


def claims_a_granularity(strategy: Strategy) -> None:
    """It says whether it forgets patients, whole hospitals, or both."""
    hold(
        bool(strategy.granularity) and strategy.granularity <= frozenset(Granularity),
        "its granularity is empty or no frozenset of `Granularity`: say what it can forget",
    )


# ------------------------------------------------------------------------------------------------ pieces


def _known(name: str) -> type[Strategy] | None:
    """The strategy of ours or of a package that has this name."""
    return guests.Offers(strategies.catalogue(), guests.installed()).get(name)


def _read(strategy: Strategy, settings: Mapping[str, Any]) -> tuple[Strategy | None, list[Problem]]:
    """A strategy of the same class with these settings, as a scenario reads them; and what is wrong with them."""
    found = list[Problem]()
    try:
        text = json.dumps(settings)
    except TypeError as error:
        raise Broken(
            f"its settings cannot be written ({error}): let fields be numbers, texts, tuples"
        ) from error
    return build(parse(text, "settings"), type(strategy), found), found


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return [f"{module}.{a.name}" for a in node.names] if module in _ROOMS else [module]
    return []
