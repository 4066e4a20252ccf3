"""The audit log: what was asked for and what was done about it, one JSON line each, chained by hashes.

Every line holds the hash of the line before, so that a line changed, removed or moved breaks the chain from there on.
A chain does not tell that its end is missing, nor that all of it was written anew: the manifest keeps how many lines
there are and the hash of the last (`anchor`). Lines speak of counts and model hashes, never of patients.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from fedunlearn import files
from fedunlearn.core import RunError

FILE = "audit.jsonl"
GENESIS = "0" * 64


def append(path: Path, event: str, details: Mapping[str, object]) -> None:
    """Add one line and force it to disk.

    Args:
        path: the log; made if absent.
        event: what happened, e.g. ``request-received``.
        details: JSON values.

    Raises:
        RunError: the log cannot be written, or what is there is not a log; it is left as it is.
    """
    files.write(path, extended(path, event, details))


def append_all(path: Path, events: Iterable[tuple[str, Mapping[str, object]]]) -> None:
    """Add several lines, all of them or none.

    Raises:
        RunError: see `append`.
    """
    files.write(path, extended_by(path, events))


def extended(path: Path, event: str, details: Mapping[str, object]) -> bytes:
    """What a log would be with one line more.

    Raises:
        RunError: what is there is not a log.
    """
    return extended_by(path, [(event, details)])


def extended_by(
    path: Path, events: Iterable[tuple[str, Mapping[str, object]]], without: Collection[str] = ()
) -> bytes:
    """The same with several lines more.

    Args:
        path: the log.
        events: the lines.
        without: events; from the first line of any of them on, what is there goes.

    Raises:
        RunError: what is there is not a log.
    """
    text = _decoded(path, path.read_bytes()) if path.exists() else ""
    known = _lines(path, text)
    stays = next((n for n, line in enumerate(known) if line.get("event") in without), len(known))
    last: Mapping[str, Any] = known[stays - 1] if stays else {"seq": -1, "hash": GENESIS}
    parts = text.splitlines(keepends=True)[:stays]
    for event, details in events:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = {"seq": last["seq"] + 1, "time_utc": now, "event": event, **details, "previous": last["hash"]}
        last = {**line, "hash": hash_of(line)}
        parts.append(f"{_text(last)}\n")
    return "".join(parts).encode()


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that is there, as they are.

    Raises:
        RunError: what is there is not a log.
    """
    return _lines(path, _decoded(path, path.read_bytes()))


def anchor(path: Path, content: bytes | None = None) -> dict[str, object]:
    """How many lines a log has, and the hash of the last one; of ``content``, if that is to be the log at ``path``.

    Raises:
        RunError: what is there is not a log.
    """
    if content is None:
        content = path.read_bytes() if path.exists() else b""
    found = _lines(path, _decoded(path, content))
    return {"lines": len(found), "head": found[-1]["hash"] if found else GENESIS}


def verify(path: Path, anchored: Mapping[str, object]) -> int:
    """Check a log against itself and against what was anchored elsewhere; return the number of its lines.

    Raises:
        RunError: a line was changed, removed, added or moved; says which is the first.
    """
    try:
        text = _decoded(path, path.read_bytes())
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    previous, found = GENESIS, _lines(path, text)
    for number, line in enumerate(found):
        if line.get("previous") != previous or line.get("seq") != number or hash_of(line) != line.get("hash"):
            raise RunError(
                f"{path}:{number + 1}: the chain breaks here: this line or the one before was changed"
            )
        previous = line["hash"]
    if "".join(f"{_text(line)}\n" for line in found) != text:
        raise RunError(f"{path} is damaged: it is not what was written there")
    if {"lines": len(found), "head": previous} != dict(anchored):
        raise RunError(
            f"{path} has {len(found)} lines and ends with {previous}; expected {anchored.get('lines')} lines and "
            f"{anchored.get('head')}: lines are missing, or it was written anew"
        )
    return len(found)


def hash_of(line: Mapping[str, object]) -> str:
    """sha256 of a line's canonical JSON, its own ``hash`` left out."""
    body = {key: value for key, value in line.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _text(line: Mapping[str, object]) -> str:
    return json.dumps(line)


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: {error}") from error


def _lines(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        found = [json.loads(line) for line in text.splitlines()]
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if not all(isinstance(line, dict) and {"seq", "hash"} <= line.keys() for line in found):
        raise RunError(f"{path} is damaged: it is no audit log")
    return found
