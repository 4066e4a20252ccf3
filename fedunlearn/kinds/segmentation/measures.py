"""How well a model segments volumes: Dice, surfaces, loss, errors.

All of it follows from a few numbers of each volume (`fedunlearn.kinds.segmentation.evidence`). Attacks that look at
one loss for each image (`fedunlearn.scoring.attacks.ladder.BY_LOSS`) work on volumes as on images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fedunlearn.kinds.segmentation.evidence import Overlaps
from fedunlearn.scoring.evidence import Answers, Estimate, Estimates, Evidence, Floats, Part
from fedunlearn.scoring.evidence.bootstrap import ratios
from fedunlearn.scoring.evidence.measure import MARGIN, Measure, Values, on
from fedunlearn.scoring.measures.composite import apart, combined

DICES = ("forget_dice", "retain_dice", "test_dice")


def dice(evidence: Evidence[Overlaps], part: Part) -> Estimates:
    """The mean over classes but the background of the mean over volumes of ``2 |P and G| / (|P| + |G|)``.

    P and G are the voxels that the model and the labels give to the class (Dice, Ecology 1945; by volume and without
    class 0 as in Tencent/MedicalNet, test.py). A class that neither of them has in a volume is undefined there, and
    left out of the class's mean. Volumes count alike whatever their size. The group "class=c" has the Dice of class c.
    """
    answers = evidence.unlearned
    return _over_classes(evidence, part, 2 * answers.intersection[:, 1:] / np.maximum(answers.sizes, 1))


def surface_distance(evidence: Evidence[Overlaps], part: Part) -> Estimates:
    """The mean over classes but the background of the mean over volumes of the distance between surfaces, in voxels.

    The average symmetric surface distance of model and labels. Missing a structure, or making one up, counts as the
    length of the volume's diagonal; a class that neither of them has in a volume is left out, and the groups "class=c"
    are those of `dice`. A voxel is taken for a cube: where it is none, the distance is not one of the body. Undefined
    for predictions dealt to other volumes (`Overlaps.mixed_up`), of which only the counts of voxels are known.
    """
    surface = evidence.unlearned.surface
    return {} if surface is None else _over_classes(evidence, part, surface[:, 1:])


def voxel_loss(evidence: Evidence[Overlaps], part: Part) -> Estimates:
    """The mean over volumes of the mean cross-entropy ``-log p_y`` over voxels, in nats."""
    return _mean(evidence, part, evidence.unlearned.losses)


def mae(evidence: Evidence[Overlaps], part: Part) -> Estimates:
    """The mean over volumes of the mean over voxels of ``|predicted class - label|``.

    Classes are names, not amounts: this depends on how they are numbered. It is here because papers on volumes
    report an MAE without a formula; with two classes it is the share of wrong voxels.
    """
    return _mean(evidence, part, evidence.unlearned.mae)


def soft_mae(evidence: Evidence[Overlaps], part: Part) -> Estimates:
    """The mean over volumes, voxels and classes of ``|p_c - g_c|``, with g_c = 1 for the label's class, else 0.

    It does not depend on how classes are numbered; ``C / 2`` times it is the mean of ``1 - p_y``.
    """
    return _mean(evidence, part, evidence.unlearned.soft_mae)


def dice_gap(evidence: Evidence[Overlaps]) -> Estimates:
    """Dice on what is retained minus Dice on what is forgotten: Singh et al., arXiv 2606.16180.

    There, the larger the better; here, the nearer to the retrained model's: that one segments forgotten volumes about
    as well as any unseen ones.
    """
    return _difference(evidence, "retain_dice", "forget_dice")


def mae_gap(evidence: Evidence[Overlaps]) -> Estimates:
    """MAE on what is forgotten minus MAE on what is retained: Singh et al., arXiv 2606.16180; read as `dice_gap`."""
    return _difference(evidence, "forget_mae", "retain_mae")


def avg_dice_gap(evidence: Evidence[Answers]) -> Estimates:
    """``(|FD - FD*| + |RD - RD*| + |TD - TD*|) / 3`` in percentage points: Dice of forget, retain and test volumes.

    What `avg_gap` is for classes, without an attack; * is the retrained model. It leans upwards near 0 likewise.
    """
    return combined(evidence, DICES, dice_distance)


def dice_distance(model: Values, retrained: Values) -> Floats:
    """See `avg_dice_gap`."""
    return apart(model, retrained, DICES)


def _over_classes(evidence: Evidence[Overlaps], part: Part, values: Floats) -> Estimates:
    """The mean over classes but the background of the mean over volumes of ``values`` (N, C - 1); 0 where undefined.

    Of three classes or more, each that occurs forms a group, too: that is no group of volumes but of voxels, yet the
    same question as of a classifier, how well it knows this class; and whatever is made of groups follows. It is told
    of volumes whose labels have the class (`Estimate.having`), whatever a model makes up in others.
    """
    frame, rows, answers = evidence.frame, evidence.frame.rows(part), evidence.unlearned
    defined = (answers.sizes > 0).astype(np.float64)
    estimates = dict(ratios(frame, rows, values, defined))
    for c in np.flatnonzero(defined[rows].any(axis=0)) if frame.classes > 2 else ():
        own = ratios(frame, rows, values[:, [c]], defined[:, [c]])["all"]
        estimates[f"class={c + 1}"] = replace(own, having=answers.true[:, c + 1] > 0)
    return estimates


def _mean(evidence: Evidence[Overlaps], part: Part, values: Floats) -> Estimates:
    return ratios(evidence.frame, evidence.frame.rows(part), values[:, None], np.ones((len(values), 1)))


def _difference(evidence: Evidence[Any], left: str, right: str) -> Estimates:
    """Of two measures of this model, by group, where both are defined; their patients are others."""
    one, other = (evidence.measured.get(name, {}) for name in (left, right))
    estimates = {}
    for group in (group for group in one if group in other):
        a, b = one[group], other[group]
        both = a.replicates.size and b.replicates.size
        replicates = a.replicates - b.replicates if both else np.empty(0)
        estimates[group] = Estimate(a.value - b.value, a.n + b.n, replicates)
    return estimates


# ------------------------------------------------------------------------------------------- the catalogue

_PARTS: dict[Part, tuple[str, str]] = {
    "retain": ("the training volumes that stay", "as one model trained on these volumes"),
    "forget": (
        "the training volumes to forget",
        "as on volumes it never saw: near its test value, not as retained",
    ),
    "test": ("every hospital's test volumes", "what the remaining data can teach"),
}
# Half of what retraining changed on the volumes to forget in a trial (hippocampus at half resolution, the small U-Net:
# Dice .86 to .76, loss .019 to .047, MAE .008 to .013, soft MAE .004 to .007), where retrained models of three seeds
# differed by .006, .002, .0003 and .0002. In a second one surfaces went from .23 to .43 voxels (Dice from .88 to .78)
# and differed by .002; of voxels half as wide they would be twice as many. What fills a volume instead of a fiftieth of
# it costs more in all but Dice.
_FAMILIES: tuple[tuple[Callable[[Evidence[Overlaps], Part], Estimates], str, str, float, str], ...] = (
    (
        dice,
        "mean Dice coefficient of the classes but the background (of each class: groups class=1, class=2, …)",
        "share",
        1.0,
        "2|P∩G| / (|P|+|G|)",
    ),
    (
        surface_distance,
        "mean distance between the surfaces of model and labels, of the classes but the background (of each class: "
        "groups class=1, class=2, …)",
        "voxels",
        2.0,
        "ASSD, Heimann et al., IEEE TMI 2009; the volume's diagonal where only one of both has the class",
    ),
    (voxel_loss, "mean cross-entropy of voxels", "nats", 0.3, "-log p_y"),
    (mae, "mean |predicted class - label| over voxels", "classes", 0.05, "mean absolute error"),
    (soft_mae, "mean |probability - label| over voxels and classes", "share", 0.03, "mean absolute error"),
)


SEGMENTATION = (
    *(
        Measure(
            name=f"{part}_{function.__name__}",
            summary=f"{summary}, on {volumes}",
            unit=unit,
            low=0.0,
            high=1.0 if unit == "share" else None,
            direction="match",
            retrained=like,
            margin=scale * MARGIN[part],
            source=source,
            function=on(part, function),
        )
        for function, summary, unit, scale, source in _FAMILIES
        for part, (volumes, like) in _PARTS.items()
    ),
    Measure(
        name="dice_gap",
        summary="Dice on the training volumes that stay minus that on those to forget",
        unit="share",
        low=-1.0,
        high=1.0,
        direction="match",
        retrained="its gap between volumes it learnt and volumes it never saw",
        margin=0.05,
        source="Singh et al., arXiv 2606.16180: Dice_retain - Dice_forget",
        function=dice_gap,
        parts=("retain_dice", "forget_dice"),
    ),
    Measure(
        name="mae_gap",
        summary="mean |predicted class - label| on the volumes to forget minus that on those that stay",
        unit="classes",
        low=None,
        high=None,
        direction="match",
        retrained="its gap between volumes it never saw and volumes it learnt",
        margin=0.0025,
        source="Singh et al., arXiv 2606.16180: MAE_forget - MAE_retain",
        function=mae_gap,
        parts=("forget_mae", "retain_mae"),
    ),
    Measure(
        name="avg_dice_gap",
        summary="mean distance from the retrained model in forget, retain and test Dice",
        unit="percentage points",
        low=0.0,
        high=100.0,
        direction="lower",
        retrained="0 with the same seed; with another seed, the band",
        margin=None,
        source="as avg_gap (Fan et al., arXiv 2310.12508), of Dice: mean of |FD-FD*|, |RD-RD*|, |TD-TD*|",
        function=avg_dice_gap,
        combine=dice_distance,
        parts=DICES,
    ),
)
"""The measures of this kind alone, each after those it builds on; attacks and costs come beside them."""
