"""How much of what the original model knew of each patient an unlearned model still knows.

The signal is the logit-scaled confidence ``phi = log p_y - log(1 - p_y)`` (of a volume, by its loss). A patient's
*score* under a model is the mean of phi over the patient's images to forget, less what the same model answers on
held-out images of the same hospital and label: a model that is more or less confident of everything neither remembers
nor forgets. Held out are patients of whom no image was trained on. Where a label has none at the hospital, all of the
hospital's stand in. Images at a hospital that holds nobody out cannot be compared; a patient's others speak for it.

    difference = mean score over the unlearned models - mean score over the retrained ones
    memory left = difference / the original models' difference        (0: as if never seen, 1: as the original)

**The patients are fixed.** Whether a request was honoured is asked of its own patients; what is random is the luck of
training, and no other. It is known from the retrained models, moderated over patients to forget and held-out ones
(`luck`): a single patient has an answer too. With K unlearned and M retrained models the test's error is ``s sqrt(1/K +
1/M)``. Whether the strategy *would work for others* is another question, for which patients are random as well: to the
error of the mean comes the spread of the patients' own differences, ``sd / sqrt(P)``.

**What is sure** (intervals, and "surely within twice the margin") depends on the strategy's own models too, which may
differ more than retrained ones do. If their variance is no larger than luck's, both are taken for one, known with the
degrees of freedom of both: models that happen to agree are no surer than that. Else it is their own, and the sum of
both sides' variances has Satterthwaite's degrees of freedom, K - 1 being those of K models. Of one patient it is the
variance of the models' means over patients, with K - 1, and that of the patient's distance from these, moderated over
patients. `benchmarks/intervals.py` has how often intervals hold the truth.

**A patient is flagged** as remembered (or as forgotten too much) if the difference is above (below) 0 beyond luck at
`LEVEL` / P, one-sided (Bonferroni, over P patients; half of it where copies are looked at too), *whichever one of the
models is left out*, and the best estimate is beyond the margin. That no single training may carry a finding keeps
honest retraining from being accused when one training in seven goes badly. What is significant only with all models is
*suspected*: enough to withhold a yes.

**What the original knew of one patient** is itself uncertain. It is shrunk towards the mean over patients as far as
luck explains how patients differ (empirical Bayes, normal), and is at least a quarter of that mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's; scipy.stats would take half a second to import

from fedunlearn.scoring.evidence import Bools, Floats, Frame, Ints
from fedunlearn.scoring.judgement.luck import CERTAIN, Luck, Spread, moderated, together
from fedunlearn.scoring.judgement.patients import scores

LEVEL = 0.02
"""Of each one-sided test, over all looks at the same memory; `benchmarks/yardstick.py` has what all come to."""

FEWEST = 2
"""Retrained models, at least: of one the luck is unknown. And unlearned ones: of one nothing can be told."""

_GROUPS = 5
"""Groups of held-out patients as large as the request, at least, to learn from how far luck moves their mean."""


@dataclass(frozen=True, eq=False)
class Noise:
    """How far luck moves one training's score, and the degrees of freedom that this is known with."""

    variance: float
    freedom: float


