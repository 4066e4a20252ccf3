"""Scores: from a run folder alone to `scores.parquet` and `verdicts.parquet` (`fedunlearn.scoring.score`).

Nothing here knows a strategy, a hospital or a network: a measure is a pure function of `Evidence`, which holds what
models answered, what they cost, and who the images are of. One file per family of measures; `measures.catalogue` lists
them. The package itself loads none of it: whoever reads a scenario wants its margins, and nothing else.
"""
