"""Measures of many models: is the *distribution* of unlearned models that of retrained ones, image by image?

Models of disjoint seeds are compared, as many of each: of the unlearned ones the first half of the seeds, of the
retrained ones the second. Both measures depend on how many models there are and are far from their ideal for a perfect
method, so they can be read only beside the retrained model's value: one half of the retrained models against the other,
which is what unlearning by retraining would score. It stands in the row of the retrained model, and in the column
``retrained`` of every other.
"""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from fedunlearn.scoring.evidence import Estimate, Estimates, Evidence, Floats, Part, WithLosses
from fedunlearn.scoring.evidence.bootstrap import ratios

KLOM_MODELS = 32
"""Models of each kind that `klom` takes at least."""

FEW_MODELS, MANY_MODELS = 32, 64
"""Models of each kind that the small and the whole forgetting quality take at least."""

BINS, CLIP, EMPTY = 20, 100.0, 1e-5
DELTA, CAP, WIDTH = 1e-5, 50.0, 0.5


def klom(evidence: Evidence[WithLosses], part: Part, percentile: float) -> Estimates:
    """A percentile over images of the KL divergence of margins, unlearned models' from retrained models', in nats.

    KLoM of Georgiev et al., "Attribute-to-Delete" (arXiv 2410.23232, appendix E.1), as in RoyRin/data-unlearning-bench:
    20 bins of equal width over the range of both, margins clipped to ±100, 1e-5 in place of an empty bin.
    Deviations: models of disjoint seeds (see above); the largest margin counts for the last bin (there it falls out).
    Range from 0; the lower the better, down to the retrained row. Needs 32 models of each kind, hence 64 seeds.
    """
    found = _halves(evidence, KLOM_MODELS)
    if found is None:
        return {}
    estimates = {}
    rows = np.flatnonzero(evidence.frame.rows(part))
    divergences = np.zeros(len(evidence.frame.patients))
    divergences[rows] = divergence(found[0][:, rows], found[1][:, rows])
    for group, members in evidence.frame.groups.items():
        here = divergences[evidence.frame.rows(part) & members]
        if here.size:
            estimates[group] = Estimate(float(np.percentile(here, percentile)), here.size)
    return estimates


def forgetting_quality(evidence: Evidence[WithLosses]) -> Estimates:
    """F of the NeurIPS 2023 unlearning competition: the mean over images to forget of ``2^-bin(eps)``.

    Triantafillou et al. (arXiv 2406.09073) and google-deepmind/unlearning_evaluation @ ffae0ff, `metric.py`. For each
    image, eps is the largest ``max(log((1 - d - FPR) / FNR), log((1 - d - FNR) / FPR))``, d = 1e-5, over attacks that
    tell the unlearned models from the retrained ones: see `epsilon`. Bins are 0.5 wide; from ``ceil(log(N - 1))`` on,
    N models of each kind, there is no point.

    Deviations: all thresholds and all intervals instead of a grid of 0.01, so that attacks are as strong or stronger;
    models of disjoint seeds (see above); F alone, not times the accuracies' ratios. Range 0 to 1, the higher the
    better, but perfect forgetting is *far below* 1. Needs `MANY_MODELS` of each kind, hence 128 seeds.
    """
    return _quality(evidence, MANY_MODELS, None)


def forgetting_quality_small(evidence: Evidence[WithLosses]) -> Estimates:
    """As `forgetting_quality`, with `FEW_MODELS` or more of each kind, fewer than it needs: not the competition's."""
    return _quality(evidence, FEW_MODELS, MANY_MODELS)


