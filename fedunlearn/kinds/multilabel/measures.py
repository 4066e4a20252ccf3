"""How well a model tells findings: areas under curves, sensitivity, loss, calibration; and an attack by one finding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedunlearn.kinds.multilabel.areas import FEWEST, SPECIFICITY, areas
from fedunlearn.kinds.multilabel.evidence import Findings
from fedunlearn.scoring.attacks.membership import attack_auc
from fedunlearn.scoring.evidence import Answers, Bools, Estimate, Estimates, Evidence, Floats, Part
from fedunlearn.scoring.evidence.bootstrap import distances, ratios
from fedunlearn.scoring.evidence.measure import LIKE, MARGIN, PARTS, Measure, Values, on
from fedunlearn.scoring.measures.composite import apart, combined

AUROCS = ("forget_auroc", "retain_auroc", "test_auroc")
BINS = 10
"""Of `calibration_error`."""


def auroc(evidence: Evidence[Findings], part: Part) -> Estimates:
    """The area under the ROC curve of each finding, as the mean over those that some images have and some have not.

    As scikit-learn's ``roc_auc_score`` of each finding's known images. The same findings count for all models; with
    patients drawn anew, those left that some have and some have not. The group "class=f" has finding f by itself, where
    `areas.FEWEST` patients have it and have it not.
    """
    return areas(evidence.frame, evidence.unlearned, part)["auroc"]


def auprc(evidence: Evidence[Findings], part: Part) -> Estimates:
    """The same of the area under the curve of precision against recall, as ``average_precision_score`` has it.

    It depends on how common findings are: not to be compared between groups. No interval on groups of attributes.
    """
    return areas(evidence.frame, evidence.unlearned, part)["auprc"]


def sensitivity_at_90(evidence: Evidence[Findings], part: Part) -> Estimates:
    """The same of the share of images with the finding that are found while 9 in 10 of those without are left alone.

    The threshold is the lowest score of an image with the finding at which no more than a tenth of those without it
    are called; it is each model's own, and each group's. No interval on groups of attributes.
    """
    return areas(evidence.frame, evidence.unlearned, part)["sensitivity_at_90"]


def finding_loss(evidence: Evidence[Findings], part: Part) -> Estimates:
    """The mean over images of the mean over an image's known findings of their binary cross-entropy, in nats."""
    losses = evidence.unlearned.losses[:, None]
    return ratios(evidence.frame, evidence.frame.rows(part), losses, np.ones_like(losses))


def worst_auroc(evidence: Evidence[Findings]) -> Estimates:
    """The lowest `auroc` on test images of any finding that is told by itself; which one, the groups "class=f" tell.

    The lowest of several numbers that vary lies too low, the more so the more findings: compare it with retraining's.
    """
    single = [
        one for group, one in evidence.measured.get("test_auroc", {}).items() if group.startswith("class=")
    ]
    if not single:
        return {}
    replicates = np.empty(0)
    if all(one.replicates.size for one in single):
        replicates = np.min([one.replicates for one in single], axis=0)
    worst = min(single, key=lambda one: one.value)
    return {"all": Estimate(worst.value, worst.n, replicates)}


def calibration_error(evidence: Evidence[Findings]) -> Estimates:
    """The mean over test images and findings of ``|share present - mean probability|`` of the bin of like probability.

    As `clinical.calibration_error`, of the probability that a finding is present; images count alike, however many of
    their findings are known. The bins are bounded by the tenths of the probabilities of all test images. What is said
    there of noise holds here too. No interval on groups of attributes.
    """
    frame, rows = evidence.frame, evidence.frame.rows("test")
    return distances(frame, rows, binned(evidence.unlearned, rows)) if rows.any() else {}


def binned(answers: Findings, rows: Bools) -> Floats:
    """(N, BINS) present (1) or absent (0) less probability, mean over an image's known findings, each in its bin.

    The error is the sum over bins of the distance of their means over ``rows`` (N,) from 0.
    """
    probability, known = answers.present, answers.known
    asked = probability[rows][known[rows]]
    bounds = np.quantile(asked, np.arange(1, BINS) / BINS) if asked.size else np.zeros(BINS - 1)
    bins = np.searchsorted(bounds, probability)
    wrong = np.where(known, (answers.targets == 1) - probability, 0.0)
    wrong /= np.maximum(known.sum(axis=1, keepdims=True), 1)
    found: Floats = np.stack([np.where(bins == b, wrong, 0.0).sum(axis=1) for b in range(BINS)], axis=1)
    return found


def avg_auroc_gap(evidence: Evidence[Answers]) -> Estimates:
    """``(|FA - FA*| + |RA - RA*| + |TA - TA*|) / 3`` in percentage points: AUROC of forget, retain and test images.

    What `avg_gap` is for classes, without an attack; * is the retrained model. It leans upwards near 0 likewise.
    """
    return combined(evidence, AUROCS, auroc_distance)


