"""Several models at once: threads of this process, which share what all models are compared with.

Nearly all of the work is done in libraries that let other threads go on meanwhile. Results come in the order of what
was asked for, and nothing is added up across threads, so that their number changes no bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from fedunlearn import cores

S = TypeVar("S")
T = TypeVar("T")

MOST = 4
"""Models at once where nobody asks for more: each one needs memory of its own beside what all of them share."""


def usual(most: int | None = None) -> int:
    """How many models are scored at once: one for each core this process may use, but at most ``most`` and `MOST`."""
    return min(cores.usable(), MOST, most or MOST)


@dataclass(frozen=True)
class Together:
    """Who works.

    Attributes:
        workers: how many at once.
        threads: the threads; None if there is no use for any.
    """

    workers: int
    threads: Executor | None

    def each(self, work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        """What ``work`` makes of each item, in their order; items are asked for shortly before they are worked on."""
        if self.threads is None:
            yield from map(work, items)
            return
        waiting = deque[Future[T]]()
        for item in items:
            waiting.append(self.threads.submit(work, item))
            if len(waiting) > self.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def beside(self, work: Callable[[], T]) -> Callable[[], T]:
        """Begin ``work``, which is done beside what comes next; what is returned waits for what it came to."""
        if self.threads is None:
            found = work()
            return lambda: found
        return self.threads.submit(work).result


@contextmanager
def together(workers: int | None) -> Iterator[Together]:
    """So many threads, as `usual` if that is None, for as long as this lasts; what was not begun is dropped."""
    count = workers or usual()
    if count == 1:
        yield Together(1, None)
        return
    threads = ThreadPoolExecutor(count, "scoring")
    try:
        yield Together(count, threads)
    finally:
        threads.shutdown(cancel_futures=True)
