"""What was made last, kept while it is likely to be asked for again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")

ROOM = 1 << 27
"""Bytes of messages' arrays that are kept in case other messages have the same."""


class Recent(Generic[V]):
    """Values by key, up to a number of bytes; whatever was used last always stays.

    A key may be made of `id`s, if the value holds on to what they are of.

    Args:
        room: bytes.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()

    def get(self, key: Hashable, size: int, make: Callable[[], V]) -> V:
        """The value of ``key``, made if it is not there; it takes ``size`` bytes."""
        if key not in self._kept:
            self._kept[key] = make(), size
            while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self._room:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][0]
