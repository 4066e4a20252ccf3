"""Attacks that need nothing but the model itself: an attacker who asks it about images, and learns from its answers.

One attack for all images. Carlini et al., S&P 2022 (arXiv 2112.03570) and Hayes et al., SaTML 2025 (arXiv 2403.01218):
such attacks underestimate what the most exposed images have to fear. For stronger ones: `reference`, `likelihood`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import betaincinv

from fedunlearn.scoring.attacks.membership import attack_auc, forget_versus_held_out
from fedunlearn.scoring.evidence import Estimate, Estimates, Evidence, Floats, Frame, Ints, WithLosses

FOLDS = 5
"""Parts of the cross-validation, fewer where there are fewer patients on a side."""


def mia_lr_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """The area under the ROC curve of a logistic regression on the loss, images to forget (1) or held out (0).

    The attack of the NeurIPS 2023 unlearning challenge's starting kit. Every image is judged by the regression of the
    folds without its patient (`StratifiedGroupKFold`, not shuffled, so that the order of images does not matter).
    Deviations: folds by patient, not by image; 5, not 10; the classes weigh the same instead of being cut to the same
    size; images as in `mia_loss_auc`, and its area within hospital and label instead of the accuracy. The interval
    resamples patients, not the attack.

    Unlike `mia_loss_auc`, it learns *which* loss gives a member away: higher ones too. Range 0 to 1; without memory,
    0.5 or somewhat below, as what a few patients teach is wrong for the others. Cost: one model, `FOLDS` regressions.
    Undefined for a single patient on a side.
    """
    folds = _folds(evidence.frame)
    if folds is None:
        return {}
    from sklearn.linear_model import LogisticRegression  # here, because importing it takes a second

    losses = evidence.unlearned.losses[:, None]
    scores = np.zeros(len(losses))
    for learn, judge in folds.parts:
        rows = folds.rows[learn]
        attack = LogisticRegression(class_weight="balanced").fit(losses[rows], folds.truth[learn])
        scores[folds.rows[judge]] = attack.decision_function(losses[folds.rows[judge]])
    return attack_auc(evidence.frame, scores)


def mia_loss_tpr_at_1(evidence: Evidence[WithLosses]) -> Estimates:
    """See `true_positives`: of the attack of `mia_loss_auc`, at 1 %; at least 100 held-out images."""
    return true_positives(evidence.frame, -evidence.unlearned.losses, 100)


def mia_loss_tpr_at_01(evidence: Evidence[WithLosses]) -> Estimates:
    """See `true_positives`: of the attack of `mia_loss_auc`, at 0.1 %; at least 1000 held-out images."""
    return true_positives(evidence.frame, -evidence.unlearned.losses, 1000)


def true_positives(frame: Frame, scores: Floats, one_in: int) -> Estimates:
    """The share of images to forget that an attack finds while it accuses at most one of ``one_in`` held-out ones.

    Carlini et al., S&P 2022 (arXiv 2112.03570): an attack that is sure of a few patients harms them, whatever its
    average. The threshold is the score of a held-out image, which is exceeded by ``floor(held out / one_in)`` of
    them; the value is the share of images to forget above it. Images as in `mia_loss_auc`, but one threshold for all
    hospitals and labels, as an attacker would have. Range 0 to 1; without memory about ``1 / one_in``.

    Undefined with fewer than ``one_in`` held-out images: the rate would be smaller than one of them. The interval is
    that of Clopper and Pearson for the images to forget, taken as independent and the threshold as fixed: several
    images of each patient make it too narrow.

    Args:
        frame: the images.
        scores: (N,) the higher, the rather a member.
        one_in: the reciprocal of the false positive rate.
    """
    estimates = {}
    for group, pairs in forget_versus_held_out(frame).items():
        held_out = np.sort(scores[pairs.right])
        if len(held_out) < one_in:
            continue
        threshold = held_out[-1 - len(held_out) // one_in]
        found, n = int((scores[pairs.left] > threshold).sum()), len(pairs.left)
        estimates[group] = Estimate(found / n, n, exact=clopper_pearson(found, n))
    return estimates


def clopper_pearson(k: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share, ``k`` of ``n`` (Clopper and Pearson, Biometrika 1934)."""
    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
    return low, high


@dataclass(frozen=True, eq=False)
class _Folds:
    """Images that are cross-validated: ``rows``, who is a member, and by fold which to learn from and to judge."""

    rows: Ints
    truth: Ints
    parts: tuple[tuple[Ints, Ints], ...]


@lru_cache(maxsize=2)  # the request at hand and the one before
def _folds(frame: Frame) -> _Folds | None:
    pairs = forget_versus_held_out(frame).get("all")
    if pairs is None or not (_several(frame, pairs.left) and _several(frame, pairs.right)):
        return None
    from sklearn.model_selection import StratifiedGroupKFold

    rows = np.concatenate([pairs.left, pairs.right])
    truth = np.repeat([1, 0], [len(pairs.left), len(pairs.right)])
    patients = frame.patients[rows]
    fewest = min(len(np.unique(frame.patients[side])) for side in (pairs.left, pairs.right))
    split = StratifiedGroupKFold(min(FOLDS, fewest)).split(rows[:, None], truth, patients)
    parts = tuple((learn, judge) for learn, judge in split if 0 < truth[learn].sum() < len(learn))
    return _Folds(rows, truth, parts)


def _several(frame: Frame, rows: Ints) -> bool:
    """Whether the images are of more than one patient."""
    return len(np.unique(frame.patients[rows])) > 1
