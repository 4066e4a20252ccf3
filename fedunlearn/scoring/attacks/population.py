"""Attacks that need nothing but the model itself: an attacker who asks it about images, and learns from its answers.

One attack for all images. Carlini et al., S&P 2022 (arXiv 2112.03570) and Hayes et al., SaTML 2025 (arXiv 2403.01218):
such attacks underestimate what the most exposed images have to fear. For stronger ones: `reference`, `likelihood`.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from fedunlearn.scoring.attacks.folds import folds_of
from fedunlearn.scoring.attacks.rates import true_positives
from fedunlearn.scoring.evidence import Estimates, Evidence, Floats, Ints, WithLosses

FOLDS = 5
"""Parts of the cross-validation, fewer where there are fewer patients on a side."""


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
        slope, level = logistic(losses[folds.rows[learn]], folds.truth[learn])
        scores[folds.rows[judge]] = slope * losses[folds.rows[judge]] + level
    return folds.area(scores)


def logistic(x: Floats, truth: Ints) -> tuple[float, float]:
    """Slope and level of the logistic regression of ``truth`` (n,), 1 or 0, on ``x`` (n,); both sides weigh the same.

    What scikit-learn's ``LogisticRegression(class_weight="balanced")`` comes to, by the same steps of the same solver,
    without what that asks of its input each time, which takes four times as long as the steps.
    """
    from scipy.optimize import fmin_l_bfgs_b  # here, because importing it takes a third of a second

    n, ones = len(x), int(truth.sum())
    weights = np.where(truth == 1, n / (2 * ones), n / (2 * (n - ones)))

    def objective(line: Floats) -> tuple[float, Floats]:
        """The mean loss with its penalty on the slope, and its gradient."""
        raw = line[0] * x + line[1]
        loss = (weights * (np.logaddexp(0.0, raw) - truth * raw)).sum() / n + line[0] ** 2 / (2 * n)
        pull = weights * (expit(raw) - truth) / n
        return float(loss), np.array([x @ pull + line[0] / n, pull.sum()])

    line, *_ = fmin_l_bfgs_b(objective, np.zeros(2), factr=64, pgtol=1e-4, maxiter=100, maxls=50)
    return float(line[0]), float(line[1])


def mia_loss_tpr_at_1(evidence: Evidence[WithLosses]) -> Estimates:
    """See `true_positives`: of the attack of `mia_loss_auc`, at 1 %; at least 199 held-out images."""
    return true_positives(evidence.frame, -evidence.unlearned.losses, 100)


def mia_loss_tpr_at_01(evidence: Evidence[WithLosses]) -> Estimates:
    """See `true_positives`: of the attack of `mia_loss_auc`, at 0.1 %; at least 1999 held-out images."""
    return true_positives(evidence.frame, -evidence.unlearned.losses, 1000)
