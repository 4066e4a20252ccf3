"""The ladder of attacks, from what one model gives away to what many models tell of each image.

Part of the catalogue (`fedunlearn.scoring.measures.catalogue`). Where a step needs models that a run does not have, it
is left out; what it needs stands in its summary. Most look at nothing of an image but its loss, and so they work on
volumes as well; an image to them is whatever has a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from fedunlearn.scoring.attacks import (
    completeness,
    ensembles,
    likelihood,
    membership,
    population,
    quantile,
    rates,
    reference,
)
from fedunlearn.scoring.evidence import Estimates, Evidence, Part
from fedunlearn.scoring.evidence.measure import Measure

Function = Callable[[Evidence[Any]], Estimates]

_PAIRS = "a held-out one of the same hospital and label"
_NO_MEMORY = "about 0.5: it never saw either; below 0.5 if the held-out images happen to be easier"
_NEVER_FIXED = "the more the better it tells members from non-members at all; never a fixed number"
_HALVES = "one half of the retrained models against the other: what perfect unlearning would score"


def _share(
    function: Function, summary: str, source: str, retrained: str = _NO_MEMORY, margin: float | None = 0.06
) -> Measure:
    """An attack whose value is a share, to be as near as possible to the retrained model's."""
    return Measure(
        name=function.__name__,
        summary=summary,
        unit="share",
        low=0.0,
        high=1.0,
        direction="match",
        retrained=retrained,
        margin=margin,
        source=source,
        function=function,
    )


def _svc(function: Function, feature: str, source: str) -> Measure:
    summary = f"share of the images to forget that an SVC on {feature} judges non-member"
    return _share(function, summary, source, _NEVER_FIXED, 0.10)


def _true_positives(function: Function, attack: str, rate: str, one_in: int) -> Measure:
    summary = (
        f"share of the images to forget that {attack} finds while it accuses {rate} of the held-out ones; "
        f"with fewer than {rates.FEWEST_PLACES * one_in - 1} of these there are too few images, and no row"
    )
    source = "Carlini et al., S&P 2022 (arXiv 2112.03570); the rate is exact in the mean, by places among the held-out"
    return _share(function, summary, source, f"{1 / one_in:g} in the mean: it never saw either", 0.05)


def _many(
    name: str, function: Function, summary: str, source: str, direction: Literal["lower", "higher"]
) -> Measure:
    unit, high = ("nats", None) if direction == "lower" else ("share", 1.0)
    return Measure(name, summary, unit, 0.0, high, direction, _HALVES, None, source, function)


def _klom(part: Part, percentile: int) -> Measure:
    function = partial(ensembles.klom, part=part, percentile=percentile)
    function.__doc__ = ensembles.klom.__doc__
    middle = "median" if percentile == 50 else f"{percentile}th percentile"
    summary = (
        f"{middle} over {part} images of the KL divergence of the unlearned models' margins from the retrained ones'; "
        f"needs {2 * ensembles.KLOM_MODELS} seeds"
    )
    source = "Georgiev et al. (arXiv 2410.23232), appendix E.1: 20 bins, ±100, 1e-5"
    return _many(f"klom_{part}_p{percentile}", function, summary, source, "lower")


_SALUN = "Fan et al., SalUn, ICLR 2024 (arXiv 2310.12508): TN / |D_f|, SVC(C=3, rbf)"
_BY_CLASS = (
    _svc(membership.mia_svc_confidence, "the true class's probability", f"{_SALUN} on p_y"),
    _svc(membership.mia_svc_correctness, "whether the answer is right", f"{_SALUN} on argmax = label"),
    _svc(membership.mia_svc_entropy, "the answer's entropy", f"{_SALUN} on -sum p log p"),
    _svc(
        membership.mia_svc_m_entropy,
        "the answer's modified entropy",
        f"{_SALUN}, on the entropy of Song and Mittal, USENIX Security 2021 (arXiv 2003.10595), eq. 7",
    ),
)
_POPULATION = (
    _share(
        membership.mia_loss_auc,
        "share of pairs of an image to forget and a held-out one, of the same hospital and label, in which "
        "the one to forget has the lower loss",
        "Yeom et al., CSF 2018 (arXiv 1709.01604), at all thresholds, within hospital and label",
    ),
    _share(
        population.mia_lr_auc,
        f"share of pairs of an image to forget and {_PAIRS} that a logistic regression on the loss, "
        "cross-validated by patient, orders rightly within a fold",
        "the NeurIPS 2023 unlearning challenge's starting kit; area instead of accuracy, folds by patient",
    ),
    _true_positives(population.mia_loss_tpr_at_1, "the attack by loss", "1 %", 100),
    _true_positives(population.mia_loss_tpr_at_01, "the attack by loss", "0.1 %", 1000),
)

