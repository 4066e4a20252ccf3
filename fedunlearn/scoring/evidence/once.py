"""What several threads ask for, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class Once:
    """Keeps what was worked out, for as long as it is there itself; whoever asks meanwhile waits."""

    def __init__(self) -> None:
        self._found = dict[Hashable, Any]()
        self._alone = Lock()

    def __call__(self, key: Hashable, work: Callable[[], T]) -> T:
        """What ``work`` came to when ``key`` was asked for first; ``work`` asks for nothing itself."""
        with self._alone:
            if key not in self._found:
                self._found[key] = work()
            found: T = self._found[key]
        return found
