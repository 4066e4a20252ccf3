"""The catalogue of measures: what each is, and what its numbers mean. ``list measures --json`` prints it.

Each kind of task brings its own measures; those of cost are of every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from fedunlearn.core import RunError
from fedunlearn.scoring import composite, cost, membership, performance
from fedunlearn.scoring.classification import Outputs, outputs
from fedunlearn.scoring.evidence import Answers, Estimates, Evidence, Frame, Part


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: as in `scores.parquet`.
        summary: what it is, in a sentence.
        unit: of its values.
        low, high: their range; None where there is no end to it.
        direction: "match": the nearer to the retrained model the better, above *and* below; else what is better.
        retrained: what the retrained model scores, in words.
        margin: the smallest difference from the retrained model that counts; None where there is no such thing.
        source: paper and formula.
        function: computes it.
    """

    name: str
    summary: str
    unit: str
    low: float | None
    high: float | None
    direction: Literal["match", "lower", "higher"]
    retrained: str
    margin: float | None
    source: str
    function: Callable[[Evidence[Any]], Estimates]


def measures_of(kind: str) -> Mapping[str, Measure]:
    """The measures of a kind of task, by name, each after those it builds on.

    Raises:
        RunError: there is no such kind.
    """
    if kind not in KINDS:
        raise RunError(f"cannot score a run of kind {kind!r}; known are {', '.join(sorted(KINDS))}")
    return KINDS[kind]


PARTS: Mapping[Part, str] = {
    "retain": "the training images that stay",
    "forget": "the training images to forget",
    "test": "every hospital's test images, a leaving hospital's too",
}
LIKE: Mapping[Part, str] = {
    "retain": "as one model trained on these images",
    "forget": "as on images it never saw: near its test value, not near 0",
    "test": "what the remaining data can teach",
}


def _on(part: Part, measure: Callable[[Evidence[Outputs], Part], Estimates]) -> Callable[..., Estimates]:
    """The measure on one part of the images, as a function of evidence."""

    def function(evidence: Evidence[Outputs]) -> Estimates:
        return measure(evidence, part)

    function.__name__, function.__doc__ = f"{part}_{measure.__name__}", measure.__doc__
    return function


# Margins of accuracies and AUC are three standard deviations of five retrainings on the same phantom
# data. A wrong answer of a confident model costs about 5 nats, hence 5 times the margin of accuracy for losses.
_FAMILIES: tuple[tuple[Callable[[Evidence[Outputs], Part], Estimates], str, str, float, str], ...] = (
    (performance.accuracy, "share of images classified rightly", "share", 1, "argmax = label"),
    (
        performance.balanced_accuracy,
        "mean over classes of the share of each recognised",
        "share",
        1,
        "Brodersen et al., ICPR 2010: mean recall over classes",
    ),
    (
        performance.auroc,
        "area under the ROC curve, one class against the rest, mean over classes",
        "share",
        1,
        "Hanley and McNeil, Radiology 1982: P(score of the class's image > another's) + P(equal)/2",
    ),
    (performance.loss, "mean cross-entropy", "nats", 5, "-log p_y"),
)
_MARGIN: Mapping[Part, float] = {"retain": 0.04, "forget": 0.05, "test": 0.04}

_PERFORMANCE = tuple(
    Measure(
        name=f"{part}_{function.__name__}",
        summary=f"{summary}, on {PARTS[part]}",
        unit=unit,
        low=0.0,
        high=1.0 if unit == "share" else None,
        direction="match",
        retrained=LIKE[part],
        margin=scale * _MARGIN[part],
        source=source,
        function=_on(part, function),
    )
    for function, summary, unit, scale, source in _FAMILIES
    for part in PARTS
)