def auroc_distance(model: Values, retrained: Values) -> Floats:
    """See `avg_auroc_gap`."""
    return apart(model, retrained, AUROCS)


def mia_worst_finding_auc(evidence: Evidence[Findings]) -> Estimates:
    """`mia_loss_auc` by the loss of the finding that the model is most wrong about, not by the mean over findings.

    A model that learnt an image by heart is right about all of its findings, the odd one too, and it is the odd one
    that unseen images are wrong about.
    """
    return attack_auc(evidence.frame, -evidence.unlearned.worst)


# ------------------------------------------------------------------------------------------- the catalogue

_EACH = "mean over findings (of each: groups class=0, class=1, …)"
# Areas have the margins of accuracies; what is read at one threshold or depends on how few have a finding moves twice
# as far. On 1,000 chest X-rays (NIH, 14 findings, 32 pixels) retraining changed on 31 images to forget AUROC from
# 1.00 to .75, AUPRC from .99 to .48, sensitivity from 1.00 to .46 and loss from .03 to .23 nats, where retrained models
# of three seeds differed by .05, .02, .12 and .04; on test images by .02, .01, .04 and .02.
_FAMILIES: tuple[tuple[Callable[[Evidence[Findings], Part], Estimates], str, str, float, str], ...] = (
    (
        auroc,
        f"area under the ROC curve of a finding, {_EACH}",
        "share",
        1.0,
        "Hanley and McNeil, Radiology 1982: P(score of an image that has it > one's that has not) + P(equal)/2",
    ),
    (
        auprc,
        f"area under the precision-recall curve of a finding, {_EACH}",
        "share",
        2.0,
        "average precision: sum of precision over images that have it / their number",
    ),
    (
        sensitivity_at_90,
        f"share of the images with a finding that are found at a specificity of {SPECIFICITY:g} or more, {_EACH}",
        "share",
        2.0,
        "TP / (TP + FN) at the lowest threshold with FP / (FP + TN) <= 0.1",
    ),
    (finding_loss, "mean binary cross-entropy of findings", "nats", 1.0, "-y log p - (1 - y) log(1 - p)"),
)
_AUC = "share of pairs of an image to forget and a held-out one of the same hospital in which"

MULTILABEL = (
    *(
        Measure(
            name=f"{part}_{function.__name__}",
            summary=f"{summary}, on {PARTS[part]}",
            unit=unit,
            low=0.0,
            high=1.0 if unit == "share" else None,
            direction="match",
            retrained=LIKE[part],
            margin=scale * MARGIN[part],
            source=source,
            function=on(part, function),
        )
        for function, summary, unit, scale, source in _FAMILIES
        for part in PARTS
    ),
    Measure(
        name="test_worst_auroc",
        summary=f"lowest area under the ROC curve of any finding that {FEWEST} patients have and have not, on every "
        "hospital's test images, a leaving hospital's too",
        unit="share",
        low=0.0,
        high=1.0,
        direction="match",
        retrained=LIKE["test"],
        margin=0.1,
        source="minimum over findings of test_auroc, as means hide one that was lost",
        function=worst_auroc,
        parts=("test_auroc",),
    ),
    Measure(
        name="test_calibration_error",
        summary=f"expected calibration error of the probability that a finding is present, {BINS} bins of equally "
        "many; noise makes it larger where images are few",
        unit="share",
        low=0.0,
        high=1.0,
        direction="match",
        retrained=LIKE["test"],
        margin=0.04,
        source="Naeini et al., AAAI 2015: sum of n_b/n |share present_b - mean probability_b|",
        function=calibration_error,
    ),
    Measure(
        name="avg_auroc_gap",
        summary="mean distance from the retrained model in forget, retain and test AUROC",
        unit="percentage points",
        low=0.0,
        high=100.0,
        direction="lower",
        retrained="0 with the same seed; with another seed, the band",
        margin=None,
        source="as avg_gap (Fan et al., arXiv 2310.12508), of AUROC: mean of |FA-FA*|, |RA-RA*|, |TA-TA*|",
        function=avg_auroc_gap,
        parts=AUROCS,
        combine=auroc_distance,
    ),
)
"""The measures of this kind alone but for its attack, each after those it builds on."""

WORST_FINDING = Measure(
    name="mia_worst_finding_auc",
    summary=f"{_AUC} the finding that the model is most wrong about has the lower loss in the one to forget",
    unit="share",
    low=0.0,
    high=1.0,
    direction="match",
    retrained="about 0.5: it never saw either; below 0.5 if the held-out images happen to be easier",
    margin=0.06,
    source="Yeom et al., CSF 2018 (arXiv 1709.01604), of the largest loss of an image's findings",
    function=mia_worst_finding_auc,
)
