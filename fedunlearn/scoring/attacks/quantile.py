"""The attack that learns how sure a model should be of an image it never saw, from images that it certainly never saw.

See `mia_quantile_auc`.
"""

from __future__ import annotations

import numpy as np

from fedunlearn.scoring.attacks.folds import folds_of
from fedunlearn.scoring.evidence import Estimates, Evidence, Floats, Ints, WithLosses

FOLDS = 3
"""Parts of the cross-validation: a regression of few numbers learns as much from two thirds as from four fifths of the
patients, and costs more than anything else here."""

MOST_EXAMPLES = 400
"""Held-out images that a regression learns from at most: its cost grows faster than they do."""

LEVEL = 0.9
"""Of the quantile. For the area .5, .9 and both (their distance as the scale) come to the same within .01."""


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
    Range 0 to 1; without memory, 0.5. Cost: one other seed, else undefined, and `FOLDS` regressions, some 40 ms
    with 400 held-out images or more. Undefined for a single patient on a side, and for confidences so large that no
    line can be found.
    """
    frame, folds = evidence.frame, folds_of(evidence.frame, FOLDS)
    if folds is None or not evidence.others:
        return {}
    phi, known = evidence.unlearned.margin, _known(evidence, folds.rows)
    scores = np.zeros(len(frame.patients))
    for learn, judge in folds.parts:
        outside = learn[folds.truth[learn] == 0]
        # In order, as it decides which of several lines is found that fit equally well; and evenly of all confidences.
        outside = outside[np.lexsort((known[outside, 0], phi[folds.rows[outside]]))]
        outside = outside[:: 1 + (len(outside) - 1) // MOST_EXAMPLES]
        line = regressed(known[outside], phi[folds.rows[outside]])
        if line is None:
            return {}
        level, slopes = line
        scores[folds.rows[judge]] = phi[folds.rows[judge]] - (known[judge] @ slopes + level)
    return folds.area(scores)


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


def _known(evidence: Evidence[WithLosses], rows: Ints) -> Floats:
    """(rows, K) mean confidence of models that never saw the images, and one column per further hospital and label."""
    others = np.mean([model.margin[rows] for model in evidence.others], axis=0)
    return np.column_stack(
        [others, *_columns(evidence.frame.sites[rows]), *_columns(evidence.frame.labels[rows])]
    )


def _columns(codes: Ints) -> list[Floats]:
    """For each code but the first, 1 where it is: of all of them one follows from the others."""
    return [(codes == code).astype(np.float64) for code in np.unique(codes)[1:]]
