"""What a request came to in plain words: for the first screen, for those who decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from fedunlearn.pages.measured import percent
from fedunlearn.pages.tables import TONES, names
from fedunlearn.results.floors import dominated
from fedunlearn.results.kinds import noun, words
from fedunlearn.results.overview import Overview, Row
from fedunlearn.results.sentences import best

HEADINGS: Mapping[str, str] = {
    "yes": "Forgotten, as far as these tests see",
    "yes, but": "Forgotten by the main test; other evidence is against it",
    "cannot tell": "This run cannot tell",
    "partly": "Only partly forgotten",
    "no": "Not forgotten",
    "too much": "Overdone: known less than by a model that never saw them",
}
"""By answer, what is said of the strategies that got it."""
_USE = {
    "yes": "still good",
    "worse": "worse on unseen {what}s",
    "cannot tell": "cannot tell whether still good",
}
"""By kind of task, what memory left is read from."""
MOST = 6
"""Strategies of one answer that the first screen names; the rest is counted."""


@dataclass(frozen=True)
class Told:
    """Strategies of which the same is said, in a line.

    Attributes:
        strategies: their labels, and their shares of retraining's cost in words.
        words: of what is left, of whom, and how good the model is.
    """

    strategies: tuple[tuple[str, str], ...]
    words: str


@dataclass(frozen=True)
class Group:
    """The strategies with the same answer to "forgotten?".

    Attributes:
        answer: the answer.
        tone: how it is set off.
        heading: what it means.
        told: some of them.
        more: how many others there are.
    """

    answer: str
    tone: str
    heading: str
    told: tuple[Told, ...]
    more: int


def verdict_of_run(sentence: str) -> tuple[str, str]:
    """The first sentence of `sentences.sight`, its "Yes", "Yes, coarsely" or "No" apart from the rest."""
    for end in (". ", ": "):
        first, found, rest = sentence.partition(end)
        if found and first in ("Yes", "Yes, coarsely", "No"):
            return first, f"{rest[:1].upper()}{rest[1:]}"
    return "", sentence


def lead(one: Overview) -> tuple[str, str]:
    """The answer in a few words, and in a sentence what it rests on."""
    if not one.tells:
        return "No answer.", "This run cannot tell forgetting from doing nothing, so none is given."
    if not one.rows:
        return "No strategy was run for this request.", ""
    (found,) = best(one)
    if not found.startswith("Best: "):
        first, end, rest = found.partition(": ")
        return (f"{first}.", f"{rest[:1].upper()}{rest[1:]}") if end else (found, "")
    row = next(row for row in one.rows if found.startswith(f"Best: {row.strategy}, "))
    why = found.removeprefix(f"Best: {row.strategy}, ").rpartition(", at ")[0]
    return (
        f"Best: {row.strategy}, at {percent(row.cost)} % of retraining’s cost.",
        f"{why[:1].upper()}{why[1:]}.",
    )


def short(one: Overview) -> str:
    """The same, for a list of requests."""
    return lead(one)[0] if one.tells else "This run cannot tell."


def groups(one: Overview) -> tuple[Group, ...]:
    """Strategies by their answer to "forgotten?", best first; none where the run cannot tell."""
    if not one.tells:
        return ()
    what, beaten = noun(one.kind), dominated(one.rows, one.floors)
    found = []
    for word, rows in groupby(one.rows, key=lambda row: row.forgotten):
        of = sorted(rows, key=_price)  # whoever is left out here is no cheaper
        told = _joined([(row, _words(row, what, beaten)) for row in of[:MOST]])
        found.append(Group(word, TONES.get(word, ""), HEADINGS.get(word, word), told, max(0, len(of) - MOST)))
    return tuple(found)


def _joined(told: Sequence[tuple[Row, str]]) -> tuple[Told, ...]:
    """Strategies with the same words in one line, the cheapest first."""
    by_words: dict[str, list[Row]] = {}
    for row, said in told:
        by_words.setdefault(said, []).append(row)
    return tuple(Told(tuple(map(_priced, sorted(rows, key=_price))), said) for said, rows in by_words.items())


def _price(row: Row) -> float:
    return math.inf if math.isnan(row.cost) else row.cost


def _priced(row: Row) -> tuple[str, str]:
    return row.strategy, "" if math.isnan(row.cost) else f"{percent(row.cost)} %"


def _words(row: Row, what: str, beaten: Mapping[str, str]) -> str:
    said = []
    if row.forgotten != "yes" and math.isfinite(row.left.value):
        said.append(f"{percent(row.left.value)} % of the memory left")
    if row.known:
        said.append(f"still known: {_of(row.known, row.compared)}")
    if row.overdone:
        said.append(f"overdone: {_of(row.overdone, row.compared)}")
    said.append(_USE.get(row.useful, row.useful).format(what=what))
    if row.strategy in beaten:
        said.append(f"dominated by {beaten[row.strategy]}")
    return "; ".join(said)


def _of(patients: Sequence[str], compared: int) -> str:
    if len(patients) == compared > 1:
        return f"all {compared} patients"
    return names(patients) if len(patients) <= 3 else f"{len(patients)} of {compared} patients"


def unsaid(one: Overview, probes: Sequence[str], shadows: int) -> tuple[str, ...]:
    """What this run cannot say of a request, the first that matters first."""
    what = noun(one.kind)
    said = [
        f"Anything about a single deployed model: answers are about means over {one.seeds} trainings."
        if one.seeds > 1
        else "How much is luck: there is a single training."
    ]
    if one.tells:
        said.append(
            f"Whether less than {percent(one.smallest)} % of the memory is left: that much is seen in 8 of 10 such "
            f"runs. One patient remembered whole shows in {int(10 * one.one_patient)} of 10."
            if one.smallest <= 1
            else "Whether the memory is gone: all of it can be missed in more than 2 of 10 such runs."
        )
    alone = one.patients[1] - one.patients[0]
    if alone:
        said.append(
            f"Anything about {alone} of the {one.patients[1]} patients: their hospital has no held-out {what}s to "
            "compare with."
        )
    looked = [
        *([] if "linear_probe" in probes else ["what the features inside keep"]),
        *([] if shadows else ["attacks that train shadow models"]),
        f"what answers show beside {words(one.kind).seen_by}",
    ]
    said.append(f"What was not looked at: {'; '.join(looked)}.")
    said.append("Whether a request is met in law: these are measurements, no legal advice.")
    return tuple(said)
