"""A thread that writes: in order, not far behind, and loud about what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fedunlearn.core import RunError
from fedunlearn.federation.writer import WAITING, Writer


def test_items_are_consumed_in_order_before_the_end_returns() -> None:
    writer, seen = Writer[int](), list[int]()
    for start in (0, 100):
        writer.begin(seen.extend)
        for number in range(3 * WAITING):
            writer.put(start + number)
        writer.end()
    assert seen == [*range(3 * WAITING), *range(100, 100 + 3 * WAITING)]


def test_no_more_than_a_few_wait() -> None:
    writer, go, taken = Writer[int](), threading.Event(), list[int]()

    def slow(items: Iterator[int]) -> None:
        assert go.wait(30)
        taken.extend(items)

    writer.begin(slow)
    for number in range(WAITING):
        writer.put(number)
    behind = threading.Thread(target=writer.put, args=(WAITING,))
    behind.start()
    behind.join(0.2)
    assert behind.is_alive(), "one more than may wait"
    go.set()
    behind.join(30)
    assert not behind.is_alive()
    writer.end()
    assert taken == list(range(WAITING + 1))


@pytest.mark.parametrize("at", [0, 1, 2 * WAITING])
def test_what_goes_wrong_is_raised_where_items_come_from(at: int) -> None:
    def failing(items: Iterator[int]) -> None:
        for number in items:
            if number == at:
                raise RunError("disk full")

    def hand_over(many: int) -> None:
        writer.begin(failing)
        for number in range(many):
            writer.put(number)
        writer.end()

    writer = Writer[int]()
    for many in (at + 1, at + 2 * WAITING):
        with pytest.raises(RunError, match="disk full"):
            hand_over(many)


def test_what_is_dropped_comes_to_nothing() -> None:
    """Nor does a failure that nobody asked for any more; and nothing is at work then."""
    writer, ended = Writer[int](), list[str]()

    def watched(items: Iterator[int]) -> None:
        try:
            for number in items:
                assert number < 5, "fails"
            ended.append("whole")
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    for last in (1, 5):
        writer.begin(watched)
        for number in range(last, last + 1):
            writer.put(number)
        writer.drop()
    writer.drop()
    assert ended == ["_Dropped", "AssertionError"]
    assert not [thread for thread in threading.enumerate() if thread.name == "writer"]
