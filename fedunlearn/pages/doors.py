"""Three doors into a page: what a hospital and its data protection, an engineer and a researcher need first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedunlearn.pages.measured import percent, share, signed
from fedunlearn.pages.tables import names
from fedunlearn.results.kinds import spoken
from fedunlearn.results.overview import Overview, Row
from fedunlearn.results.sentences import place, sight


@dataclass(frozen=True)
class Point:
    """A question that somebody comes with.

    Attributes:
        question: as asked.
        answer: in a sentence.
        to: the part of the page that has more, an element's id; empty for none.
        link: what that link is called.
    """

    question: str
    answer: str
    to: str
    link: str


@dataclass(frozen=True)
class Door:
    """One kind of reader."""

    title: str
    points: tuple[Point, ...]


def doors(one: Overview, prefix: str, lines: int, margins: str) -> tuple[Door, ...]:
    """The doors of one request.

    Args:
        one: the request.
        prefix: of the ids of its parts.
        lines: of the audit log.
        margins: where they are from (`results.margins.origin`).
    """
    return (
        Door("Hospital and data protection", _hospital(one, prefix, lines)),
        Door("Engineer", _engineer(one, prefix)),
        Door("Researcher", _researcher(one, prefix, margins)),
    )


def _hospital(one: Overview, prefix: str, lines: int) -> tuple[Point, ...]:
    return (
        Point("For whom is it not true?", _for_whom(one), f"{prefix}-patients", "every patient"),
        Point("How sure is that?", _how_sure(one), f"{prefix}-tell", "can this run tell?"),
        Point(
            "What is not covered?",
            "One deployed model, tests that were not made, and the law.",
            f"{prefix}-unsaid",
            "what this cannot say",
        ),
        Point(
            "What is on record?",
            f"audit.jsonl: {lines} chained lines, of every request and of every model that answered it, by digest.",
            "origin",
            "digests, and how to check them",
        ),
    )


def _for_whom(one: Overview) -> str:
    if not one.tells:
        return "This run cannot tell for anybody."
    known = {row.strategy: row.known for row in one.rows if row.known}
    if not one.rows:
        return "No strategy was run."
    if not known:
        return "No patient stands out as still known to any strategy's models."
    told = [
        f"{strategy}: {names(patients, 2)}"
        for strategy, patients in sorted(known.items(), key=lambda pair: -len(pair[1]))
    ]
    others = f"{len(told) - 2} more {'strategy' if len(told) == 3 else 'strategies'}"
    return f"Still known to {'; '.join(told[:2])}{f'; and to {others}' if told[2:] else ''}."


def _how_sure(one: Overview) -> str:
    if not one.tells:
        return f"Not at all: {_first(sight(one)).removeprefix('No: ')}"
    return (
        f"{one.seeds} trainings of each strategy against {one.references} retrainings: "
        f"{percent(one.smallest)} % of the memory, if left, is seen in 8 of 10 such runs."
    )


def _engineer(one: Overview, prefix: str) -> tuple[Point, ...]:
    skipped = names([strategy for strategy, _ in one.skipped])
    return (
        Point("What does it cost?", _cost(one), f"{prefix}-cost", "rounds, bytes, seconds, storage"),
        Point("What broke, and where?", _broke(one), f"{prefix}-groups", "hospitals, classes, groups"),
        Point(
            "What was not run?",
            f"{skipped}." if skipped else "Nothing was left out for this request.",
            "failed",
            "what failed, and why",
        ),
        Point(
            "With which settings?",
            "Scenario, versions, machines, and the command to run it again.",
            "scenario",
            "settings",
        ),
    )


def _cost(one: Overview) -> str:
    rows = sorted((row for row in one.rows if not math.isnan(row.cost)), key=lambda row: row.cost)
    if not rows:
        return "Nothing was run."
    first, last = rows[0], rows[-1]
    if percent(first.cost) == percent(last.cost):
        who = first.strategy if len(rows) == 1 else f"Each of {len(rows)} strategies"
        return f"{who}: {percent(first.cost)} % of retraining's work at the hospitals."
    return (
        f"From {percent(first.cost)} % ({first.strategy}) to {percent(last.cost)} % ({last.strategy}) of retraining's "
        "work at the hospitals."
    )


def _broke(one: Overview) -> str:
    part = spoken(one.kind)[1]
    worse = [row for row in one.rows if row.useful == "worse"]
    if not worse:
        return f"No strategy is surely worse overall, at a hospital or for a {part}."
    told = [_broken(row) for row in worse[:3]]
    return f"Worse: {'; '.join([*told, *([f'{len(worse) - 3} more'] if worse[3:] else [])])}."


def _broken(row: Row) -> str:
    """A strategy, and where it is surely worse: the first reason, not where most is lost, which may be luck."""
    if not row.uses:
        return row.strategy
    where, lost = place(row.uses[0])
    return f"{row.strategy} ({where}{'' if math.isnan(lost) else f' {signed(lost)}'})"


def _researcher(one: Overview, prefix: str, margins: str) -> tuple[Point, ...]:
    attack = (
        f"The usual attack (a threshold on the loss) has AUC {share(one.original)} on the original and "
        f"{share(one.retrained)} after retraining."
        if not math.isnan(one.original)
        else "No attack was measured."
    )
    return (
        Point("Can this run tell?", _first(sight(one)), f"{prefix}-tell", "power and margins"),
        Point("How well do attacks do?", attack, f"{prefix}-attacks", "ROC, and every attack"),
        Point("Where are margins from?", margins, "scenario", "scenario"),
        Point(
            "What is behind an answer?",
            "For every strategy, all reasons; for every measure, mean, band and interval.",
            f"{prefix}-reasons",
            "all reasons",
        ),
    )


def _first(sentences: Sequence[str]) -> str:
    """Up to the end of the first sentence, its reason left out."""
    said = sentences[0] if sentences else ""
    return f"{said.partition(': an attack')[0].rstrip('.')}."
