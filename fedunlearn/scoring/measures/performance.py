"""What a model still can: accuracy, balanced accuracy, AUROC and loss on what is retained, forgotten and held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from fedunlearn.scoring.attacks.pairs import Contest, Side, by_stratum, standing
from fedunlearn.scoring.evidence import Estimate, Estimates, Evidence, Floats, Frame, Ints, Part, basic
from fedunlearn.scoring.evidence.bootstrap import Below, macro, ratios
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.evidence.measure import LIKE, MARGIN, PARTS, Measure, on


def accuracy(evidence: Evidence[Outputs], part: Part) -> Estimates:
    """The share of images whose highest score is their class's."""
    correct = evidence.unlearned.correct[:, None]
    return ratios(evidence.frame, evidence.frame.rows(part), correct, np.ones_like(correct))


def canary_success(evidence: Evidence[Outputs]) -> Estimates:
    """The share of the images to forget with a wrong label (`Frame.canary`) to which the model gives that label.

    Nobody who did not train on these images has a reason to. Site-level backdoors are judged alike (attack success
    rate: Halimi et al., "Federated Unlearning: How to Efficiently Erase a Client in FL?", arXiv 2207.05521);
    deviation: no trigger is added, which would be far louder than a patient; a wrong diagnosis is what hospitals have.
    """
    frame = evidence.frame
    if frame.canary is None:
        return {}
    given = evidence.unlearned.correct[:, None]
    return ratios(frame, frame.rows("forget") & frame.canary, given, np.ones_like(given))


def balanced_accuracy(evidence: Evidence[Outputs], part: Part) -> Estimates:
    """The mean over the classes that occur of the share of each recognised.

    Brodersen et al., ICPR 2010; as scikit-learn's ``balanced_accuracy_score`` without adjustment. A replicate in which
    a class does not occur is the mean over the others. No interval on the groups of attributes: it would
    cost as much as all other measures together.
    """
    frame, outputs = evidence.frame, evidence.unlearned
    of_class = (outputs.labels[:, None] == np.arange(frame.classes)).astype(np.float64)
    return ratios(frame, frame.rows(part), of_class * outputs.correct[:, None], of_class, everywhere=False)


def auroc(evidence: Evidence[Outputs], part: Part) -> Estimates:
    """The area under the ROC curve, one class against the rest, as the mean over the classes that occur.

    As scikit-learn's ``roc_auc_score(multi_class="ovr", average="macro")``; with two classes, the ordinary area. Images
    are ordered by the class's probability (by its logit-scaled form, which has the same order and does not saturate).
    Undefined, and left out, where all images are of one class. No interval on the groups of attributes.
    """
    frame, margins = evidence.frame, evidence.unlearned.margins
    estimates = _by_ranks(frame, part, margins)
    for versus in _one_versus_rest(frame, part):
        of = versus.contest
        stood = standing(of, margins[of.left.rows, versus.own], margins[of.right.rows, versus.other])
        over, again = of.total(stood), of.weigh(stood) if of.varies.any() else None
        for group, own, n in versus.groups:
            value, replicates = macro(over[own], of.pairs[0][own]), np.empty(0)
            if again is not None and of.varies[own].any():
                replicates = versus.below[group].macro(again[own])
            estimates[group] = Estimate(float(value), n, replicates)
    return {group: estimates[group] for group in frame.groups if group in estimates}


def loss(evidence: Evidence[Outputs], part: Part) -> Estimates:
    """The mean cross-entropy ``-log p_y`` in nats, computed in float64."""
    losses = evidence.unlearned.losses[:, None]
    return ratios(evidence.frame, evidence.frame.rows(part), losses, np.ones_like(losses))


def _by_ranks(frame: Frame, part: Part, margins: Floats) -> dict[str, Estimate]:
    """The area on every group of an attribute, by the rank sum of each class (Mann and Whitney, AMS 1947)."""
    rows, (groups, within, of_class) = np.flatnonzero(frame.rows(part)), _attribute_groups(frame, part)
    if not groups:
        return {}
    labels, won = frame.labels[rows], np.zeros((len(groups), frame.classes))
    for c in np.unique(labels):
        order = np.argsort(margins[rows, c])
        stood, own = margins[rows[order], c], np.flatnonzero(labels[order] == c)
        counts = np.concatenate([np.zeros((1, len(groups))), np.cumsum(within[order], axis=0)])
        ends = (np.searchsorted(stood, stood[own], side) for side in ("left", "right"))
        twice = sum(counts[end] for end in ends)
        # Of two images of the class one wins against the other, or each the half.
        won[:, c] = ((twice * within[order[own]]).sum(axis=0) - of_class[:, c] ** 2) / 2
    sizes = of_class.sum(axis=1, keepdims=True)
    values = macro(won, of_class * (sizes - of_class))
    several_classes = (of_class > 0).sum(axis=1) > 1
    return {
        group: Estimate(float(value), int(size))
        for group, value, size, usable in zip(groups, values, sizes[:, 0], several_classes, strict=True)
        if usable
    }


