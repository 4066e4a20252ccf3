"""What is in the frames that people look at (`fedunlearn.results.frames`): every column, and whom rows are about."""

from __future__ import annotations

from collections.abc import Mapping

ROLES: Mapping[str, str] = {
    "strategy": "a strategy of the scenario",
    "floor": "one that needs no thought, which others must do better than for their cost",
    "again": "retraining again: honest retrainings, judged as strategies are",
    "original": "doing nothing: the original model as it is",
    "retrained": "retraining, which all are compared with",
}
"""What a row is about."""
NAMES: Mapping[str, str] = {
    "original": "do nothing",
    "retrained": "retraining",
    "retrained_other": "retraining again",
    "damaged": "a broken model",
}
"""What people call models that are no strategy's."""


def called(strategy: str) -> str:
    """What people call a model, by its label in the run's tables."""
    return NAMES.get(strategy, strategy)


WHO: Mapping[str, str] = {
    "strategy": "its label in the run's tables",
    "name": "what people call it",
    "role": "one of `ROLES`",
}
"""The columns that say so, in most frames."""

_WHOM_KNOWN = (
    "'remembered', 'overdone' (known less than by retraining), 'suspected' (rests on one training) or ''"
)
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "answers": {
        **WHO,
        "forgotten": "the answer to 'was it forgotten?'",
        "useful": "the answer to 'is it still good?'",
        "memory_left": "share of what the original knew, mean over patients",
        "memory_low": "its 95 % interval, lower end",
        "memory_high": "its 95 % interval, upper end",
        "memory_margin": "the share that may be left",
        "known": "patients still known",
        "overdone": "patients known less than by retraining",
        "suspected": "further patients, of whom only a single training says that they are either",
        "patients": "patients looked at",
        "difference": "quality on unseen images less retraining's (accuracy, or Dice; a share)",
        "low": "its 95 % interval, lower end",
        "high": "its 95 % interval, upper end",
        "margin": "how much lower it may be",
        "worst_site": "the hospital that lost most",
        "worst_site_difference": "what it lost, as `difference`",
        "worst_class": "the class or structure that lost most",
        "worst_class_difference": "what it lost, as `difference`",
        "share_of_retraining": "passes of images through networks, divided by retraining's; mean over seeds",
        "images": "passes of one image through a network; mean over seeds",
        "dominated_by": "the floor that does more for less, or ''",
        "p": "of 'twice the margin of memory is left', corrected over strategies (Holm)",
        "reasons": "why it was forgotten or not: the mean, patients, changed copies, further evidence; a list",
        "uses": "why it is still good or not: overall, hospitals, classes, groups; a list",
    },
    "memory": {
        **WHO,
        "forgotten": "the answer to 'was it forgotten?', of all patients",
        "dominated_by": "as in `answers`",
        "patient": "the patient's id",
        "memory_left": "share of what the original knew of this patient",
        "low": "its 95 % interval, lower end",
        "high": "its 95 % interval, upper end",
        "p": "of 'nothing is left', corrected over patients (Bonferroni)",
        "flagged": _WHOM_KNOWN,
        "copies_left": "the same, asked about slightly changed copies of the images",
        "copies_low": "its 95 % interval, lower end",
        "copies_high": "its 95 % interval, upper end",
        "copies_p": "as `p`, on copies",
        "copies_flagged": "as `flagged`, on copies",
        "mean": "memory left in the mean over patients",
        "mean_low": "its 95 % interval, lower end",
        "mean_high": "its 95 % interval, upper end",
        "margin": "the share that may be left in that mean",
        "zone": "95 of 100 patients of honest retrainings are within ± this share",
    },
    "useful": {
        **WHO,
        "forgotten": "the answer to 'was it forgotten?'",
        "useful": "the answer to 'is it still good?'",
        "measure": "what quality is, as in `statistics.parquet`",
        "difference": "quality on unseen images less retraining's",
        "low": "its 95 % interval, lower end",
        "high": "its 95 % interval, upper end",
        "margin": "how much lower it may be",
        "share_of_retraining": "passes of images through networks, divided by retraining's; mean over seeds",
        "share_low": "the least over seeds",
        "share_high": "the most over seeds",
        "images": "passes of one image through a network; mean over seeds",
        "dominated_by": "as in `answers`",
    },
    "groups": {
        **WHO,
        "measure": "what quality is, as in `statistics.parquet`",
        "attribute": "'all', 'site', 'class', or a column of the data that makes groups",
        "group": "its value; 'all' of all unseen images",
        "words": "both, as people say it",
        "difference": "quality on the group's unseen images less retraining's",
        "low": "its 95 % interval, lower end",
        "high": "its 95 % interval, upper end",
        "margin": "how much lower it may be",
        "p": "of 'no difference', corrected over strategies (Holm)",
        "patients": "test patients of the group",
    },
    "costs": {
        **WHO,
        "rounds": "how often any hospital was asked",
        "epochs": "epochs of training",
        "bytes": "bytes sent to and received from hospitals",
        "site_seconds": "the hospitals' work, in seconds",
        "seconds": "theirs and the server's",
        "share_of_retraining": "`images` divided by retraining's",
        "images": "passes of one image through a network",
        "storage_bytes": "bytes that the server must hold of training before any request arrives",
        "tuning_site_seconds": "the hospitals' work for finding its settings, once for all requests and seeds",
    },
    "curves": {
        **WHO,
        "phase": "what is under way, as in the ledger: 'original', 'retrained', 'unlearn' or 'continue'",
        "part": "'forget' (the images to forget) or 'validation'",
        "measure": "'loss', 'accuracy' or 'dice'",
        "step": "which of the models in hand that all seeds have; 0 is the start",
        "at": "rounds of training before the request, and since",
        "after": "rounds of training before this phase began",
        "value": "mean over seeds",
        "low": "the least over seeds",
        "high": "the most over seeds",
        "seeds": "how many of them",
        "images": "images asked about",
        "whole": "false where of a seed only start and end are known, since it was taken from an earlier run",
    },
    "roc": {
        **WHO,
        "fpr": "share of unseen images taken for ones that were trained on",
        "tpr": "share of images to forget that the attack finds, at that; mean over seeds",
        "low": "the least over seeds",
        "high": "the most over seeds",
        "models": "how many models",
        "n_members": "images to forget",
        "n_nonmembers": "unseen images",
    },
    "probes": {
        **WHO,
        "probe": "'relearn', 'linear_probe' or 'resurgence'",
        "measure": "as in `scores.parquet`",
        "value": "after the probe, mean over seeds; of relearning, the median",
        "low": "the least over seeds",
        "high": "the most over seeds",
        "before": "the same measure right after unlearning; NaN of relearning",
        "retrained": "what retraining comes to after the same probe",
        "seeds": "how many of them",
    },
    "relearning": {
        **WHO,
        "epoch": "epochs of training on the images to forget",
        "loss": "of the images to forget, mean over seeds; who is done keeps the last one",
        "low": "the least over seeds",
        "high": "the most over seeds",
        "goal": "the loss at which they are known as well as to the original; mean over seeds",
    },
}
"""By frame, what each of its columns holds."""
