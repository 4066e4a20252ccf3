"""Attacks by the likelihood of a model's answer to an image, given what models answer that saw it and that did not.

The signal is ``phi = log p_y - log(1 - p_y)`` in float64, about normal over models (Carlini et al., S&P 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, stdtr

from fedunlearn.scoring.attacks.membership import attack_auc, forget_versus_held_out
from fedunlearn.scoring.attacks.pairs import Contest, share, with_themselves
from fedunlearn.scoring.evidence import (
    Bools,
    Estimate,
    Estimates,
    Evidence,
    Floats,
    Frame,
    WithLosses,
)

PRIOR = 4.0
"""Degrees of freedom of the prior on an image's variance: what all images together say weighs as much as 4 models."""

FEWEST = 2
"""Models on a side, at least: of a single one, the spread is unknown."""


@dataclass(frozen=True, eq=False)
class Predictive:
    """What is known of the next model's phi, image by image: a Student t distribution.

    Attributes:
        mean, scale, freedom: (N,) its location, scale and degrees of freedom.
        known: (N,) where enough models were seen; elsewhere the rest means nothing.
    """

    mean: Floats
    scale: Floats
    freedom: Floats
    known: Bools

    def log_density(self, phi: Floats) -> Floats:
        """(N,) the logarithm of the density at ``phi`` (N,)."""
        nu, t = self.freedom, (phi - self.mean) / self.scale
        constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - np.log(nu * np.pi) / 2 - np.log(self.scale)
        density: Floats = constant - (nu + 1) / 2 * np.log1p(t * t / nu)
        return density

    def log_odds(self, phi: Floats) -> Floats:
        """(N,) ``log F - log(1 - F)`` of the distribution function: in its order, without rounding to 0 or 1."""
        t, tiny = (phi - self.mean) / self.scale, np.finfo(np.float64).tiny
        below, above = (np.log(np.maximum(stdtr(self.freedom, x), tiny)) for x in (t, -t))
        odds: Floats = below - above
        return odds


def predictive(signals: Floats, seen: Bools, among: Bools) -> Predictive | None:
    """The Student t predictive of a normal-inverse-gamma model with a flat mean.

    With n signals of an image, their mean m and sum of squares S about it, and the pooled variance ``v = sum S /
    sum (n - 1)`` over images: ``nu = PRIOR + n - 1``, ``s^2 = (PRIOR v + S) / nu``, and the next signal is
    ``t_nu(m, s sqrt(1 + 1/n))``.

    Args:
        signals: (models, N).
        seen: (models, N) which of them count.
        among: (N,) the images whose variance is pooled.

    Returns:
        None where no image has `FEWEST` signals, or they do not vary.
    """
    n = seen.sum(axis=0)
    known = n >= FEWEST
    mean = np.where(seen, signals, 0.0).sum(axis=0) / np.maximum(n, 1)
    squares = (np.where(seen, signals - mean, 0.0) ** 2).sum(axis=0)
    pooled = known & among
    variance = squares[pooled].sum() / max((n[pooled] - 1).sum(), 1)
    if not variance > 0:
        return None
    freedom = PRIOR + np.maximum(n, 1) - 1.0
    scale = np.sqrt((PRIOR * variance + squares) / freedom * (1 + 1 / np.maximum(n, 1)))
    return Predictive(mean, scale, freedom, known)


def mia_lira_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """LiRA with Student's t: the area under the ROC curve of the likelihood that the model saw the image.

    Carlini et al., S&P 2022 (arXiv 2112.03570). *Online*, where shadow models saw both images to forget and held-out
    ones: ``log t_in(phi) - log t_out(phi)``, of images that `FEWEST` shadows or more saw and as many did not.
    *Offline*, else: the one-sided ``F_out(phi)``, out being the shadows that did not see an image or, without shadows,
    the retrained models of other seeds. For t see `predictive`.

    Deviations: with few models a normal distribution per image is mostly noise, and one variance for all is wrong for
    most; Student's t after a prior from all images stands between them (the reasoning of BaVarIA, arXiv 2603.11799; the
    prior's weight and its flat mean are ours). One query per image, no augmentations. Images as in `mia_loss_auc`.
    Range 0 to 1; cost: at least two other seeds or four shadows, else undefined.
    """
    frame, phi = evidence.frame, evidence.unlearned.margin
    among = _compared(frame)
    if evidence.shadows:
        signals = np.stack([shadow.answers.margin for shadow in evidence.shadows])
        members = np.stack([shadow.members for shadow in evidence.shadows])
        inside, outside = (predictive(signals, seen, among) for seen in (members, ~members))
        if inside and outside:
            known = inside.known & outside.known
            online = attack_auc(frame, inside.log_density(phi) - outside.log_density(phi), known)
            if online:
                return online
        if outside:
            return attack_auc(frame, outside.log_odds(phi), outside.known)
    outside = _of(evidence.others, among)
    return attack_auc(frame, outside.log_odds(phi)) if outside else {}


