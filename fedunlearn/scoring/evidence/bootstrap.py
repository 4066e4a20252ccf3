"""Means and their bootstrap by patient.

Images of one patient resemble one another, so patients are resampled, not images (evaluation.md A13; Field and Welsh,
"Bootstrapping clustered data", JRSS B 2007). Every statistic here is a ratio of sums over patients, hence a replicate
is one row of `Frame.draws` times per-patient sums: no image is touched twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from types import MappingProxyType

import numpy as np

from fedunlearn.scoring.evidence import (
    EXACT,
    Bools,
    Estimate,
    Estimates,
    Floats,
    Frame,
    Ints,
    Singles,
    basic,
    quantile,
)

_ABREAST, _PAIRWISE = 8, 128
"""Of contiguous numbers, up to 128 are added up in eight sums side by side; more, in halves (numpy's pairwise sum)."""


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


@dataclass(frozen=True, eq=False)
class Below:
    """Denominators (…, K, B) of which some are 0. Side by side, B replicates take a fraction of what `macro` takes.

    Attributes:
        divisor: the denominators, 1 instead of 0.
        absent: (…, K, B) where they were 0; None if none was.
        terms: (…, B) how many were not; NaN instead of 0.
    """

    divisor: Floats
    absent: Bools | None
    terms: Floats

    @staticmethod
    def of(under: Floats) -> Below:
        """These denominators."""
        absent = ~(under > 0)
        terms = (under.shape[-2] - absent.sum(axis=-2)).astype(np.float64)
        terms[terms == 0] = np.nan
        return Below(np.where(absent, 1.0, under), absent if absent.any() else None, terms)

    def macro(self, over: Floats | Singles) -> Floats:
        """(…, B) `macro` of numerators (…, K, B) along the last axis but one, to the last bit."""
        ratio = np.divide(over, self.divisor, dtype=np.float64)
        if self.absent is not None:
            ratio[self.absent] = 0.0
        mean: Floats = added(ratio) / self.terms
        return mean

    def single(self, over: Floats | Singles, group: int, k: int) -> Floats:
        """(B,) `macro` of one term alone, with numerators (B,), of denominators (groups, K, B)."""
        ratio: Floats = np.divide(over, self.divisor[group, k], dtype=np.float64)
        if self.absent is not None:
            ratio[self.absent[group, k]] = np.nan
        return ratio


def added(terms: Floats) -> Floats:
    """(…, B) the sum over K of ``terms`` (…, K, B), in the order in which numpy adds up K contiguous numbers."""
    rows, k = list(np.moveaxis(terms, -2, 0)), terms.shape[-2]
    if k > _PAIRWISE:
        summed: Floats = np.ascontiguousarray(np.moveaxis(terms, -2, -1)).sum(axis=-1)
        return summed
    whole = k - k % _ABREAST if k >= _ABREAST else 1
    sums = rows[: min(whole, _ABREAST)]
    for i in range(len(sums), whole):
        sums[i % _ABREAST] = sums[i % _ABREAST] + rows[i]
    while len(sums) > 1:
        sums = [one + other for one, other in zip(sums[::2], sums[1::2], strict=True)]
    return reduce(np.add, rows[whole:], sums[0])


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
    chosen, whole = rows.tobytes(), not (over != np.rint(over)).any()
    groups, drawn = frame.within(rows), _resampled_groups(frame, chosen, everywhere)
    below, sums = _below(frame, chosen, under.tobytes(), under.shape, everywhere)
    replicates = dict[str, Floats]()
    if drawn:
        top = _draw(frame, chosen, everywhere, over, whole)
        replicates = dict(zip(drawn, below.macro(top), strict=True))
        if "all" in drawn:
            every = drawn.index("all")
            replicates |= {group: below.single(top[every, k], every, k) for group, k in columns.items()}
    values = dict(zip(groups, macro(_sums(frame, chosen, over, whole), sums).tolist(), strict=True))
    sizes = {group: here.size for group, here in groups.items()}
    for group in groups.keys() & columns.keys():
        k = columns[group]
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
    chosen = rows.tobytes()
    groups, drawn = frame.within(rows), _resampled_groups(frame, chosen, False)
    means = {group: values[here].sum(axis=0) / here.size for group, here in groups.items()}
    found = {group: Estimate(float(np.abs(m).sum()), groups[group].size) for group, m in means.items()}
    if not drawn:
        return found
    ones = np.ones((len(values), 1))
    below, _ = _below(frame, chosen, ones.tobytes(), ones.shape, False)
    again = _draw(frame, chosen, False, values, False) / (below.divisor * below.terms[:, None])
    for group, m in zip(drawn, again, strict=True):
        value, replicates = found[group].value, added(np.abs(m))
        noise = quantile(added(np.abs(m - means[group][:, None])), 0.975)
        ends = max(0.0, value - noise), max(value, quantile(replicates, 0.975))
        found[group] = Estimate(value, groups[group].size, replicates, ends)
    return found


@lru_cache(maxsize=16)
def _resampled_groups(frame: Frame, rows: bytes, everywhere: bool) -> tuple[str, ...]:
    """The groups with replicates, which needs several patients."""
    groups = frame.within(np.frombuffer(rows, dtype=bool))
    wanted = {group: here for group, here in groups.items() if everywhere or basic(group)}
    return tuple(group for group, here in wanted.items() if several(frame.units[here]))


@lru_cache(maxsize=16)  # denominators depend on the images alone: all models of a request share them
def _below(
    frame: Frame, rows: bytes, under: bytes, shape: tuple[int, int], everywhere: bool
) -> tuple[Below, Floats]:
    """Denominators when patients are drawn anew, and (groups, K) as they are."""
    values = np.frombuffer(under, dtype=np.float64).reshape(shape)
    whole = not (values != np.rint(values)).any()
    sums = _sums(frame, rows, values, whole)
    if not _resampled_groups(frame, rows, everywhere):
        return Below.of(np.empty((0, shape[1], 0))), sums
    return Below.of(_draw(frame, rows, everywhere, values, whole).astype(np.float64)), sums


def _sums(frame: Frame, rows: bytes, values: Floats, whole: bool) -> Floats:
    """(groups, K) the sums of ``values`` (N, K) over each group's images."""
    if whole:  # in whatever order
        images, within = _within(frame, rows)
        found: Floats = within @ values[images]
        return found
    groups = frame.within(np.frombuffer(rows, dtype=bool))
    sums = [values[here].sum(axis=0) for here in groups.values()]
    return np.array(sums, dtype=np.float64).reshape(len(groups), values.shape[1])


@lru_cache(maxsize=8)
def _within(frame: Frame, rows: bytes) -> tuple[Ints, Floats]:
    """(n,) the images of ``rows``, and (groups, n) 1 where they are in a group."""
    chosen = np.frombuffer(rows, dtype=bool)
    images = np.flatnonzero(chosen)
    within = [np.isin(images, here) for here in frame.within(chosen).values()]
    return images, np.array(within, dtype=np.float64).reshape(len(within), len(images))


def _draw(frame: Frame, rows: bytes, everywhere: bool, values: Floats, whole: bool) -> Floats | Singles:
    """(groups, K, RESAMPLES) the sums of ``values`` (N, K) over the images drawn, by group: one product for all.

    ``whole`` numbers are multiplied in single precision, where that holds all sums.
    """
    images, places, first, width = _places(frame, rows, everywhere)
    groups, k = len(_resampled_groups(frame, rows, everywhere)), values.shape[1]
    columns = places if k == 1 else (places[:, None] * k + np.arange(k)).reshape(-1)
    sums = np.bincount(columns, values[images].reshape(-1), width * groups * k).reshape(width, -1)
    here = slice(first, first + width)
    if whole and np.abs(sums).max() * width < EXACT:
        return (sums.T.astype(np.float32) @ frame.drawn[here]).reshape(groups, k, -1)
    return np.ascontiguousarray((frame.draws[:, here] @ sums).T).reshape(groups, k, -1)


@lru_cache(maxsize=16)
def _places(frame: Frame, rows: bytes, everywhere: bool) -> tuple[Ints, Ints, int, int]:
    """Who adds to the sums of which unit and group.

    Returns:
        (n,) images, group by group; (n,) where each adds in a table (units, groups); its first unit, and how many.
    """
    chosen = np.frombuffer(rows, dtype=bool)
    groups, drawn = frame.within(chosen), _resampled_groups(frame, rows, everywhere)
    images = [groups[group] for group in drawn]
    of = np.repeat(np.arange(len(drawn)), [len(own) for own in images])
    every, units = np.concatenate(images), frame.units[chosen]
    first = int(units.min())
    return every, (frame.units[every] - first) * len(drawn) + of, first, int(units.max()) + 1 - first


def resampled(frame: Frame, rows: Ints) -> tuple[Ints, Floats]:
    """The units of ``rows``, counted from the lowest, and `Frame.draws` from the lowest to the highest (a view)."""
    units = frame.units[rows]
    first, last = units.min(), units.max()
    return units - first, frame.draws[:, first : last + 1]


def several(units: Ints) -> bool:
    """Whether there is more than one patient: of a single one, resampling can tell nothing."""
    return bool((units != units[0]).any())
