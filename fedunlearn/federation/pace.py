"""How far procedures are, how fast they go and how long it will still take: from work done, never from wishes.

Work is counted in passes of images through networks, as engines count them. What a procedure will take is expected
beforehand (`Pace.expected`) and corrected by what others of its kind took. Nothing here knows a clock: who asks says
what time it is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedunlearn.federation.jobs import Label, Round

ANSWERED = 0.25
"""What a pass that only answers takes, of the time of one that trains."""
MEMORY = 60.0
"""Seconds after which a round counts 1/e of a new one for the speed; more in a long run, a third of what has gone."""
_EARLY, _FEW = 0.02, 2
"""Before so much of the work, or with fewer rounds, nothing is said of the time left."""
UNWATCHED = ("evaluate", "slices")
"""Phases too short to be named; their work counts as the rest's does."""

Kind = tuple[str, str]


def kind(label: Label) -> Kind:
    """Procedures of one kind take alike: all trainings of a phase; for unlearning and probes, a strategy's."""
    return (label.phase, "" if label.phase in ("original", "retrained", "shadow") else label.strategy)


def passes(round: Round) -> float:
    """The work of a round, in passes that train."""
    count = sum(answer.images for answer in round.answers.values())
    return count * (ANSWERED if round.label.phase in UNWATCHED else 1.0)


@dataclass(frozen=True)
class Standing:
    """How far a run is at one moment.

    Attributes:
        done, total: procedures; what is not watched is not counted.
        phases: by phase, in their order, how many procedures ended, and of how many.
        at_work: procedures that have begun, the latest first, with how many rounds each has done.
        share: of the expected work, 0 to 1.
        images: passes so far.
        speed: passes a second of late; 0 before anything is known.
        gone: seconds since it began.
        left: seconds that it may still take; None before anything can be said.
    """

    done: int
    total: int
    phases: Mapping[str, tuple[int, int]]
    at_work: Sequence[tuple[Label, int]]
    share: float
    images: float
    speed: float
    gone: float
    left: float | None


@dataclass
class Pace:
    """Hears of rounds and of procedures that end, and says how far all of it is.

    Attributes:
        labels: the procedures to come; an id can come more than once (a tuner's trials).
        began: seconds on the clock of whoever asks.
        expected: passes that a procedure will take; those it does not name are expected to take what others do.
        unnamed: passes that all of what is not watched will take.
        after: seconds of what follows when all procedures ended.
    """

    labels: Sequence[Label]
    began: float
    expected: Mapping[Label, float] = field(default_factory=dict)
    unnamed: float = 0.0
    after: float = 0.0
    _open: dict[Label, int] = field(default_factory=dict)
    _total: dict[str, int] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _rounds: dict[Label, int] = field(default_factory=dict)
    _done: dict[Label, float] = field(default_factory=dict)
    _took: dict[Kind, list[float]] = field(default_factory=lambda: defaultdict(list))
    _unnamed_done: float = 0.0
    _images: float = 0.0
    _recent: float = 0.0  # passes, and the seconds that they took, of which older ones count less
    _lately: float = 0.0
    _heard: int = 0
    _first: float | None = None
    _last: float = 0.0

    def __post_init__(self) -> None:
        for label in self.labels:
            self._open[label] = self._open.get(label, 0) + 1
            self._total[label.phase] = self._total.get(label.phase, 0) + 1
        self._last = self.began

    def round(self, round: Round, now: float) -> None:
        """A round is complete."""
        work = passes(round)
        if self._first is None:  # the engine's start is no work: count from when the first hospital began
            longest = max((answer.seconds for answer in round.answers.values()), default=0.0)
            self._first = self._last = max(self.began, now - longest)
        fading = self._fading(now)
        self._recent = self._recent * fading + work
        self._lately = self._lately * fading + now - self._last
        self._last, self._images, self._heard = now, self._images + work, self._heard + 1
        if round.label in self._open:
            self._rounds[round.label] = self._rounds.get(round.label, 0) + 1
            self._done[round.label] = self._done.get(round.label, 0.0) + work
        else:
            self._unnamed_done += work

    def end(self, label: Label, rounds: int) -> bool:
        """A procedure ended; whether it is one that is counted."""
        if label not in self._open or not self._open[label]:
            return False
        self._open[label] -= 1
        self._ended[label.phase] += 1
        seen, work = self._rounds.pop(label, 0), self._done.pop(label, 0.0)
        if seen and seen == rounds:  # else a part of it was known from before
            self._took[kind(label)].append(work)
        return True

    def standing(self, now: float) -> Standing:
        """How far all of it is."""
        remaining, speed = self._remaining(), self._speed()
        whole = self._images + remaining
        share = self._images / whole if whole else float(not any(self._open.values()))
        known = speed > 0 and self._heard >= _FEW and share >= _EARLY
        left = max(remaining / speed - (now - self._last), 0.0) + self.after if known else None
        if not any(self._open.values()) and not remaining:
            left = self.after
        phases = {phase: (self._ended[phase], total) for phase, total in self._total.items()}
        return Standing(
            sum(self._ended.values()),
            len(self.labels),
            phases,
            list(reversed(self._rounds.items())),
            min(share, 1.0),
            self._images,
            speed,
            now - self.began,
            left,
        )

    # ------------------------------------------------------------------------------------------- pieces

    def _remaining(self) -> float:
        """Passes that are still to come."""
        several = {label: count for label, count in self._open.items() if count}
        named = sum(
            max(self._expected(label) * count - self._done.get(label, 0.0), 0.0)
            for label, count in several.items()
        )
        return named + max(self.unnamed - self._unnamed_done, 0.0)

    def _expected(self, label: Label) -> float:
        if took := self._took.get(kind(label)):
            return sum(took) / len(took)
        if label in self.expected:
            return self.expected[label]
        alike = [sum(t) / len(t) for (phase, _), t in self._took.items() if phase == label.phase]
        known = alike or list(self.expected.values()) or [sum(t) / len(t) for t in self._took.values()]
        return sum(known) / len(known) if known else max(self._done.values(), default=0.0)

    def _speed(self) -> float:
        """Passes a second, as it was after the last round: of all rounds, the late ones more."""
        return self._recent / self._lately if self._lately > 0 else 0.0

    def _fading(self, now: float) -> float:
        """What earlier rounds still count."""
        span = now - (self._first or 0.0)
        return math.exp(-(now - self._last) / max(MEMORY, span / 3.0))


def words(seconds: float) -> str:
    """A time in words, no more precise than it can be: 8 s, 40 s, 6 min, 2.5 h."""
    if seconds < 10:
        return f"{math.ceil(seconds)} s"
    if seconds < 90:
        return f"{math.ceil(seconds / 10) * 10} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def sentence(standing: Standing) -> str:
    """How far it is and how long still, in one line of a log file."""
    parts = [f"{standing.share:.0%}", f"{standing.done} of {standing.total} procedures"]
    if standing.speed:
        parts.append(f"{standing.speed:,.0f} images/s")
    parts.append(f"{words(standing.gone)} gone")
    parts.append("time left unknown" if standing.left is None else f"about {words(standing.left)} left")
    return ", ".join(parts)
