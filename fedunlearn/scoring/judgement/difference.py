"""How far unlearned models lie from retrained ones, and how sure that is: the statistics behind verdicts.

The difference is taken by seed: unlearned minus retrained of the same seed, on the same images, then the mean over K
seeds. Two things make it uncertain, and neither shows the other: training again gives other models (seeds), and other
patients would have been asked about (patients). They are the readers and the cases of Obuchowski and Rockette, Commun.
Stat. Simul. Comput. 24, 1995, whose variance of the mean difference is

    V = s² / K + max(C, 0)

with s² the variance over seeds and C the mean, over pairs of seeds, of the covariance of their differences when
patients are drawn anew. (Luck of single images is in s² already; covariances leave it out of C, so it counts once.)
Degrees of freedom: ``V² / ((s²/K)² / (K-1) + C² / (P-1))`` after Satterthwaite, P patients; Hillis, Stat. Med. 26,
2007, has the first term. Deviations: C is a bootstrap's, times P / (P-1), which a bootstrap lacks; the second term is
ours, because a request may name few patients; and no half width, and no p, is smaller than that of seeds alone with
K - 1 degrees, since with few seeds a larger C would otherwise make a result *surer*.

s² comes in two kinds. For the interval and for equivalence it is that of the differences seen. For the test of "these
are honest retrainings with fresh luck" it is twice the variance of the retrained models: that is what the hypothesis
says, and a strategy whose models are erratic must not hide behind their spread.

Equivalence: two one-sided tests at 5 % (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987) against the margin of
`fedunlearn.scoring.judgement.band.allowance`. A PASS "equivalent" therefore errs in 5 of 100 cases that lie just at the
margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit  # Student's; scipy.stats would take half a second to import

from fedunlearn.scoring.evidence import Estimate, Floats, Frame, Part
from fedunlearn.scoring.judgement.band import LEVEL, allowance
from fedunlearn.scoring.measures.catalogue import PARTS, Measure

CONTROLS = ("original", "retrained", "retrained_other", "damaged")
"""Rows whose truth is known. They are judged, but are no hypotheses that a correction for many tests must count."""

COLUMNS = (
    "request",
    "strategy",
    "measure",
    "difference",
    "low",
    "high",
    "p_difference",
    "p_holm",
    "p_equivalent",
    "margin",
    "smallest_visible",
    "seeds",
    "patients",
)
POWER = 0.8
MOST_SEEDS = 30
"""More seeds than this are not asked for: then it is patients that are missing."""

_NO_END = 1e9
"""Degrees of freedom that are as good as infinite."""

Whole = Mapping[str, Estimate]
"""One model's measures by name, on all images."""


