"""What is known by the image alone, by what comes beside it alone, and by the link between the two.

Of the answers to both together there are all measures of classifiers, under their names. These say where memory is: a
method may make a model forget a patient's picture and leave the patient's report known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fedunlearn.kinds.paired.evidence import ALONE, agreement, likeness
from fedunlearn.scoring.attacks.membership import attack_auc, mia_loss_auc
from fedunlearn.scoring.evidence import Estimates, Evidence, Floats, Part
from fedunlearn.scoring.evidence.bootstrap import ratios
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.evidence.measure import LIKE, MARGIN, PARTS, Measure
from fedunlearn.scoring.measures.performance import accuracy

POOL = 500
"""Pairs, at most, among which one is looked for."""

_WHAT = {"image": "the image alone", "beside": "what comes beside the image (report or table) alone"}
_FUSION = "Chauhan et al., MICCAI 2020 (arXiv 2008.09884): an answer by each modality"


def alone(evidence: Evidence[Outputs], place: str) -> Evidence[Outputs]:
    """The evidence as if a model had given its answers to one of ``ALONE`` only."""
    return replace(evidence, unlearned=evidence.unlearned.beside[place])


def mia_link_auc(evidence: Evidence[Outputs]) -> Estimates:
    """The share of pairs (image to forget, held-out one) in which the one to forget agrees more with what is beside it.

    As `mia_loss_auc`, of `evidence.agreement` of the two answers, by the image alone and by its companion alone: it
    looks at no label. A model that learnt by heart what belongs together says the same of both, right or wrong.
    """
    return attack_auc(evidence.frame, agreement(evidence.unlearned))


def recalled(image: Floats, beside: Floats, k: int) -> Floats:
    """(N,) how likely each image's companion is among the ``k`` whose answers are most like the image's.

    Where several are equally like it, whichever comes first is left to chance: of ``t`` that share the places ``b + 1``
    to ``b + t``, each is among the first k with probability ``(k - b) / t``, between 0 and 1.

    Args:
        image: (N, C) class scores by image.
        beside: (N, C) class scores by companion, in the same order.
        k: how many are looked at.
    """
    alike = np.round(likeness(image, beside), 12)  # equal answers are equal, however they were rounded
    own = np.diagonal(alike)[:, None]
    before, tied = (alike > own).sum(axis=1), (alike == own).sum(axis=1)
    found: Floats = np.clip((k - before) / tied, 0.0, 1.0)
    return found


def retrieval(evidence: Evidence[Outputs], part: Part, k: int) -> Estimates:
    """Recall@k: the share of images whose own companion is among the k whose answers are most like the image's.

    Looked for among the pairs of the same hospital and part, `POOL` of them at a time in their order, so that the
    number means the same in large and in small data; by `evidence.likeness`. It is of answers, not of embeddings: a few
    classes tell few pairs apart, and only memory of a pair can do better than its class allows.
    """
    frame = evidence.frame
    image, beside = (evidence.unlearned.beside[place].logits for place in ALONE)
    rows = frame.rows(part)
    found = np.zeros((len(rows), 1))
    for site in np.unique(frame.sites[rows]):
        own = np.flatnonzero(rows & (frame.sites == site))
        for start in range(0, len(own), POOL):
            here = own[start : start + POOL]
            found[here, 0] = recalled(image[here], beside[here], k)
    return ratios(frame, rows, found, np.ones_like(found))


def _accuracy(part: Part, place: str) -> Measure:
    def function(evidence: Evidence[Any]) -> Estimates:
        return accuracy(alone(evidence, place), part)

    return Measure(
        name=f"{part}_{place}_accuracy",
        summary=f"share of images classified rightly by {_WHAT[place]}, on {PARTS[part]}",
        unit="share",
        low=0.0,
        high=1.0,
        direction="match",
        retrained=LIKE[part],
        margin=MARGIN[part],
        source=f"{_FUSION}; argmax = label",
        function=_named(function, accuracy.__doc__),
    )


def _attack(place: str) -> Measure:
    def function(evidence: Evidence[Any]) -> Estimates:
        return mia_loss_auc(alone(evidence, place))

    return Measure(
        name=f"mia_{place}_loss_auc",
        summary="share of pairs of an image to forget and a held-out one, of the same hospital and label, in which the "
        f"one to forget has the lower loss by {_WHAT[place]}",
        unit="share",
        low=0.0,
        high=1.0,
        direction="match",
        retrained="about 0.5: it never saw either; below 0.5 if the held-out images happen to be easier",
        margin=0.06,
        source="Yeom et al., CSF 2018 (arXiv 1709.01604), as mia_loss_auc, of one modality's answer",
        function=_named(function, mia_loss_auc.__doc__),
    )


def _retrieval(part: Part, k: int) -> Measure:
    def function(evidence: Evidence[Any]) -> Estimates:
        return retrieval(evidence, part, k)

    return Measure(
        name=f"{part}_retrieval_{k}",
        summary=f"recall@{k}: share of images whose companion's answer is among the {k} most like the image's, of the "
        f"same hospital's, {POOL} at most, on {PARTS[part]}",
        unit="share",
        low=0.0,
        high=1.0,
        direction="match",
        retrained=LIKE[part],
        margin=MARGIN[part],
        source="recall@k of image-text retrieval, by Bhattacharyya's coefficient of the two answers",
        function=_named(function, retrieval.__doc__),
    )


def _named(
    function: Callable[[Evidence[Any]], Estimates], about: str | None
) -> Callable[[Evidence[Any]], Estimates]:
    function.__doc__ = about
    return function


_PARTS: tuple[Part, ...] = ("forget", "retain", "test")

PAIRED = (
    *(_accuracy(part, place) for place in ALONE for part in _PARTS),
    *(_attack(place) for place in ALONE),
    Measure(
        name="mia_link_auc",
        summary="share of pairs of an image to forget and a held-out one, of the same hospital and label, in which the "
        "answers to the image and to what comes beside it agree more of the one to forget",
        unit="share",
        low=0.0,
        high=1.0,
        direction="match",
        retrained="about 0.5: it never saw either",
        margin=0.06,
        source="an attack by agreement in place of loss; Bhattacharyya's coefficient of the two answers",
        function=mia_link_auc,
    ),
    *(_retrieval(part, k) for part in ("forget", "test") for k in (1, 5)),
)
"""In the order of the table of scores."""
