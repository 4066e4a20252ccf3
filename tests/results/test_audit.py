"""The audit log: whatever is done to it afterwards is found."""

from __future__ import annotations

import datetime
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.core import RunError
from fedunlearn.results import audit

LINES = 12


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / audit.FILE
    for number in range(LINES):
        audit.append(
            path, "request-received", {"request": f"r-{number}", "images": {"north": number, "ü": 0.5}}
        )
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_line_holds_the_hash_of_the_line_before(log: Path) -> None:
    """By hand: the sha256 of a line's JSON with sorted keys, without white space and without its own hash."""
    previous = "0" * 64
    for number, line in enumerate(rows(log)):
        assert (line["seq"], line["previous"]) == (number, previous)
        body = {key: value for key, value in line.items() if key != "hash"}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        previous = hashlib.sha256(text.encode()).hexdigest()
        assert line["hash"] == previous
    assert audit.anchor(log) == {"lines": LINES, "head": previous}
    assert audit.verify(log, audit.anchor(log)) == LINES


def test_a_line_tells_what_happened_and_when(log: Path) -> None:
    audit.append(log, "run-finished", {})
    last = rows(log)[-1]
    assert list(last) == ["seq", "time_utc", "event", "previous", "hash"]
    assert last["event"] == "run-finished"
    since = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(last["time_utc"])
    assert since < datetime.timedelta(minutes=5)


def test_from_an_event_on_lines_can_be_left_out(log: Path) -> None:
    audit.append_all(log, [("end", {"n": 1}), ("request-received", {}), ("end", {"n": 2})])
    log.write_bytes(audit.extended_by(log, [("more", {})], without=("end", "never")))
    assert [line["event"] for line in rows(log)] == ["request-received"] * LINES + ["more"]
    assert audit.verify(log, audit.anchor(log)) == LINES + 1
    log.write_bytes(audit.extended_by(log, [("new", {})], without=("request-received",)))
    assert [(line["seq"], line["event"]) for line in rows(log)] == [(0, "new")]
    audit.verify(log, audit.anchor(log))


def test_what_was_there_stays_as_it_is(log: Path) -> None:
    before = log.read_bytes()
    one = audit.extended(log, "more", {})
    assert log.read_bytes() == before and one.startswith(before)
    audit.append(log, "more", {})
    assert log.read_bytes().startswith(before) and len(rows(log)) == LINES + 1
    assert audit.anchor(log, before) == {"lines": LINES, "head": rows(log)[LINES - 1]["hash"]}


def test_a_log_that_is_not_there_yet_has_no_lines(tmp_path: Path) -> None:
    assert audit.anchor(tmp_path / "none") == {"lines": 0, "head": audit.GENESIS}


@pytest.mark.gate
def test_any_single_bit_that_flips_is_found(log: Path) -> None:
    """A thousand of them, drawn by chance."""
    whole, anchor, rng = log.read_bytes(), audit.anchor(log), random.Random(0)
    for _ in range(1000):
        spoiled = bytearray(whole)
        bit = rng.randrange(8 * len(whole))
        spoiled[bit // 8] ^= 1 << bit % 8
        log.write_bytes(spoiled)
        with pytest.raises(RunError, match=audit.FILE):
            audit.verify(log, anchor)
    log.write_bytes(whole)
    assert audit.verify(log, anchor) == LINES


def test_a_log_cut_anywhere_is_found(log: Path) -> None:
    """At every 17th byte, and around every end of a line."""
    whole, anchor = log.read_bytes(), audit.anchor(log)
    ends = [place + more for place, byte in enumerate(whole) if byte == ord("\n") for more in (-1, 0, 1)]
    for end in {*range(0, len(whole), 17), *ends} - {len(whole)}:
        log.write_bytes(whole[:end])
        with pytest.raises(RunError, match=audit.FILE):
            audit.verify(log, anchor)
    log.unlink()
    with pytest.raises(RunError, match=rf"cannot read .*{audit.FILE}"):
        audit.verify(log, anchor)


def rewritten(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same story with all numbers and hashes made anew, as somebody would who knows how."""
    previous, found = audit.GENESIS, list[dict[str, Any]]()
    for number, line in enumerate(lines):
        new = {**line, "seq": number, "previous": previous}
        new = {**{key: value for key, value in new.items() if key != "hash"}, "hash": audit.hash_of(new)}
        found.append(new)
        previous = new["hash"]
    return found


def swapped(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


@pytest.mark.parametrize("rehashed", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        swapped,
        lambda lines: lines[::-1],
        lambda lines: lines[1:],
        lambda lines: [*lines[:4], *lines[5:]],
        lambda lines: lines[:-1],
        lambda lines: lines[:1],
        lambda lines: [],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines[:3], lines[2], *lines[3:]],
        lambda lines: [{**lines[0], "request": "another"}, *lines[1:]],
        lambda lines: [*lines[:-1], {**lines[-1], "event": "nothing"}],
        lambda lines: [*lines[:-1], {**lines[-1], "more": 1}],
        lambda lines: [*lines[:-1], {k: v for k, v in lines[-1].items() if k != "time_utc"}],
    ],
)
def test_lines_changed_moved_or_removed_are_found_even_if_all_was_hashed_anew(
    log: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], rehashed: bool
) -> None:
    anchor, lines = audit.anchor(log), change(rows(log))
    lines = rewritten(lines) if rehashed else lines
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    with pytest.raises(RunError, match=audit.FILE) as caught:
        audit.verify(log, anchor)
    if rehashed:
        assert f"expected {LINES} lines" in str(caught.value)
        audit.verify(log, audit.anchor(log))  # by itself it is a log like any other


def test_the_first_line_that_does_not_fit_is_named(log: Path) -> None:
    anchor, lines = audit.anchor(log), rows(log)
    lines[4]["request"] = "another"
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    with pytest.raises(RunError, match=rf"{audit.FILE}:5: the chain breaks here"):
        audit.verify(log, anchor)


@pytest.mark.parametrize(
    "text", ["nonsense", "[1]\n", '{"seq": 1}\n', '{"seq": 0, "hash": 1}\nnonsense\n', "7\n"]
)
def test_what_is_no_log_is_an_error_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / audit.FILE
    path.write_text(text)
    with pytest.raises(RunError, match=audit.FILE):
        audit.append(path, "run-started", {})
    with pytest.raises(RunError, match=audit.FILE):
        audit.verify(path, {"lines": 1, "head": ""})
    assert path.read_text() == text


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"seq": 0, "hash": "\xff"}\n'])
def test_what_is_no_text_is_an_error_for_all_who_read_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / audit.FILE
    path.write_bytes(content)
    for read in (audit.anchor, lambda file: audit.append(file, "x", {}), lambda file: audit.verify(file, {})):
        with pytest.raises(RunError, match=audit.FILE):
            read(path)
