"""Asks that wait for a worker, in bundles: small tasks travel together, for a message costs more than they do.

A bundle is asks that follow one another, of one kind and about one model. How long tasks of a kind take is known from
those before; until then, and where one alone takes `WORK`, each travels alone. So do those of a bundle that was lost:
whichever of them it is that ends workers, it is one hospital's failure, not that of all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fedunlearn.core import Task, Weights
from fedunlearn.federation.engines import Answer, Ask
from fedunlearn.weights import nbytes

WORK = 0.1
"""Seconds that a bundle should take. Whoever works on one stops after ten times as long (`LONGEST`)."""
LONGEST = 10 * WORK
"""Seconds after which no other task of a bundle is begun: the rest of it travels again."""
_MOST = 64  # asks of a bundle
_BYTES = 8 << 20  # of a bundle's replies, if each is as large as what was sent
_SLOWLY = 0.1  # what the newest answer counts for how long tasks of its kind take


@dataclass(eq=False)
class Bundles:
    """Asks in the order in which they came, and how long tasks take.

    Attributes:
        share: in how many bundles all that waits is cut at the least, so that nobody idles at the end of a round.
    """

    share: int = 1
    _waiting: deque[Ask] = field(default_factory=deque)
    _alone: deque[Ask] = field(default_factory=deque)
    _seconds: dict[type[Task], float] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many asks wait."""
        return len(self._waiting) + len(self._alone)

    def add(self, asks: Iterable[Ask]) -> None:
        """Asks that come after all others."""
        self._waiting.extend(asks)

    def again(self, asks: Sequence[Ask], alone: bool) -> None:
        """Asks that come before all others, since they were sent in vain; ``alone``, each in a bundle of its own."""
        (self._alone if alone else self._waiting).extendleft(reversed(asks))

    def take(self) -> tuple[Ask, ...]:
        """The next bundle.

        Raises:
            IndexError: none waits.
        """
        if self._alone:
            return (self._alone.popleft(),)
        most = min(_MOST, -(-len(self._waiting) // self.share))
        bundle = [self._waiting.popleft()]
        sent = _sent(first := bundle[0].task)
        each, size = self._seconds.get(type(first), WORK), nbytes(sent or {})
        most = min(most, int(WORK / max(each, WORK / _MOST)), _BYTES // max(size, 1))
        while self._waiting and len(bundle) < most and _alike(self._waiting[0].task, first):
            bundle.append(self._waiting.popleft())
        return tuple(bundle)

    def took(self, ask: Ask, answer: Answer) -> None:
        """Learn from an answer how long such tasks take."""
        kind = type(ask.task)
        known = self._seconds.get(kind, answer.seconds)
        self._seconds[kind] = known + _SLOWLY * (answer.seconds - known)


def _alike(task: Task, other: Task) -> bool:
    """Whether two tasks are of one kind and about one model."""
    return type(task) is type(other) and _sent(task) is _sent(other)


def _sent(task: Task) -> Weights | None:
    """The model that a task sends, if it is a task that does."""
    return getattr(task, "weights", None)
