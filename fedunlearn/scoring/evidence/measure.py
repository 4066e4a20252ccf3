"""What a measure is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fedunlearn.scoring.evidence import Estimates, Evidence, Floats, Part

PARTS: Mapping[Part, str] = {
    "retain": "the training images that stay",
    "forget": "the training images to forget",
    "test": "every hospital's test images, a leaving hospital's too",
}
LIKE: Mapping[Part, str] = {
    "retain": "as one model trained on these images",
    "forget": "as on images it never saw: near its test value, not near 0",
    "test": "what the remaining data can teach",
}
MARGIN: Mapping[Part, float] = {"retain": 0.04, "forget": 0.05, "test": 0.04}
"""Of a share of images, the smallest difference that counts, by part."""

Values = Mapping[str, Floats]
"""Measures by name: single numbers or replicates, in arrays of one shape."""


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: as in `scores.parquet`.
        summary: what it is, in a sentence.
        unit: of its values.
        low, high: their range; None where there is no end to it.
        direction: "match": the nearer to the retrained model the better, above *and* below; else what is better.
        retrained: what the retrained model scores, in words.
        margin: the smallest difference from the retrained model that counts; None where there is no such thing.
        source: paper and formula.
        function: computes it.
        parts: the measures that it is made of, this model's or the retrained one's; they come before it.
        combine: (parts of a model, of the retrained one) -> number, where it is a distance that any two models have;
            None for all others.
    """

    name: str
    summary: str
    unit: str
    low: float | None
    high: float | None
    direction: Literal["match", "lower", "higher"]
    retrained: str
    margin: float | None
    source: str
    function: Callable[[Evidence[Any]], Estimates]
    parts: tuple[str, ...] = ()
    combine: Callable[[Values, Values], Floats] | None = None


def on(
    part: Part, measure: Callable[[Evidence[Any], Part], Estimates]
) -> Callable[[Evidence[Any]], Estimates]:
    """The measure on one part of the images, as a function of evidence."""

    def function(evidence: Evidence[Any]) -> Estimates:
        return measure(evidence, part)

    function.__name__, function.__doc__ = f"{part}_{measure.__name__}", measure.__doc__
    return function
