"""Attacks that compare a model's answer with those of other models about the same image.

How hard an image is says more about its loss than whether it was learnt; what models answer that surely never saw it
(the retrained models of other seeds) tells the two apart. The models are those that a run trains anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedunlearn.scoring.attacks.membership import attack_auc
from fedunlearn.scoring.attacks.rates import true_positives
from fedunlearn.scoring.evidence import Bools, Estimates, Evidence, Floats, WithLosses

OFFLINE_A = 0.3
"""``a`` of `expected_offline`, the default of the authors' Privacy Meter; not tuned to the data."""


def mia_rmia_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """RMIA, offline: the area under the ROC curve of p_y relative to what other models let expect.

    Zarifzadeh, Liu and Shokri, ICML 2024 (arXiv 2312.03262): ``LR(x) = p_y(x) / p(x)``, and the score of an image is
    the share of population images z with ``LR(x) / LR(z) >= gamma``, gamma = 1. Here z are held-out images of its
    hospital and label. Among these, the share orders images as LR itself does, ties a half, so that the area is
    computed from ``log LR`` in float64 without going through the shares. ``p(x)``: see `expected_offline`, with the
    retrained models of other seeds as those that never saw the image.

    Deviations: z are of the same hospital and label and serve as the non-members too; a is not tuned. Images as in
    `mia_loss_auc`. Range 0 to 1; cost: at least one other seed, else undefined.
    """
    scores = _offline(evidence)
    return {} if scores is None else attack_auc(evidence.frame, scores)


def mia_rmia_online_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """RMIA, online: as `mia_rmia_auc`, with ``p(x)`` the mean of models that saw the image and that did not.

    ``p(x) = (mean p_in + mean p_out) / 2`` (same paper): in are the original models of other seeds, out their retrained
    ones. No model saw a held-out image: what those would answer is estimated as offline. Models that did and models
    that would are not quite the same, so even a model without memory may be off 0.5; compare with the retrained one.
    Range 0 to 1; cost: at least one other seed, else undefined.
    """
    offline = _offline(evidence)
    if offline is None or not evidence.originals:
        return {}
    frame = evidence.frame
    outside, inside = expected(evidence.others), expected(evidence.originals)
    online = -evidence.unlearned.losses - np.logaddexp(outside, inside) + np.log(2)
    seen: Bools = frame.rows("forget")
    return attack_auc(frame, np.where(seen, online, offline))


def mia_rmia_tpr_at_1(evidence: Evidence[WithLosses]) -> Estimates:
    """See `rates.true_positives`: of ``log LR`` of `mia_rmia_auc`, at 1 %; at least 199 held-out images."""
    scores = _offline(evidence)
    return {} if scores is None else true_positives(evidence.frame, scores, 100)


def mia_rmia_tpr_at_01(evidence: Evidence[WithLosses]) -> Estimates:
    """See `rates.true_positives`: of ``log LR`` of `mia_rmia_auc`, at 0.1 %; at least 1999 held-out images."""
    scores = _offline(evidence)
    return {} if scores is None else true_positives(evidence.frame, scores, 1000)


def mia_difference_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """The area under the ROC curve of how much confidence the model lost: who compares before and after sees who left.

    The score is ``phi_original - phi_model``, phi = ``log p_y - log(1 - p_y)``: publishing both models betrays by the
    difference what neither does alone (Chen et al., CCS 2021, arXiv 2005.02205, who learn an attack on both answers;
    here the difference is the attack). Images as in `mia_loss_auc`. Range 0 to 1; the original itself scores 0.5 (it
    changed nothing), *the retrained model well above*: leaving shows, however it is done. Cost: one model of each kind.

    No difference from the retrained model counts here, hence there is no margin: models of one seed share a lineage
    (first weights, order of batches), and the more of it, the less else has changed beside the images to forget. An
    honest retraining with another seed differs by -.12.
    """
    return attack_auc(evidence.frame, evidence.original.margin - evidence.unlearned.margin)


def expected(models: Sequence[WithLosses]) -> Floats:
    """(N,) the logarithm of the models' mean p_y, computed from losses: it does not underflow."""
    mean: Floats = np.logaddexp.reduce([-model.losses for model in models], axis=0) - np.log(len(models))
    return mean


def expected_offline(models: Sequence[WithLosses]) -> Floats:
    """(N,) the logarithm of ``p(x) = ((1 + a) mean p_out + 1 - a) / 2``, a = `OFFLINE_A`.

    Those that saw an image are thought to answer ``p_in = a p_out + 1 - a``.
    """
    seen, unseen = np.log((1 - OFFLINE_A) / 2), np.log((1 + OFFLINE_A) / 2) + expected(models)
    mean: Floats = np.logaddexp(unseen, seen)
    return mean


def _offline(evidence: Evidence[WithLosses]) -> Floats | None:
    """(N,) log LR; None without another seed."""
    return -evidence.unlearned.losses - expected_offline(evidence.others) if evidence.others else None
