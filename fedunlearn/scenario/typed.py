"""YAML trees to frozen dataclasses, every problem told at its place. The only file that knows pydantic.

A dataclass is its own schema: its annotations are the types, ``Annotated[float, Gt(0)]`` is a range. Nothing is
coerced: "6" is no number and 1.0 no whole one, but 1 is a number.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from types import MappingProxyType
from typing import Any, TypeVar

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from fedunlearn.core import Problem
from fedunlearn.yaml.tree import Items, Node, Scalar, Table, described, plain, shown

T = TypeVar("T")

_NOTHING: Mapping[str, object] = MappingProxyType({})
_FORMER: Mapping[str, str] = MappingProxyType({})
_EXPECTED = {
    "bool_type": "true or false",
    "date_from_datetime_inexact": "a day such as 2026-01-01",
    "date_from_datetime_parsing": "a day such as 2026-01-01",
    "date_parsing": "a day such as 2026-01-01",
    "date_type": "a day such as 2026-01-01",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "path_type": "text",
    "string_type": "text",
    "tuple_type": "a list",
}
_BOUNDS = {Gt: ("more than", "gt"), Ge: ("at least", "ge"), Lt: ("less than", "lt"), Le: ("at most", "le")}


def build(
    node: Node,
    cls: type[T],
    found: list[Problem],
    elsewhere: Mapping[str, object] = _NOTHING,
    like: T | None = None,
) -> T | None:
    """A ``cls`` from a mapping with its fields as keys; None, and problems appended to ``found``, if that cannot be.

    A field's key is its name, or what its metadata give as ``key``. A field whose default is a dataclass is a
    mapping of its own, and keys missing there are as in that default.

    Args:
        node: the mapping.
        cls: a dataclass.
        found: where problems go.
        elsewhere: other keys the mapping may have, read elsewhere; those that are fields of ``cls`` take these values.
        like: has the values of keys that are missing; None for the defaults of ``cls``.
    """
    fields = {key_of(field): field for field in written(cls)}
    before = len(found)
    if not keys(node, [*fields, *elsewhere], found) or not isinstance(node, Table):
        return None
    nested = {
        name: build(below, type(field.default), found, like=field.default)
        for name, field in fields.items()
        if name not in elsewhere
        and dataclasses.is_dataclass(field.default)
        and (below := node.get(name)) is not None
    }
    own = [field for name, field in fields.items() if name not in {*elsewhere, *nested}]
    if like is not None:
        own = [_defaulting(field, getattr(like, field.name)) for field in own]
    types = typing.get_type_hints(cls, include_extras=True)
    hints = {key_of(field): types[field.name] for field in own}
    values = {key.text: _given(value, hints[key.text]) for key, value in node.entries if key.text in hints}
    try:
        parsed = _model(own, hints).model_validate_json(json.dumps(values))
    except ValidationError as error:
        found += [_problem(detail, node, hints) for detail in error.errors(include_url=False)]
        return None
    if len(found) > before:
        return None
    given = {name: value for name, value in elsewhere.items() if name in fields} | nested
    read = {field.name: getattr(parsed, f"f{i}") for i, field in enumerate(own)}
    return cls(**read, **{fields[name].name: value for name, value in given.items()})


def _given(node: Node, hint: Any) -> Any:
    """What a scalar says; a text for a day that is none is nothing, since pydantic counts "1767225600" in seconds."""
    value = plain(node)
    a_day = date in (hint, *typing.get_args(hint)) and isinstance(value, str)
    return "" if a_day and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) else value


def key_of(field: dataclasses.Field[Any]) -> str:
    """What a field is called in YAML: its name, unless its metadata give a ``key`` (a word that Python keeps)."""
    return str(field.metadata.get("key", field.name))


def written(cls: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that YAML can give: those whose key is not empty."""
    return [field for field in dataclasses.fields(cls) if field.init and key_of(field)]


def choose(
    node: Node,
    catalogue: Mapping[str, type[T]],
    noun: str,
    found: list[Problem],
    elsewhere: Iterable[str] = (),
    former: Mapping[str, str] = _FORMER,
) -> T | None:
    """One of ``catalogue``'s dataclasses, by the mapping's ``name``; None, and problems appended, if that cannot be.

    Args:
        node: a mapping like ``{name: …, setting: …}``.
        catalogue: dataclasses by name.
        noun: what they are, for messages.
        found: where problems go.
        elsewhere: other keys the mapping may have, read elsewhere.
        former: what to write instead of names that there are no more.
    """
    if not isinstance(node, Table):
        message = (
            f"expected a mapping such as {{name: {next(iter(catalogue), noun)}}}, found {described(node)}"
        )
        found.append(node.place.problem(message))
        return None
    name = node.get("name")
    if name is None:
        found.append(
            node.place.problem(f"found no `name`; expected the name of a {noun}: {listed(catalogue)}")
        )
        return None
    if not isinstance(name, Scalar) or name.text not in catalogue:
        word = name.text if isinstance(name, Scalar) else ""
        advice = f": write {former[word]}" if word in former else meant(word, catalogue)
        message = f"unknown {noun} {described(name)}{advice}; expected {listed(catalogue)}"
        found.append(name.place.problem(message))
        return None
    return build(node, catalogue[name.text], found, dict.fromkeys(elsewhere))


