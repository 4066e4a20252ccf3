"""Means and their bootstrap by patient.

Images of one patient resemble one another, so patients are resampled, not images (evaluation.md A13; Field and Welsh,
"Bootstrapping clustered data", JRSS B 2007). Every statistic here is a ratio of sums over patients, hence a replicate
is one row of `Frame.draws` times per-patient sums: no image is touched twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from fedunlearn.scoring.evidence import Bools, Estimate, Estimates, Floats, Frame, Ints, basic


def macro(over: Floats, under: Floats) -> Floats:
    """Mean of ``over / under`` along the last axis, without the terms whose ``under`` is 0; NaN if that is all."""
    if (
        over.shape[-1] == 1
    ):  # the same, but that a sum of one number would take many times as long as its division
        return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)[..., 0]
    present = under > 0
    ratio = np.divide(over, under, out=np.zeros_like(over), where=present)
    terms = present.sum(axis=-1)
    return np.where(terms > 0, ratio.sum(axis=-1) / np.maximum(terms, 1), np.nan)


def ratios(
    frame: Frame,
    rows: Bools,
    over: Floats,
    under: Floats,
    everywhere: bool = True,
    columns: Mapping[str, int] = MappingProxyType({}),
) -> Estimates:
    """The macro mean over k of ``sum_i over[i, k] / sum_i under[i, k]``, by group, with its replicates.

    Args:
        frame: the images.
        rows: (N,) which images.
        over: (N, K) numerators.
        under: (N, K) denominators.
        everywhere: whether the groups of attributes get replicates, as "all" and hospitals do.
        columns: groups that are no group of images but a single k, of all ``rows``; those that occur (`Frame.within`).
    """
    groups, drawn = frame.within(rows), _resampled_groups(frame, rows.tobytes(), everywhere)
    replicates = dict[str, Floats]()
    if drawn:
        bottom = _drawn_sums(frame, rows.tobytes(), under.tobytes(), under.shape, everywhere)
        top = _draw(frame, groups, drawn, over)
        replicates = dict(zip(drawn, macro(top, bottom), strict=True))
        if "all" in drawn:
            every = drawn.index("all")
            alone = (
                (group, macro(top[every, :, [k]].T, bottom[every, :, [k]].T)) for group, k in columns.items()
            )
            replicates |= dict(alone)
    single = {group: columns[group] for group in groups if group in columns}
    whole = {group: here for group, here in groups.items() if group not in single}
    # All groups at once: one by one, values would take as long as replicates.
    sums = (np.stack([x[here].sum(axis=0) for here in whole.values()]) for x in (over, under))
    values = dict(zip(whole, macro(*sums).tolist(), strict=True)) if whole else {}
    sizes = {group: here.size for group, here in whole.items()}
    for group, k in single.items():
        top, bottom = (x[groups["all"], k] for x in (over, under))
        values[group] = float(macro(top.sum(keepdims=True), bottom.sum(keepdims=True)))
        sizes[group] = int((bottom > 0).sum())
    return {
        group: Estimate(values[group], sizes[group], replicates.get(group, np.empty(0)))
        for group in groups
        if sizes[group]
    }


def distances(frame: Frame, rows: Bools, values: Floats) -> Estimates:
    """``sum_k |m_k|``, m_k the mean of ``values[i, k]`` over i, by group; with intervals on "all" and hospitals.

    Noise alone makes such a sum larger than 0, and drawing patients anew adds the same again, so that replicates lie
    too high: for the upper end that is on the safe side, for the lower one it is not. The sum of the true means is at
    least the value less ``sum_k |m_k - true m_k|``, by the triangle inequality; so the lower end is the value less the
    97.5 % quantile of ``sum_k |m*_k - m_k|``, m* the means of patients drawn anew, and 0 at least.

    Args:
        frame: the images.
        rows: (N,) which images.
        values: (N, K).
    """
    groups, drawn = frame.within(rows), _resampled_groups(frame, rows.tobytes(), False)
    means = {group: values[here].sum(axis=0) / here.size for group, here in groups.items()}
    found = {group: Estimate(float(np.abs(m).sum()), groups[group].size) for group, m in means.items()}
    if not drawn:
        return found
    ones = np.ones((len(values), 1))
    images = _drawn_sums(frame, rows.tobytes(), ones.tobytes(), ones.shape, False)
    again = _draw(frame, groups, drawn, values) / np.where(images > 0, images, np.nan)
    for group, m in zip(drawn, again, strict=True):
        value, replicates = found[group].value, np.abs(m).sum(axis=1)
        noise = np.nanquantile(np.abs(m - means[group]).sum(axis=1), 0.975)
        ends = max(0.0, value - float(noise)), max(value, float(np.nanquantile(replicates, 0.975)))
        found[group] = Estimate(value, groups[group].size, replicates, ends)
    return found


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
