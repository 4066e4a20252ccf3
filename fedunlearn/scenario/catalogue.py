"""What a scenario can name, with what one needs to know to choose: the content of ``list`` (`fedunlearn.listing`)."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from fedunlearn import guests
from fedunlearn.core import Guarantee, Leaver, Needs, Strategy
from fedunlearn.intake.policies import POLICIES
from fedunlearn.learning.models import MODELS
from fedunlearn.scenario.space import Dimension, space
from fedunlearn.scoring.measures.catalogue import all_measures
from sites import PARTITIONS, SOURCES
from strategies import catalogue

Entry = dict[str, Any]


def entries(what: str) -> list[Entry]:
    """The entries of one list, each with at least a name and a one-line summary."""
    match what:
        case "strategies":
            return [
                _strategy(name, cls) for name, cls in guests.Offers(catalogue(), guests.installed()).items()
            ]
        case "measures":
            return [
                {
                    "name": name,
                    "summary": m.summary,
                    **{
                        f.name: _plain(getattr(m, f.name))
                        for f in dataclasses.fields(m)
                        if f.name not in ("function", "combine")
                    },
                }
                for name, m in all_measures().items()
            ]
        case "data":
            return _classes(SOURCES)
        case "models":
            return _classes(MODELS)
        case "policies":
            return _classes(POLICIES)
        case _:
            return _classes(PARTITIONS)


def _strategy(name: str, cls: type[Strategy]) -> Entry:
    needs: Needs = cls().needs
    return {
        **_class(name, cls),
        "reference": _section(cls, "Reference"),
        "deviations": _section(cls, "Deviations"),
        "searched": {field: _where(one) for field, one in space(cls).items()},
        "granularity": sorted(g.value for g in cls.granularity),
        "guarantee": cls.guarantee.value,
        "exact": cls.guarantee is Guarantee.EXACT,
        "needs": {f.name: _plain(getattr(needs, f.name)) for f in dataclasses.fields(needs)},
        "uses_forget_data": needs.leaver is Leaver.ONLINE,
        "secure_aggregation": needs.secure_aggregation,
    }


def _classes(classes: Mapping[str, type[Any]]) -> list[Entry]:
    return [_class(name, cls) for name, cls in classes.items()]


def _class(name: str, cls: type[Any]) -> Entry:
    settings = {
        f.name: None if f.default is dataclasses.MISSING else _plain(f.default)
        for f in dataclasses.fields(cls)
        if f.name != "name"
    }
    about = inspect.getdoc(cls) or ""
    return {
        "name": name,
        "summary": about.partition("\n")[0],
        "settings": settings,
        "ranges": ranges(cls),
        "text": about,
    }


def ranges(cls: type[Any], before: str = "") -> dict[str, str]:
    """The values that each setting may have, in words, where its type says so; of one within, ``recovery.rounds``."""
    found = dict[str, str]()
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if get_origin(hint) is ClassVar or name == "name":
            continue
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found |= ranges(hint, f"{before}{name}.")
        elif (words := _values(hint)) not in ("", "null"):
            found[f"{before}{name}"] = words
    return found


def _values(hint: Any) -> str:
    """A type in words."""
    match get_origin(hint):
        case typing.Literal:
            return " | ".join(str(choice) for choice in get_args(hint))
        case typing.Union | types.UnionType:
            parts = (_values(part) for part in get_args(hint))
            return " or ".join(dict.fromkeys(filter(None, parts)))
        case typing.Annotated:
            inner, *marks = get_args(hint)
            if "days" in marks:
                return "days, as 7d"
            signs = ((Gt, ">", "gt"), (Ge, ">=", "ge"), (Lt, "<", "lt"), (Le, "<=", "le"))
            limits = [
                f"{sign} {getattr(mark, key):g}"
                for mark in marks
                for kind, sign, key in signs
                if isinstance(mark, kind)
            ]
            return " ".join(filter(None, (_values(inner), " and ".join(limits))))
    if hint is type(None):
        return "null"
    return {bool: "true | false", int: "whole number", float: "number", str: "text"}.get(hint, "")


def _where(dimension: Dimension) -> Entry:
    """Where the tuner looks for a value."""
    return {"choices": list(dimension.choices)} if dimension.choices else dict(_plain(dimension.search))


def _section(cls: type[Any], title: str) -> str:
    """A section of a class's docstring, in one line."""
    _, _, rest = (inspect.getdoc(cls) or "").partition(f"\n{title}:\n")
    text = rest.partition("\n\n")[0]
    return " ".join(text.split())


def _plain(value: Any) -> Any:
    """A JSON value for a field's value."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return fields or type(value).__name__.lower()  # {} would read as nothing
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return getattr(value, "value", getattr(value, "__name__", str(value)))
