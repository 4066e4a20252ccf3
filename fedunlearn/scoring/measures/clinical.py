"""What a model's mistakes on unseen images mean at the bedside: who is missed, who is alarmed, at what cost.

Unlearning may leave accuracy as it is and miss more patients of one class. Falcao and Cordeiro, "Does Machine
Unlearning Preserve Clinical Safety?", arXiv 2604.23854, find more false negatives after common strategies, and weigh
mistakes by asymmetric costs. Only their abstract was looked at: formulas are the textbook's.

Each class is told from the rest. Of a class, the group "class=c" has its own number: that is sensitivity among images
*of* the class and specificity among all *others*, so it is no group of images as with other measures. Like other groups
it needs patients of that class (`Frame.within`). "all" and hospitals have the mean over classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedunlearn.scoring.evidence import Bools, Estimates, Evidence, Floats, Frame
from fedunlearn.scoring.evidence.bootstrap import distances, ratios
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.evidence.measure import Measure

BINS = 10
"""Of `calibration_error`."""


def sensitivity(evidence: Evidence[Outputs]) -> Estimates:
    """The share of a class's test images that are given the class; the mean over the classes that occur.

    As scikit-learn's ``recall_score``; the mean is `test_balanced_accuracy`. No interval on groups of attributes but
    classes.
    """
    return _by_class(evidence, _of_class(evidence.frame))


def specificity(evidence: Evidence[Outputs]) -> Estimates:
    """The share of the test images of other classes that are not given the class; the mean over all classes.

    A class that has no image here counts too, as one can be given it wrongly; one that has them all does not. With
    two classes the mean is that of `sensitivity`. No interval on groups of attributes but classes.
    """
    return _by_class(evidence, ~_of_class(evidence.frame))


def false_negative_rate(evidence: Evidence[Outputs]) -> Estimates:
    """The share of a class's test images that are given another one: 1 - `sensitivity`."""
    return {
        group: replace(one, value=1 - one.value, replicates=1 - one.replicates)
        for group, one in evidence.measured.get("test_sensitivity", {}).items()
    }


def risk(evidence: Evidence[Outputs]) -> Estimates:
    """The mean over test images of what the model's answer costs, by true and given class (`Frame.costs`).

    Costs are the scenario's (``evaluation: {costs: ...}``). Without any, every mistake costs 1: the share of mistakes.
    """
    frame, outputs = evidence.frame, evidence.unlearned
    costs = 1 - np.eye(frame.classes) if frame.costs is None else frame.costs
    paid = costs[outputs.labels, outputs.predicted][:, None]
    return ratios(frame, frame.rows("test"), paid, np.ones_like(paid))


def calibration_error(evidence: Evidence[Outputs]) -> Estimates:
    """The mean over test images of ``|share right - mean confidence|`` of the image's bin of like confidence.

    Confidence is the highest probability of any class. The bins are bounded by the tenths of all test images'
    confidences, so that each holds as many images, and are the same in all groups. The expected calibration error of
    Naeini et al., AAAI 2015, as Guo et al., ICML 2017 (arXiv 1706.04599) have it for several classes, with bins of
    equal mass (Nixon et al., arXiv 1904.01685). Noise alone makes it larger than 0, the more so the fewer images (by
    about ``sqrt(2 BINS p (1 - p) / (pi n))`` with n images, p of them right, of a model that is calibrated). So it is
    to be compared on equal images, such as the retrained model's; of the interval, see `bootstrap.distances`. No
    interval on groups of attributes.
    """
    frame, rows = evidence.frame, evidence.frame.rows("test")
    return distances(frame, rows, binned(evidence.unlearned, rows)) if rows.any() else {}


def binned(outputs: Outputs, rows: Bools) -> Floats:
    """(N, BINS) right (1) or wrong (0) less confidence, of each image in its bin, as `calibration_error` has bins.

    The error is the sum over bins of the distance of their means over ``rows`` (N,) from 0.
    """
    confidence = outputs.confidence
    bounds = np.quantile(confidence[rows], np.arange(1, BINS) / BINS)
    inside = np.searchsorted(bounds, confidence)[:, None] == np.arange(BINS)
    apart: Floats = inside * (outputs.correct - confidence)[:, None]
    return apart


def _of_class(frame: Frame) -> Bools:
    """(N, C) whether an image is of each class."""
    of_class: Bools = frame.labels[:, None] == np.arange(frame.classes)
    return of_class


def _by_class(evidence: Evidence[Outputs], asked: Bools) -> Estimates:
    """Of the images that are ``asked`` about each class, (N, C), the share whose given class tells them rightly."""
    frame = evidence.frame
    given = evidence.unlearned.predicted[:, None] == np.arange(frame.classes)
    right = asked & (given == _of_class(frame))
    columns: Mapping[str, int] = {f"class={c}": c for c in range(frame.classes)}
    return ratios(
        frame, frame.rows("test"), right.astype(np.float64), asked.astype(np.float64), False, columns
    )


def _measure(name: str, summary: str, unit: str, margin: float, source: str) -> Measure:
    return Measure(
        name=f"test_{name}",
        summary=f"{summary}, on every hospital's test images, a leaving hospital's too",
        unit=unit,
        low=0.0,
        high=1.0 if unit == "share" else None,
        direction="match",
        retrained="what the remaining data can teach",
        margin=margin,
        source=source,
        function=_FUNCTIONS[name],
        parts=("test_sensitivity",) if name == "false_negative_rate" else (),
    )


_FUNCTIONS = {
    function.__name__: function
    for function in (sensitivity, specificity, false_negative_rate, risk, calibration_error)
}
# Margins are test accuracy's. A mistake is taken off one class's specificity, where it is one among the images of all
# other classes: half of it. Costs are relative to an ordinary mistake's 1, and so is risk's margin.
CLINICAL = (
    _measure(
        "sensitivity",
        "share of a class's images recognised, mean over classes (of each class: groups class=0, class=1, ...)",
        "share",
        0.04,
        "TP / (TP + FN), one class against the rest",
    ),
    _measure(
        "specificity",
        "share of the images of other classes that are not given the class, mean over classes (of each class: groups "
        "class=0, class=1, ...)",
        "share",
        0.02,
        "TN / (TN + FP), one class against the rest",
    ),
    _measure(
        "false_negative_rate",
        "share of a class's images given another class, mean over classes (of each class: groups class=0, class=1, "
        "...)",
        "share",
        0.04,
        "FN / (TP + FN), one class against the rest; asked for by Falcao and Cordeiro, arXiv 2604.23854",
    ),
    _measure(
        "risk",
        "mean cost of the answers, by the scenario's evaluation.costs (without these, 1 for every mistake)",
        "cost",
        0.04,
        "mean of costs[true][given]; after the asymmetric costs of Falcao and Cordeiro, arXiv 2604.23854",
    ),
    _measure(
        "calibration_error",
        f"expected calibration error of the given class's probability, {BINS} bins of equally many images; noise makes "
        "it larger where images are few",
        "share",
        0.04,
        "Naeini et al., AAAI 2015; Guo et al., ICML 2017 (arXiv 1706.04599): sum of n_b/n |acc_b - conf_b|",
    ),
)
"""The measures of this file, in the order in which they build on one another."""
