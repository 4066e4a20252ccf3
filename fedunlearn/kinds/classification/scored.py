"""How what classifiers answer is measured: by accuracy, and by all attacks."""

from __future__ import annotations

import numpy as np

from fedunlearn.scoring.attacks.ladder import ATTACKS
from fedunlearn.scoring.evidence import Bools
from fedunlearn.scoring.evidence.classification import Outputs, margin, outputs, rightly
from fedunlearn.scoring.kinds import Scored
from fedunlearn.scoring.measures.clinical import CLINICAL, binned
from fedunlearn.scoring.measures.composite import COMPOSITES, worst_site
from fedunlearn.scoring.measures.memorisation import confidence
from fedunlearn.scoring.measures.performance import CANARY, PERFORMANCE
from fedunlearn.scoring.measures.probes import RELEARN, measures_after


def accuracy(answers: Outputs, rows: Bools) -> float:
    """See `Scored.value`; as `performance.accuracy` has it."""
    return float(answers.correct[rows].mean())


def calibration_error(answers: Outputs, rows: Bools) -> float:
    """See `Scored.calibration`; as `clinical.calibration_error` has it."""
    return float(np.abs(binned(answers, rows)[rows].sum(axis=0) / rows.sum()).sum())


SCORED = Scored(
    read=outputs,
    margin=margin,
    quality="accuracy",
    measures=(*PERFORMANCE, *CLINICAL, *ATTACKS, *COMPOSITES, worst_site("accuracy")),
    probed=(
        *measures_after((*PERFORMANCE, *ATTACKS), "forget_accuracy", "retain_accuracy", "mia_loss_auc"),
        *RELEARN,
        CANARY,
    ),
    biased={
        "forget_accuracy": "forget",
        "mia_loss_auc": "forget",
        "retain_accuracy": "retain",
        "test_accuracy": "test",
    },
    said={
        "forget_accuracy": "accuracy on images to forget",
        "retain_accuracy": "accuracy on retained images",
        "test_accuracy": "accuracy on unseen images",
        "mia_loss_auc": "the attack's AUC",
    },
    trial=("test_accuracy", "retain_accuracy", "mia_loss_auc", "forget_accuracy", "forget_loss"),
    confidence=confidence,
    value=accuracy,
    fewest=16,
    glanced=rightly,
    calibration=calibration_error,
)
