"""The share of pairs in which the left image scores higher than the right one, and its bootstrap by patient.

The area under a ROC curve is such a share (Hanley and McNeil, Radiology 1982: the Wilcoxon statistic). Compared within
strata only, it is the share of comparable pairs. What a left image wins is how much of the right of its stratum stands
below it, and so a replicate is a matter of sorting once and adding up in order: images weigh as often as their patients
were drawn.

What is compared with what depends on the images alone (`pair_up`), and so it is worked out once for all models. Several
groups of images are counted at once (`Contest`): what an image wins is the same in all groups that it is in.

Weights are whole numbers and wins are halves, so that every sum here is exact, in whatever order and however large the
parts in which it is taken: there is no rounding before the last division.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fedunlearn.scoring.evidence import (
    EXACT,
    Bools,
    Counts,
    Estimate,
    Estimates,
    Floats,
    Frame,
    Ints,
    Singles,
)
from fedunlearn.scoring.evidence.bootstrap import resampled, several

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

BLOCK = 256
"""Images of the left that are drawn anew at a time, at most, to bound the memory."""

SMALL = 2**16 - 1
"""The largest number in 16 bits. Of so few bits, a product takes half the time."""

Kind = type[np.uint16] | type[np.float32] | type[np.float64]
"""Of numbers."""


@dataclass(frozen=True, eq=False)
class Sparse:
    """A matrix of which few numbers are not 0.

    Attributes:
        values, columns: (k,) these numbers, and where they stand, row by row; some may be at the same place.
        edges: (rows + 1,) where each row begins.
        width: how many columns there are.
    """

    values: Ints
    columns: Ints
    edges: Ints
    width: int

    @staticmethod
    def of(values: Ints, rows: Ints, columns: Ints, shape: tuple[int, int]) -> Sparse:
        """The matrix with these values at these places."""
        if (rows[1:] < rows[:-1]).any():
            order = np.argsort(rows, kind="stable")
            values, rows, columns = values[order], rows[order], columns[order]
        return Sparse(values, columns, np.searchsorted(rows, np.arange(shape[0] + 1)), shape[1])

    def rows(self, which: slice, kind: Kind) -> csr_array:
        """Some rows, to be multiplied with numbers of a ``kind``."""
        from scipy.sparse import csr_array  # here, because importing it takes a third of a second

        edges = self.edges[which.start : which.stop + 1]
        here = slice(edges[0], edges[-1])
        content = self.values[here].astype(kind), self.columns[here], edges - edges[0]
        return csr_array(content, shape=(len(edges) - 1, self.width))

    def turned(self, kind: Kind) -> csc_array:
        """Its rows as columns, to be multiplied with numbers of a ``kind``."""
        from scipy.sparse import csc_array  # as above

        content = self.values.astype(kind), self.columns, self.edges
        return csc_array(content, shape=(self.width, len(self.edges) - 1))


@dataclass(frozen=True, eq=False)
class Pairs:
    """What is compared with what.

    Attributes:
        left, right: image rows with a partner, in order of their units.
        left_strata, right_strata: (n,) their strata.
        left_units, right_units: (n,) their units, counted from the first one.
        left_draws, right_draws: (RESAMPLES, P) and (RESAMPLES, Q), how often each unit is drawn.
        varies: whether there are several patients on both sides.
    """

    left: Ints
    right: Ints
    left_strata: Ints
    right_strata: Ints
    left_units: Ints
    right_units: Ints
    left_draws: Floats
    right_draws: Floats
    varies: bool


def pair_up(frame: Frame, left: Bools, right: Bools, strata: Ints) -> Pairs | None:
    """Every image of ``left`` with every image of ``right`` in its stratum; None if there is no pair.

    Args:
        frame: the images.
        left: (N,) which images.
        right: (N,) which images they meet.
        strata: (N,) codes of what is comparable.
    """
    shared = np.intersect1d(strata[left], strata[right])
    if not shared.size:
        return None
    comparable = np.isin(strata, shared)
    one, other = _by_unit(frame, left & comparable), _by_unit(frame, right & comparable)
    (one_units, one_draws), (other_units, other_draws) = resampled(frame, one), resampled(frame, other)
    return Pairs(
        left=one,
        right=other,
        left_strata=strata[one],
        right_strata=strata[other],
        left_units=one_units,
        right_units=other_units,
        left_draws=one_draws,
        right_draws=other_draws,
        varies=several(one_units) and several(other_units),
    )


@dataclass(frozen=True, eq=False)
class Side:
    """The images of one side of a contest, those of all groups together.

    Attributes:
        rows: (n,) image rows; an image of the right may be in several strata, each time with a score of its own.
        strata: (n,) what they are comparable with, numbered from 0.
        units: (n,) whose they are.
    """

    rows: Ints
    strata: Ints
    units: Ints


@dataclass(frozen=True, eq=False)
class Standing:
    """How the images of a contest stand by their scores.

    Attributes:
        order: (n,) the images of the left by stratum, and there by score.
        first: (n,) which of these are the first of their stratum.
        won: (n,) twice how many of the right each of these wins, ties as a half.
        gained: (n, units) twice what each wins that the one before it in its stratum does not, by unit; sparse.
    """

    order: Ints
    first: Bools
    won: Floats
    gained: Sparse


@dataclass(frozen=True, eq=False)
class Contest:
    """Pairs of several groups, counted at once: a group is some images of the left, and all that is comparable.

    Attributes:
        groups: their names.
        sizes: (groups,) how many images of the left each has.
        varies: (groups,) whether there are several patients on both sides.
        within: (groups, n) which images of the left these are.
        left, right: who meets whom.
        drawn: (units, RESAMPLES) how often each unit is drawn.
        counted: the same in 16 bits.
    """

    groups: tuple[str, ...]
    sizes: Ints
    varies: Bools
    within: Bools
    left: Side
    right: Side
    drawn: Singles
    counted: Counts

    @cached_property
    def pairs(self) -> tuple[Floats, Floats]:
        """(groups,) how many there are in each, and (groups, RESAMPLES) among the units drawn."""
        equal = standing(self, np.zeros(len(self.left.rows)), np.zeros(len(self.right.rows)))
        return 2 * self.total(equal), 2 * self._weighed(equal, np.float64)

    def total(self, of: Standing) -> Floats:
        """(groups,) how many pairs are won, ties as a half."""
        # A matrix product would hold a number for every image that is in no group.
        groups, images = np.nonzero(self.within)
        won = np.empty(len(of.order))
        won[of.order] = of.won
        return np.bincount(groups, won[images], len(self.groups)) / 2  # whole numbers, so any order of sums

    def weigh(self, of: Standing) -> Floats:
        """(groups, RESAMPLES) how many pairs are won when units are drawn anew."""
        exact = 2 * float(self.pairs[1].max(initial=0.0)) < EXACT  # no sum is above twice the pairs
        return self._weighed(of, np.float32 if exact else np.float64)

    @cached_property
    def _kinds(self) -> tuple[Kind, Kind]:
        """What holds twice what any image wins among the units drawn, and that as often as the image is drawn itself.

        An image wins no more than it meets: all of the right in its stratum.
        """
        right, strata = self.right, int(self.right.strata.max()) + 1
        ones = np.ones(len(right.rows), dtype=np.int64)
        there = Sparse.of(ones, right.strata, right.units, (strata, len(self.drawn)))
        met = float((there.rows(slice(0, strata), np.float64) @ self.drawn).max())
        return _holding(2 * met), _holding(2 * met * float(self.counted.max(initial=0)))

    def _weighed(self, of: Standing, kind: Kind) -> Floats:
        """See `weigh`; ``kind`` holds all sums."""
        each, often = self._kinds
        drawn: Counts | Singles | Floats = self.counted if each is np.uint16 else self.drawn
        if each is np.float64:
            drawn = self.drawn.astype(np.float64)
        total = np.zeros((len(self.groups), self.drawn.shape[1]))
        units, last = self.left.units[of.order], np.zeros(self.drawn.shape[1], dtype=each)
        images, groups = np.nonzero(self.within[:, of.order].T)
        for start in range(0, len(units), BLOCK):
            here = slice(start, start + BLOCK)
            won = of.gained.rows(here, each) @ drawn
            # Row by row: `cumsum` would go down the columns and take several times as long.
            for own, first in zip(won, of.first[here].tolist(), strict=True):
                if not first:
                    own += last
                last = own
            last = last.copy()
            some = slice(*np.searchsorted(images, [start, start + len(won)]))
            of_each = Sparse.of(
                np.ones(some.stop - some.start), images[some] - start, groups[some], (len(won), len(total))
            )
            won = won.astype(often, copy=False)
            won *= drawn[units[here]]
            total += of_each.turned(kind) @ won.astype(kind, copy=False)
        return total / 2


def _holding(most: float) -> Kind:
    """Numbers that hold all whole ones up to ``most``."""
    if most <= SMALL:
        return np.uint16
    return np.float32 if most < EXACT else np.float64


def contest(frame: Frame, groups: Mapping[str, Pairs]) -> Contest:
    """The pairs of several groups, to be counted at once.

    Args:
        frame: the images.
        groups: the pairs by group; strata are the same ones, and a group's right is all that is comparable with its
            left.
    """
    pairs = list(groups.values())
    left = _united([p.left for p in pairs], [p.left_strata for p in pairs])
    right = _united([p.right for p in pairs], [p.right_strata for p in pairs])
    strata = np.unique(right[1])  # nobody is on the left without a partner
    return Contest(
        groups=tuple(groups),
        sizes=np.array([len(p.left) for p in pairs]),
        varies=np.array([p.varies for p in pairs]),
        within=np.stack([np.isin(left[0], p.left) for p in pairs]),
        left=Side(left[0], np.searchsorted(strata, left[1]), frame.units[left[0]]),
        right=Side(right[0], np.searchsorted(strata, right[1]), frame.units[right[0]]),
        drawn=frame.drawn,
        counted=frame.counted,
    )


def by_stratum(frame: Frame, names: Sequence[str], left: Side, right: Side) -> Contest:
    """The pairs of every stratum as a group of its own, called as ``names`` has it; each stratum has some."""
    within = left.strata == np.arange(len(names))[:, None]
    varies = [
        all(several(side.units[side.strata == stratum]) for side in (left, right))
        for stratum in range(len(names))
    ]
    return Contest(
        tuple(names), within.sum(axis=1), np.array(varies), within, left, right, frame.drawn, frame.counted
    )


def with_themselves(frame: Frame, rows: Bools) -> Contest:
    """Every image of ``rows`` (N,), of which there are some, with all that are in the same group."""
    there = {group: rows & here for group, here in frame.groups.items() if (rows & here).any()}
    images = [np.flatnonzero(here) for here in there.values()]
    every = np.concatenate(images)
    side = Side(every, np.repeat(np.arange(len(there)), [len(own) for own in images]), frame.units[every])
    return by_stratum(frame, list(there), side, side)


def share(of: Contest, scores: Floats, against: Floats | None = None) -> Estimates:
    """By group, the share of pairs won by the left, ties as a half; no replicates if a side is a single patient.

    Args:
        of: what is compared with what.
        scores: (N,), finite.
        against: (N,) the scores of the right images where they are another model's.
    """
    found = standing(of, scores[of.left.rows], (scores if against is None else against)[of.right.rows])
    values, again = of.total(found) / of.pairs[0], np.full((len(of.groups), 0), np.nan)
    if of.varies.any():
        under = of.pairs[1]
        again = np.divide(of.weigh(found), under, out=np.full_like(under, np.nan), where=under > 0)
    return {
        group: Estimate(float(value), int(n), own if varies else np.empty(0))
        for group, n, value, own, varies in zip(of.groups, of.sizes, values, again, of.varies, strict=True)
    }


def standing(of: Contest, scores: Floats, against: Floats) -> Standing:
    """How images stand by their scores.

    The images of the right stand in order of their scores, stratum by stratum. What a left image has won stands before
    a place in its own stratum: twice what is below it, and once what is level with it.

    Args:
        of: who meets whom.
        scores: (n,) of the images of the left.
        against: (m,) of those of the right.
    """
    left, right, split = of.left, of.right, len(scores)
    distinct, ranks = np.unique(np.concatenate([scores, against]), return_inverse=True)
    one = left.strata * len(distinct) + ranks[:split]
    other = right.strata * len(distinct) + ranks[split:]
    order, columns = np.argsort(one), np.argsort(other)
    one, other = one[order], other[columns]
    strata, theirs = left.strata[order], right.strata[columns]
    below, up_to = np.searchsorted(other, one, "left"), np.searchsorted(other, one, "right")
    # Of each of the right, who is the first to win it, and who not to lose to it: all that follow do so, too.
    ends, places = np.append(strata, -1), np.arange(len(other))
    winner, equal = np.searchsorted(below, places, "right"), np.searchsorted(up_to, places, "right")
    won, tied = ends[winner] == theirs, (ends[equal] == theirs) & (equal < winner)
    values = np.concatenate([2 - (equal < winner)[won], np.ones(int(tied.sum()), dtype=np.int64)])
    rows, units = np.concatenate([winner[won], equal[tied]]), right.units[columns]
    gained = Sparse.of(values, rows, np.concatenate([units[won], units[tied]]), (split, len(of.drawn)))
    twice = (below + up_to - 2 * np.searchsorted(theirs, strata)).astype(np.float64)
    return Standing(order, np.diff(strata, prepend=-1) > 0, twice, gained)


def _united(rows: Sequence[Ints], strata: Sequence[Ints]) -> tuple[Ints, Ints]:
    """All rows, and the stratum of each."""
    every, first = np.unique(np.concatenate(rows), return_index=True)
    return every, np.concatenate(strata)[first]


def _by_unit(frame: Frame, rows: Bools) -> Ints:
    here = np.flatnonzero(rows)
    return here[np.argsort(frame.units[here], kind="stable")]
