"""What people read of classifiers."""

from __future__ import annotations

from fedunlearn.results.kinds import Words

_SCORES = {"logits_*": "of images: the score of each class, before softmax"}

WORDS = Words(
    quality="accuracy",
    brief="acc.",
    part="class",
    parts="classes",
    heading="Of images",
    many="images of {classes} classes",
    seen_by="how sure they are of the right class",
    pipeline="image-classification",
    columns={
        "forget_accuracy": "forget",
        "retain_accuracy": "retain",
        "test_accuracy": "test",
        "mia_loss_auc": "MIA AUC",
        "avg_gap": "gap",
        "tow": "ToW",
    },
    legend="""\
forget, retain, test: accuracy. MIA AUC: how often a forgotten image has a lower
loss than an unseen one (.5: no memory). gap: distance from retraining in
points; ToW: closeness to it.""",
    signals=_SCORES,
    asked=_SCORES,
    forgotten="images to forget that are recognised",
)