@dataclass(frozen=True, eq=False)
class Scale:
    """What 0 and 1 are for the patients of a request.

    Attributes:
        asked: (N,) the images whose answers count.
        patients: (P,) their codes; those with nobody to be compared with are left out.
        retrained: (M, P) their scores under the retrained models.
        original: (K, P) their scores under the original ones.
        luck: of one training, by patient.
        noise: of one training, of the mean over patients.
        images: (P,) how many images of each are compared.
        level: of each one-sided test.
        unusual: (M,) how far each retrained model is from the others, as a ratio of variances to what is usual.
    """

    asked: Bools
    patients: Ints
    retrained: Floats
    original: Floats
    luck: Luck
    noise: Noise
    images: Ints
    level: float
    unusual: Floats

    @cached_property
    def known(self) -> Floats:
        """(P,) what the original knew of each, shrunk as the module says."""
        difference = self.original.mean(axis=0) - self.retrained.mean(axis=0)
        error = self.luck.variance * (1 / len(self.original) + 1 / len(self.retrained))
        mean = self.whole
        between = max(float(difference.var()) - float(error.mean()), 0.0)
        shrunk: Floats = mean + between / (between + error) * (difference - mean)
        return np.maximum(shrunk, mean / 4)

    @cached_property
    def whole(self) -> float:
        """What the original knew in the mean over patients; where that is nothing, as little as luck can hide."""
        difference = float(self.original.mean() - self.retrained.mean())
        luck = math.sqrt(self.noise.variance * (1 / len(self.original) + 1 / len(self.retrained)))
        return max(difference, luck, float(np.finfo(np.float64).tiny))

    @cached_property
    def visible(self) -> bool:
        """Whether the original's memory of these patients can be seen at all: of their mean, or of any of them."""
        own = memory(self, self.original, margin=0.0)
        return own.mean.significant(1) or bool(own.remembered.any())

    def power(self, models: int) -> float:
        """The chance that one patient remembered whole would show among ``models`` models, mean over patients."""
        error = np.sqrt(self.luck.variance * (1 / models + 1 / len(self.retrained)))
        critical = stdtrit(self.luck.freedom, 1 - self.level / len(self.patients))
        return float(stdtr(self.luck.freedom, self.known / error - critical).mean())

    def smallest(self, models: int) -> float:
        """The smallest memory left, as a share and in the mean over patients, that would be seen in 8 of 10 cases."""
        error = math.sqrt(self.noise.variance * (1 / models + 1 / len(self.retrained)))
        reach = stdtrit(self.noise.freedom, 1 - self.level) + stdtrit(self.noise.freedom, 0.8)
        return float(reach * error / self.whole)


@dataclass(frozen=True)
class Mean:
    """The memory left in the mean over a request's patients.

    Attributes:
        left: a share.
        error: its standard error, the patients being fixed.
        freedom: the degrees of freedom of that.
        others: the standard error if patients were random too; NaN of a single patient.
        patients: P.
        seeds, references: K and M.
        statistics: (1 + K,) Student's t of "nothing is left, but for luck": of all models, and without each.
        null_freedom: their degrees of freedom.
        level: of each one-sided test.
    """

    left: float
    error: float
    freedom: float
    others: float
    patients: int
    seeds: int
    references: int
    statistics: tuple[float, ...]
    null_freedom: float
    level: float

    def interval(self, level: float = 0.95, others: bool = False) -> tuple[float, float]:
        """The confidence interval, for these patients or for ``others`` like them."""
        freedom = min(self.freedom, self.patients - 1) if others else self.freedom
        error = self.others if others else self.error
        if not freedom > 0 or not math.isfinite(error):
            return math.nan, math.nan
        half = float(stdtrit(freedom, (1 + level) / 2)) * error
        return self.left - half, self.left + half

    @property
    def p(self) -> float:
        """Two-sided, of "nothing is left"."""
        return 2 * float(stdtr(self.null_freedom, -abs(self.statistics[0])))

    def p_within(self, margin: float) -> float:
        """Of the two one-sided tests (Schuirmann, 1987) that as much as ``margin`` is left, or forgotten too much."""
        if self.error == 0:
            return float(abs(self.left) >= margin)
        return float(stdtr(self.freedom, -(margin - abs(self.left)) / self.error))

    def significant(self, side: int, all_models: bool = False) -> bool:
        """Whether memory is left (``side`` 1), or too much is forgotten (-1), whichever model is left out.

        With ``all_models`` only the test of all models together is asked.
        """
        critical = float(stdtrit(self.null_freedom, 1 - self.level))
        tests = self.statistics[:1] if all_models else self.statistics
        return all(side * t > critical for t in tests)


@dataclass(frozen=True, eq=False)
class Memory:
    """What the models of one strategy still know.

    Attributes:
        patients: (P,) codes.
        left: (P,) the share of what the original knew of each.
        low, high: (P,) its 95 % interval, each for itself.
        p: (P,) two-sided, of "nothing is left", not corrected over patients.
        remembered, overdone: (P,) flagged.
        suspected: (P,) beyond the margin and significant with all models, but not whichever is left out.
        mean: over patients.
    """

    patients: Ints
    left: Floats
    low: Floats
    high: Floats
    p: Floats
    remembered: Bools
    overdone: Bools
    suspected: Bools
    mean: Mean

    @property
    def flagged(self) -> Bools:
        """(P,) on either side."""
        flagged: Bools = self.remembered | self.overdone
        return flagged


