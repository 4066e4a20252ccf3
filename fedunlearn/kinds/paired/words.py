"""What people read of networks that answer images and what comes beside them."""

from __future__ import annotations

from dataclasses import replace

from fedunlearn.kinds.classification.words import WORDS as CLASSIFIED

_SCORES = {
    "image_*": "of images with a report or table: the score of each class by the image alone, before softmax",
    "beside_*": "of images with a report or table: the same by that alone",
    "both_*": "of images with a report or table: the same by both",
}

WORDS = replace(
    CLASSIFIED,
    heading="Of images with a report or a table",
    many="images of {classes} classes, each with a report or a table",
    seen_by="how sure they are of the right class by the image, by what comes beside it, and by both",
    further={
        "test_image_accuracy": "test img",
        "test_beside_accuracy": "test rep",
        "mia_image_loss_auc": "MIA img",
        "mia_beside_loss_auc": "MIA rep",
        "mia_link_auc": "MIA link",
        "test_retrieval_5": "R@5",
    },
    signals=_SCORES,
    asked=_SCORES,
    attacks={
        "mia_image_loss_auc": "by the image alone",
        "mia_beside_loss_auc": "by what comes beside it alone",
        "mia_link_auc": "how far both answers agree",
    },
    further_legend="""\
img, rep: by the image alone, by the report (or table) alone; above: by both.
MIA: as MIA AUC; link: by how much the two answers agree. R@5: images whose
report's answer is among the five most like theirs.""",
)
