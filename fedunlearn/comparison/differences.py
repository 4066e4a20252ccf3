"""What differs between runs, and what that does to a comparison: said before any number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedunlearn.comparison.runs import DATA, FACTS, MARGINS, RETRAININGS, SEEDS, Compared

NOTHING = "-"
"""The value of what a run does not have."""


@dataclass(frozen=True)
class Difference:
    """Something in which runs differ.

    Attributes:
        what: one of `FACTS`, or a scenario's key.
        values: what it is, and the numbers (from 1) of the runs in which it is that.
    """

    what: str
    values: tuple[tuple[str, tuple[int, ...]], ...]


def differences(runs: Sequence[Compared]) -> list[Difference]:
    """Facts that differ, the gravest first, then settings; none of a single run."""
    facts = list(_differing(FACTS, [run.facts for run in runs]))
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    settings = list(_differing(list(keys), [run.settings for run in runs]))
    other = {one.what.removesuffix(_KIND) for one in settings if one.what.endswith(_KIND)}
    return facts + [
        Difference(what, one.values)
        for one in settings
        if (what := one.what.removesuffix(_KIND)) in other
        or not what.startswith(tuple(f"{p}." for p in other))
    ]


_KIND = ".name"
"""The key of what something is: where that differs, or is not there at all, its other keys do not matter."""


def consequences(runs: Sequence[Compared]) -> list[str]:
    """What the differences do to a comparison, in sentences; none of a single run."""
    if len(runs) < 2:
        return []
    found = differences(runs)
    named = {one.what for one in found}
    said = [words for what, words in _WORDS.items() if what in named]
    if not named:
        return ["Nothing that runs tell of themselves differs: they are the same run, made more than once."]
    if DATA not in named:
        said += list(_luck(runs, named))
    return said


_WORDS: Mapping[str, str] = {
    "task": "Different tasks: runs of each are in tables of their own, for their numbers have no common unit.",
    DATA: "Different data: numbers differ by it as well as by strategy. Compare strategies within a run, and over runs "
    "by their ranks.",
    MARGINS: "Different margins: the same numbers may have got different answers. `fedunlearn score RUN --margins …` "
    "judges a run anew; nothing is trained again.",
    RETRAININGS: "Different numbers of retrainings or seeds: intervals are wider, and fewer answers given, where there "
    "are fewer.",
    "fedunlearn": "Different versions of fedunlearn: a method or a measure may have changed; CHANGELOG.md says.",
    "torch": "Different versions of torch round otherwise: small differences may be no more than that.",
    "python": "Different versions of Python: results should be the same, but that is not what these runs show.",
    "processor": "Different processors round otherwise: small differences may be no more than that.",
    "device": "Different devices (processor or graphics card) round otherwise: small differences may be no more than "
    "that.",
}


def _luck(runs: Sequence[Compared], differing: set[str]) -> Iterator[str]:
    """Of runs on the same data, given in what they differ."""
    shared = any(one.trained & other.trained for i, one in enumerate(runs) for other in runs[i + 1 :])
    if differing == {SEEDS} and not shared:
        yield "Same data and settings, other seeds: what differs between runs is the luck of training."
    if shared:
        yield (
            "Same data, and seeds in common, of strategies or of retrainings: these runs share luck. That they agree "
            "is no confirmation, and tests over runs count them as more than they are."
        )


def _differing(keys: Sequence[str], each: Sequence[Mapping[str, str]]) -> Iterator[Difference]:
    for key in keys:
        where = dict[str, list[int]]()
        for number, known in enumerate(each, 1):
            where.setdefault(_compared(key, known.get(key, NOTHING)), []).append(number)
        if len(where) > 1:
            shown = ((each[numbers[0] - 1].get(key, NOTHING), tuple(numbers)) for numbers in where.values())
            yield Difference(key, tuple(shown))


def _compared(key: str, value: str) -> str:
    """Data is what its digest says, in whatever words its source tells of it."""
    digest = value.partition(" ")[0]
    return digest if key == DATA and digest else value


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers, briefly: 1, 3-5."""
    parts = list[list[int]]()
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(
        f"{part[0]}-{part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts
    )
