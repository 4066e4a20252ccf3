"""Means and their bootstrap by patient.

Images of one patient resemble one another, so patients are resampled, not images (evaluation.md A13; Field and Welsh,
"Bootstrapping clustered data", JRSS B 2007). Every statistic here is a ratio of sums over patients, hence a replicate
is one row of `Frame.draws` times per-patient sums: no image is touched twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from fedunlearn.scoring.evidence import Bools, Estimate, Estimates, Floats, Frame, Ints, basic


def macro(over: Floats, under: Floats) -> Floats:
    """Mean of ``over / under`` along the last axis, without the terms whose ``under`` is 0; NaN if that is all."""
    present = under > 0
    ratio = np.divide(over, under, out=np.zeros_like(over), where=present)
    terms = present.sum(axis=-1)
    return np.where(terms > 0, ratio.sum(axis=-1) / np.maximum(terms, 1), np.nan)


def ratios(frame: Frame, rows: Bools, over: Floats, under: Floats, everywhere: bool = True) -> Estimates:
    """The macro mean over k of ``sum_i over[i, k] / sum_i under[i, k]``, by group, with its replicates.

    Args:
        frame: the images.
        rows: (N,) which images.
        over: (N, K) numerators.
        under: (N, K) denominators.
        everywhere: whether the groups of attributes get replicates, as "all" and hospitals do.
    """
    groups, drawn = frame.within(rows), _resampled_groups(frame, rows.tobytes(), everywhere)
    replicates = dict[str, Floats]()
    if drawn:
        bottom = _drawn_sums(frame, rows.tobytes(), under.tobytes(), under.shape, everywhere)
        replicates = dict(zip(drawn, macro(_draw(frame, groups, drawn, over), bottom), strict=True))
    return {
        group: Estimate(
            float(macro(over[here].sum(axis=0), under[here].sum(axis=0))),
            here.size,
            replicates.get(group, np.empty(0)),
        )
        for group, here in groups.items()
    }


@lru_cache(maxsize=16)
def _resampled_groups(frame: Frame, rows: bytes, everywhere: bool) -> tuple[str, ...]:
    """The groups with replicates, which needs several patients."""
    groups = frame.within(np.frombuffer(rows, dtype=bool))
    wanted = {group: here for group, here in groups.items() if everywhere or basic(group)}
    return tuple(group for group, here in wanted.items() if several(frame.units[here]))


@lru_cache(maxsize=16)  # denominators depend on the images alone: all models of a request share them
def _drawn_sums(frame: Frame, rows: bytes, under: bytes, shape: tuple[int, int], everywhere: bool) -> Floats:
    groups, drawn = (
        frame.within(np.frombuffer(rows, dtype=bool)),
        _resampled_groups(frame, rows, everywhere),
    )
    return _draw(frame, groups, drawn, np.frombuffer(under, dtype=np.float64).reshape(shape))


def _draw(frame: Frame, groups: Mapping[str, Ints], drawn: Sequence[str], values: Floats) -> Floats:
    """(groups, RESAMPLES, K) the sums of ``values`` (N, K) over the images drawn, by group: one product for all."""
    first, last = (int(edge(frame.units[groups["all"]])) for edge in (np.min, np.max))
    width, k = last + 1 - first, values.shape[1]
    sums = np.empty((width, len(drawn), k))
    for g, group in enumerate(drawn):
        here = groups[group]
        for column in range(k):
            sums[:, g, column] = np.bincount(frame.units[here] - first, values[here, column], width)
    product = frame.draws[:, first : last + 1] @ sums.reshape(width, -1)
    return np.moveaxis(product.reshape(-1, len(drawn), k), 1, 0)


def resampled(frame: Frame, rows: Ints) -> tuple[Ints, Floats]:
    """The units of ``rows``, counted from the lowest, and `Frame.draws` from the lowest to the highest (a view)."""
    units = frame.units[rows]
    first, last = units.min(), units.max()
    return units - first, frame.draws[:, first : last + 1]


def several(units: Ints) -> bool:
    """Whether there is more than one patient: of a single one, resampling can tell nothing."""
    return bool((units != units[0]).any())