def scale(
    frame: Frame, retrained: Sequence[Floats], original: Sequence[Floats], level: float = LEVEL
) -> Scale | None:
    """The scale of a request.

    Args:
        frame: the images.
        retrained: (N,) phi of each retrained model; NaN for images that it was not asked about.
        original: the same of each original model.
        level: of each one-sided test.

    Returns:
        None with fewer than `FEWEST` retrained models, or where no patient can be compared with anybody.
    """
    if len(retrained) < FEWEST:
        return None
    asked = np.isfinite(retrained[0])
    patients, of_retrained, images, held_out = scores(frame, np.stack(retrained), asked)
    usable = np.isfinite(of_retrained).all(axis=0)
    if not usable.any():
        return None
    of_original = scores(frame, np.stack(original), asked)[1]
    strangers, counts = held_out
    both = np.concatenate([of_retrained[:, usable], strangers], axis=1)
    freedom = len(retrained) - 1.0
    sizes = np.concatenate([images[usable], counts])
    luck = moderated(both.var(axis=0, ddof=1), freedom, sizes)
    few = int(usable.sum())
    return Scale(
        asked=asked,
        patients=patients[usable],
        retrained=of_retrained[:, usable],
        original=of_original[:, usable],
        luck=Luck(luck.variance[:few], luck.freedom),
        noise=_noise(of_retrained[:, usable], strangers),
        images=images[usable],
        level=level,
        unusual=_unusual(both, luck.variance),
    )


def memory(scale: Scale, models: Floats, margin: float) -> Memory:
    """What ``models`` (K, P), by their scores of the scale's patients, still know; ``margin`` as in `Margins`."""
    k, m, p = len(models), len(scale.retrained), len(scale.patients)
    zero, known = scale.retrained.mean(axis=0), scale.known
    luck = scale.luck
    sets = [models, *(np.delete(models, i, axis=0) for i in range(k) if k > 1)]
    t = np.stack([(s.mean(axis=0) - zero) / _root(luck.variance * (1 / len(s) + 1 / m)) for s in sets])
    difference = models.mean(axis=0) - zero
    left = difference / known
    critical = float(stdtrit(luck.freedom, 1 - scale.level / p))
    beyond = [side * left > margin for side in (1, -1)]
    sure = [far & (side * t > critical).all(axis=0) for side, far in zip((1, -1), beyond, strict=True)]
    seen = [far & (side * t[0] > critical) for side, far in zip((1, -1), beyond, strict=True)]
    rest = _rest(left, m, len(scale.original))
    variance, freedom = _sure(_own(models, scale.images), (luck.variance, luck.freedom), k, rest)
    half = stdtrit(freedom, 0.975) * np.sqrt(variance) / known
    return Memory(
        patients=scale.patients,
        left=left,
        low=left - half,
        high=left + half,
        p=2 * stdtr(luck.freedom, -np.abs(t[0])),
        remembered=sure[0],
        overdone=sure[1],
        suspected=(seen[0] | seen[1]) & ~sure[0] & ~sure[1],
        mean=_mean(scale, models, sets),
    )


def recall(frame: Frame, scale: Scale, models: Sequence[Floats], margin: float) -> Memory:
    """What models still know, by their phi (N,) each; see `memory`."""
    patients, own, *_ = scores(frame, np.stack(models), scale.asked)
    return memory(scale, own[:, np.isin(patients, scale.patients)], margin)