_MEMBERSHIP = (
    Measure(
        name="mia_loss_auc",
        summary="share of pairs of an image to forget and a held-out one, of the same hospital and label, in which "
        "the one to forget has the lower loss",
        unit="share",
        low=0.0,
        high=1.0,
        direction="match",
        retrained="about 0.5: it never saw either; below 0.5 if the held-out images happen to be easier",
        margin=0.06,
        source="Yeom et al., CSF 2018 (arXiv 1709.01604), at all thresholds, within hospital and label",
        function=membership.mia_loss_auc,
    ),
    Measure(
        name="mia_svc_confidence",
        summary="share of the images to forget that an SVC on the true class's probability judges non-member",
        unit="share",
        low=0.0,
        high=1.0,
        direction="match",
        retrained="the more the better it tells members from non-members at all; never a fixed number",
        margin=0.10,
        source="Fan et al., SalUn, ICLR 2024 (arXiv 2310.12508): TN / |D_f|, SVC(C=3, rbf) on p_y",
        function=membership.mia_svc_confidence,
    ),
)

_COMPOSITE = (
    Measure(
        name="avg_gap",
        summary="mean distance from the retrained model in forget, retain and test accuracy and mia_svc_confidence",
        unit="percentage points",
        low=0.0,
        high=100.0,
        direction="lower",
        retrained="0 with the same seed; with another seed, the band",
        margin=None,
        source="Fan et al., SalUn, ICLR 2024 (arXiv 2310.12508): mean of |UA-UA*|, |RA-RA*|, |TA-TA*|, |MIA-MIA*|",
        function=composite.avg_gap,
    ),
    Measure(
        name="tow",
        summary="tug of war: closeness to the retrained model in forget, retain and test accuracy, multiplied",
        unit="share",
        low=0.0,
        high=1.0,
        direction="higher",
        retrained="1 with the same seed; with another seed, the band",
        margin=None,
        source="Zhao et al., RUM, NeurIPS 2024 (arXiv 2406.01257): (1-|FA-FA*|)(1-|RA-RA*|)(1-|TA-TA*|)",
        function=composite.tow,
    ),
    Measure(
        name="worst_site",
        summary="lowest change of retain or test accuracy from the retrained model's at any hospital that stays",
        unit="share",
        low=-1.0,
        high=1.0,
        direction="higher",
        retrained="0 with the same seed; with another seed below 0, by the noise of the smallest hospital",
        margin=None,
        source="minimum over hospitals of RA-RA* and TA-TA*, as mean accuracies hide one that paid for the others",
        function=composite.worst_site,
    ),
)


def _cost(name: str, summary: str, unit: str, function: Callable[..., Estimates], retrained: str) -> Measure:
    return Measure(name, summary, unit, 0.0, None, "lower", retrained, None, "the run's ledger", function)


_OWN = "its own cost"
_COST = (
    _cost("seconds", "work of hospitals and server, added up", "s", cost.seconds, _OWN),
    _cost("site_seconds", "work of the hospitals, added up", "s", cost.site_seconds, _OWN),
    _cost(
        "share_of_retraining",
        "hospitals' work, relative to retraining",
        "ratio",
        cost.share_of_retraining,
        "1",
    ),
    _cost(
        "tuning_site_seconds",
        "hospitals' work for finding its hyper-parameters, once for all requests and seeds",
        "s",
        cost.tuning_site_seconds,
        "0: retraining has nothing to tune",
    ),
    _cost("bytes", "sent to and received from hospitals", "bytes", cost.bytes_moved, _OWN),
    _cost(
        "storage_bytes",
        "training history the server holds to be able to do it",
        "bytes",
        cost.storage_bytes,
        _OWN,
    ),
    _cost("rounds", "how often any hospital was asked", "rounds", cost.rounds, _OWN),
    _cost("images", "passes of an image through a network", "images", cost.images, _OWN),
)


def _by_name(*measures: Measure) -> Mapping[str, Measure]:
    return {measure.name: measure for measure in measures}


COSTS: Mapping[str, Measure] = _by_name(*_COST)
"""Those that say what a model cost, whatever it answers."""

KINDS: Mapping[str, Mapping[str, Measure]] = {
    "classification": {**_by_name(*_PERFORMANCE, *_MEMBERSHIP, *_COMPOSITE), **COSTS},
}
"""The measures of each kind of task."""

READERS: Mapping[str, Callable[[pd.DataFrame, Frame, str], Answers]] = {"classification": outputs}
"""How each kind's file of signals (its content, the images, its name) becomes a model's answers."""

MEASURES: Mapping[str, Measure] = {name: m for measures in KINDS.values() for name, m in measures.items()}
"""All measures by name."""
