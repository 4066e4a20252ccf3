"""What a model still can: accuracy, balanced accuracy, AUROC and loss on what is retained, forgotten and held out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from fedunlearn.scoring.attacks.pairs import Pairs, pair_up, share
from fedunlearn.scoring.evidence import Estimate, Estimates, Evidence, Floats, Frame, Part, basic
from fedunlearn.scoring.evidence.bootstrap import macro, ratios
from fedunlearn.scoring.evidence.classification import Outputs


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
    for group, by_class in _one_versus_rest(frame, part).items():
        value, replicates = share(list(by_class.values()), [margins[:, c] for c in by_class])
        n = int((frame.rows(part) & frame.groups[group]).sum())
        estimates[group] = Estimate(value, n, replicates)
    return {group: estimates[group] for group in frame.groups if group in estimates}


def loss(evidence: Evidence[Outputs], part: Part) -> Estimates:
    """The mean cross-entropy ``-log p_y`` in nats, computed in float64."""
    losses = evidence.unlearned.losses[:, None]
    return ratios(evidence.frame, evidence.frame.rows(part), losses, np.ones_like(losses))


def _by_ranks(frame: Frame, part: Part, margins: Floats) -> dict[str, Estimate]:
    """The area on every group of an attribute, by the rank sum of each class (Mann and Whitney, AMS 1947)."""
    from scipy.stats import rankdata  # here, because importing it takes a third of a second

    estimates = {}
    for group, here in frame.within(frame.rows(part)).items():
        of_class = np.bincount(frame.labels[here], minlength=frame.classes).astype(np.float64)
        if basic(group) or (of_class > 0).sum() < 2:
            continue
        ranks = rankdata(margins[here], axis=0)
        own = ranks[np.arange(len(here)), frame.labels[here]]
        won = np.bincount(frame.labels[here], own, frame.classes) - of_class * (of_class + 1) / 2
        value = macro(won, of_class * (len(here) - of_class))
        estimates[group] = Estimate(float(value), len(here))
    return estimates


@lru_cache(maxsize=6)  # three parts, of the request at hand and the one before
def _one_versus_rest(frame: Frame, part: Part) -> Mapping[str, Mapping[int, Pairs]]:
    """The pairs (image of the class, other image) by group and class, where there are any."""
    strata = np.zeros(len(frame.labels), dtype=np.int64)
    found: dict[str, dict[int, Pairs]] = {}
    for group, members in frame.groups.items():
        if not basic(group):
            continue
        here = frame.rows(part) & members
        for c in range(frame.classes):
            of_class = frame.labels == c
            pairs = pair_up(frame, here & of_class, here & ~of_class, strata)
            if pairs is not None:
                found.setdefault(group, {})[c] = pairs
    return found