def divergence(unlearned: Floats, retrained: Floats) -> Floats:
    """(n,) the binned KL divergence in nats of margins (models, n): of the first from the second."""
    both = np.clip(np.concatenate([unlearned, retrained]), -CLIP, CLIP)
    low, high = both.min(axis=0), both.max(axis=0)
    width = np.where(high > low, high - low, 1.0) / BINS
    bins = np.minimum(((both - low) / width).astype(np.int64), BINS - 1)
    counts = [
        (side[:, :, None] == np.arange(BINS)).sum(axis=0)
        for side in (bins[: len(unlearned)], bins[len(unlearned) :])
    ]
    p, q = (of / of.sum(axis=1, keepdims=True) for of in counts)
    q = np.where(p > 0, np.maximum(q, EMPTY), q)
    summed: Floats = rel_entr(p, q / q.sum(axis=1, keepdims=True)).sum(axis=1)
    return summed


def epsilon(one: Floats, other: Floats) -> float:
    """How well the best attack tells two samples of the same size apart, at most 50; 0 if none can.

    Attacks are: to say "the one with the larger median" at or above a threshold, and to say "the one with the smaller
    range" within an interval. One that errs on neither side is worth 50; one that errs on one side only proves nothing,
    as too few models were seen, and is dropped. A range under 1 % of the other's is worth 50 by itself.
    """
    spans = np.ptp(one), np.ptp(other)
    if min(spans) < 0.01 * max(spans):
        return CAP
    high, low = (other, one) if np.median(other) > np.median(one) else (one, other)
    narrow, wide = (one, other) if spans[0] < spans[1] else (other, one)
    thresholds = np.unique(np.concatenate([one, other]))
    single = _at_least(low, thresholds), 1 - _at_least(high, thresholds)
    inside = [_inside(sample, thresholds) for sample in (wide, narrow)]
    fpr = np.concatenate([single[0], inside[0]])
    fnr = np.concatenate([single[1], 1 - inside[1]])
    if ((fpr == 0) & (fnr == 0)).any():
        return CAP
    both = (fpr > 0) & (fnr > 0)
    fpr, fnr = fpr[both], fnr[both]
    ratios = np.concatenate([(1 - DELTA - fpr) / fnr, (1 - DELTA - fnr) / fpr])
    return float(np.clip(np.log(np.maximum(ratios, 1.0)).max(initial=0.0), 0.0, CAP))


def points(eps: float, models: int) -> float:
    """An image's points: 1 for eps below 0.5, ½ below 1, and so on; 0 from ``ceil(log(models - 1))`` on."""
    return 2.0 ** -(eps // WIDTH) if eps < np.ceil(np.log(models - 1)) else 0.0


def _quality(evidence: Evidence[WithLosses], fewest: int, below: int | None) -> Estimates:
    found = _halves(evidence, fewest)
    if found is None or (below is not None and len(found[0]) >= below):
        return {}
    frame, rows = evidence.frame, evidence.frame.rows("forget")
    scores = np.zeros((len(frame.patients), 1))
    for i in np.flatnonzero(rows):
        scores[i, 0] = points(epsilon(found[0][:, i], found[1][:, i]), len(found[0]))
    return ratios(frame, rows, scores, np.ones_like(scores))


def _halves(evidence: Evidence[WithLosses], fewest: int) -> tuple[Floats, Floats] | None:
    """Margins (models, N) of the first half of the unlearned and of the second half of the retrained models."""
    unlearned = (evidence.unlearned, *evidence.siblings)
    retrained = (evidence.retrained, *evidence.others)
    n = min(len(unlearned), len(retrained) // 2)
    if n < fewest:
        return None
    first, second = unlearned[:n], retrained[-n:]
    return np.stack([m.margin for m in first]), np.stack([m.margin for m in second])


def _at_least(sample: Floats, thresholds: Floats) -> Floats:
    """(thresholds,) the share of the sample at or above each."""
    share: Floats = 1 - np.searchsorted(np.sort(sample), thresholds, "left") / len(sample)
    return share


def _inside(sample: Floats, thresholds: Floats) -> Floats:
    """(intervals,) the share of the sample in the closed interval between any two thresholds."""
    ordered = np.sort(sample)
    below = np.searchsorted(ordered, thresholds, "left")
    up_to = np.searchsorted(ordered, thresholds, "right")
    left, right = np.triu_indices(len(thresholds))
    share: Floats = (up_to[right] - below[left]) / len(sample)
    return share
