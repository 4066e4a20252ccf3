"""How much trainings differ by luck alone, patient by patient, when few trainings are there to tell.

Three or eight retrained models say little about the luck of any one patient, but all patients together say much. The
moderated variance of Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004 ("limma"), takes what they have in common for a
prior: the variances are thought to be drawn from a scaled inverse chi-squared distribution, whose degrees of freedom
``d0`` and scale ``s0²`` follow from the mean and the variance of their logarithms (there, section 6.2). What is known
of one patient is then ``(d0 s0² + d s²) / (d0 + d)``, with ``d0 + d`` degrees of freedom. Where patients truly differ,
d0 is small and each speaks for itself; where they do not, d0 is large and little is left to guess.

Deviation: a patient with many images has less luck than one with few, so that the prior's scale goes with a power of
the number of images, fitted to the logarithms, between 0 and -1.

A variance that is the sum of several, each known with its own degrees of freedom, has those of Satterthwaite,
Biometrics Bulletin 2, 1946: they make its own variance what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

from fedunlearn.scoring.evidence import Floats, Ints

CERTAIN = 1e6
"""Degrees of freedom that are as good as infinite."""

_FEWEST = 3
"""Variances to learn a prior from, at least."""


@dataclass(frozen=True, eq=False)
class Luck:
    """The variance of one training's luck: (n,) of each patient, and the degrees of freedom it is known with."""

    variance: Floats
    freedom: float


Spread = tuple[Floats, float | Floats]
"""(n,) variances and the degrees of freedom that they are known with."""


def together(parts: Sequence[Spread]) -> tuple[Floats, Floats]:
    """(n,) the sum of variances, and its degrees of freedom; of no variance these are `CERTAIN`."""
    total = np.sum([variance for variance, _ in parts], axis=0)
    below = np.sum([variance**2 / freedom for variance, freedom in parts], axis=0)
    freedom = np.divide(total**2, below, out=np.full_like(total, CERTAIN), where=below > 0)
    return total, np.minimum(freedom, CERTAIN)


def moderated(variances: Floats, freedom: float, images: Ints) -> Luck:
    """What is known of each variance in the light of all.

    Args:
        variances: (n,) of samples, 0 or more.
        freedom: degrees of freedom of each.
        images: (n,) how many images stand behind each.
    """
    some = variances > 0
    if some.sum() < _FEWEST:
        return Luck(variances, freedom)
    size = np.log(images)
    logs = np.log(variances[some]) - digamma(freedom / 2) + np.log(freedom / 2)
    slope = _slope(size[some], logs)
    logs = logs - slope * size[some]
    excess = float(logs.var(ddof=1) - polygamma(1, freedom / 2))
    prior = 2 * _trigamma_inverse(excess) if excess > 0 else CERTAIN
    if prior >= CERTAIN:
        prior, scale = CERTAIN, float(np.exp(logs.mean()))
    else:
        scale = float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2)))
    known = (prior * scale * np.exp(slope * size) + freedom * variances) / (prior + freedom)
    return Luck(known, min(prior + freedom, CERTAIN))


def _slope(size: Floats, logs: Floats) -> float:
    """Of the logarithm of the variance over that of the number of images, by least squares, within -1 to 0."""
    apart = size - size.mean()
    if not apart.any():
        return 0.0
    return float(np.clip((apart * logs).sum() / (apart**2).sum(), -1.0, 0.0))


def _trigamma_inverse(value: float) -> float:
    """The y with trigamma(y) = value > 0, by Newton's method on 1 / trigamma, which is convex (Smyth, appendix)."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, y))
        y += step
        if abs(step) < 1e-8 * y:
            break
    return y
