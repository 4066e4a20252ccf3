"""Showing how far something is that takes long, without knowing who looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Watch(Protocol):
    """Goes through items one by one, and may show how far it is."""

    def __call__(self, items: Sequence[T], doing: str) -> Iterable[T]:
        """``items`` in their order; ``doing`` says what is done with them."""
        ...


def unwatched(items: Sequence[T], doing: str) -> Iterable[T]:
    """The items; nothing is shown."""
    return items
