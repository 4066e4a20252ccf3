"""Scores: from a run folder alone to `scores.parquet` and `verdicts.parquet`.

Nothing here knows a strategy, a hospital or a network: a measure is a pure function of `Evidence`, which holds what
models answered, what they cost, and who the images are of. One file per family of measures; `measures` lists them.
"""

from fedunlearn.scoring.measures.catalogue import MEASURES, Measure, measures_of
from fedunlearn.scoring.score import WRITTEN, score, tables

__all__ = ["MEASURES", "WRITTEN", "Measure", "measures_of", "score", "tables"]