def mia_ulira_auc(evidence: Evidence[WithLosses]) -> Estimates:
    """U-LiRA: how often the model, not the retrained one, looks as if it had learnt and unlearnt an image, ties ½.

    Hayes et al., SaTML 2025 (arXiv 2403.01218): for an image to forget, in* are models that learnt and then unlearnt
    it by the *same* procedure (those of other seeds), out the retrained ones of other seeds; the score is the log
    likelihood ratio of two normal distributions with one variance v, pooled over images and sides. A mean of n models
    is off by v / n itself, so that the next model's variance is v (1 + 1 / n), and the ratio, but for a constant,
    ``(phi - m_out)^2 / (2 v (1 + 1 / n_out)) - (phi - m_in)^2 / (2 v (1 + 1 / n_in))``. The value is the area under the
    ROC curve between the model's scores and those of the retrained model of the same seed, both of the images to
    forget: 0.5 is no leak, and what the retrained model scores.

    Deviations: the runs' own seeds instead of many shadows; one variance (with few models, one per image is noise); the
    same patients are asked to be forgotten in all models. Above 0.5 whatever the direction in which models differ: a
    damaged model stands out too. Range 0 to 1; cost: at least two other seeds, of both kinds, else undefined.

    The control ``retrained_other`` has none. What the same procedure made of other seeds are the other retrained
    models; the one it is compared with is among them, and so is found as expected (.25 to .28 came of it). Without that
    one, in* and out would be the same models.
    """
    return _looks_unlearnt(evidence, evidence.frame.rows("forget"))


def mia_ulira_excess(evidence: Evidence[WithLosses]) -> Estimates:
    """`mia_ulira_auc` of the images to forget less the same of held-out images of their hospitals.

    A model that differs from the retrained ones everywhere, say by fitting less, is told apart by U-LiRA, whether or
    not it remembers anybody. Images that no model was trained on show how far that goes; what is more is about those to
    forget alone. Held-out patients have no training image at all. Range -1 to 1; 0 is no leak, and what the retrained
    model scores; cost and limits as of `mia_ulira_auc`.
    """
    known = evidence.measured.get("mia_ulira_auc")
    own = mia_ulira_auc(evidence) if known is None else known
    others = _looks_unlearnt(evidence, _held_out(evidence.frame))
    return {
        group: Estimate(
            one.value - others[group].value, one.n, _less(one.replicates, others[group].replicates)
        )
        for group, one in own.items()
        if group in others
    }


def _less(one: Floats, other: Floats) -> Floats:
    """The difference of replicates, none where either has none."""
    return one - other if one.size and other.size else np.empty(0)


def _held_out(frame: Frame) -> Bools:
    """(N,) the test images, of patients without any training image, of the hospitals that have images to forget."""
    strangers = ~np.isin(frame.patients, frame.patients[frame.train])
    here: Bools = np.isin(frame.sites, frame.sites[frame.rows("forget")])
    return frame.rows("test") & strangers & here


def _looks_unlearnt(evidence: Evidence[WithLosses], rows: Bools) -> Estimates:
    """What `mia_ulira_auc` says of the images of ``rows`` (N,)."""
    frame, (n_in, n_out) = evidence.frame, (len(evidence.siblings), len(evidence.others))
    if min(n_in, n_out) < FEWEST or not rows.any():
        return {}
    inside, outside = (np.stack([m.margin for m in of]) for of in (evidence.siblings, evidence.others))
    (m_in, s_in), (m_out, s_out) = ((x.mean(axis=0), x.var(axis=0) * len(x)) for x in (inside, outside))
    variance = (s_in + s_out)[rows].sum() / (rows.sum() * (n_in + n_out - 2))
    if not variance > 0:
        return {}
    v_in, v_out = 2 * variance * (1 + 1 / n_in), 2 * variance * (1 + 1 / n_out)
    scores = [
        (model.margin - m_out) ** 2 / v_out - (model.margin - m_in) ** 2 / v_in
        for model in (evidence.unlearned, evidence.retrained)
    ]
    return share(_with_themselves(frame, rows.tobytes()), *scores)


def _of(models: Sequence[WithLosses], among: Bools) -> Predictive | None:
    """The predictive of models all of which count; None if they are too few."""
    if len(models) < FEWEST:
        return None
    signals = np.stack([model.margin for model in models])
    return predictive(signals, np.ones(signals.shape, dtype=bool), among)


def _compared(frame: Frame) -> Bools:
    """(N,) the images that `mia_loss_auc` compares."""
    compared = np.zeros(len(frame.patients), dtype=bool)
    for pairs in forget_versus_held_out(frame).values():
        compared[pairs.left] = compared[pairs.right] = True
    return compared


@lru_cache(maxsize=4)  # the request at hand and the one before, two sets of images each
def _with_themselves(frame: Frame, chosen: bytes) -> Contest:
    """Of every group, all of ``chosen`` with all."""
    return with_themselves(frame, np.frombuffer(chosen, dtype=bool))
