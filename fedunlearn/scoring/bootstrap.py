"""Means and their bootstrap by patient.

Images of one patient resemble one another, so patients are resampled, not images (evaluation.md A13; Field and Welsh,
"Bootstrapping clustered data", JRSS B 2007). Every statistic here is a ratio of sums over patients, hence a replicate
is one row of `Frame.draws` times per-patient sums: no image is touched twice.
"""

from __future__ import annotations

import numpy as np

from fedunlearn.scoring.evidence import Bools, Estimate, Estimates, Floats, Frame, Ints


def macro(over: Floats, under: Floats) -> Floats:
    """Mean of ``over / under`` along the last axis, without the terms whose ``under`` is 0; NaN if that is all."""
    present = under > 0
    ratio = np.divide(over, under, out=np.zeros_like(over), where=present)
    terms = present.sum(axis=-1)
    return np.where(terms > 0, ratio.sum(axis=-1) / np.maximum(terms, 1), np.nan)


def ratios(frame: Frame, rows: Bools, over: Floats, under: Floats) -> Estimates:
    """The macro mean over k of ``sum_i over[i, k] / sum_i under[i, k]``, by group, with its replicates.

    Args:
        frame: the images.
        rows: (N,) which images.
        over: (N, K) numerators.
        under: (N, K) denominators.
    """
    estimates = {}
    for group, members in frame.groups.items():
        here = np.flatnonzero(rows & members)
        if not here.size:
            continue
        units, draws = resampled(frame, here)
        top, bottom = _sums(units, over[here]), _sums(units, under[here])
        value = float(macro(top.sum(axis=0), bottom.sum(axis=0)))
        replicates = macro(draws @ top, draws @ bottom) if several(units) else np.empty(0)
        estimates[group] = Estimate(value, here.size, replicates)
    return estimates


def resampled(frame: Frame, rows: Ints) -> tuple[Ints, Floats]:
    """The units of ``rows``, counted from the lowest, and `Frame.draws` from the lowest to the highest (a view)."""
    units = frame.units[rows]
    first, last = units.min(), units.max()
    return units - first, frame.draws[:, first : last + 1]


def several(units: Ints) -> bool:
    """Whether there is more than one patient: of a single one, resampling can tell nothing."""
    return bool((units != units[0]).any())


def _sums(units: Ints, values: Floats) -> Floats:
    """(units, K) the sums of ``values`` (n, K) by unit."""
    sums = np.zeros((units.max() + 1, values.shape[1]))
    np.add.at(sums, units, values)
    return sums
