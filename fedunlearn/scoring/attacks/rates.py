"""How many members an attack finds while it hardly ever accuses anybody wrongly: true positives at a low rate of false.

The rate is exact in expectation, however few held-out images there are. Let a new one be like those m that are held
out (exchangeable): its place among all m + 1, from the top, is uniform. An attack at a rate of 1 / N accuses the first
``j = (m + 1) / N`` places; of the last of them only a part, where j is no whole number: that is, by chance (Neyman and
Pearson's test at a level between two attainable ones). Below ``a`` held-out images and
level with t of them, every place from a to a + t is as likely, and the chance to be found is

    (min(a + t + 1, j) - min(a, j)) / (t + 1).

Summed over all m + 1 that telescopes to j: the mean is j / (m + 1) = 1 / N, with ties or without. To accuse whoever is
above the highest score that floor(m / N) held-out images exceed, as is usual, accuses (floor(m / N) + 1) / (m + 1) of
new ones: nearly twice 1 / N where m = N.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from fedunlearn.scoring.attacks.membership import forget_versus_held_out
from fedunlearn.scoring.attacks.pairs import Pairs
from fedunlearn.scoring.evidence import Bools, Estimate, Estimates, Floats, Frame, Ints
from fedunlearn.scoring.evidence.bootstrap import macro

FEWEST_PLACES = 2
"""How many of m + 1 held-out images a rate must allow to accuse, at least.

With one, all hangs on the highest score: 95 % intervals hold the truth in 63 to 91 of 100 draws (17 patients with 6
images, correlated by 0 to .8). With two (34 patients) it is 81 to 100, and 90 or more where images of a patient are
correlated by .3 at most; with four, 88 to 100.
"""


def true_positives(frame: Frame, scores: Floats, one_in: int, known: Bools | None = None) -> Estimates:
    """The share of images to forget that an attack finds while it accuses one of ``one_in`` held-out ones.

    Carlini et al., S&P 2022 (arXiv 2112.03570): an attack that is sure of a few patients harms them, whatever its
    average. Images as in `mia_loss_auc`, but one threshold for all hospitals and labels, as an attacker would have.
    Range 0 to 1; without memory ``1 / one_in`` in the mean: see the module for why. (That takes images for
    exchangeable. Images of one patient resemble one another: correlated by .3, the mean at 1 % is at most .001 more;
    by .8, .003 with 67 patients held out and .005 to .009 with 34. The retrained model is off alike.)

    *Too few images*, hence undefined, with fewer than ``FEWEST_PLACES one_in - 1`` held out. The interval is the
    bootstrap's by patient, the threshold anew in each replicate, and never narrower than that of Clopper and Pearson
    for the threshold as it is: where nobody is found, no resampling finds anybody.

    Args:
        frame: the images.
        scores: (N,) the higher, the rather a member.
        one_in: the reciprocal of the false positive rate.
        known: (N,) which images have a score; None for all.
    """
    return {
        group: _estimate(pairs, scores, one_in)
        for group, pairs in forget_versus_held_out(frame, known).items()
        if len(pairs.right) + 1 >= FEWEST_PLACES * one_in
    }


def found(above: Floats, level: Floats, places: Floats) -> Floats:
    """The chance to be found of whoever has ``above`` images above and ``level`` level with it, given the places."""
    chance: Floats = (np.minimum(above + level + 1, places) - np.minimum(above, places)) / (level + 1)
    return chance


def clopper_pearson(k: float, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share, ``k`` of ``n`` (Clopper and Pearson, Biometrika 1934)."""
    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
    return low, high


def _estimate(pairs: Pairs, scores: Floats, one_in: int) -> Estimate:
    left, n = scores[pairs.left], len(pairs.left)
    order = np.argsort(-scores[pairs.right], kind="stable")
    right, units = scores[pairs.right][order], pairs.right_units[order]
    once = np.ones((1, pairs.right_draws.shape[1]))
    value = float(_chances(left, right, units, once, one_in).mean())
    luck = float(np.sqrt((one_in - 1) / n)) / one_in
    if not pairs.varies:
        return Estimate(value, n, exact=clopper_pearson(value * n, n), luck=luck)
    chances = _chances(left, right, units, pairs.right_draws, one_in)
    drawn = pairs.left_draws[:, pairs.left_units]
    replicates = macro((drawn * chances).sum(axis=1, keepdims=True), drawn.sum(axis=1, keepdims=True))
    return Estimate(value, n, replicates, _interval(value, n, replicates), luck)


def _interval(value: float, n: int, replicates: Floats) -> tuple[float, float]:
    """What covers the bootstrap's interval and the one for a fixed threshold."""
    low, high = Estimate(value, n, replicates).interval()
    fixed = clopper_pearson(value * n, n)
    return min(low, fixed[0]), max(high, fixed[1])


def _chances(left: Floats, right: Floats, units: Ints, draws: Floats, one_in: int) -> Floats:
    """(B, n) the chance of each left image to be found, by replicate; ``right`` is sorted from the top.

    Only so much of the top is looked at as holds all places in every replicate: below, nobody is found.
    """
    places = (draws @ np.bincount(units, minlength=draws.shape[1]) + 1)[:, None] / one_in
    top = 32
    while True:
        top = len(right) if top >= len(right) else int((right >= right[top - 1]).sum())
        over = np.zeros((len(draws), top + 1))
        np.cumsum(draws[:, units[:top]], axis=1, out=over[:, 1:])
        if top == len(right) or (over[:, -1:] >= places).all():
            break
        top *= 2
    chances = np.zeros((len(draws), len(left)))
    high = left >= right[top - 1] if top < len(right) else np.ones(len(left), dtype=bool)
    before, up_to = (np.searchsorted(-right[:top], -left[high], side) for side in ("left", "right"))
    chances[:, high] = found(over[:, before], over[:, up_to] - over[:, before], places)
    return chances
