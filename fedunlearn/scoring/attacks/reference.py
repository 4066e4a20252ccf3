"""Attacks that compare a model's answer with those of other models about the same image.

How hard an image is says more about its loss than whether it was learnt; what models answer that surely never saw it
(the retrained models of other seeds, which a run trains anyway, or shadows) tells the two apart.
"""

from __future__ import annotations

import numpy as np

from fedunlearn.scoring.attacks.membership import attack_auc, forget_versus_held_out
from fedunlearn.scoring.attacks.rates import true_positives
from fedunlearn.scoring.evidence import Bools, Estimates, Evidence, Floats, Frame, WithLosses

OFFLINE_A = 0.3
"""``a`` of `expected_offline`, the default of the authors' Privacy Meter; not tuned to the data."""


def mia_rmia_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """RMIA: the area under the ROC curve of p_y relative to what other models let expect.

    Zarifzadeh, Liu and Shokri, ICML 2024 (arXiv 2312.03262): ``LR(x) = p_y(x) / p(x)``, and the score of an image is
    the share of population images z with ``LR(x) / LR(z) >= gamma``, gamma = 1. Here z are held-out images of its
    hospital and label. Among these, the share orders images as LR itself does, ties a half, so that the area is
    computed from ``log LR`` in float64 without going through the shares.

    *Online*, where shadow models saw, and did not see, both images to forget and held-out ones:
    ``p(x) = (mean p_in + mean p_out) / 2``. *Offline*, else: `expected_offline` of the shadows that did not see an
    image (of as many for each image) or, without shadows, of the retrained models of other seeds. Shadows that a
    campaign trains never saw a held-out image, so that its runs have the offline form.

    Deviations: z are of the same hospital and label and serve as the non-members too; a is not tuned; online or offline
    is decided for all images at once, never online for members and offline for z: models that saw an image and models
    that are thought to have seen one are not the same, and without memory the area would be .52 to .58.
    Images as in `mia_loss_auc`. Range 0 to 1; without memory, 0.5. Cost: at least one other seed or two shadows, else
    undefined.
    """
    found = _log_ratio(evidence)
    return {} if found is None else attack_auc(evidence.frame, *found)


def mia_rmia_tpr_at_1(evidence: Evidence[WithLosses]) -> Estimates:
    """See `rates.true_positives`: of ``log LR`` of `mia_rmia_auc`, at 1 %; at least 199 held-out images."""
    return _found(evidence, 100)


def mia_rmia_tpr_at_01(evidence: Evidence[WithLosses]) -> Estimates:
    """See `rates.true_positives`: of ``log LR`` of `mia_rmia_auc`, at 0.1 %; at least 1999 held-out images."""
    return _found(evidence, 1000)


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


def expected(confidence: Floats, counts: Bools) -> Floats:
    """(N,) the logarithm of the mean p_y of those models that count, computed from logarithms: it does not underflow.

    Args:
        confidence: (models, N) ``log p_y``.
        counts: (models, N) which models count; at least one for each image.
    """
    mean: Floats = np.logaddexp.reduce(np.where(counts, confidence, -np.inf), axis=0) - np.log(
        counts.sum(axis=0)
    )
    return mean


def expected_offline(confidence: Floats, counts: Bools) -> Floats:
    """(N,) the logarithm of ``p(x) = ((1 + a) mean p_out + 1 - a) / 2``, a = `OFFLINE_A`; arguments as of `expected`.

    Those that saw an image are thought to answer ``p_in = a p_out + 1 - a``.
    """
    seen, unseen = np.log((1 - OFFLINE_A) / 2), np.log((1 + OFFLINE_A) / 2) + expected(confidence, counts)
    mean: Floats = np.logaddexp(unseen, seen)
    return mean


def _found(evidence: Evidence[WithLosses], one_in: int) -> Estimates:
    found = _log_ratio(evidence)
    return {} if found is None else true_positives(evidence.frame, found[0], one_in, found[1])


def _log_ratio(evidence: Evidence[WithLosses]) -> tuple[Floats, Bools] | None:
    """(N,) log LR, and (N,) of which images it is known; None without another model."""
    own = -evidence.unlearned.losses
    if evidence.shadows:
        return _by_shadows(evidence, own)
    if not evidence.others:
        return None
    confidence = np.stack([-model.losses for model in evidence.others])
    every = np.ones(confidence.shape, dtype=bool)
    return own - expected_offline(confidence, every), every[0]


def _by_shadows(evidence: Evidence[WithLosses], own: Floats) -> tuple[Floats, Bools]:
    confidence = np.stack([-shadow.answers.losses for shadow in evidence.shadows])
    members = np.stack([shadow.members for shadow in evidence.shadows])
    seen, unseen = members.sum(axis=0) > 0, (~members).sum(axis=0) > 0
    ratio, known = np.zeros(len(own)), seen & unseen
    if forget_versus_held_out(evidence.frame, known):
        inside, outside = (expected(confidence[:, known], which[:, known]) for which in (members, ~members))
        ratio[known] = own[known] - np.logaddexp(inside, outside) + np.log(2)
        return ratio, known
    counts = _as_many(evidence.frame, ~members, unseen)[:, unseen]
    ratio[unseen] = own[unseen] - expected_offline(confidence[:, unseen], counts)
    return ratio, unseen


def _as_many(frame: Frame, counts: Bools, known: Bools) -> Bools:
    """(models, N) of the models that count, the first few: as many for each image as the one with the fewest has.

    The logarithm of a mean of few models is lower than that of many. Of a campaign's shadows, half did not see an image
    to forget, and none a held-out one: with all of them the area would be .49 without memory (of two pairs).
    """
    compared = forget_versus_held_out(frame, known).get("all")
    if compared is None:
        return counts
    fewest = counts[:, np.concatenate([compared.left, compared.right])].sum(axis=0).min()
    first: Bools = counts & (np.cumsum(counts, axis=0) <= fewest)
    return first
