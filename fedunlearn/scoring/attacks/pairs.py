"""The share of pairs in which the left image scores higher than the right one, and its bootstrap by patient.

The area under a ROC curve is such a share (Hanley and McNeil, Radiology 1982: the Wilcoxon statistic). Compared within
strata only, it is the share of comparable pairs. Summed by patient, wins and counts are matrices W and C, patients of
the left by patients of the right, so a replicate with patient weights u and v costs ``u'Wv / u'Cv``.

What is compared with what depends on the images alone (`pair_up`), and so it is worked out once for all models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedunlearn.scoring.evidence import Bools, Floats, Frame, Ints
from fedunlearn.scoring.evidence.bootstrap import macro, resampled, several


@dataclass(frozen=True, eq=False)
class Pairs:
    """What is compared with what.

    Attributes:
        left, right: image rows with a partner, in order of their units.
        left_strata, right_strata: (n,) their strata.
        left_units, right_units: (n,) their units, counted from the first one.
        left_draws, right_draws: (RESAMPLES, P) and (RESAMPLES, Q), how often each unit is drawn.
        count: the number of pairs.
        drawn: (RESAMPLES,) the number of pairs among the units drawn.
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
    count: float
    drawn: Floats
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
    counts = _tally(one_units, strata[one], shared) @ _tally(other_units, strata[other], shared).T
    return Pairs(
        left=one,
        right=other,
        left_strata=strata[one],
        right_strata=strata[other],
        left_units=one_units,
        right_units=other_units,
        left_draws=one_draws,
        right_draws=other_draws,
        count=float(counts.sum()),
        drawn=weigh(one_draws, counts, other_draws),
        varies=several(one_units) and several(other_units),
    )


def share(
    pairs: Sequence[Pairs], scores: Sequence[Floats], against: Sequence[Floats] | None = None
) -> tuple[float, Floats]:
    """The share of pairs won by the left, ties as a half: its mean over ``pairs``, each with its own scores.

    Args:
        pairs: what is compared with what.
        scores: (N,) each.
        against: (N,) each, the scores of the right images where they are another model's.

    Returns:
        The value and its replicates; none of them if in all ``pairs`` a side is a single patient.
    """
    tables = [wins(p, s, a) for p, s, a in zip(pairs, scores, against or scores, strict=True)]
    value = float(macro(np.array([w.sum() for w in tables]), np.array([p.count for p in pairs])))
    if not any(p.varies for p in pairs):
        return value, np.empty(0)
    over = [weigh(p.left_draws, w, p.right_draws) for p, w in zip(pairs, tables, strict=True)]
    return value, macro(np.stack(over, axis=1), np.stack([p.drawn for p in pairs], axis=1))


def wins(pairs: Pairs, scores: Floats, against: Floats | None = None) -> Floats:
    """(P, Q) how many pairs the left wins, by unit, ties as a half; ``scores`` (N,) must be finite.

    ``against`` (N,) are the scores of the right images where they are others.

    Walking up the right images from the lowest score, ``seen`` counts how many of each unit were met. What a left
    image has won from a unit is what was met below its score in its own stratum: two rows of ``seen``.
    """
    both = np.concatenate([scores[pairs.left], (scores if against is None else against)[pairs.right]])
    distinct, ranks = np.unique(both, return_inverse=True)
    split = len(pairs.left)
    one = pairs.left_strata * len(distinct) + ranks[:split]
    other = pairs.right_strata * len(distinct) + ranks[split:]
    order = np.argsort(other, kind="stable")
    seen = np.zeros((len(order) + 1, pairs.right_draws.shape[1]))
    seen[np.arange(1, len(order) + 1), pairs.right_units[order]] = 1
    np.cumsum(seen, axis=0, out=seen)
    sorted_other = other[order]
    start = np.searchsorted(sorted_other, pairs.left_strata * len(distinct), "left")
    below = np.searchsorted(sorted_other, one, "left")
    up_to = np.searchsorted(sorted_other, one, "right")
    won = (seen[below] + seen[up_to]) / 2 - seen[start]
    table = np.zeros((pairs.left_draws.shape[1], seen.shape[1]))
    first = np.flatnonzero(np.diff(pairs.left_units, prepend=-1))
    table[pairs.left_units[first]] = np.add.reduceat(won, first, axis=0)
    return table


def weigh(left: Floats, table: Floats, right: Floats) -> Floats:
    """(B,) ``u_b' T v_b`` for the weights (B, P) and (B, Q) of B replicates."""
    weighed: Floats = np.einsum("bq,bq->b", left @ table, right)
    return weighed


def _by_unit(frame: Frame, rows: Bools) -> Ints:
    here = np.flatnonzero(rows)
    return here[np.argsort(frame.units[here], kind="stable")]


def _tally(units: Ints, strata: Ints, shared: Ints) -> Floats:
    """(units, strata) how many images there are of each."""
    tally = np.zeros((units[-1] + 1, len(shared)))
    np.add.at(tally, (units, np.searchsorted(shared, strata)), 1)
    return tally
