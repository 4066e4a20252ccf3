"""What those who watch see: a picture on a terminal or in a notebook, plain lines elsewhere, events for programs."""

from __future__ import annotations

import contextlib
import importlib
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import track
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedunlearn.federation.jobs import Label, Round, Watcher
from fedunlearn.federation.pace import UNWATCHED, Pace, Standing, sentence
from fedunlearn.results import events
from fedunlearn.results.wording import line, plain
from sites.watching import Watch, unwatched

T = TypeVar("T")

_PATIENCE = 10.0
"""Seconds between two lines that tell how far reading is."""
_SILENCE = 30.0
"""Seconds without a line, or an event, after which one tells how far procedures are."""
_OFTEN = 5.0
"""Seconds between two events of progress, at least."""
_SHOWN = 3
"""Procedures at work that are named."""


@contextmanager
def progress(
    labels: Sequence[Label],
    console: Console,
    quiet: bool,
    expected: Mapping[Label, float] | None = None,
    unnamed: float = 0.0,
    after: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Sequence[Watcher]]:
    """Watchers that show how far the procedures named by ``labels`` are, and how long they still take.

    Args:
        labels: what is to come.
        console: where to show it; as events, if it is for these (`fedunlearn.results.events.console`).
        quiet: show nothing.
        expected: what procedures will take, as far as that is known (`Pace`).
        unnamed: what all else will take.
        after: seconds of what follows.
        clock: seconds.
    """
    if quiet:
        yield ()
        return
    pace = Pace(labels, clock(), expected or {}, unnamed, after)
    if (told := events.of(console)) is not None:
        with _ticking(_Teller(pace, _Events(told), clock)) as teller:
            yield (teller,)
    elif console.is_jupyter:
        with _ticking(_Teller(pace, _Cell(), clock)) as teller:
            yield (teller,)
    elif console.is_terminal:
        teller = _Teller(pace, _Nowhere(), clock)
        with Live(console=console, get_renderable=lambda: picture(teller.standing())):
            yield (teller,)
    else:
        with _ticking(_Teller(pace, _Lines(console), clock)) as teller:
            yield (teller,)


def watching(console: Console, quiet: bool = False) -> Watch:
    """What shows how far reading files is: a bar on a terminal, else a line now and then of what takes long."""
    if quiet:
        return unwatched

    def watched(items: Sequence[T], doing: str) -> Iterable[T]:
        if console.is_terminal and not console.is_jupyter:
            return track(items, doing, console=console, transient=True)
        return _told(items, doing, console)

    return watched


def warn(console: Console, text: str, request: str) -> None:
    """Tell programs at once what people read in the report."""
    if (told := events.of(console)) is not None:
        told.tell("warning", text=text, request=request)


@contextmanager
def phase(name: str, doing: str, console: Console, quiet: bool) -> Iterator[None]:
    """Say that something without procedures begins: in words to people, by its name to programs."""
    told = events.of(console)
    if not quiet:
        console.print(plain(doing)) if told is None else told.tell(
            "phase", phase=name, state="begun", procedures=0
        )
    yield
    if told is not None and not quiet:
        told.tell("phase", phase=name, state="ended", procedures=0)


def picture(standing: Standing) -> RenderableType:
    """One line per phase with the procedures at work, and how far all is; for 80 columns and more."""
    grid = Table.grid(padding=(0, 1), expand=True)
    for _ in range(3):
        grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for name, (ended, total) in standing.phases.items():
        bar = ProgressBar(total=total, completed=ended, width=16)
        grid.add_row(
            Text(line(name)), bar, Text(f"{ended}/{total}", justify="right"), _at_work(standing, name)
        )
    return Group(grid, Text(sentence(standing), no_wrap=True, overflow="ellipsis"))


def _at_work(standing: Standing, phase: str) -> Text:
    """The procedures of a phase that are under way, with the rounds they have done."""
    here = [(label, rounds) for label, rounds in standing.at_work if label.phase == phase]
    named = [f"{line(_who(label))}: {rounds}" for label, rounds in here[:_SHOWN]]
    more = len(here) - len(named)
    words = ", ".join([*named, *([f"{more} more"] if more else [])])
    return Text(f"rounds of {words}" if words else "", style="dim")


def _who(label: Label) -> str:
    own = "" if label.strategy == label.phase else label.strategy
    return own or label.request or f"seed {label.seed}"


def _told(items: Sequence[T], doing: str, console: Console) -> Iterator[T]:
    said = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - said > _PATIENCE:
            said = time.monotonic()
            console.print(plain(f"{doing}: {number:,} of {len(items):,}"))
        yield item


# ------------------------------------------------------------------------------------------ who shows it where


class _Screen(Protocol):
    def ended(self, label: Label, rounds: int, standing: Standing, now: float) -> None:
        """A procedure ended."""
        ...

    def passed(self, label: Label, standing: Standing, now: float) -> None:
        """A round of a procedure is complete."""
        ...

    def tick(self, standing: Standing, now: float) -> None:
        """Some time has passed."""
        ...


