"""Does a strategy treat groups of patients unequally? Its gaps to the retrained model, compared between groups.

A gap is a measure of the unlearned model minus that of the retrained one with the same seed, on the same images. For
every attribute the question is whether the gap is the same in all of its groups:

- Patients are drawn anew, the same for both models and all groups: replicates are of the mean gap over seeds. Another
  training would have hit other groups: to each replicate comes a normal draw with the covariance of the mean over
  seeds, ``sum_k r_k r_k' / (K (K - 1))``, r_k being the K seeds' distances from it. (Drawn anew themselves, K seeds
  would vary by (K - 1) / K of that, two of them by half.) The luck of a patient in one training is in both, which errs
  on the side of too much spread. With one seed there is no telling what another training would have hit, and no
  comparison.
- Over the pairs of groups, the statistic is the largest ``|d| / se``, with d the difference of two gaps and se² the
  sum of its variances by patients and by seeds. Centred replicates give its distribution where no group differs (the
  single-step maximum of Romano and Wolf, Econometrica 2005), so that an attribute with many groups is not found unequal
  the easier.
- A variance of few patients or seeds is itself a guess, so each replicate divides by one that varies as it would: that
  by patients, group by group, as a chi-squared number with n - 1 degrees of freedom, over n - 1, for n patients, and
  errors grow by ``sqrt(n / (n - 1))``; that by seeds, pair by pair, with K - 1. With two groups that is about Welch's
  t, and of seeds alone Student's. (Plain resampling of 15 patients in each of 6 groups would call one attribute in
  eight unequal where none is.)
- The attributes and measures of one strategy and request are corrected together by Holm's method (Scandinavian
  Journal of Statistics 1979).

What it says is of these strategies' models: unequal treatment *by unlearning*. That a measure differs between groups in
the retrained model too is no gap. A group needs `FEWEST_PATIENTS` patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd

from fedunlearn.core import derive
from fedunlearn.scoring.evidence import FEWEST_PATIENTS, Estimates, Floats, Frame, Ints, Part
from fedunlearn.scoring.kinds import said

COLUMNS = (
    *("request", "strategy", "attribute", "groups", "measure", "difference", "low", "high"),
    "p_holm",
)
LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Gaps:
    """One measure's gap to the retrained model of the same seed, by group.

    Attributes:
        values: the gap on the images as they are.
        replicates: (RESAMPLES,) the gap when patients are drawn anew.
        patients: how many the group has.
    """

    values: Mapping[str, float]
    replicates: Mapping[str, Floats]
    patients: Mapping[str, int]


@dataclass(frozen=True)
class Finding:
    """The pair of an attribute's groups that differ most clearly.

    Attributes:
        larger, smaller: the groups' values; ``larger`` has the larger gap.
        difference: of their gaps, 0 or more.
        low, high: interval of the difference that holds for all pairs of the attribute at once, 95 %.
        p: of the attribute, not yet corrected for others.
    """

    larger: str
    smaller: str
    difference: float
    low: float
    high: float
    p: float


@lru_cache(maxsize=8)
def comparable(frame: Frame, part: Part) -> Mapping[str, int]:
    """The groups of a part's images that have enough patients to be compared, and how many."""
    rows = frame.rows(part)
    groups = {group: frame.patients_in(rows & own) for group, own in frame.groups.items() if group != "all"}
    return {group: patients for group, patients in groups.items() if patients >= FEWEST_PATIENTS}


def gaps(
    frame: Frame,
    measures: Mapping[str, Part],
    model: Mapping[str, Estimates],
    retrained: Mapping[str, Estimates],
) -> dict[str, Gaps]:
    """The gaps of one model on every group with enough patients, by measure (`Scored.biased`).

    Classes of voxels are no groups of patients.
    """
    found = {}
    for name, part in measures.items():
        both = model.get(name, {}), retrained.get(name, {})
        groups = {
            group: patients
            for group, patients in comparable(frame, part).items()
            if all(group in e and e[group].replicates.size for e in both)
        }
        found[name] = Gaps(
            {g: both[0][g].value - both[1][g].value for g in groups},
            {g: both[0][g].replicates - both[1][g].replicates for g in groups},
            groups,
        )
    return found


