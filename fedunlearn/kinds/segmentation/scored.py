"""How what networks make of volumes is measured: by Dice, surfaces and errors, and by attacks that look at a loss."""

from __future__ import annotations

import numpy as np

from fedunlearn.kinds.segmentation.evidence import Overlaps, overlap, overlapping, overlaps, volume_dice
from fedunlearn.kinds.segmentation.measures import SEGMENTATION
from fedunlearn.scoring.attacks.ladder import BY_LOSS
from fedunlearn.scoring.evidence import Bools
from fedunlearn.scoring.evidence.bootstrap import macro
from fedunlearn.scoring.evidence.mean_loss import margin
from fedunlearn.scoring.kinds import Scored
from fedunlearn.scoring.measures.composite import worst_site
from fedunlearn.scoring.measures.probes import RELEARN, measures_after


def dice(answers: Overlaps, rows: Bools) -> float:
    """See `Scored.value`; as `measures.dice` has it."""
    both = 2 * answers.intersection[:, 1:] / np.maximum(answers.sizes, 1)
    return float(macro(both[rows].sum(axis=0), (answers.sizes > 0)[rows].sum(axis=0)))


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