def keys(node: Node, known: Iterable[str], found: list[Problem], required: Iterable[str] = ()) -> bool:
    """Whether ``node`` is a mapping; what is wrong with its keys is appended to ``found``."""
    known = list(dict.fromkeys(known))
    if not isinstance(node, Table):
        message = f"expected a mapping with the keys {listed(known)}, found {described(node)}"
        found.append(node.place.problem(message))
        return False
    for key, _ in node.entries:
        if key.text not in known:
            hint = meant(key.text, known)
            message = f"unknown key {shown(key.text)}{hint}; expected {listed(known)}"
            found.append(key.place.problem(message))
    for name in required:
        if node.get(name) is None:
            found.append(node.place.problem(f"found no `{name}`; add it"))
    return True


def type_schema(hint: Any) -> dict[str, Any]:
    """The JSON schema of a type that is no dataclass."""
    return TypeAdapter(hint).json_schema()


def meant(word: str, known: Iterable[str]) -> str:
    """The question whether a close known word was meant; empty if none is close."""
    close = difflib.get_close_matches(word[:100], list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def listed(words: Iterable[object]) -> str:
    """``words`` in a row, the last after "or"; not more than a few lines of them."""
    names = [str(word) for word in words]
    if len(names) > 40:
        names = [*names[:40], "…"]
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names) or "none"


def _defaulting(field: dataclasses.Field[Any], default: object) -> dataclasses.Field[Any]:
    """``field`` with another default."""
    changed = copy.copy(field)
    changed.default = default
    return changed


def _model(fields: list[dataclasses.Field[Any]], hints: Mapping[str, Any]) -> type[BaseModel]:
    """The fields get names of their own, since some of theirs (`copy`, `schema`) belong to pydantic."""
    definitions: dict[str, Any] = {}
    for i, field in enumerate(fields):
        if field.default is not dataclasses.MISSING:
            info = Field(default=field.default, alias=key_of(field))
        elif field.default_factory is not dataclasses.MISSING:
            info = Field(default_factory=field.default_factory, alias=key_of(field))
        else:
            info = Field(alias=key_of(field))
        definitions[f"f{i}"] = (hints[key_of(field)], info)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return create_model("Part", __config__=config, **definitions)


def _problem(detail: Any, node: Table, hints: Mapping[str, Any]) -> Problem:
    """One of pydantic's findings, in our words and at its place."""
    kind, loc = detail["type"], [part for part in detail["loc"] if "[" not in str(part)]  # of a union: a type
    at: Node = node
    for i, part in enumerate(loc):
        below = _below(at, part)
        if below is None:
            if kind == "missing":
                return at.place.problem(f"found no `{'.'.join(map(str, loc[: i + 1]))}`; add it")
            break
        at = below
    name = ".".join(str(part) for part in loc)
    found, hint = described(at), hints.get(str(loc[0])) if loc else None
    if kind in _EXPECTED:
        bounds = _range(hint) if "number" in _EXPECTED[kind] else ""
        return at.place.problem(
            f"{name}: expected {_EXPECTED[kind]}{bounds}, found {found}{_advice(kind, at)}"
        )
    if kind in ("literal_error", "enum"):
        choices = [choice for choice in _choices(hint)]
        close = meant(at.text, [str(choice) for choice in choices]) if isinstance(at, Scalar) else ""
        expected = listed(choices) if choices else detail["ctx"]["expected"]
        return at.place.problem(f"{name}: expected {expected}, found {found}{close}")
    if kind == "too_long":
        most, many = detail["ctx"]["max_length"], detail["ctx"]["actual_length"]
        return at.place.problem(f"{name}: expected a list of {most}, found one of {many}")
    if kind.startswith(("greater_than", "less_than")):
        return at.place.problem(f"{name}: expected a number{_range(hint)}, found {found}")
    return at.place.problem(f"{name}: {detail['msg']}, found {found}")


def _below(node: Node, part: int | str) -> Node | None:
    if isinstance(node, Items):
        return node.items[part] if isinstance(part, int) and part < len(node.items) else None
    return node.get(str(part)) if isinstance(node, Table) else None


def _advice(kind: str, node: Node) -> str:
    if not isinstance(node, Scalar):
        return ""
    if kind == "bool_type" and node.text.lower() in ("yes", "on", "y", "true"):
        return ": write true"
    if kind == "bool_type" and node.text.lower() in ("no", "off", "n", "false"):
        return ": write false"
    if kind in ("int_type", "float_type") and node.quoted:
        return ": write it without quotes"
    if kind in ("int_type", "float_type") and re.fullmatch("0[0-9]+", node.text):
        return f": write {node.text.lstrip('0') or 0} (YAML 1.1 reads leading zeros as octal)"
    return ': write it in quotes, "…"' if kind == "string_type" and node.text and not node.quoted else ""


def _range(hint: Any) -> str:
    """The range that ``hint`` allows, in words."""
    words = [
        f"{_BOUNDS[type(bound)][0]} {getattr(bound, _BOUNDS[type(bound)][1])}" for bound in _bounds(hint)
    ]
    return f" ({' and '.join(words)})" if words else ""


def _bounds(hint: Any) -> Iterator[Any]:
    if type(hint) in _BOUNDS:
        yield hint
    for part in hint if isinstance(hint, GroupedMetadata) else typing.get_args(hint):
        yield from _bounds(part)


def _choices(hint: Any) -> Iterator[Any]:
    if typing.get_origin(hint) is typing.Literal:
        yield from typing.get_args(hint)
    else:
        for part in typing.get_args(hint):
            yield from _choices(part)
