"""How what networks say of findings is measured: by areas under ROC curves, and by attacks that look at a loss."""

from __future__ import annotations

import numpy as np

from fedunlearn.kinds.multilabel.areas import one_finding
from fedunlearn.kinds.multilabel.evidence import Findings, findings, rightly
from fedunlearn.kinds.multilabel.measures import MULTILABEL, WORST_FINDING, binned
from fedunlearn.scoring.attacks.ladder import BY_LOSS
from fedunlearn.scoring.evidence import Bools
from fedunlearn.scoring.evidence.mean_loss import margin
from fedunlearn.scoring.kinds import Scored
from fedunlearn.scoring.measures.composite import worst_site
from fedunlearn.scoring.measures.memorisation import confidence
from fedunlearn.scoring.measures.probes import RELEARN, measures_after


def auroc(answers: Findings, rows: Bools) -> float:
    """See `Scored.value`; as `measures.auroc` has it; NaN where all images have a finding or none, whichever it is."""
    found = []
    for f in range(answers.targets.shape[1]):
        own = rows & answers.known[:, f]
        present = answers.targets[own, f] == 1
        if present.any() and not present.all():
            nobody, once = np.zeros(len(present), dtype=np.int64), np.ones((1, 1), dtype=np.float32)
            found.append(float(one_finding(answers.logits[own, f], present, nobody, once)[0, 0]))
    return float(np.mean(found)) if found else float("nan")


def calibration_error(answers: Findings, rows: Bools) -> float:
    """See `Scored.calibration`; as `measures.calibration_error` has it."""
    return float(np.abs(binned(answers, rows)[rows].sum(axis=0) / rows.sum()).sum())


_MEASURES = (*MULTILABEL, WORST_FINDING, *BY_LOSS, worst_site("auroc"))

SCORED = Scored(
    read=findings,
    margin=margin,
    quality="auroc",
    measures=_MEASURES,
    probed=(
        *measures_after(_MEASURES, "forget_auroc", "forget_finding_loss", "retain_auroc", "mia_loss_auc"),
        *RELEARN,
    ),
    biased={
        "forget_auroc": "forget",
        "mia_loss_auc": "forget",
        "retain_auroc": "retain",
        "test_auroc": "test",
    },
    said={
        "forget_auroc": "AUROC of images to forget",
        "retain_auroc": "AUROC of retained images",
        "test_auroc": "AUROC of unseen images",
        "mia_loss_auc": "the attack's AUC",
    },
    trial=("test_auroc", "retain_auroc", "mia_loss_auc", "forget_auroc", "forget_finding_loss"),
    confidence=confidence,
    value=auroc,
    fewest=16,
    glanced=rightly,
    rounds="accuracy",  # an area needs more images with a finding than can be shown after every round
    calibration=calibration_error,
    divided=("scanner", "difficulty", "view"),
)
