"""How far unlearned models lie from retrained ones in a measure, and how sure that is.

The difference is the mean over K unlearned models less the mean over M retrained ones, M >= K; those of the same seed
are paired, the M - K further ones are not. Two things make it uncertain, and neither shows the other: training again
gives other models (seeds), and other patients would have been asked about (patients). They are the readers and the
cases of Obuchowski and Rockette, Commun. Stat. Simul. Comput. 24, 1995, whose variance of a mean difference is that of
seeds plus

    max(C, 0)

with C the mean, over pairs of seeds, of the covariance of their differences when patients are drawn anew. (Luck of
single images is in the variance of seeds already; covariances leave it out of C, so it counts once.) C is a
bootstrap's, times P / (P-1), which a bootstrap lacks, P patients. The variance of seeds comes in two kinds:

- for the interval and for equivalence it is that of the difference seen. With r = K / M, ``mean_k (U_k - r R_k)`` less
  the further models' sum over M *is* the difference, so that its variance is ``s² / K + (M - K) / M² s_R²``, s the
  standard deviation of ``U_k - r R_k`` over seeds and s_R that of the retrained models. All paired (M = K): ``s² / K``.
- for the test of "these are honest retrainings with fresh luck" it is ``s_R² (1/K + 1/M)``: that is what the hypothesis
  says, and a strategy whose models are erratic must not hide behind their spread.

Degrees of freedom after Satterthwaite, of all terms, C with P - 1: a request may name few patients (Hillis, Stat. Med.
26, 2007, has those of seeds). No half width, and no p, is smaller than that of seeds alone, since with few seeds a
larger C would otherwise make a result *surer*.

Equivalence: two one-sided tests at 5 % (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987) against the measure's margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's; scipy.stats would take half a second to import

from fedunlearn.scoring.evidence import Estimate, Floats, Frame, Part
from fedunlearn.scoring.evidence.measure import PARTS, Measure
from fedunlearn.scoring.judgement.band import LEVEL

CONTROLS = ("original", "retrained", "retrained_other", "damaged")
"""Rows whose truth is known. They are judged, but are no hypotheses that a correction for many tests must count."""

POWER = 0.8
MOST_SEEDS = 30
"""More seeds than this are not asked for: then it is patients that are missing."""

_NO_END = 1e9
"""Degrees of freedom that are as good as infinite."""

Side = Literal["above", "below"]

Noise = tuple[float, float]
"""A variance and its degrees of freedom."""

Whole = Mapping[str, Estimate]
"""One model's measures by name, on all images."""


@dataclass(frozen=True)
class Difference:
    """Unlearned minus retrained, for one measure.

    Attributes:
        value: mean over seeds less mean over retrained models.
        seeds: K.
        references: M retrained models, those of the seeds first.
        patients: P, of those the measure speaks of.
        spread: s, the standard deviation over seeds of ``U_k - K/M R_k``; NaN of a single one.
        null_spread: s_R, the standard deviation of the retrained models (at least their `Estimate.luck`; of quality,
            `usefulness.least_luck` instead of 0); NaN of a single one.
        shared: max(C, 0), the variance that other patients would add for all seeds alike; NaN where unknown.
        margin: the largest difference that does not count.
        leaving_out: the value without each of the seeds; empty of a single one.
        bound: ``null_spread`` is no estimate of few models, but the most that it can be: it has no degrees of freedom.
    """

    value: float
    seeds: int
    references: int
    patients: int
    spread: float
    null_spread: float
    shared: float
    margin: float
    leaving_out: tuple[float, ...] = ()
    bound: bool = False

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The difference's confidence interval."""
        half = self.half((1 + level) / 2)
        return self.value - half, self.value + half

    def half(self, quantile: float) -> float:
        """How far the difference may be from the truth, with that probability on one side."""
        return _reach(quantile, self._luck, self._shared)

    @property
    def p_difference(self) -> float:
        """Two-sided: how often honest retrainings, on other patients, would differ as much."""
        return min(2 * self._p(abs(self.value), self._null), 1.0)  # in this order NaN stays NaN

    @property
    def p_equivalent(self) -> float:
        """The larger p of the two one-sided tests that it is not as far as the margin."""
        return max(self._p(self.margin + sign * self.value, self._luck) for sign in (1, -1))

    def p_beyond(self, side: Side) -> float:
        """One-sided, of the hypothesis that it is honest retraining: the largest of all seeds and without each.

        That no single training may carry a finding keeps honest retraining from being accused when one training in
        seven goes badly.
        """
        sign = 1 if side == "above" else -1
        fewer = replace(self, seeds=self.seeds - 1) if self.leaving_out else self
        without = (self._p(sign * value, fewer._null) for value in self.leaving_out)
        return max(self._p(sign * self.value, self._null), *without, 0.0)

    @property
    def smallest_visible(self) -> float:
        """The true difference that would be beyond the margin *and* significant at `LEVEL` in `POWER` of all cases."""
        beyond = max(self.margin, _reach(1 - LEVEL / 2, self._null, self._shared))
        return beyond + _reach(POWER, self._null, self._shared)

    def needed(self, room: float) -> str:
        """How many retrained models, seeds or patients would bring the one-sided 95 % limit within ``room``.

        All else is thought to stay as it is.
        """
        most = range(self.references + 1, MOST_SEEDS + 1)
        for references in most:
            if replace(self, references=references).half(0.95) < room:
                return f"about {references} retrained models would tell"
        for seeds in most:
            if replace(self, seeds=seeds, references=seeds).half(0.95) < room:
                return f"about {seeds} seeds, and as many retrained models, would tell"
        for times in (2, 3, 5, 10, 20, 50):
            seeds, references = max(self.seeds, 10), max(self.references, 10)
            patients = times * self.patients
            shared = self.shared / times
            more = replace(self, seeds=seeds, references=references, patients=patients, shared=shared)
            if more.half(0.95) < room:
                return f"about {patients} patients ({self.patients} here) and {seeds} seeds would tell"
        return "no likely number of seeds or patients would tell"

    def _p(self, distance: float, noise: Sequence[Noise]) -> float:
        """The chance that noise alone reaches ``distance``; without noise, all or nothing."""
        return max(
            float(distance <= 0) if error == 0 else float(stdtr(df, -distance / error))
            for error, df in _errors(noise, self._shared)
        )

    @property
    def _luck(self) -> tuple[Noise, ...]:
        k, m = self.seeds, self.references
        own = (self.spread**2 / k, k - 1.0)
        return (own, ((m - k) / m**2 * self.null_spread**2, self._null_freedom)) if m > k else (own,)

    @property
    def _null(self) -> tuple[Noise, ...]:
        return ((self.null_spread**2 * (1 / self.seeds + 1 / self.references), self._null_freedom),)

    @property
    def _null_freedom(self) -> float:
        return _NO_END if self.bound else self.references - 1.0

    @property
    def _shared(self) -> Noise:
        return self.shared, max(self.patients - 1.0, 1.0)