@dataclass(frozen=True)
class Difference:
    """Unlearned minus retrained, for one measure.

    Attributes:
        value: its mean over seeds.
        seeds: K.
        patients: P, of those the measure speaks of.
        spread: s, the standard deviation over seeds; NaN of a single one.
        null_spread: what s is for honest retrainings, √2 times the standard deviation of the retrained models (at least
            their `Estimate.luck`).
        shared: max(C, 0), the variance that other patients would add for all seeds alike; NaN where unknown.
        margin: the largest difference that does not count.
    """

    value: float
    seeds: int
    patients: int
    spread: float
    null_spread: float
    shared: float
    margin: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The difference's confidence interval."""
        half = self._half(self.spread, (1 + level) / 2)
        return self.value - half, self.value + half

    @property
    def p_difference(self) -> float:
        """Two-sided: how often honest retrainings, on other patients, would differ as much."""
        return min(2 * self._p(abs(self.value), self.null_spread), 1.0)  # in this order NaN stays NaN

    @property
    def p_equivalent(self) -> float:
        """The larger p of the two one-sided tests that it is not as far as the margin."""
        return max(self._p(self.margin + sign * self.value, self.spread) for sign in (1, -1))

    @property
    def smallest_visible(self) -> float:
        """The true difference that would be beyond the margin *and* significant at `LEVEL` in `POWER` of all cases."""
        beyond = max(self.margin, self._half(self.null_spread, 1 - LEVEL / 2))
        return beyond + self._half(self.null_spread, POWER)

    def within(self, room: float, side: Literal["above", "below"]) -> bool:
        """Whether the one-sided 95 % limit on that side is nearer than ``room``."""
        low, high = self.interval(0.90)
        return (high if side == "above" else -low) < room

    def needed(self, room: float, test: bool) -> str:
        """How many seeds, or patients, would settle it, if all else stayed as it is.

        Args:
            room: how small the noise must become, in the measure's unit.
            test: it is the test for a difference that must become sharp; else the one-sided 95 % limit.
        """
        spread, level = (self.null_spread, 1 - LEVEL / 2) if test else (self.spread, 0.95)

        def sharp(one: Difference) -> bool:
            return one._half(spread, level) < room

        for seeds in range(self.seeds + 1, MOST_SEEDS + 1):
            if sharp(replace(self, seeds=seeds)):
                return f"about {seeds} seeds would tell"
        for times in (2, 3, 5, 10, 20):
            more = replace(self, seeds=10, patients=times * self.patients, shared=self.shared / times)
            if sharp(more):
                return (
                    f"about {more.patients} patients ({self.patients} here) and {more.seeds} seeds would tell"
                )
        return "no likely number of seeds or patients would tell"

    def _half(self, spread: float, quantile: float) -> float:
        """How far noise reaches with that probability, given the standard deviation over seeds."""
        return max(float(stdtrit(df, quantile)) * error for error, df in self._noises(spread))

    def _p(self, distance: float, spread: float) -> float:
        """The chance that noise alone reaches ``distance``; without noise, all or nothing."""
        return max(
            float(distance <= 0) if error == 0 else float(stdtr(df, -distance / error))
            for error, df in self._noises(spread)
        )

    def _noises(self, spread: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Standard error and degrees of freedom of seeds and patients together, and of seeds alone."""
        luck = spread**2 / self.seeds
        variance = luck + self.shared
        if not math.isfinite(variance):
            return (math.nan, math.nan), (math.nan, math.nan)
        below = luck**2 / (self.seeds - 1) + self.shared**2 / max(self.patients - 1, 1)
        df = min(variance**2 / below, _NO_END) if below > 0 else _NO_END
        return (math.sqrt(variance), df), (math.sqrt(luck), self.seeds - 1.0)


def differences(
    models: Sequence[Mapping[str, Whole]], measures: Mapping[str, Measure], frame: Frame
) -> dict[str, dict[str, Difference]]:
    """The differences of one request, by strategy and measure.

    Args:
        models: by seed, the measures of every model by strategy; "retrained" is the reference.
        measures: by name; those without a margin have no difference that counts, and are left out.
        frame: the images.

    Returns:
        Only where the measure is a finite number for every seed.
    """
    found: dict[str, dict[str, Difference]] = {}
    for strategy in dict.fromkeys(name for of_seed in models for name in of_seed):
        if strategy == "retrained" or any(strategy not in of_seed for of_seed in models):
            continue
        for name, measure in measures.items():
            pairs = [(m[strategy].get(name), m["retrained"].get(name)) for m in models]
            both = [(one, other) for one, other in pairs if one is not None and other is not None]
            finite = all(math.isfinite(e.value) for pair in both for e in pair)
            if measure.margin is not None and len(both) == len(models) and finite:
                found.setdefault(strategy, {})[name] = _difference(both, measure, _patients(frame, name))
    return found


def _difference(pairs: Sequence[tuple[Estimate, Estimate]], measure: Measure, patients: int) -> Difference:
    gaps = np.array([one.value - other.value for one, other in pairs])
    retrained = np.array([other.value for _, other in pairs])
    several, luck = len(pairs) > 1, max(other.luck for _, other in pairs)
    return Difference(
        value=float(gaps.mean()),
        seeds=len(pairs),
        patients=patients,
        spread=float(gaps.std(ddof=1)) if several else math.nan,
        null_spread=math.sqrt(2) * max(float(retrained.std(ddof=1)), luck) if several else math.nan,
        shared=_shared(pairs, patients) if several else math.nan,
        margin=allowance(retrained.tolist(), measure),
    )


def _shared(pairs: Sequence[tuple[Estimate, Estimate]], patients: int) -> float:
    """max(C, 0) of the module's formula; NaN if patients cannot be drawn anew."""
    if patients < 2 or not all(e.replicates.size for pair in pairs for e in pair):
        return math.nan
    drawn: Floats = np.stack([one.replicates - other.replicates for one, other in pairs])
    drawn = drawn[:, np.isfinite(drawn).all(axis=0)]
    if drawn.shape[1] < 2:
        return math.nan
    covariance = np.cov(drawn)
    k = len(pairs)
    apart = float(covariance.sum() - np.trace(covariance)) / (k * (k - 1))
    return max(apart, 0.0) * patients / (patients - 1)


def _patients(frame: Frame, measure: str) -> int:
    """How many patients a measure speaks of: those of the part it is named after, else those to forget."""
    named = measure.partition("_")[0]
    part: Part = next((p for p in PARTS if p == named), "forget")
    return len(np.unique(frame.patients[frame.rows(part)]))


def table(request: str, found: Mapping[str, Mapping[str, Difference]]) -> pd.DataFrame:
    """The rows of `statistics.parquet` of one request.

    ``p_holm`` is ``p_difference`` after Holm's correction (Scand. J. Stat. 6, 1979) over the request's strategies, for
    each measure; controls have none. It is for whoever picks a strategy from the table. Verdicts rest on
    ``p_difference``: what is said of one strategy must not depend on which others were run beside it.
    """
    rows = []
    for strategy, by_measure in found.items():
        for name, one in by_measure.items():
            key = (request, strategy, name, one.value, *one.interval(), one.p_difference)
            family = {s: f[name].p_difference for s, f in found.items() if s not in CONTROLS and name in f}
            corrected = holm(family).get(strategy, math.nan)
            rows.append(
                (*key, corrected, one.p_equivalent, one.margin, one.smallest_visible, one.seeds, one.patients)
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down: the i-th smallest of m times ``m - i`` (i from 0), never below one before it, at most 1.

    NaN is no test and is not counted.
    """
    known = sorted((value, name) for name, value in p.items() if math.isfinite(value))
    corrected, largest = dict.fromkeys(p, math.nan), 0.0
    for i, (value, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - i) * value))
        corrected[name] = largest
    return corrected
