"""What scoring asks of a kind of task: how its answers are read, what is measured of them, which measure is quality.

`scored` finds it by the kind's name, in the kind's own folder; here no kind is known by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any

import pandas as pd

from fedunlearn.core.kinds import brought, kinds
from fedunlearn.scoring.evidence import Bools, Floats, Frame, Ints, Part, WithLosses
from fedunlearn.scoring.evidence.measure import Measure


@dataclass(frozen=True)
class Scored:
    """One kind of task, as scoring sees it. Answers are whatever ``read`` makes of signals.

    Attributes:
        read: a file of signals (its content, the images, its name) as a model's answers.
        margin: the brief signals (`fedunlearn.learning.kinds.Learnt.brief`) of some rows of the images, as what
            ``remembered`` makes of such answers, (n,): (content, images, rows, the file's name).
        quality: the measure of how good a model is, without its part: ``accuracy`` has ``test_accuracy``.
        measures: those of every run, each after those it builds on.
        probed: those of models that were trained a little more, or of canaries: what a run has only if asked for.
        biased: the measures that are compared between groups of patients, with the part that they speak of. Not more
            than are needed: whatever is compared must be corrected for all the rest, and would be seen the less.
        said: what measures are called in sentences.
        trial: what a search's trial is judged by: each of them is what retraining makes of it, or nearer, or farther.
        confidence: of answers, (N,) in [0, 1], 1 for a perfect one: what memorisation is told by.
        value: of answers, the quality on some rows (N,), of which there are any, without an interval.
        fewest: images of a part, at least, that models are shown round by round.
        glanced: (models,) of what glances found (`fedunlearn.learning.kinds.Learnt.glance`), each (models, images, …):
            the quality that is told round by round. It stands among evidence: curves are made anew once its module, or
            what that imports, was edited.
        rounds: what that is called in ``curves.parquet``; as ``quality`` where it is the same.
        calibration: of answers, the calibration error on some rows, as ``test_calibration_error`` has it; None where
            the kind has none.
        each: of signals and the number of classes, (N,) the quality of each image, NaN where it has none; of kinds
            that are shown in slices (`fedunlearn.core.kinds.Facts`).
        remembered: of answers, (N,) what memory is judged by; the logit-scaled margin of what is right by default.
        alone: of answers to several things, (N,) the same of each that must be forgotten by itself as well, by name;
            ``said`` has words for ``memory_left_NAME``.
        divided: columns of ``sites.parquet`` whose values divide images into groups, beside hospital, sex and age.
    """

    read: Callable[[pd.DataFrame, Frame, str], WithLosses]
    margin: Callable[[pd.DataFrame, Frame, Ints, str], Floats]
    quality: str
    measures: tuple[Measure, ...]
    probed: tuple[Measure, ...]
    biased: Mapping[str, Part]
    said: Mapping[str, str]
    trial: tuple[str, ...]
    confidence: Callable[[Any], Floats]
    value: Callable[[Any, Bools], float]
    fewest: int
    glanced: Callable[[Mapping[str, Floats]], Floats]
    rounds: str = ""
    calibration: Callable[[Any, Bools], float] | None = field(default=None)
    each: Callable[[pd.DataFrame, int], Floats] | None = field(default=None)
    remembered: Callable[[Any], Floats] = attrgetter("margin")
    alone: Mapping[str, Callable[[Any], Floats]] = field(default_factory=dict)
    divided: tuple[str, ...] = ("scanner", "difficulty")

    def memories(self, answers: Any) -> dict[str, Floats]:
        """(N,) what memory is judged by: of all answers together, by no name, and of those to one thing alone."""
        return {"": self.remembered(answers), **{name: of(answers) for name, of in self.alone.items()}}

    def on(self, part: Part) -> str:
        """The measure of quality on a part of the images."""
        return f"{part}_{self.quality}"

    @property
    def tested(self) -> str:
        """The measure of quality on unseen images."""
        return self.on("test")

    @property
    def worst_site(self) -> str:
        """What the quality at the worst hospital is called."""
        return f"worst_site_{self.quality}"


def scored(kind: str) -> Scored:
    """A kind of task.

    Raises:
        KeyError: there is none of this name.
    """
    found: Scored = brought(kind, "scored", "SCORED")
    return found


@cache
def every() -> Mapping[str, Scored]:
    """All kinds, by name."""
    return {kind: scored(kind) for kind in kinds()}


def qualities(part: Part) -> tuple[str, ...]:
    """The measures of quality on a part of the images, of any kind."""
    return tuple(dict.fromkeys(kind.on(part) for kind in every().values()))


def said(measure: str) -> str:
    """What a measure is called in sentences, whatever kind it is of; its name where it has no other."""
    return next((kind.said[measure] for kind in every().values() if measure in kind.said), measure)
