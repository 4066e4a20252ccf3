"""The retrained-versus-retrained band: how far apart two honest retrainings lie.

A strategy's mean over K seeds is compared with the retrained models' mean over the same seeds. Had the strategy
retrained with fresh luck, the difference of these two means would have the standard error ``sd sqrt(2 / K)``, with
sd that of the retrained models; hence the band

    mean ± max(margin, t(1 - LEVEL/2, K - 1) sd sqrt(2 / K)).

The measure's margin, the largest difference that does not count, keeps a band from being narrower than what matters:
with few seeds the spread is itself a guess, and may come out near 0. With one seed there is no spread to see and no
band (NaN).

This holds for measures that judge one model. Those that measure its distance from the retrained one (`COMPOSITES`) are
0 or 1 for that model itself; their band runs from there to the worst pair of retrained models of different seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # Student's quantile; scipy.stats would take half a second to import

from fedunlearn.scoring.measures.catalogue import Measure

Band = tuple[float, float]
NONE: Band = (math.nan, math.nan)

LEVEL = 0.04
"""Of the test for a difference, two-sided."""


def band(retrained: Sequence[float], measure: Measure) -> Band:
    """The band around the retrained models' values, one per seed, within the measure's range."""
    values = np.asarray(retrained, dtype=np.float64)
    k = len(values)
    if k < 2 or measure.margin is None or not np.isfinite(values).all():
        return NONE
    error = float(stdtrit(k - 1, 1 - LEVEL / 2)) * float(values.std(ddof=1)) * math.sqrt(2 / k)
    centre, half = float(values.mean()), max(measure.margin, error)
    low = -math.inf if measure.low is None else measure.low
    high = math.inf if measure.high is None else measure.high
    return max(low, centre - half), min(high, centre + half)


def distance_band(retrained: Sequence[Mapping[str, float]], measure: Measure) -> Band:
    """From no distance to that of the worst pair; ``retrained`` holds each seed's measures by name.

    Raises:
        ValueError: the measure is no such distance (`Measure.combine`).
    """
    between = measure.combine
    if between is None:
        raise ValueError(f"{measure.name} is no distance between models")
    models = [{name: np.asarray(value) for name, value in model.items()} for model in retrained]
    try:
        apart = [float(between(one, other)) for one, other in permutations(models, 2)]
    except KeyError:  # a part of the composite is undefined on this group, and so is the composite
        return NONE
    if not apart:
        return NONE
    return (0.0, max(apart)) if measure.direction == "lower" else (min(apart), 1.0)


def bands(retrained: pd.DataFrame, measures: Mapping[str, Measure]) -> pd.DataFrame:
    """The band of every measure and group of one request.

    Args:
        retrained: rows of `scores.parquet` (measure, group, seed, value) of the retrained models.
        measures: by name.

    Returns:
        Columns measure, group, null_low, null_high.
    """
    columns = (retrained[name].tolist() for name in ("group", "measure", "seed", "value"))
    groups: dict[str, dict[str, dict[int, float]]] = {}
    for group, name, seed, value in zip(*columns, strict=True):
        groups.setdefault(group, {}).setdefault(name, {})[seed] = value
    compared = {part for one in measures.values() if one.combine is not None for part in one.parts}
    found = []
    for group, of_group in groups.items():
        parts = {name: values for name, values in of_group.items() if name in compared}
        seeds = sorted({seed for values in parts.values() for seed in values})
        models = [{name: values.get(seed, math.nan) for name, values in parts.items()} for seed in seeds]
        for name, by_seed in of_group.items():
            measure, values = measures[name], list(by_seed.values())
            apart = measure.combine is not None
            low, high = distance_band(models, measure) if apart else band(values, measure)
            found.append((name, group, low, high))
    return pd.DataFrame(found, columns=["measure", "group", "null_low", "null_high"])
