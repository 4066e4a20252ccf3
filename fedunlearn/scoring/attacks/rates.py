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

from collections.abc import Iterator, Mapping

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
    pairs = forget_versus_held_out(frame, known)
    enough = {group: of for group, of in pairs.items() if len(of.right) + 1 >= FEWEST_PLACES * one_in}
    alike: dict[bytes, dict[str, Pairs]] = {}  # by held-out images, which most groups share
    for group, of in enough.items():
        alike.setdefault(of.right.tobytes(), {})[group] = of
    estimates = {g: one for groups in alike.values() for g, one in _estimates(groups, scores, one_in)}
    return {group: estimates[group] for group in enough}


def found(above: Floats, level: Floats, places: Floats) -> Floats:
    """The chance to be found of whoever has ``above`` images above and ``level`` level with it, given the places."""
    chance: Floats = (np.minimum(above + level + 1, places) - np.minimum(above, places)) / (level + 1)
    return chance


def clopper_pearson(k: float, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share, ``k`` of ``n`` (Clopper and Pearson, Biometrika 1934)."""
    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
    return low, high


Standing = tuple[Ints, Floats]
"""(n,) where each left image stands, and (B, places) the chance to be found there, by replicate."""


def _estimates(groups: Mapping[str, Pairs], scores: Floats, one_in: int) -> Iterator[tuple[str, Estimate]]:
    """Of groups with the same held-out images."""
    first = next(iter(groups.values()))
    order = np.argsort(-scores[first.right], kind="stable")
    right, units = scores[first.right][order], first.right_units[order]
    rows = np.unique(np.concatenate([of.left for of in groups.values()]))
    once = _standing(scores[rows], right, units, np.ones((1, first.right_draws.shape[1])), one_in)
    again = _standing(scores[rows], right, units, first.right_draws, one_in)
    for group, of in groups.items():
        own = np.searchsorted(rows, of.left)
        yield group, _estimate(of, (once[0][own], once[1]), (again[0][own], again[1]), one_in)


def _estimate(pairs: Pairs, once: Standing, again: Standing, one_in: int) -> Estimate:
    """Of one group, whose images stand there once, and when patients are drawn anew."""
    n = len(pairs.left)
    standing, (chances,) = once
    value = float(np.append(chances, 0.0)[standing].mean())
    luck = float(np.sqrt((one_in - 1) / n)) / one_in
    if not pairs.varies:
        return Estimate(value, n, exact=clopper_pearson(value * n, n), luck=luck)
    standing, drawn_chances = again
    places, patients = drawn_chances.shape[1], pairs.left_draws.shape[1]
    owned = np.bincount(pairs.left_units * (places + 1) + standing, minlength=patients * (places + 1))
    drawn = pairs.left_draws @ owned.reshape(patients, -1).astype(np.float64)  # images, by where they stand
    over = (drawn[:, :-1] * drawn_chances).sum(axis=1, keepdims=True)
    replicates = macro(over, drawn.sum(axis=1, keepdims=True))
    return Estimate(value, n, replicates, _interval(value, n, replicates), luck)


def _interval(value: float, n: int, replicates: Floats) -> tuple[float, float]:
    """What covers the bootstrap's interval and the one for a fixed threshold."""
    low, high = Estimate(value, n, replicates).interval()
    fixed = clopper_pearson(value * n, n)
    return min(low, fixed[0]), max(high, fixed[1])


def _standing(left: Floats, right: Floats, units: Ints, draws: Floats, one_in: int) -> Standing:
    """Where ``left`` images stand among the ``right`` ones, which are sorted from the top.

    Only so much of these is looked at as holds all places that are accused in every replicate. Below, nobody is found:
    that is one more place, the last, which has no chance.
    """
    accused = (draws @ np.bincount(units, minlength=draws.shape[1]) + 1)[:, None] / one_in
    top = 32
    while True:
        top = len(right) if top >= len(right) else int((right >= right[top - 1]).sum())
        over = np.zeros((len(draws), top + 1))
        np.cumsum(draws[:, units[:top]], axis=1, out=over[:, 1:])
        if top == len(right) or (over[:, -1:] >= accused).all():
            break
        top *= 2
    high = left >= right[top - 1] if top < len(right) else np.ones(len(left), dtype=bool)
    between = [np.searchsorted(-right[:top], -left[high], side) for side in ("left", "right")]
    (before, up_to), place = np.unique(np.stack(between), axis=1, return_inverse=True)
    standing = np.full(len(left), len(before))
    standing[high] = place.reshape(-1)
    return standing, found(over[:, before], over[:, up_to] - over[:, before], accused)
