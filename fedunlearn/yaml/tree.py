"""A YAML document as a tree that knows its places.

Scalars keep their source text. They become values late (`plain`) and by the narrowest rules: what YAML 1.1 and YAML 1.2
readers would take for different values (012, 0x1F, yes, NO, 1_000) stays text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from fedunlearn.core import InputError, Problem


@dataclass(frozen=True)
class Place:
    """Where something was written: a file with line and column (from 1), or an override, which has neither."""

    file: str
    line: int | None = None
    column: int | None = None

    def problem(self, message: str) -> Problem:
        """``message``, at this place; characters that do not print are escaped."""
        return Problem(_printable(message), self.file, self.line, self.column)


@dataclass(frozen=True)
class Scalar:
    """One value as written; ``quoted`` if it stands in quotes or is a block, and so is text whatever it says."""

    place: Place
    text: str
    quoted: bool


@dataclass(frozen=True)
class Items:
    """A list."""

    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Table:
    """A mapping; keys are unique scalars, in the order written."""

    place: Place
    entries: tuple[tuple[Scalar, Node], ...]

    def get(self, key: str) -> Node | None:
        """The value of ``key``, or None if there is no such key."""
        return next((value for name, value in self.entries if name.text == key), None)


Node: TypeAlias = Scalar | Items | Table


def assigned(
    node: Node | None, path: Sequence[str], value: Node, place: Place, done: tuple[str, ...] = ()
) -> Node:
    """``node`` with ``value`` at ``path`` (keys, and positions from 0); keys that are missing are added.

    Args:
        node: what to change; None is an empty mapping.
        path: where.
        value: what to put there.
        place: where the assignment was written.
        done: the path so far, for messages.

    Raises:
        InputError: the path leads through a scalar or past the end of a list.
    """
    if not path:
        return value
    head, rest, where = path[0], path[1:], ".".join(done) or "the scenario"
    if node is None:
        node = Table(place, ())
    if isinstance(node, Table):
        old = node.get(head)
        new = assigned(old, rest, value, place, (*done, head))
        if old is None:
            return replace(node, entries=(*node.entries, (Scalar(place, head, quoted=False), new)))
        return replace(node, entries=tuple((k, new if k.text == head else v) for k, v in node.entries))
    if isinstance(node, Items):
        if not re.fullmatch(r"[0-9]{1,6}", head) or int(head) >= len(node.items):
            expected = f"expected a position from 0 to {len(node.items) - 1}" if node.items else "it is empty"
            raise InputError([place.problem(f"{where} is a list: found {shown(head)}; {expected}")])
        i = int(head)
        new = assigned(node.items[i], rest, value, place, (*done, head))
        return replace(node, items=(*node.items[:i], new, *node.items[i + 1 :]))
    raise InputError([place.problem(f"{where} is {described(node)}, it has no {shown(head)} in it")])


def relocated(node: Node, place: Place) -> Node:
    """``node`` with ``place`` as the place of all that is in it."""
    if isinstance(node, Scalar):
        return replace(node, place=place)
    if isinstance(node, Items):
        return Items(place, tuple(relocated(item, place) for item in node.items))
    entries = ((replace(key, place=place), relocated(value, place)) for key, value in node.entries)
    return Table(place, tuple(entries))


def as_texts(node: Node, keys: Collection[str]) -> Node:
    """``node`` with the values of ``keys`` as text, whatever else they could be: an id, a day."""
    if not isinstance(node, Table):
        return node

    def text(value: Node) -> Node:
        return replace(value, quoted=True) if isinstance(value, Scalar) and value.text else value

    entries = ((key, text(value) if key.text in keys else value) for key, value in node.entries)
    return replace(node, entries=tuple(entries))


def plain(node: Node) -> Any:
    """``node`` as None, bool, int, float, str, list and dict."""
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    if isinstance(node, Table):
        return {key.text: plain(value) for key, value in node.entries}
    text = node.text
    if node.quoted:
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,29})", text):
        return int(text)
    number = re.fullmatch(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", text)
    return float(text) if number else text


def places(node: Node, key: str = "") -> Mapping[str, Place]:
    """The place of every value in ``node`` by its dotted path; the whole is ``""``."""
    found = {key: node.place}
    prefix = f"{key}." if key else ""
    if isinstance(node, Items):
        for i, item in enumerate(node.items):
            found |= places(item, f"{prefix}{i}")
    elif isinstance(node, Table):
        for name, value in node.entries:
            found |= places(value, f"{prefix}{name.text}")
    return found


def misread(text: str) -> str | None:
    """What some YAML reader takes an unquoted ``text`` for, if not for that text."""
    low = text.lower()
    if low in ("", "~", "null"):
        return "nothing (null)"
    if low in ("y", "yes", "true", "on"):
        return "the truth value true"
    if low in ("n", "no", "false", "off"):
        return "the truth value false"
    if re.fullmatch(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ t].*)?", low):
        return "a date"
    if re.fullmatch(r"[-+]?[0-9]+(:[0-9]{1,2})+(\.[0-9]*)?", low):
        return "a number to the base 60"
    if re.fullmatch(r"[-+]?[0-9]+", low):
        digits = low.lstrip("+-").lstrip("0") or "0"
        return f"the number {'-' if low.startswith('-') else ''}{digits}"
    if re.fullmatch(r"[-+]?(0x[0-9a-f_]+|0o?[0-7_]+|0b[01_]+|[0-9][0-9_]*\.?[0-9_]*(e[-+]?[0-9]+)?)", low):
        return "a number"
    return "a number" if re.fullmatch(r"[-+]?(\.[0-9][0-9_]*(e[-+]?[0-9]+)?|\.inf|\.nan)", low) else None


def described(node: Node) -> str:
    """What ``node`` is, for a message after "found"."""
    if isinstance(node, Items):
        return "a list" if node.items else "an empty list"
    if isinstance(node, Table):
        return "a mapping"
    if node.quoted:
        return f"{shown(node.text, quote=chr(34))} in quotes"
    return shown(node.text) if node.text else "nothing"


def shown(text: str, quote: str = "'") -> str:
    """``text`` cut to one short line that is safe to print."""
    safe = _printable(text[:61])
    return f"{quote}{safe[:60]}{'…' if len(safe) > 60 else ''}{quote}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
