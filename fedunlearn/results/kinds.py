"""What tables, pages and sentences call a kind of task, and which of its measures they show.

`words` finds it by the kind's name, in the kind's own folder; here no kind is known by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from fedunlearn.core.kinds import brought, facts, kinds
from fedunlearn.scoring.kinds import scored


@dataclass(frozen=True)
class Words:
    """One kind of task, in words.

    Attributes:
        quality: what its quality is called in sentences (`fedunlearn.scoring.kinds.Scored.quality` names measures).
        brief: the same at the head of a narrow column.
        part: what one of its classes is called.
        parts: what several are called.
        heading: over its measures, where they are listed.
        many: what a collection holds, with the number of classes, or findings, as ``{classes}``.
        seen_by: what of answers the attack of a verdict looks at.
        pipeline: the task, as cards of models name it (Hugging Face's list).
        columns: the measures shown, as they are headed; `scores.parquet` has all of them.
        legend: how to read these columns, but for those of costs.
        further: those in a table of their own, as they are headed.
        attacks: those of this kind alone, as they are headed beside the others.
        further_legend: how to read that.
        signals: by column of a file of signals, what it holds, such as "of volumes: …"; ``*`` stands for numbers.
        asked: the same of signals of changed copies.
        forgotten: the axis of quality on what is to be forgotten, after a little more training.
    """

    quality: str
    brief: str
    part: str
    parts: str
    heading: str
    many: str
    seen_by: str
    pipeline: str
    columns: Mapping[str, str]
    legend: str
    further: Mapping[str, str] = field(default_factory=dict)
    further_legend: str = ""
    attacks: Mapping[str, str] = field(default_factory=dict)
    forgotten: str = ""
    signals: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)


def words(kind: str) -> Words:
    """What a kind of task is called.

    Raises:
        KeyError: there is none of this name.
    """
    found: Words = brought(kind, "words", "WORDS")
    return found


def spoken(kind: str) -> tuple[str, str, str]:
    """What is measured, of which parts, on what: accuracy, class, image."""
    one = words(kind)
    return one.quality, one.part, noun(kind)


def noun(kind: str) -> str:
    """What one of its images is called: image, volume."""
    return facts(kind).what


@cache
def quality_words() -> Mapping[str, str]:
    """What the qualities of all kinds are called, by how measures name them."""
    return {scored(kind).quality: words(kind).quality for kind in kinds()}


def forgotten() -> Mapping[str, str]:
    """By the measure of quality on what is to be forgotten, what its axis is called, of all kinds."""
    return {scored(kind).on("forget"): words(kind).forgotten for kind in kinds()}


def signals(brief: bool = False) -> dict[str, str]:
    """By column, what files of signals hold, of all kinds; ``brief``: those of changed copies."""
    found: dict[str, list[str]] = {}
    for one in map(words, kinds()):
        for column, text in (one.asked if brief else one.signals).items():
            found.setdefault(column, []).append(text)
    return {column: "; ".join(texts) for column, texts in found.items()}