_REFERENCE = (
    _share(
        quantile.mia_quantile_auc,
        f"share of pairs of an image to forget and {_PAIRS}, within a fold, in which the confidence (logit-scaled) of "
        "the one to forget exceeds a quantile more, regressed on what retrained models of other seeds answer; "
        "needs 2 seeds",
        "Bertran et al., NeurIPS 2023 (arXiv 2307.03694): quantile 0.9, linear, learnt from held-out images",
    ),
    _share(
        reference.mia_rmia_auc,
        f"share of pairs of an image to forget and {_PAIRS} in which the one to forget has the higher probability, "
        "relative to what shadows or retrained models of other seeds answer; needs 2 seeds or shadows",
        "Zarifzadeh et al., RMIA, ICML 2024 (arXiv 2312.03262): online where shadows saw both, else offline with "
        "a = 0.3; gamma = 1",
    ),
    _true_positives(reference.mia_rmia_tpr_at_1, "RMIA", "1 %", 100),
    _true_positives(reference.mia_rmia_tpr_at_01, "RMIA", "0.1 %", 1000),
    _share(
        likelihood.mia_lira_auc,
        f"share of pairs of an image to forget and {_PAIRS} in which the one to forget is more likely to have been "
        "seen, by Student's t of other models; needs 3 seeds or 4 shadows",
        "Carlini et al., LiRA, S&P 2022 (arXiv 2112.03570); Student's t with few models: arXiv 2603.11799",
    ),
    _share(
        likelihood.mia_ulira_auc,
        "share of pairs of images to forget, one as the model answers it and one as the retrained model does, in which "
        "the model's looks more like one learnt and unlearnt; needs 3 seeds, and retrained_other has none",
        "Hayes et al., U-LiRA, SaTML 2025 (arXiv 2403.01218); seeds instead of shadows, one variance",
        "0.5 exactly",
        0.08,
    ),
    replace(
        _share(
            likelihood.mia_ulira_excess,
            "mia_ulira_auc of the images to forget, less the same of held-out images of their hospitals: what is about "
            "these images alone, not about a model that differs everywhere; needs 3 seeds",
            "Hayes et al., U-LiRA, SaTML 2025 (arXiv 2403.01218); held-out images as a control",
            "0 exactly",
            0.08,
        ),
        low=-1.0,
        parts=("mia_ulira_auc",),
    ),
    _share(
        reference.mia_difference_auc,
        f"share of pairs of an image to forget and {_PAIRS} in which the one to forget lost more confidence "
        "(logit-scaled) since the original model",
        "after Chen et al., CCS 2021 (arXiv 2005.02205): log p_y - log(1 - p_y), before minus after",
        "well above 0.5: whoever has both models sees who left, however it is done",
        None,
    ),
    _share(
        completeness.iam_completeness,
        "mean over images to forget of how far the model has come from the original to retrained models of other "
        "seeds; needs 2 seeds",
        "Wang et al., IAM, USENIX Security 2025 (arXiv 2506.06112): 100 steps, Gumbel, one variance",
        "what forgetting looks like; below 1",
        0.10,
    ),
)

_F = "Triantafillou et al. (arXiv 2406.09073): mean of 2^-bin(eps), single and double thresholds, delta 1e-5"
_ENSEMBLES = (
    *(_klom(part, percentile) for part in ("forget", "retain", "test") for percentile in (50, 95)),
    _many(
        "forgetting_quality",
        ensembles.forgetting_quality,
        "the NeurIPS 2023 competition's F: how hard unlearned models are to tell from retrained ones; "
        f"needs {2 * ensembles.MANY_MODELS} seeds",
        _F,
        "higher",
    ),
    _many(
        "forgetting_quality_small",
        ensembles.forgetting_quality_small,
        f"the same of too few models to be the competition's: {2 * ensembles.FEW_MODELS} to "
        f"{2 * ensembles.MANY_MODELS - 1} seeds",
        _F,
        "higher",
    ),
)

BY_LOSS: tuple[Measure, ...] = (*_POPULATION, *_REFERENCE, *_ENSEMBLES)
"""Those that only look at the loss of each image (`evidence.WithLosses`)."""

ATTACKS: tuple[Measure, ...] = (*BY_LOSS, *_BY_CLASS)
"""All of them; the others need the probability of each class of an image."""