def compare(request: str, by_strategy: Mapping[str, Sequence[Mapping[str, Gaps]]]) -> pd.DataFrame:
    """The rows of `bias.parquet` of one request.

    Args:
        request: its id.
        by_strategy: the gaps of every seed; strategies that diverged for some seed have fewer, and are left out.
    """
    rows = []
    most = max([2, *map(len, by_strategy.values())])  # of one seed nothing can be told
    for strategy, seeds in by_strategy.items():
        if len(seeds) < most:
            continue
        found = [
            (attribute, name, finding)
            for name in seeds[0]
            for attribute, groups in _attributes([seed[name] for seed in seeds]).items()
            if (finding := _unequal([seed[name] for seed in seeds], attribute, groups)) is not None
        ]
        for (attribute, name, one), p in zip(found, holm([f.p for *_, f in found]), strict=True):
            pair = f"{one.larger} over {one.smaller}"
            rows.append((request, strategy, attribute, pair, name, one.difference, one.low, one.high, p))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the smallest of m times m, the next times m - 1, …, never falling, at most 1."""
    corrected, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = highest
    return corrected


def most_different(
    values: Floats, replicates: Floats, patients: Sequence[int]
) -> tuple[int, int, float, float, float] | None:
    """The most clearly different pair among groups; None where nothing can be told.

    Args:
        values: (K, G) the groups' gaps by seed.
        replicates: (B, G) their means over seeds when patients are drawn anew; NaN where a group has no patient.
        patients: (G,) how many each group has.

    Returns:
        The group with the larger gap, the other, half the width of the difference's interval, the difference, and p.
    """
    means, k = values.mean(axis=0), len(values)
    drawn = replicates[np.isfinite(replicates).all(axis=1)]
    if 2 * len(drawn) < len(replicates) or len(means) < 2:
        return None
    free = np.asarray(patients, dtype=np.float64) - 1
    errors = (drawn - means) * np.sqrt((free + 1) / free)
    one, other = (np.array(side) for side in zip(*combinations(range(len(means)), 2), strict=True))
    by_patients = (errors[:, one] - errors[:, other]).var(axis=0, ddof=1)
    seeds = (values - means) / np.sqrt(max(k * (k - 1), 1))
    by_seeds = ((seeds[:, one] - seeds[:, other]) ** 2).sum(axis=0)
    varies = by_patients + by_seeds > 1e-24  # of what never varies, resampling can tell nothing
    if not varies.any():
        return None
    one, other, by_patients, by_seeds = (x[varies] for x in (one, other, by_patients, by_seeds))
    guessed = by_patients * _guessed(errors.var(axis=0, ddof=1), free, len(errors), one, other)
    guessed += by_seeds * _luck(k, len(errors), len(one))
    errors = errors + _seeds_drawn(k, len(errors)) @ seeds
    extremes = (np.abs(errors[:, one] - errors[:, other]) / np.sqrt(guessed)).max(axis=1)
    apart, spread = means[one] - means[other], np.sqrt(by_patients + by_seeds)
    clearest = int(np.argmax(np.abs(apart) / spread))
    statistic = abs(apart[clearest]) / spread[clearest]
    p = float(((extremes >= statistic - 1e-12).sum() + 1) / (len(extremes) + 1))
    half = float(np.quantile(extremes, 1 - LEVEL) * spread[clearest])
    pair = int(one[clearest]), int(other[clearest])
    larger, smaller = pair if apart[clearest] >= 0 else pair[::-1]
    return larger, smaller, half, float(abs(apart[clearest])), p


def _guessed(variances: Floats, free: Floats, replicates: int, one: Ints, other: Ints) -> Floats:
    """(replicates, pairs) how far off a guess of each pair's variance by patients is, as a factor."""
    drawn = variances * _chi_squared(tuple(free.tolist()), replicates) / free
    both = variances[one] + variances[other]
    factors = np.ones((replicates, len(one)))
    return np.divide(drawn[:, one] + drawn[:, other], both, out=factors, where=both > 0)


