"""A JSON schema of scenario files, for editors that complete keys and mark mistakes while one writes.

It is made of the dataclasses that scenarios are read into, with their docstrings as descriptions. It knows types,
ranges and names; what parts of a scenario mean to one another, only `check` knows.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import sites
import strategies
from fedunlearn import guests
from fedunlearn.intake.arrivals import Arrivals, Kinds
from fedunlearn.intake.calendar import Calendar
from fedunlearn.intake.desk import Limits
from fedunlearn.intake.policies import POLICIES
from fedunlearn.learning.models import MODELS
from fedunlearn.scenario.parts import KEYS, REQUIRED
from fedunlearn.scenario.schema import (
    Engine,
    Evaluation,
    HistoryConfig,
    Pick,
    Request,
    Retention,
    Shares,
    SitesConfig,
    TopKeys,
    TrainingKeys,
    Tuned,
    Verdict,
)
from fedunlearn.scenario.typed import key_of, type_schema, written
from fedunlearn.scoring.evidence.margins import Margins

Schema = dict[str, Any]

FILE = "scenario.schema.json"
"""What a schema is called beside scenarios; `hint` points there."""

_TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
_DAYS: Schema = {"type": "string", "pattern": "^[1-9][0-9]*d$"}


def hint(file: str = FILE) -> str:
    """The comment at the top of a scenario that tells an editor where its schema is."""
    return f"# yaml-language-server: $schema={file}"


def schema() -> Schema:
    """The schema (JSON Schema 2020-12)."""
    split = {"anyOf": [_object(Shares), _closed({"from": {"type": "string"}}, ["from"])]}
    hospitals = _object(SitesConfig, {"partition": _one_of(sites.PARTITIONS), "split": split})
    parts: Schema = {
        **_object(TopKeys)["properties"],
        "engine": _object(Engine),
        "data": _one_of(sites.SOURCES),
        "sites": hospitals,
        "model": _one_of(MODELS),
        "training": _object(TrainingKeys),
        "requests": {"type": "array", "items": _request()},
        "strategies": {"type": "array", "items": _strategy()},
        "evaluation": _object(Evaluation),
        "verdict": _object(Verdict, {"margins": _object(Margins)}),
        "history": _object(HistoryConfig),
        "retention": _object(Retention),
        "calendar": _object(Calendar, {"round": _DAYS, "looks": _DAYS}),
        "arrivals": _object(Arrivals, {"kinds": _object(Kinds)}),
        "policies": {"type": "array", "minItems": 1, "items": _policy()},
        "limits": _object(Limits),
    }
    swept = {"type": "object", "additionalProperties": {"type": "array"}}
    told = {"description": "values of keys: one run for every combination"}
    known = {**{key: parts[key] for key in KEYS}, "sweep": {**swept, **told}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A scenario of fedunlearn",
        **_closed(known, [key for key in REQUIRED if key != "requests"]),
        "anyOf": [
            {"required": ["requests"], "properties": {"requests": {"minItems": 1}}},
            {"required": ["arrivals"]},
        ],
    }


def _request() -> Schema:
    patients = {"anyOf": [_TEXTS, _object(Pick), {"type": "null"}]}
    return _object(Request, {"patients": patients})


def _strategy() -> Schema:
    """One of those that are known, or one of a file of the user's."""
    beside: Schema = {
        "as": {
            "type": "string",
            "description": "its name in reports, so that one method can be listed twice",
        },
        "requests": {"anyOf": [_TEXTS, {"type": "null"}], "description": "serve these requests only"},
        "tuned": {"anyOf": [_object(Tuned), {"type": "null"}]},
        "sha256": {"type": ["string", "null"]},
    }
    own = {"file": {"type": "string", "description": "a Python file with a strategy"}}
    guest = {
        "type": "object",
        "properties": {"name": {"type": "string"}, **beside, **own},
        "required": ["name", "file"],
    }
    known = guests.Offers(strategies.catalogue(), guests.installed())
    return {"oneOf": [*_one_of(known, beside)["oneOf"], guest]}


def _policy() -> Schema:
    label = {"type": "string", "description": "its name in reports; made of its settings by default"}
    found = list[Schema]()
    for name, cls in POLICIES.items():
        known = {"name": {"const": name, "description": _summary(cls)}, "as": label}
        days = {"every": _DAYS} if any(field.name == "every" for field in written(cls)) else {}
        one = _object(cls, {**known, **days})
        found.append({**one, "required": ["name", *one["required"]]})
    return {"oneOf": found}


def _one_of(
    catalogue: Mapping[str, type[Any]], beside: Mapping[str, Schema] = types.MappingProxyType({})
) -> Schema:
    """One of these dataclasses, by its ``name``."""
    found = list[Schema]()
    for name, cls in catalogue.items():
        one = _object(cls, {"name": {"const": name, "description": _summary(cls)}, **beside})
        found.append({**one, "required": ["name", *(key for key in one["required"] if key != "name")]})
    return {"oneOf": found}


def _object(cls: type[Any], parts: Mapping[str, Schema] = types.MappingProxyType({})) -> Schema:
    """A dataclass as a mapping with its fields as keys; ``parts`` are keys that are told elsewhere."""
    hints, told = typing.get_type_hints(cls, include_extras=True), _attributes(cls)
    properties, required = dict[str, Schema](), list[str]()
    for field in written(cls):
        key = key_of(field)
        one = parts[key] if key in parts else _type(hints[field.name])
        if field.name in told and "description" not in one:
            one = {**one, "description": told[field.name]}
        if field.default is not dataclasses.MISSING and isinstance(field.default, int | float | str | None):
            one = {**one, "default": field.default}
        properties[key] = one
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(key)
    properties |= {key: value for key, value in parts.items() if key not in properties}
    return {**_closed(properties, required), "description": _summary(cls)}


def _type(hint: Any) -> Schema:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return {**_object(hint), "required": []}
    return type_schema(hint)


def _closed(properties: Mapping[str, Schema], required: Iterable[str]) -> Schema:
    """A mapping with these keys and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [*required],
        "additionalProperties": False,
    }


def _summary(cls: type[Any]) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _attributes(cls: type[Any]) -> dict[str, str]:
    """What a docstring says of each attribute, in one line."""
    _, _, section = (inspect.getdoc(cls) or "").partition("\nAttributes:\n")
    told = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in told}