class _Teller:
    """Tells a screen of what it hears (see `Watcher`), and of time that passes. Another thread may ask as well."""

    def __init__(self, pace: Pace, screen: _Screen, clock: Callable[[], float]) -> None:
        self._pace, self._screen, self._clock = pace, screen, clock
        self._lock = threading.Lock()

    def round(self, round: Round) -> None:
        """See `Watcher`."""
        with self._lock:
            now = self._clock()
            self._pace.round(round, now)
            if round.label.phase not in UNWATCHED:
                self._screen.passed(round.label, self._pace.standing(now), now)

    def end(self, label: Label, rounds: int, server_seconds: float) -> None:
        """See `Watcher`."""
        with self._lock:
            if self._pace.end(label, rounds):
                now = self._clock()
                self._screen.ended(label, rounds, self._pace.standing(now), now)

    def tick(self) -> None:
        """Look at the clock."""
        with self._lock:
            now = self._clock()
            self._screen.tick(self._pace.standing(now), now)

    def standing(self) -> Standing:
        """How far all is."""
        with self._lock:
            return self._pace.standing(self._clock())


@contextmanager
def _ticking(teller: _Teller) -> Iterator[_Teller]:
    """Have ``teller`` look at the clock every second: a round may take minutes."""
    over = threading.Event()

    def ticks() -> None:
        with contextlib.suppress(OSError):  # nobody reads any more: the main thread will meet that itself
            while not over.wait(1.0):
                teller.tick()

    thread = threading.Thread(target=ticks, name="progress", daemon=True)
    thread.start()
    try:
        yield teller
    finally:
        over.set()
        thread.join()


class _Nowhere:
    """Of a picture that is drawn when it is asked for."""

    def ended(self, label: Label, rounds: int, standing: Standing, now: float) -> None:
        """See `_Screen`."""

    def passed(self, label: Label, standing: Standing, now: float) -> None:
        """See `_Screen`."""

    def tick(self, standing: Standing, now: float) -> None:
        """See `_Screen`."""


class _Lines:
    """One plain line for every procedure that ends, and one where that would be long in coming."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: float | None = None

    def ended(self, label: Label, rounds: int, standing: Standing, now: float) -> None:
        """See `_Screen`."""
        what = "" if label.phase == label.strategy else label.phase
        words = [what, label.strategy, f"for {label.request}" if label.request else "", f"seed {label.seed}"]
        told = line(" ".join(filter(None, words)))
        self._say(f"[{standing.done}/{standing.total}] {told}: {rounds} rounds", now, soft_wrap=False)

    def passed(self, label: Label, standing: Standing, now: float) -> None:
        """See `_Screen`."""

    def tick(self, standing: Standing, now: float) -> None:
        """See `_Screen`."""
        if self._said is None:
            self._said = now - standing.gone
        if now - self._said >= _SILENCE:
            self._say(sentence(standing), now, soft_wrap=True)

    def _say(self, text: str, now: float, soft_wrap: bool) -> None:
        self._console.print(plain(text), soft_wrap=soft_wrap)
        self._said = now


class _Cell:
    """A picture under a notebook's cell, drawn anew in its place."""

    def __init__(self) -> None:
        self._display: Any = importlib.import_module("IPython.display")  # there, if this is a notebook
        self._handle: Any = None

    def ended(self, label: Label, rounds: int, standing: Standing, now: float) -> None:
        """See `_Screen`."""
        if standing.done == standing.total:
            self.tick(standing, now)

    def passed(self, label: Label, standing: Standing, now: float) -> None:
        """See `_Screen`."""

    def tick(self, standing: Standing, now: float) -> None:
        """See `_Screen`."""
        out = io.StringIO()
        Console(file=out, width=80, force_jupyter=False, force_terminal=False).print(picture(standing))
        content = {"text/plain": out.getvalue().rstrip()}
        if self._handle is None:
            self._handle = self._display.display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class _Events:
    """One event for every procedure that ends, for phases, and now and then for progress."""

    def __init__(self, out: events.Events) -> None:
        self._events = out
        self._said: float | None = None
        self._begun = set[str]()

    def ended(self, label: Label, rounds: int, standing: Standing, now: float) -> None:
        """See `_Screen`."""
        self._begin(label.phase, standing)
        of = {"done": standing.done, "total": standing.total}
        whose = {"request": label.request, "strategy": label.strategy, "seed": label.seed}
        self._events.tell("procedure", phase=label.phase, **whose, rounds=rounds, **of)
        ended, total = standing.phases[label.phase]
        if ended == total:
            self._events.tell("phase", phase=label.phase, state="ended", procedures=total)
        if standing.done == standing.total:
            self._progress(standing, now)

    def passed(self, label: Label, standing: Standing, now: float) -> None:
        """See `_Screen`."""
        self._begin(label.phase, standing)
        if self._said is None or now - self._said >= _OFTEN:
            self._progress(standing, now)

    def tick(self, standing: Standing, now: float) -> None:
        """See `_Screen`."""
        if self._said is None:
            self._said = now
        if now - self._said >= _SILENCE:
            self._progress(standing, now)

    def _begin(self, phase: str, standing: Standing) -> None:
        if phase in standing.phases and phase not in self._begun:
            self._begun.add(phase)
            self._events.tell("phase", phase=phase, state="begun", procedures=standing.phases[phase][1])

    def _progress(self, standing: Standing, now: float) -> None:
        self._said = now
        self._events.tell(
            "progress",
            done=standing.done,
            total=standing.total,
            share=round(standing.share, 4),
            images=round(standing.images),
            images_per_second=round(standing.speed, 1),
            seconds=round(standing.gone, 1),
            seconds_left=None if standing.left is None else round(standing.left, 1),
        )
