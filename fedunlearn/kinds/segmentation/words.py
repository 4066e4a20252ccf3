"""What people read of networks that segment volumes."""

from __future__ import annotations

from fedunlearn.results.kinds import Words

_LOSS = {"loss_0": "of volumes: mean loss of the voxels, in nats"}

WORDS = Words(
    quality="Dice",
    brief="Dice",
    part="structure",
    parts="structures",
    heading="Of volumes with label maps",
    many="volumes to be segmented",
    seen_by="their loss",
    pipeline="image-segmentation",
    columns={
        "forget_dice": "forget",
        "retain_dice": "retain",
        "test_dice": "test",
        "mia_loss_auc": "MIA AUC",
        "avg_dice_gap": "gap",
        "dice_gap": "ret-fgt",
    },
    legend="""\
forget, retain, test: Dice. MIA AUC: how often a forgotten volume has a lower
loss than an unseen one (.5: no memory). gap: distance from retraining in
points; ret-fgt: retain less forget.""",
    further={
        "forget_mae": "fgt MAE",
        "retain_mae": "ret MAE",
        "mae_gap": "MAE gap",
        "forget_surface_distance": "fgt SD",
        "retain_surface_distance": "ret SD",
        "test_surface_distance": "test SD",
    },
    further_legend="""\
fgt, ret, test: to forget, retained, test. MAE: mean |predicted class - label|
of voxels; its gap: fgt less ret. SD: distance between surfaces, in voxels.""",
    signals={
        "intersection_*": "of volumes: voxels of each class where model and labels agree",
        "predicted_*": "of volumes: voxels where the model says this class",
        "true_*": "of volumes: voxels where the labels say it",
        "surface_*": "of volumes: mean distance of the class's surfaces, in voxels",
        **_LOSS,
        "mae_0": "of volumes: mean of |predicted class - label|",
        "soft_mae_0": "of volumes: mean over voxels and classes of |probability - label|",
    },
    asked=_LOSS,
    forgotten="Dice of volumes to forget",
)