def _mean(scale: Scale, models: Floats, sets: Sequence[Floats]) -> Mean:
    k, m, p = len(models), len(scale.retrained), len(scale.patients)
    noise, known = scale.noise, scale.whole
    zero = float(scale.retrained.mean())
    of_each = models.mean(axis=1)
    left = (float(of_each.mean()) - zero) / known
    own = [(of_each.var(ddof=1, keepdims=True), k - 1.0)] if k > 1 else []
    rest = _rest(np.array([left]), m, len(scale.original))
    variance, freedom = (
        float(x[0]) for x in _sure(own, (np.array([noise.variance]), noise.freedom), k, rest)
    )
    lefts = (models.mean(axis=0) - scale.retrained.mean(axis=0)) / known
    among = float(lefts.var(ddof=1)) / p if p > 1 else math.nan
    return Mean(
        left=left,
        error=math.sqrt(variance) / known,
        freedom=freedom,
        others=math.sqrt(variance / known**2 + among),
        patients=p,
        seeds=k,
        references=m,
        statistics=tuple(
            float((s.mean() - zero) / _root(np.array(noise.variance * (1 / len(s) + 1 / m)))) for s in sets
        ),
        null_freedom=noise.freedom,
        level=scale.level,
    )


def _own(models: Floats, images: Ints) -> list[Spread]:
    """What the variance among a strategy's models (K, P) is made of, by patient; nothing of a single model.

    A strategy that forgets more with one seed and less with the next does so of all patients alike: of that there are K
    numbers, however many the patients.
    """
    k, p = models.shape
    if k < 2:
        return []
    mean = models.mean(axis=1)
    apart = moderated((models - mean[:, None]).var(axis=0, ddof=1), k - 1.0, images)
    return [(np.full(p, mean.var(ddof=1)), k - 1.0), (apart.variance, apart.freedom)]


def _rest(left: Floats, retrained: int, original: int) -> Floats:
    """(n,) what 0 and 1 add to the variance of what is ``left`` (n,), in units of luck: by so many models each.

    Of ``left = (u - r) / (o - r)``, with u, r and o means over models, it is the delta method's, times ``(o - r)²``.
    """
    rest: Floats = (1 - left) ** 2 / retrained + left**2 / original
    return rest


def _sure(own: Sequence[Spread], luck: Spread, models: int, rest: Floats) -> tuple[Floats, Floats]:
    """(n,) the variance of a mean over models less what it is compared with, and its degrees of freedom.

    Args:
        own: (n,) parts of the variance among the models.
        luck: (n,) that of one training.
        models: K.
        rest: (n,) the variance of what they are compared with, in units of luck.
    """
    usual, freedom = luck
    if not own:
        return usual * (1 / models + rest), np.full_like(usual, freedom)
    apart, free = together(own)
    free = np.where(apart > 0, free, models - 1)  # of models that agree wholly, this is not certain
    variance, of_sum = together([(apart / models, free), (usual * rest, freedom)])
    both = (free * apart + freedom * usual) / (free + freedom) * (1 / models + rest)
    erratic = apart > usual
    return np.where(erratic, variance, both), np.where(erratic, of_sum, np.minimum(free + freedom, CERTAIN))


def _noise(retrained: Floats, strangers: Floats) -> Noise:
    """Of the mean over a request's patients; moderated by groups of strangers of the same size, if there are enough."""
    m, p = retrained.shape
    groups = strangers.shape[1] // p
    own = float(retrained.mean(axis=1).var(ddof=1))
    if groups < _GROUPS:
        return Noise(own, m - 1.0)
    means = strangers[:, : groups * p].reshape(m, groups, p).mean(axis=2)
    variances = np.concatenate([[own], means.var(axis=0, ddof=1)])
    luck = moderated(variances, m - 1.0, np.ones(groups + 1, dtype=np.int64))
    return Noise(float(luck.variance[0]), luck.freedom)


def _unusual(scores: Floats, variance: Floats) -> Floats:
    """(M,) the mean square of each model's distance from the mean of the others, relative to the models' median."""
    m = len(scores)
    usable = variance > 0
    others = (scores.sum(axis=0) - scores) / (m - 1)
    squares: Floats = ((scores - others)[:, usable] ** 2 / variance[usable]).sum(axis=1)
    median = float(np.median(squares))
    return squares / median if median > 0 else np.ones(m)


def _root(variance: Floats) -> Floats:
    """Its square root, never 0: without any luck, whatever differs is beyond it."""
    root: Floats = np.sqrt(np.maximum(variance, np.finfo(np.float64).tiny))
    return root
