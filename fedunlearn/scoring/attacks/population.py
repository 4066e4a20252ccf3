"""Attacks that need nothing but the model itself: an attacker who asks it about images, and learns from its answers.

One attack for all images. Carlini et al., S&P 2022 (arXiv 2112.03570) and Hayes et al., SaTML 2025 (arXiv 2403.01218):
such attacks underestimate what the most exposed images have to fear. For stronger ones: `reference`, `likelihood`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fedunlearn.scoring.attacks.membership import attack_auc, forget_versus_held_out
from fedunlearn.scoring.attacks.rates import true_positives
from fedunlearn.scoring.evidence import Estimates, Evidence, Frame, Ints, WithLosses

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
    """See `true_positives`: of the attack of `mia_loss_auc`, at 1 %; at least 199 held-out images."""
    return true_positives(evidence.frame, -evidence.unlearned.losses, 100)


def mia_loss_tpr_at_01(evidence: Evidence[WithLosses]) -> Estimates:
    """See `true_positives`: of the attack of `mia_loss_auc`, at 0.1 %; at least 1999 held-out images."""
    return true_positives(evidence.frame, -evidence.unlearned.losses, 1000)


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
