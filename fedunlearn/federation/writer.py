"""A thread that writes what is handed to it, a few items behind at most.

So what is kept of a round is on its way to the disk while hospitals are at work on the rest of it. Whoever hands over
waits while the thread is behind, and hears of what went wrong there at the next item, or at the end.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch

T = TypeVar("T")

WAITING = 4
"""So many items may wait to be written."""
_OFTEN = 0.1  # seconds after which whoever waits looks whether the thread is still there


class _Dropped(Exception):
    """Nobody wants what is written any more."""


class _Stop:
    """What comes after the last item: whether all of them are there."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole


class Writer(Generic[T]):
    """Consumes items in a thread of its own. Between `begin` and `end`, or `drop`, there is one."""

    def __init__(self) -> None:
        self._items: queue.Queue[T | _Stop] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, consume: Callable[[Iterator[T]], None]) -> None:
        """Let ``consume`` work on the items to come; one that is at work is dropped."""
        self.drop()
        items: queue.Queue[T | _Stop] = queue.Queue(WAITING)

        def work() -> None:
            torch.set_num_threads(1)
            try:
                consume(_coming(items))
            except BaseException as error:  # whatever it is: raised where the items come from
                self._error = error

        self._items = items
        self._thread = threading.Thread(target=work, name="writer", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand an item over; raises what went wrong with earlier ones."""
        self._put(item)

    def end(self) -> None:
        """There are no more: wait until all are consumed; raises what went wrong with any."""
        self._put(_Stop(whole=True))
        self._join()
        self._check()

    def drop(self) -> None:
        """Let nothing come of the items since `begin`, whatever became of them, and wait until nothing is at work."""
        if self._thread is not None:
            while self._thread.is_alive():
                try:
                    self._items.put(_Stop(whole=False), timeout=_OFTEN)
                    break
                except queue.Full:
                    continue
            self._join()
        self._error = None

    def _put(self, item: T | _Stop) -> None:
        while True:
            self._check()
            try:
                return self._items.put(item, timeout=_OFTEN)
            except queue.Full:
                continue

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _check(self) -> None:
        if self._error is not None:
            self._join()
            error, self._error = self._error, None
            raise error


def _coming(items: queue.Queue[T | _Stop]) -> Iterator[T]:
    """The items until the last."""
    while True:
        item = items.get()
        if isinstance(item, _Stop):
            if not item.whole:
                raise _Dropped
            return
        yield item
