"""Attacks that need nothing but the model itself: an attacker who asks it about images, and learns from its answers.

One attack for all images. Carlini et al., S&P 2022 (arXiv 2112.03570) and Hayes et al., SaTML 2025 (arXiv 2403.01218):
such attacks underestimate what the most exposed images have to fear. For stronger ones: `reference`, `likelihood`.
"""

from __future__ import annotations

import numpy as np

from fedunlearn.scoring.attacks.folds import folds_of
from fedunlearn.scoring.attacks.rates import true_positives
from fedunlearn.scoring.evidence import Estimates, Evidence, Floats, Ints, WithLosses

FOLDS = 5
"""Parts of the cross-validation, fewer where there are fewer patients on a side."""

_TOLERANCE = 1e-4
"""Of the gradient, at which scikit-learn's solver ends."""


def mia_lr_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """The area under the ROC curve of a logistic regression on the loss, images to forget (1) or held out (0).

    The attack of the NeurIPS 2023 unlearning challenge's starting kit. Every image is judged by the regression of the
    folds without its patient, and compared with those of its own fold (`folds.Folds.area` says why).
    Deviations: folds by patient, not by image; 5, not 10; the classes weigh the same instead of being cut to the same
    size; images as in `mia_loss_auc`, and its area within hospital, label and fold instead of the accuracy. The
    interval resamples patients, not the attack.

    Unlike `mia_loss_auc`, it learns *which* loss gives a member away: higher ones too. Range 0 to 1; without memory,
    0.5. Cost: one model, `FOLDS` regressions. Undefined for a single patient on a side.
    """
    folds = folds_of(evidence.frame, FOLDS)
    if folds is None:
        return {}
    losses = evidence.unlearned.losses
    scores = np.zeros(len(losses))
    for learn, judge in folds.parts:
        scores[folds.rows[judge]] = (
            side(losses[folds.rows[learn]], folds.truth[learn]) * losses[folds.rows[judge]]
        )
    return folds.area(scores)


def side(x: Floats, truth: Ints) -> int:
    """Whether a logistic regression of ``truth`` (n,), 1 or 0, on ``x`` (n,) rises with x (1) or falls (-1).

    That is all that an order depends on, and it needs no regression. With both sides of the same weight and no slope,
    what the regression minimises is least at level 0, and rises there with the slope by a quarter of how far the ones'
    mean lies below the zeros'. It is convex, so its lowest point lies where it falls. 0 where it hardly falls at all:
    there scikit-learn's ``LogisticRegression(class_weight="balanced")``, by its usual tolerance, takes no step.
    """
    falls = float(x[truth == 1].mean() - x[truth == 0].mean()) / 4
    return int(np.sign(falls)) if abs(falls) > _TOLERANCE else 0


def mia_loss_tpr_at_1(evidence: Evidence[WithLosses]) -> Estimates:
    """See `true_positives`: of the attack of `mia_loss_auc`, at 1 %; at least 199 held-out images."""
    return true_positives(evidence.frame, -evidence.unlearned.losses, 100)


def mia_loss_tpr_at_01(evidence: Evidence[WithLosses]) -> Estimates:
    """See `true_positives`: of the attack of `mia_loss_auc`, at 0.1 %; at least 1999 held-out images."""
    return true_positives(evidence.frame, -evidence.unlearned.losses, 1000)
