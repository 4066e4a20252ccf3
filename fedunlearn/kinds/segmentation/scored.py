"""How what networks make of volumes is measured: by Dice, surfaces and errors, and by attacks that look at a loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedunlearn.kinds.segmentation.evidence import Overlaps, each_dice, overlap, overlaps, volume_dice
from fedunlearn.kinds.segmentation.measures import SEGMENTATION
from fedunlearn.scoring.attacks.ladder import BY_LOSS
from fedunlearn.scoring.evidence import Bools, Floats
from fedunlearn.scoring.evidence.bootstrap import macro
from fedunlearn.scoring.evidence.mean_loss import margin
from fedunlearn.scoring.kinds import Scored
from fedunlearn.scoring.measures.composite import worst_site
from fedunlearn.scoring.measures.probes import RELEARN, measures_after


def dice(answers: Overlaps, rows: Bools) -> float:
    """See `Scored.value`; as `measures.dice` has it."""
    both = 2 * answers.intersection[:, 1:] / np.maximum(answers.sizes, 1)
    return float(macro(both[rows].sum(axis=0), (answers.sizes > 0)[rows].sum(axis=0)))


def overlapping(shown: Mapping[str, Floats]) -> Floats:
    """(models,) the mean Dice of the volumes that have one."""
    counts = [shown[name] for name in ("intersection", "predicted", "true")]
    models, volumes = counts[0].shape[:2]
    found = each_dice(*(one.reshape(models * volumes, -1) for one in counts)).reshape(models, volumes)
    defined = np.isfinite(found)
    mean: Floats = np.where(defined, found, 0).sum(axis=1) / np.where(
        defined.any(axis=1), defined.sum(axis=1), np.nan
    )
    return mean


_MEASURES = (*SEGMENTATION, *BY_LOSS, worst_site("dice"))

SCORED = Scored(
    read=overlaps,
    margin=margin,
    quality="dice",
    measures=_MEASURES,
    probed=(*measures_after(_MEASURES, "forget_dice", "retain_dice", "mia_loss_auc"), *RELEARN),
    biased={"forget_dice": "forget", "mia_loss_auc": "forget", "retain_dice": "retain", "test_dice": "test"},
    said={
        "forget_dice": "Dice of volumes to forget",
        "retain_dice": "Dice of retained volumes",
        "test_dice": "Dice of unseen volumes",
        "mia_loss_auc": "the attack's AUC",
    },
    trial=("test_dice", "retain_dice", "mia_loss_auc", "forget_dice", "forget_voxel_loss"),
    confidence=overlap,
    value=dice,
    each=volume_dice,
    fewest=4,  # a volume takes as long as hundreds of images
    glanced=overlapping,
)
