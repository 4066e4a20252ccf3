"""Asks that may be done several at once, while they wait for others to be done with (`fedunlearn.core.Stackable`).

Which asks come to be in one stack follows from who is faster, and changes no bit of any answer. A stack that is not
full costs as much as a full one: it is begun once there is nothing else to do and nobody may add to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from fedunlearn.core import Stackable, Task
from fedunlearn.federation.engines import Ask
from sites.hospital import Federation


def width(task: Task) -> int:
    """How many tasks like this are done at once; 1 of one that is no `Stackable`."""
    found: int = getattr(task, "stack_width", 1)
    return found


@dataclass(eq=False)
class Stacks:
    """Asks by whom they can be done with; not for several threads at once.

    Attributes:
        federation: whose hospitals are asked.
    """

    federation: Federation
    _full: deque[tuple[Ask, ...]] = field(default_factory=deque)
    _open: dict[Hashable, list[Ask]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many asks wait."""
        return sum(map(len, self._full)) + sum(map(len, self._open.values()))

    def add(self, ask: Ask) -> bool:
        """Have an ask wait for others; False if it is one that is done alone."""
        if width(ask.task) == 1:
            return False
        task: Stackable = ask.task  # type: ignore[assignment]  # it has a width
        kin = (type(task), task.training, self.federation.count(ask.site, task.select))
        waiting = self._open.setdefault(kin, [])
        waiting.append(ask)
        if len(waiting) == width(task):
            self._full.append(tuple(self._open.pop(kin)))
        return True

    def full(self) -> tuple[Ask, ...]:
        """The stack that has been full for longest; empty if none is."""
        return self._full.popleft() if self._full else ()

    def rest(self) -> tuple[Ask, ...]:
        """The asks that waited longest for others, who do not come; empty if none does."""
        return tuple(self._open.pop(next(iter(self._open)))) if self._open else ()