def _luck(seeds: int, replicates: int, pairs: int) -> Floats:
    """(replicates, pairs) the same of the variance by seeds."""
    free = max(seeds - 1, 1)
    rng = np.random.default_rng(derive(0, "scoring", "bias", "luck"))
    return rng.chisquare(free, (replicates, pairs)) / free


@lru_cache(maxsize=64)  # of every attribute and part; the same for all strategies
def _chi_squared(free: tuple[float, ...], replicates: int) -> Floats:
    """(replicates, groups) numbers of so many degrees of freedom."""
    rng = np.random.default_rng(derive(0, "scoring", "bias", "spread"))
    return rng.chisquare(np.array(free), (replicates, len(free)))


def sentences(bias: pd.DataFrame, classes: Sequence[str] = ()) -> list[str]:
    """What `bias.parquet` says of one request, in words: what is significant, or else what would have been seen.

    Args:
        bias: the request's rows.
        classes: names of classes, by number.
    """
    if bias.empty:
        return []
    told: dict[tuple[str, str, str], list[str]] = {}
    for row in bias[bias["p_holm"] < LEVEL].to_dict("records"):
        key = str(row["measure"]), str(row["attribute"]), str(row["groups"])
        told.setdefault(key, []).append(f"{row['strategy']} by {row['difference']:.2f}")
    if told:
        return [
            f"unequal by {attribute}: {said(measure)}, less retraining's, is higher for "
            f"{_pair(pair, classes if attribute == 'class' else ())}: {', '.join(strategies)}"
            for (measure, attribute, pair), strategies in told.items()
        ]
    half = (bias["high"] - bias["difference"]).groupby([bias["measure"], bias["attribute"]]).median()
    place = list(half.index)[int(half.to_numpy().argmin())]
    seen = f"the smallest visible difference is {half.min():.2f} ({said(place[0])}, by {place[1]})"
    if half.min() >= 1:  # all of these measures are shares
        seen = "no difference would be seen"
    return [
        f"no group is treated unlike another ({', '.join(dict.fromkeys(bias['attribute']))}), as far as can be seen: "
        f"{seen}"
    ]


def _pair(groups: str, classes: Sequence[str]) -> str:
    """Both groups of a finding, such as ``7 over 6``, in words."""
    each = [
        classes[int(group)] if group.isdecimal() and int(group) < len(classes) else group
        for group in groups.split(" over ")
    ]
    return " than for ".join(each)


def _attributes(seeds: Sequence[Gaps]) -> dict[str, list[str]]:
    """The groups of every attribute that all seeds have, where there are two or more."""
    found: dict[str, list[str]] = {}
    for group in seeds[0].values:
        if all(group in seed.values for seed in seeds):
            found.setdefault(group.partition("=")[0], []).append(group)
    return {attribute: groups for attribute, groups in found.items() if len(groups) > 1}


def _unequal(seeds: Sequence[Gaps], attribute: str, groups: Sequence[str]) -> Finding | None:
    values = np.array([[seed.values[g] for g in groups] for seed in seeds])
    drawn = np.array([[seed.replicates[g] for g in groups] for seed in seeds]).mean(axis=0).T
    found = most_different(values, drawn, [seeds[0].patients[g] for g in groups])
    if found is None:
        return None
    larger, smaller, half, difference, p = found
    names = [group.partition("=")[2] for group in groups]
    return Finding(names[larger], names[smaller], difference, difference - half, difference + half, p)


@lru_cache(maxsize=4)
def _seeds_drawn(seeds: int, replicates: int) -> Floats:
    """(replicates, seeds) standard normal."""
    rng = np.random.default_rng(derive(0, "scoring", "bias", str(seeds)))
    return rng.normal(size=(replicates, seeds))
