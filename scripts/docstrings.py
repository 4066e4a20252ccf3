"""Docstrings and types of dataclasses as Markdown, for the reference of the documentation."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fedunlearn.scenario.schema import LARGEST_SEED
from fedunlearn.scenario.typed import key_of

_NO_DEFAULT = (dataclasses.MISSING, inspect.Parameter.empty)


@dataclasses.dataclass(frozen=True)
class Told:
    """A docstring's parts: the first line, the paragraphs after it, sections by title, attributes by name."""

    summary: str
    body: str
    sections: Mapping[str, str]
    attributes: Mapping[str, str]


def told(thing: object) -> Told:
    """The parts of something's docstring, as Markdown."""
    text = re.sub(r"``([^`]+)``", r"`\1`", inspect.getdoc(thing) or "")
    head, *rest = re.split(r"^(Attributes|Reference|Deviations|Args|Raises|Returns):\n", text, flags=re.M)
    found = dict(zip(rest[::2], map(textwrap.dedent, rest[1::2]), strict=True))
    summary, _, body = head.strip().partition("\n")
    attributes = {}
    for one in re.split(r"\n(?=\S)", found.pop("Attributes", "")):
        names, _, text = one.partition(":")
        for name in filter(None, map(str.strip, names.split(","))):
            attributes[name] = flat(text)
    sections = {title: flat(text) for title, text in found.items() if title in ("Reference", "Deviations")}
    return Told(flat(summary), re.sub(r"::$", ":", body.strip(), flags=re.M), sections, attributes)


def flat(text: str) -> str:
    """A text in one line, without the modules that it points to."""
    return re.sub(r" \(`(core|fedunlearn|sites)\.[\w.]+`\)", "", " ".join(text.split()))


def kind(hint: Any) -> str:
    """A type in words, with its range."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated and "days" in args:
        return "days, as `7d`"
    if origin is Annotated:
        bounds = [
            f"{word} {getattr(mark, name):g}"
            for mark in args[1:]
            for name, word in (
                ("gt", "more than"),
                ("ge", "at least"),
                ("lt", "less than"),
                ("le", "at most"),
            )
            if getattr(mark, name, None) not in (None, LARGEST_SEED)
        ]
        return ", ".join([kind(args[0]), *bounds])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(kind(one) for one in args if one is not type(None))
    if origin is tuple:
        many = f" of {len(args)}" if Ellipsis not in args else ""
        return f"list{many}, each {kind(args[0])}"
    if origin is not None:
        return "mapping"
    plain = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
        date: "a day",
    }
    name = getattr(hint, "__name__", str(hint))
    return plain.get(hint, f"[{name}](#{name.lower()})" if name in ("Recovery", "Pick", "Kinds") else name)


def value(default: Any) -> str:
    """A default as a scenario writes it."""
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        fields = ((f.name, getattr(default, f.name)) for f in dataclasses.fields(default))
        inside = ", ".join(f"{name}: {value(one).strip('`')}" for name, one in fields if one is not None)
        return f"`{{{inside}}}`"
    if default is None or default == () or (isinstance(default, Mapping) and not default):
        return "–"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, (tuple, list)):
        return f"`[{', '.join(value(one).strip('`') for one in default)}]`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    yield "\n".join(f"| {' | '.join(one.replace('|', chr(92) + '|') for one in row)} |" for row in lines)


def listed(heading: str, sentences: Mapping[str, str]) -> Iterator[str]:
    """A table of names, each with its sentence."""
    yield from table((heading, "what"), [(f"`{name}`", text) for name, text in sentences.items()])


def keys(
    cls: type[Any], sentences: Mapping[str, str] | None = None, without: Iterable[str] = ("name",)
) -> Iterator[str]:
    """A dataclass's fields as keys: type, default, sentence.

    Raises:
        ValueError: a field has no sentence.
    """
    sentences = {**told(cls).attributes, **(sentences or {})}
    hints, rows = typing.get_type_hints(cls, include_extras=True), []
    for field in dataclasses.fields(cls):
        if field.name in without or not key_of(field):
            continue
        if not sentences.get(field.name):
            raise ValueError(f"{cls.__name__}.{field.name} has no sentence: write one under Attributes")
        default = field.default if field.default_factory in _NO_DEFAULT else field.default_factory()  # type: ignore[operator]
        what = kind(hints[field.name])
        shown = "*needed*" if default in _NO_DEFAULT else value(default)
        if what.startswith("days") and isinstance(default, int):
            shown = value(f"{default}d")
        rows.append((f"`{key_of(field)}`", what, shown, sentences[field.name]))
    if rows:
        yield from table(("key", "type", "default", "what"), rows)


def named(classes: Mapping[str, type[Any]], level: str) -> Iterator[str]:
    """A section for each class of a catalogue."""
    for name, cls in classes.items():
        about = told(cls)
        yield f"{level} {name}"
        yield "\n\n".join(filter(None, (about.summary, about.body)))
        yield from keys(cls)
        yield from (f"*{title}:* {text}" for title, text in about.sections.items())
