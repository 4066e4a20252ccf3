"""How what is said of pairs is measured: of both together as a classifier's answers, and of each alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from fedunlearn.kinds.classification.scored import SCORED as CLASSIFIED
from fedunlearn.kinds.paired.evidence import ALONE, alone, margin, pairs, remembered
from fedunlearn.kinds.paired.measures import PAIRED

SCORED = replace(
    CLASSIFIED,
    read=pairs,
    margin=margin,
    remembered=remembered,
    alone={name: partial(alone, name) for name in ALONE},
    measures=(*CLASSIFIED.measures, *PAIRED),
    divided=("difficulty", "view"),
    said={
        **CLASSIFIED.said,
        "mia_image_loss_auc": "the AUC of the attack on the image alone",
        "mia_beside_loss_auc": "the AUC of the attack on the report or table alone",
        "memory_left_image": "answers to the image alone",
        "memory_left_beside": "answers to the report or table alone",
    },
)
