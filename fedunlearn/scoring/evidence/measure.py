"""What a measure is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fedunlearn.scoring.evidence import Estimates, Evidence


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
