"""What people read of networks that tell several findings of an image."""

from __future__ import annotations

from fedunlearn.results.kinds import Words

WORDS = Words(
    quality="AUROC",
    brief="AUROC",
    part="finding",
    parts="findings",
    heading="Of images with several findings",
    many="images with {classes} findings",
    seen_by="their loss",
    pipeline="image-classification",
    columns={
        "forget_auroc": "forget",
        "retain_auroc": "retain",
        "test_auroc": "test",
        "test_worst_auroc": "worst",
        "mia_loss_auc": "MIA AUC",
        "avg_auroc_gap": "gap",
    },
    legend="""\
forget, retain, test: AUROC, mean over findings; worst: of the finding told
worst. MIA AUC: how often a forgotten image has a lower loss than an unseen one
(.5: no memory). gap: distance from retraining in
points.""",
    further={
        "forget_sensitivity_at_90": "fgt sens",
        "retain_sensitivity_at_90": "ret sens",
        "test_sensitivity_at_90": "test sens",
        "test_auprc": "test AP",
        "forget_finding_loss": "fgt loss",
        "mia_worst_finding_auc": "MIA wst",
    },
    attacks={"mia_worst_finding_auc": "loss of the worst finding"},
    further_legend="""\
fgt, ret, test: to forget, retained, test. sens: sensitivity at a specificity
of .9; AP: area under precision and recall; both means over findings. MIA wst:
as MIA AUC, by the loss of the finding that a model is most wrong about.""",
    signals={
        "logit_*": "of images with several findings: the score of each, present less absent",
        "target_*": "of images with several findings: 1 present, 0 absent, -1 unknown",
    },
    asked={"loss_0": "of images with several findings: mean loss of those known, in nats"},
    forgotten="AUROC of images to forget",
)