def _reach(quantile: float, luck: Sequence[Noise], shared: Noise) -> float:
    """How far noise reaches with that probability."""
    return max(float(stdtrit(df, quantile)) * error for error, df in _errors(luck, shared))


def _errors(luck: Sequence[Noise], shared: Noise) -> tuple[tuple[float, float], tuple[float, float]]:
    """Standard error and degrees of freedom of seeds and patients together, and of seeds alone."""
    return _together([*luck, shared]), _together(luck)


def _together(terms: Sequence[Noise]) -> tuple[float, float]:
    """The standard error of a sum and its degrees of freedom (Satterthwaite)."""
    variance = sum(part for part, _ in terms)
    if not math.isfinite(variance):
        return math.nan, math.nan
    below = sum(part**2 / df for part, df in terms if part)
    return math.sqrt(variance), min(variance**2 / below, _NO_END) if below > 0 else _NO_END


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
                patients = patients_of(frame, name)
                found.setdefault(strategy, {})[name] = difference(both, (), measure.margin, patients)
    return found


def difference(
    pairs: Sequence[tuple[Estimate, Estimate]], further: Sequence[float], margin: float, patients: int
) -> Difference:
    """The difference of unlearned models from retrained ones.

    Args:
        pairs: both models' estimates by seed, all of them numbers.
        further: the values of retrained models of other seeds.
        margin: the largest difference that does not count.
        patients: how many the measure speaks of.
    """
    values = np.array([one.value for one, _ in pairs])
    retrained = np.array([other.value for _, other in pairs])
    every, k = np.concatenate([retrained, np.asarray(further, dtype=np.float64)]), len(pairs)
    own = values - k / len(every) * retrained
    several, luck = k > 1, max(other.luck for _, other in pairs)
    return Difference(
        value=float(values.mean() - every.mean()),
        seeds=k,
        references=len(every),
        patients=patients,
        spread=float(own.std(ddof=1)) if several else math.nan,
        null_spread=max(float(every.std(ddof=1)), luck) if len(every) > 1 else math.nan,
        shared=_shared(pairs, patients) if several else math.nan,
        margin=margin,
        leaving_out=tuple(float(np.delete(values, i).mean() - every.mean()) for i in range(k) if several),
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


def patients_of(frame: Frame, measure: str) -> int:
    """How many patients a measure speaks of: those of the part it is named after, else those to forget."""
    named = measure.partition("_")[0]
    part: Part = next((p for p in PARTS if p == named), "forget")
    return len(np.unique(frame.patients[frame.rows(part)]))


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
