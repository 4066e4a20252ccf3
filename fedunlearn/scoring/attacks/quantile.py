"""The attack that learns how sure a model should be of an image it never saw, from images that it certainly never saw.

See `mia_quantile_auc`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedunlearn.scoring.attacks.folds import Folds, folds_of
from fedunlearn.scoring.attacks.membership import alike
from fedunlearn.scoring.evidence import Estimates, Evidence, Floats, Frame, Ints, WithLosses

FOLDS = 3
"""Parts of the cross-validation: a regression of few numbers learns as much from two thirds as from four fifths of the
patients."""

MOST_EXAMPLES = 400
"""Held-out images that a regression learns from at most: as a linear programme, its cost grows faster than they do."""

LEVEL = 0.9
"""Of the quantile. For the area .5, .9 and both (their distance as the scale) come to the same within .01."""

_LARGEST = 1e15
"""Confidences above it are left to the linear programme, which refuses them."""

_LOOKS = 100
"""At slopes, at most: about ten are needed."""


def mia_quantile_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """The area under the ROC curve of how far a model's confidence exceeds a quantile learnt from held-out images.

    Bertran et al., NeurIPS 2023 (arXiv 2307.03694): regress a quantile of the confidence on what is known of an image,
    on images that the model never saw, and accuse those whose confidence is above. The confidence is
    ``log p_y - log(1 - p_y)``; the score is its distance from the quantile `LEVEL`, the threshold that accuses one
    non-member in ten, moved up and down for the ROC curve.

    Deviations: scoring has no pixels, so that what is known of an image is the mean confidence of the retrained models
    of other seeds, which saw neither side, and its hospital and label. Whoever judges an image learnt from held-out
    images of other patients (`FOLDS` folds by patient), and images are compared with those of their own fold
    (`folds.Folds.area`). Linear and unpenalised (Koenker and Bassett, Econometrica 1978), not a
    network: there are few images. Images as in `mia_loss_auc`.
    Range 0 to 1; without memory, 0.5. Cost: one other seed, else undefined, and `FOLDS` regressions. Undefined for a
    single patient on a side, and for confidences so large that no line can be found.
    """
    frame, folds = evidence.frame, folds_of(evidence.frame, FOLDS)
    if folds is None or not evidence.others:
        return {}
    phi = evidence.unlearned.margin[folds.rows]
    others = np.mean([model.margin[folds.rows] for model in evidence.others], axis=0)
    scores = np.zeros(len(frame.patients))
    for learn, judge in folds.parts:
        outside = learn[folds.truth[learn] == 0]
        # In order, as it decides which of several lines is found that fit equally well; and evenly of all confidences.
        outside = outside[np.lexsort((others[outside], phi[outside]))]
        outside = outside[:: 1 + (len(outside) - 1) // MOST_EXAMPLES]
        quantile = _quantile(frame, folds, others, phi, outside)
        if quantile is None:
            return {}
        scores[folds.rows[judge]] = phi[judge] - quantile[judge]
    return folds.area(scores)


def _quantile(frame: Frame, folds: Folds, others: Floats, phi: Floats, outside: Ints) -> Floats | None:
    """(n,) the quantile of ``phi`` (n,) of the images of ``folds``, but for what is the same in a hospital and label.

    Only images of one hospital and label are compared. So at a single hospital the lines' common slope is all it takes.

    Args:
        frame: the images.
        folds: those that are cross-validated.
        others: (n,) mean confidence of models that never saw them.
        phi: (n,) the confidence in question.
        outside: those of them to learn from.
    """
    if not np.ptp(frame.sites[folds.rows]):
        common = slope(others[outside], phi[outside], alike(frame)[folds.rows[outside]])
        if common is not None:
            return common * others
    known = _known(frame, folds.rows, others)
    line = regressed(known[outside], phi[outside])
    if line is None:
        return None
    level, slopes = line
    found: Floats = known @ slopes + level
    return found


def slope(x: Floats, y: Floats, strata: Ints) -> float | None:
    """The slope of the quantile `LEVEL` of ``y`` (n,) regressed on ``x`` (n,) and on ``strata`` (n,), their codes.

    Lines are parallel, one in each stratum. Given a slope, the best line of a stratum leaves the share `LEVEL` of its
    images below, so that what they cost together is a convex function of the slope, of straight pieces. Its lowest
    point is where the tangents from both sides meet on it (Kelley's cutting planes, J. SIAM 8, 1960, in one dimension):
    some ten looks, where the linear programme of `regressed` takes more than ten times as long to come to the same.

    Returns:
        None where several slopes fit equally well, or numbers are so large that rounding decides.
    """
    if max(np.abs(x).max(), np.abs(y).max()) > _LARGEST:
        return None
    order = np.argsort(strata, kind="stable")
    x, y, strata = x[order], y[order], strata[order]
    first = np.flatnonzero(np.diff(strata, prepend=strata[0] - 1))
    sizes = np.diff(first, append=len(x))
    on = first + np.ceil(LEVEL * sizes - 1e-9).astype(np.int64) - 1  # who is on the line, counted from below
    pull = np.where(np.arange(len(x)) < np.repeat(on, sizes), LEVEL - 1, LEVEL)
    pull[on] = 0.0
    pull[on] = -np.add.reduceat(pull, first)

    def tangent(at: float) -> _Tangent:
        rest = y - at * x
        ranked = np.lexsort((rest, strata))
        return _Tangent(at, float(pull @ rest[ranked]), -float(pull @ x[ranked]))

    one = tangent(0.0)
    step = -float(np.sign(one.rise))
    other = tangent(step)
    for _ in range(_LOOKS):
        if not one.rise or not other.rise:
            return None
        if one.rise * other.rise > 0:  # the lowest point is farther off
            step *= 2
            one, other = other, tangent(other.at + step)
            continue
        at = (one.cost - one.rise * one.at - other.cost + other.rise * other.at) / (other.rise - one.rise)
        found = tangent(at)
        if found.cost <= one.cost + one.rise * (at - one.at) + 1e-12 * (1 + found.cost):
            return at
        one, other = (found, other) if found.rise * one.rise > 0 else (one, found)
    return None


@dataclass(frozen=True)
class _Tangent:
    """Of what lines of a slope ``at`` cost: their ``cost``, and its ``rise`` with the slope."""

    at: float
    cost: float
    rise: float


def regressed(x: Floats, y: Floats) -> tuple[float, Floats] | None:
    """Level and slopes (K,) of the quantile `LEVEL` of ``y`` (n,) regressed on ``x`` (n, K); None if none are found.

    HiGHS takes 1e20 for infinite and refuses factors above 1e15: then no line is found, nor is any worth having.

    A linear programme: what is above the line costs `LEVEL`, what is below 1 - `LEVEL`, both 0 or more, and so are the
    line's numbers, each as the difference of two. As scikit-learn's ``QuantileRegressor(alpha=0)`` writes it, so that
    of lines that fit equally well the same one is found, but without what that asks of its input, which takes as long;
    and by ``milp``, which takes less time than ``linprog`` to hand the same programme to the same solver.
    """
    from scipy import sparse  # here, because importing them takes half a second
    from scipy.optimize import LinearConstraint, milp

    n, k = len(x), x.shape[1] + 1
    eye, line = sparse.eye_array(n, format="csc"), np.column_stack([np.ones(n), x])
    equal = sparse.hstack([sparse.csc_array(line), sparse.csc_array(-line), eye, -eye], format="csc")
    costs = np.concatenate([np.zeros(2 * k), np.full(n, LEVEL), np.full(n, 1 - LEVEL)])
    found = milp(costs, constraints=LinearConstraint(equal, y, y)).x
    if found is None:
        return None
    numbers = found[:k] - found[k : 2 * k]
    return float(numbers[0]), numbers[1:]


def _known(frame: Frame, rows: Ints, others: Floats) -> Floats:
    """(rows, K) ``others``, what other models answer, and one column per further hospital and label."""
    return np.column_stack([others, *_columns(frame.sites[rows]), *_columns(frame.labels[rows])])


def _columns(codes: Ints) -> list[Floats]:
    """For each code but the first, 1 where it is: of all of them one follows from the others."""
    return [(codes == code).astype(np.float64) for code in np.unique(codes)[1:]]
