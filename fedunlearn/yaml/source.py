"""YAML text to a tree (`fedunlearn.yaml.tree`), refusing what a file of ours has no use for.

The tree is built straight from the parser's events: nothing is constructed, so an alias cannot multiply and a tag
cannot call anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from ruamel.yaml.reader import ReaderError

from fedunlearn.core import InputError, Problem
from fedunlearn.yaml.tree import Items, Node, Place, Scalar, Table, assigned, relocated, shown

LARGEST = 1_000_000
"""Bytes a file may have."""

DEEPEST = 20
"""Levels of lists and mappings a file may have."""


@dataclass(frozen=True)
class Kind:
    """What a file is to hold, for messages: a noun, and how it looks."""

    noun: str
    looks: str


SCENARIO = Kind("scenario", "`name: …`, `seeds: …`, …")


def load(path: Path, kind: Kind = SCENARIO) -> Node:
    """Read a YAML file.

    Args:
        path: the file.
        kind: what is expected in it.

    Raises:
        InputError: it cannot be read, is larger than `LARGEST`, is not UTF-8, or see `parse`.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError([Problem(f"cannot read it: {reason}; expected a YAML file", file)]) from error
    if len(raw) > LARGEST:
        size = f"found more than {LARGEST // 1_000_000} MB; expected a {kind.noun} of a few kB"
        raise InputError([Problem(f"{size}: keep data and lists of images in files of their own", file)])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        place = _at(before, len(before), file)
        message = f"found the byte 0x{raw[error.start]:02X}, which is not UTF-8: save the file as UTF-8"
        raise InputError([place.problem(message)]) from error
    return parse(text, file, kind)


def parse(text: str, file: str, kind: Kind = SCENARIO) -> Node:
    """Parse the one document in ``text``, which is to be of a ``kind``.

    Raises:
        InputError: a syntax error; several documents or none; an anchor, alias, merge key, tag or directive; a
            duplicate key; more than `DEEPEST` levels.
    """
    found: list[Problem] = []
    node: Node | None = None
    builder = _Builder(_events(text, file), file, kind, found)
    for event in builder.events:
        if isinstance(event, DocumentStartEvent):
            builder.refuse_document(event, first=node is None)
            node = builder.node(next(builder.events), 0)
    if node is None or (isinstance(node, Scalar) and not node.text and not node.quoted):
        found.append(Problem(f"found nothing but comments; expected a {kind.noun} ({kind.looks})", file))
    if found or node is None:
        raise InputError(found)
    return node


class _Builder:
    """Turns one stream of events into nodes; what can be told without stopping is collected in ``found``."""

    def __init__(self, events: Iterator[Any], file: str, kind: Kind, found: list[Problem]) -> None:
        self.events, self.file, self.noun, self.found = events, file, kind.noun, found

    def refuse_document(self, event: Any, first: bool) -> None:
        if not first:
            self.stop(
                event, f"found a second document (`---`); expected one {self.noun} per file: split the file"
            )
        if event.version is not None or event.tags:
            self.found.append(
                self.place(event).problem(f"found a `%` directive; a {self.noun} needs none: remove it")
            )

    def node(self, event: Any, depth: int) -> Node:
        """The node that begins with ``event``; `InputError` if building cannot go on."""
        refused = f"are not accepted in a {self.noun}"
        if isinstance(event, AliasEvent):
            self.stop(event, f"found the alias {shown('*' + event.anchor)}; aliases {refused}: write it out")
        if event.anchor is not None:
            self.stop(event, f"found the anchor {shown('&' + event.anchor)}; anchors {refused}: remove it")
        if event.tag is not None:
            tag = shown(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self.stop(event, f"found the tag {tag}; tags {refused}: remove it")
        if depth > DEEPEST:
            self.stop(
                event,
                f"found more than {DEEPEST} levels of lists and mappings; a {self.noun} needs about 5",
            )
        if isinstance(event, SequenceStartEvent):
            return self._items(event, depth)
        if isinstance(event, MappingStartEvent):
            return self._table(event, depth)
        if any("\ud800" <= character <= "\udfff" for character in event.value):
            self.stop(event, f"found half a character in {shown(event.value)}; write the character itself")
        return Scalar(self.place(event), event.value, event.style is not None)

    def _items(self, start: Any, depth: int) -> Items:
        items = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            items.append(self.node(event, depth + 1))
        return Items(self.place(start), tuple(items))

    def _table(self, start: Any, depth: int) -> Table:
        entries: dict[str, tuple[Scalar, Node]] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            key = self.node(event, depth + 1)
            if not isinstance(key, Scalar):
                self.stop(event, "found a list or mapping as a key; expected a word")
            if key.text == "<<" and not key.quoted:
                self.stop(event, "found the merge key `<<`; merge keys are not accepted: write the keys out")
            self._enter(entries, key, self.node(next(self.events), depth + 1))
        return Table(self.place(start), tuple(entries.values()))

    def _enter(self, entries: dict[str, tuple[Scalar, Node]], key: Scalar, value: Node) -> None:
        if key.text in entries:
            first = entries[key.text][0].place
            message = f"duplicate key {shown(key.text)}, first written at line {first.line}; keep one of them"
            self.found.append(key.place.problem(message))
            return
        if isinstance(value, Scalar) and not value.text and not value.quoted:
            value = replace(value, place=key.place)  # the parser puts what is not there on the next line
        entries[key.text] = key, value

    def place(self, event: Any) -> Place:
        return Place(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def stop(self, event: Any, message: str) -> NoReturn:
        raise InputError([*self.found, self.place(event).problem(message)])


def _events(text: str, file: str) -> Iterator[Any]:
    """The parser's events without the stream's own, its errors as `InputError`."""
    last = Place(file, 1, 1)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            last = Place(file, event.start_mark.line + 1, event.start_mark.column + 1)
            if not isinstance(event, (StreamStartEvent, StreamEndEvent)):
                yield event
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else last
        raise InputError([place.problem(_syntax(error))]) from error
    except ReaderError as error:
        message = f"found the control character U+{ord(text[error.position]):04X}; expected text: remove it"
        raise InputError([_at(text, error.position, file).problem(message)]) from error
    except (YAMLError, ValueError, OverflowError) as error:  # e.g. the escape "\\ud800", half a character
        message = (
            f"found something after this that is not YAML ({type(error).__name__}); look for `\\` escapes"
        )
        raise InputError([last.problem(message)]) from error


def _syntax(error: MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context).split())
    hint = ": indent with spaces, not with tabs" if "\\t" in problem else ""
    return f"not YAML: {problem}{hint}"


def _at(text: str, position: int, file: str) -> Place:
    lines = text[:position].split("\n")
    return Place(file, len(lines), len(lines[-1]) + 1)


def override(node: Node, assignment: str) -> Node:
    """``node`` with one value replaced or added by ``KEY=VALUE``.

    KEY is a dotted path with list positions from 0 (``strategies.0.rounds``), VALUE is YAML.

    Raises:
        InputError: it has no ``=``, the path leads nowhere, or VALUE is not YAML.
    """
    place = Place(f"--set {shown(assignment, quote='')}")
    key, equals, text = assignment.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise InputError([place.problem("expected KEY=VALUE, for example training.rounds=2")])
    if not text.strip():
        raise InputError([place.problem("found no value after `=`; write null for none")])
    try:
        value = parse(text, place.file)
    except InputError as error:
        raise InputError([place.problem(problem.message) for problem in error.problems]) from error
    return assigned(node, path, relocated(value, place), place)
