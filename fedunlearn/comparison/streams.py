"""What policies came to over runs that differ in their stream of requests, and in nothing else that matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pandas import DataFrame

from fedunlearn.comparison.differences import differences, spans
from fedunlearn.comparison.runs import DATA, FACTS, MARGINS, Compared
from fedunlearn.results import years

_MUST = (DATA, "task", MARGINS)
"""Facts that must be the same, beside settings: what is judged, and by which rule. Seeds may differ."""
_MAY = ("requests.", "arrivals.seed")
"""How settings begin that may differ: they are the stream."""
_FEW = 3


@dataclass(frozen=True)
class Pool:
    """Runs of which each is another draw of the same thing.

    Attributes:
        runs: their numbers, from 1; of those with the same requests the first.
        frame: `results.years.streams` of them.
    """

    runs: tuple[int, ...]
    frame: DataFrame

    @property
    def title(self) -> str:
        """Of what, over which runs."""
        one = len(self.runs) == 1
        over = (
            f"one stream (run {self.runs[0]})"
            if one
            else f"{len(self.runs)} streams (runs {spans(self.runs)})"
        )
        return f"A year of requests, over {over}"


def pools(runs: Sequence[Compared]) -> list[Pool]:
    """All that can be put together, in the order of their first runs; one that is like no other is a pool, too."""
    found = []
    for numbers in _alike(runs):
        first = {runs[number - 1].stream: number for number in reversed(numbers)}
        own = tuple(sorted(first.values()))
        found.append(Pool(own, years.streams([runs[number - 1].policies for number in own])))
    return found


def left_out(runs: Sequence[Compared]) -> list[str]:
    """Which runs with a calendar are not in a table with others, and why, in sentences; none of fewer than two."""
    return [*_twice(runs), *_apart(runs)] if sum(len(run.policies) > 0 for run in runs) > 1 else []


def _twice(runs: Sequence[Compared]) -> Iterator[str]:
    for numbers in _alike(runs):
        for i, number in enumerate(numbers):
            first = next(one for one in numbers if runs[one - 1].stream == runs[number - 1].stream)
            if first not in numbers[i:]:
                yield f"Run {number} has the same requests as run {first}: one stream, which is counted once."


def _apart(runs: Sequence[Compared]) -> Iterator[str]:
    first, *others = _alike(runs)
    for numbers in others:
        pair = [runs[first[0] - 1], runs[numbers[0] - 1]]
        what = [one.what for one in differences(pair) if _matters(one.what)]
        more = ", …" if len(what) > _FEW else ""
        which = f"Runs {spans(numbers)} are" if len(numbers) > 1 else f"Run {numbers[0]} is"
        yield (
            f"{which} not put together with run {first[0]}: more than the stream of requests differs "
            f"({', '.join(what[:_FEW])}{more})."
        )


def _alike(runs: Sequence[Compared]) -> list[tuple[int, ...]]:
    """The numbers of runs with a calendar, those together that differ in their streams and seeds alone."""
    found = list[list[int]]()
    for number, run in enumerate(runs, 1):
        if run.policies.empty:
            continue
        for one in found:
            if not any(_matters(each.what) for each in differences([runs[one[0] - 1], run])):
                one.append(number)
                break
        else:
            found.append([number])
    return [tuple(one) for one in found]


def _matters(what: str) -> bool:
    """Whether runs that differ in it are no two draws of the same thing."""
    return what in _MUST or (what not in FACTS and not what.startswith(_MAY))