@lru_cache(maxsize=6)  # as of `_one_versus_rest`
def _attribute_groups(frame: Frame, part: Part) -> tuple[Sequence[str], Floats, Floats]:
    """The groups of attributes, (n, groups) which images of the part each has, (groups, C) how many of each class."""
    every = frame.within(frame.rows(part))
    groups, rows = [group for group in every if not basic(group)], np.flatnonzero(frame.rows(part))
    within = np.zeros((len(rows), len(groups)))
    for g, group in enumerate(groups):
        within[np.searchsorted(rows, every[group]), g] = 1
    return groups, within, within.T @ (frame.labels[rows, None] == np.arange(frame.classes))


@dataclass(frozen=True, eq=False)
class Versus:
    """Every class against the rest, in one contest; its groups are the classes of each group of images.

    Attributes:
        contest: who meets whom: an image of the right meets every class but its own.
        own, other: (n,) and (m,) the class that images of the left are of, and that those of the right are not of.
        groups: those of images, where their classes stand among the contest's groups, and how many images they have.
    """

    contest: Contest
    own: Ints
    other: Ints
    groups: Sequence[tuple[str, slice, int]]

    @cached_property
    def below(self) -> Mapping[str, Below]:
        """By group of images, how many pairs there are of each class when patients are drawn anew."""
        return {group: Below.of(self.contest.pairs[1][own]) for group, own, _ in self.groups}


@lru_cache(maxsize=6)  # three parts, of the request at hand and the one before
def _one_versus_rest(frame: Frame, part: Part) -> Sequence[Versus]:
    """The pairs (image of a class, other image), where there are any, of all images and of hospitals."""
    rows = np.flatnonzero(frame.rows(part))
    right, other = np.repeat(rows, frame.classes), np.tile(np.arange(frame.classes), len(rows))
    right, other = right[frame.labels[right] != other], other[frame.labels[right] != other]
    found = []
    for division in frame.divisions[:2]:
        names, code = list(division), np.zeros(len(frame.labels), dtype=np.int64)
        for number, here in enumerate(division.values()):
            code[here] = number * frame.classes
        strata, met = code[rows] + frame.labels[rows], code[right] + other
        shared = np.intersect1d(strata, met)
        if shared.size:
            sides = [
                Side(of[there], np.searchsorted(shared, codes[there]), frame.units[of[there]])
                for of, codes in ((rows, strata), (right, met))
                for there in (np.isin(codes, shared),)
            ]
            numbers = shared // frame.classes
            of = by_stratum(frame, [names[number] for number in numbers], *sides)
            groups = [
                (
                    name,
                    slice(*np.searchsorted(numbers, [number, number + 1])),
                    int((code[rows] == number * frame.classes).sum()),
                )
                for number, name in enumerate(names)
                if number in numbers
            ]
            other_class = shared[of.right.strata] % frame.classes
            found.append(Versus(of, frame.labels[of.left.rows], other_class, groups))
    return found


# Margins of accuracies and AUC are three standard deviations of five retrainings on the same phantom
# data. A wrong answer of a confident model costs about 5 nats, hence 5 times the margin of accuracy for losses.
_FAMILIES: tuple[tuple[Callable[[Evidence[Outputs], Part], Estimates], str, str, float, str], ...] = (
    (accuracy, "share of images classified rightly", "share", 1, "argmax = label"),
    (
        balanced_accuracy,
        "mean over classes of the share of each recognised",
        "share",
        1,
        "Brodersen et al., ICPR 2010: mean recall over classes",
    ),
    (
        auroc,
        "area under the ROC curve, one class against the rest, mean over classes",
        "share",
        1,
        "Hanley and McNeil, Radiology 1982: P(score of the class's image > another's) + P(equal)/2",
    ),
    (loss, "mean cross-entropy", "nats", 5, "-log p_y"),
)
PERFORMANCE = tuple(
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
)

CANARY = Measure(
    name="canary_success",
    summary="share of a leaving hospital's deliberately mislabelled images to which the model gives the wrong label",
    unit="share",
    low=0.0,
    high=1.0,
    direction="match",
    retrained="near 0: as often as it mistakes such images for that very class",
    margin=0.1,
    source="attack success rate, Halimi et al., arXiv 2207.05521; here wrong labels instead of a trigger",
    function=canary_success,
)
