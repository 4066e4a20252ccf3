"""What a person watching sees: bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    track,
)

from fedunlearn.federation.jobs import Label, Round, Watcher
from fedunlearn.results.wording import line, plain
from sites.watching import Watch, unwatched

T = TypeVar("T")

_PATIENCE = 10.0
"""Seconds between two lines that tell how far reading is."""
_UNSEEN = ("evaluate", "slices")
"""Phases too short to be watched."""


@contextmanager
def progress(labels: Sequence[Label], console: Console, quiet: bool) -> Iterator[Sequence[Watcher]]:
    """Watchers that show how far the procedures named by ``labels`` are."""
    if quiet:
        yield ()
    elif console.is_terminal:
        with _bars(console) as bars:
            yield (_Bars(bars, labels),)
    else:
        yield (_Lines(console, len(labels)),)


def watching(console: Console, quiet: bool = False) -> Watch:
    """What shows how far reading files is: a bar on a terminal, else a line now and then of what takes long."""
    if quiet:
        return unwatched

    def watched(items: Sequence[T], doing: str) -> Iterable[T]:
        if console.is_terminal:
            return track(items, doing, console=console, transient=True)
        return _told(items, doing, console)

    return watched


def _told(items: Sequence[T], doing: str, console: Console) -> Iterator[T]:
    said = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - said > _PATIENCE:
            said = time.monotonic()
            console.print(plain(f"{doing}: {number:,} of {len(items):,}"))
        yield item


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rounds]} rounds"),
        TimeElapsedColumn(),
        console=console,
    )


class _Bars:
    """One bar for the original model, for retraining, for shadows and per strategy: procedures done, their rounds."""

    def __init__(self, bars: Progress, labels: Sequence[Label]) -> None:
        self._bars = bars
        self._rounds: Counter[str] = Counter()
        totals = Counter(map(_bar, labels))
        names = {name: line(name) for name in totals}
        width = max(map(cell_len, names.values()), default=0)
        self._tasks: dict[str, TaskID] = {
            name: bars.add_task(names[name] + " " * (width - cell_len(names[name])), total=total, rounds=0)
            for name, total in totals.items()
        }

    def round(self, round: Round) -> None:
        """See `Watcher`."""
        if task := self._task(round.label):
            self._rounds[_bar(round.label)] += 1
            self._bars.update(task[0], rounds=self._rounds[_bar(round.label)])

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""
        if (task := self._task(label)) and label.phase != "continue":
            self._bars.advance(task[0])

    def _task(self, label: Label) -> tuple[TaskID] | None:
        """The bar of a procedure, if it has one (`_UNSEEN` have none); a tuple, since a TaskID may be 0."""
        if label.phase in _UNSEEN or _bar(label) not in self._tasks:
            return None
        return (self._tasks[_bar(label)],)


def _bar(label: Label) -> str:
    """The name of the bar that a procedure belongs to; all shadows share one."""
    return "shadows" if label.phase == "shadow" else label.strategy


class _Lines:
    """One plain line for every procedure that ends."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done = console, total, 0

    def round(self, round: Round) -> None:
        """See `Watcher`."""

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""
        if label.phase in (*_UNSEEN, "continue"):
            return
        self._done += 1
        what = "" if label.phase == label.strategy else label.phase
        words = [what, label.strategy, f"for {label.request}" if label.request else "", f"seed {label.seed}"]
        told = line(" ".join(filter(None, words)))
        self._console.print(plain(f"[{self._done}/{self._total}] {told}: {rounds} rounds"))
