"""What is in a run folder: every file in a sentence, every column of its tables with unit and meaning.

The reference of the documentation is made from this; a test holds the columns to those that real runs write.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from fedunlearn.results.kinds import signals

FILES: Mapping[str, str] = {
    "scenario.yaml": "the scenario, resolved and complete: running it again gives the same bits on the same machine",
    "manifest.json": "versions, seeds, references beyond them, the margins last judged with, digest of the data, wall "
    "time, what was reused, where curves have start and end only, what was purged, sha256 of every file, end of the "
    "audit log; sealed by a checksum of its own",
    "report.html": "the report, one file that needs no network",
    "records/*.json": "per request, its erasure record, signed (only after `fedunlearn record`)",
    "records/*.html": "the same for people",
    "records.html": "all requests of a year in a table: state and days by each policy (only after `fedunlearn record`)",
    "tombstones.json": "keyed hashes of what was purged: of images, of answers about them, of models; no ids (only "
    "after `fedunlearn purge`)",
    "sites.parquet": "one row per image: whose it is, where it is, and what it is used for",
    "scores.parquet": "every measure of every model, seed and group, in long form",
    "verdicts.parquet": "the two answers for every request and strategy, and their reasons",
    "patients.parquet": "the memory left of every patient to forget, by strategy",
    "requests.parquet": "what the models of a request let anybody see",
    "statistics.parquet": "differences from retraining and memory left, with intervals, tests and margins: what the "
    "answers rest on",
    "bias.parquet": "groups of patients compared: who is treated unequally by unlearning",
    "curves.parquet": "loss and quality of every model under way, round by round",
    "roc.parquet": "how well an attack tells images to forget from unseen ones, at every false positive rate",
    "ledger.parquet": "what every procedure and round cost, as observed",
    "difficulty.parquet": "how long each image took the original models to learn",
    "memorisation.parquet": "how much each image is memorised, by shadow models (only where a scenario asks for them)",
    "calendar.parquet": "of a year of requests, when each was received, decided and answered, by policy",
    "memory.parquet": "of a year, how much is left of every earlier request, look by look",
    "years.parquet": "of a year, quality, memory, distance and cost, look by look",
    "policies.parquet": "of a year, what each policy came to with each strategy, with intervals",
    "weights/*.safetensors": "every model: `original-SEED`, `retrained-REQUEST-SEED`, `REQUEST-STRATEGY-SEED`",
    "signals/*.parquet": "per model, what it answers for every image, in the order of `sites.parquet`: scores never "
    "need a model again",
    "copies/*.parquet": "per model, what it answers for changed copies of images to forget and of test images where "
    "they are",
    "origins/*/*.json": "for every file of weights, signals, copies, curves and other work that is kept, all that "
    "determined its bits, its costs and its checksum",
    "curves/*": "per procedure, what `curves.parquet` is made of: an NPY of rounds, loss and quality on each part",
    "pictures/answers.parquet": "what every model says of the images in `pictures/`",
    "difficulty/*.npy": "per original model, which images it had right after each round",
    "shadows/members.parquet": "which images each shadow model was trained on: a column per model, a row per image",
    "shadows/*.parquet": "per shadow model, as in `signals/`",
    "probes/relearn.parquet": "how soon each model knew again what it had forgotten",
    "probes/*.parquet": "per probe and model, as in `signals/`, after more training",
    "probes/*.safetensors": "of the probe relearn, per model, the losses on the way",
    "pictures/*": "a strip of forgotten images with what each model says of them (only where a scenario asks for it)",
    "slices/*": "of volumes, a few as all models segment them, as PNG, and an NPZ of what it was drawn from; with "
    "`pictures/` the only pixels in a run folder",
    "strategies/*.py": "copies of the files that strategies of yours come from, by their content",
    "audit.jsonl": "hash-chained record of the requests and of what was done about them, scoring again too",
    "DONE": "written last; a folder without it is an unfinished run",
}
"""By name or pattern, what a file is. Not every run has all of them."""

OF_PATIENTS: Mapping[str, str] = {
    "scenario.yaml": "ids of patients, where requests name them",
    "manifest.json": "ids of images that are told as twins",
    "report.html": "ids of a few patients in sentences, of all to forget in a table; pictures, where there are some",
    "sites.parquet": "a row for every image",
    "verdicts.parquet": "ids of patients in reasons",
    "patients.parquet": "a row for every patient to forget",
    "calendar.parquet": "a row for every request, which may be a single patient's",
    "memory.parquet": "a row for every request, which may be a single patient's",
    "difficulty.parquet": "a row for every image",
    "memorisation.parquet": "a row for every image",
    "signals/*.parquet": "what a model answers for every image",
    "copies/*.parquet": "what a model answers for changed copies of images",
    "difficulty/*.npy": "whether a model had each image right",
    "shadows/members.parquet": "who was in which shadow model's training",
    "shadows/*.parquet": "what a shadow model answers for every image",
    "probes/relearn.parquet": "how soon models knew images again",
    "probes/*.parquet": "what a model answers for every image after more training",
    "probes/*.safetensors": "a model's losses on images",
    "pictures/answers.parquet": "what models say of some images",
    "pictures/*": "pixels of some images",
    "slices/*": "pixels of some volumes",
}
"""Of files that have a row, an id or pixels of single patients or images: what of them. Models are told apart."""

_MODEL = {"request": "id of the request", "strategy": "label of the strategy, or `original` or `retrained`"}
_NULL = "end of the band in which the mean over seeds of fresh retrainings is expected"
_BOTH = "`retrained_other` (the next seed's retrained model) and `damaged` (answers dealt out at random) are controls"
_LOW, _HIGH = "lower end of the 95 % interval", "upper end of the 95 % interval"

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "sites.parquet": {
        "image": "the image's id",
        "patient": "whose it is",
        "site": "the hospital that has it",
        "split": "`train`, `val`, `test` or `proxy`",
        "label": "its class, a number from 0; not there for volumes with label maps, or several findings",
        "findings": "of several findings, those that it has, joined by `|`; `No Finding` if it is known to have none, "
        "else `unknown`",
        "unknown": "of several findings, those of which nobody knows, joined by `|`",
        "rarest_finding": "of several findings, the one it has that fewest images have, `No Finding` or `unknown`: "
        "what it is dealt and picked by",
        "*": "attributes as the data has them, such as `sex`, `age`, `scanner`",
        "difficulty": "what the data itself says of it, such as `easy`; requests pick by it",
        "forgotten_by": "ids of the requests that ask for it to be forgotten, a list",
    },
    "scores.parquet": {
        **_MODEL,
        "strategy": f"label of the strategy, or `original` or `retrained`; {_BOTH}",
        "seed": "training seed",
        "measure": "its name, as in the reference of measures",
        "group": "`all`, or `ATTRIBUTE=VALUE`",
        "value": "the measure, in its unit",
        "low": f"{_LOW}, by patient; NaN for costs, and where a single patient stands behind the value",
        "high": f"{_HIGH}, as `low`",
        "retrained": "the value of the retrained model of the same seed",
        "null_low": f"lower {_NULL}",
        "null_high": f"upper {_NULL}",
        "n": "images behind the value",
    },
    "verdicts.parquet": {
        **_MODEL,
        "forgotten": "yes, yes but, partly, no, too much or cannot tell",
        "useful": "yes, worse or cannot tell",
        "verdict": "one word to sort by: PASS, UNDER, OVER, DAMAGED, DISPUTED or INCONCLUSIVE",
        "reasons": "sentences, a list",
        "about": "of each reason, the answer that it is for: `forgotten` or `useful`; a list",
    },
    "patients.parquet": {
        **_MODEL,
        "patient": "the patient's id",
        "on": "`images`, or `copies` for slightly changed copies of them",
        "memory_left": "share of what the original knew: 0 as if never seen, 1 as the original, below 0 known less",
        "low": _LOW,
        "high": _HIGH,
        "p": "of no memory left, two-sided, corrected over the patients (Bonferroni)",
        "flagged": "`remembered`, `overdone`, `suspected` (it rests on a single training) or empty",
    },
    "requests.parquet": {
        "request": "id of the request",
        "seeds": "seeds that strategies were run with",
        "references": "retrained models",
        "patients": "patients that could be looked at",
        "images": "images to forget",
        "visible": "whether the original model shows memory of them",
        "smallest": "the smallest memory left, a share in the mean over patients, that 8 of 10 such runs would see",
        "one_patient": "the chance that one patient remembered whole would show",
        "copies_visible": "whether changed copies show memory as well",
        "unusual": "seeds of retrained models whose luck is far from the others', a list",
    },
    "statistics.parquet": {
        **_MODEL,
        "measure": "of scores, or `memory_left`, `memory_left_others` (of other patients like them), "
        "`memory_left_copies`; of pairs also `memory_left_image` and `memory_left_beside`, in answers to one alone",
        "group": "`all`, or `ATTRIBUTE=VALUE`",
        "difference": "from retraining, in the measure's unit; of memory left, the share itself",
        "low": _LOW,
        "high": _HIGH,
        "p_difference": "of no difference",
        "p_equivalent": "of a difference beyond twice the margin",
        "margin": "the margin that it is judged with",
        "smallest_visible": "the smallest difference that 8 of 10 such runs would see",
        "seeds": "seeds of the strategy",
        "references": "retrained models that it is compared with",
        "patients": "patients behind it",
        "p_holm": "`p_difference`, corrected over the request's strategies (Holm); controls have none",
        "p_holm_equivalent": "`p_equivalent`, corrected likewise",
    },
    "bias.parquet": {
        **_MODEL,
        "attribute": "what groups differ in, such as `sex`, `site`, `class`",
        "groups": "the two that differ most: `A over B`",
        "measure": "whose gap to retraining is compared",
        "difference": "gap of the first group less that of the second",
        "low": _LOW,
        "high": _HIGH,
        "p_holm": "of no difference, corrected over attributes and measures (Holm)",
    },
    "curves.parquet": {
        "phase": "original, retrained, unlearn or continue (training that goes on after unlearning)",
        **_MODEL,
        "seed": "training seed",
        "after": "rounds of training before the phase began",
        "round": "rounds done since; 0 is the start",
        "step": "the order of a procedure's rows, from 0",
        "part": "`forget` (images to forget) or `validation`",
        "measure": "`loss` (mean cross-entropy in nats), and `accuracy` or, of volumes, `dice`",
        "value": "the measure of the model in hand then",
        "images": "how many were shown, the same ones to all models",
    },
    "roc.parquet": {
        **_MODEL,
        "thresholds": "`one` for all hospitals and labels, or `each` its own",
        "fpr": "share of held-out images accused, evenly spaced by logarithm from .001, or what so many images allow",
        "tpr": "share of the images to forget found at that rate, in the mean over models",
        "low": "the least over models; of `retrained`, what no memory may look like",
        "high": "the most over models, likewise",
        "models": "how many models",
        "n_members": "images to forget",
        "n_nonmembers": "held-out images",
    },
    "pictures/answers.parquet": {
        "request": "id of the request",
        "image": "the image's id",
        "patient": "whose it is",
        "site": "the hospital that has it",
        "label": "its class",
        "strategy": "whose model",
        "seed": "training seed",
        "probability": "that the model gives to the image's class",
        "top": "the class that it thinks most of",
        "top_probability": "of that class",
    },
    "ledger.parquet": {
        "phase": "original, retrained, prepare (training in a strategy's own way), unlearn, continue (training that "
        "goes on after unlearning), tune, evaluate and others",
        "request": "id of the request; empty where it serves all",
        "strategy": "label of the strategy; of phase evaluate the model, `MODEL@copies` of changed copies, or "
        "`MODEL@rounds` of all that it was on the way (`curves.parquet`)",
        "seed": "training seed",
        "round": "number of the round, from 0; of phase tune, the trials",
        "sites": "how many hospitals were asked",
        "down_bytes": "bytes of arrays sent to the hospitals",
        "up_bytes": "bytes of arrays received from them",
        "site_seconds": "seconds of the hospitals' work, added up",
        "server_seconds": "seconds of the server's work",
        "images": "passes of one image through a network, added up",
        "epochs": "the most passes over its images that a hospital, or the server, was asked to train for",
        "stored_bytes": "bytes of history that the server holds for this procedure",
        "machines": "hosts that the hospitals worked on, in the order asked; a list",
    },
    "difficulty.parquet": {
        "image": "the image's id",
        "seed": "training seed of the original model",
        "learnt_after": "rounds after which it was right for good",
        "forgetting_events": "how often it was right after one round and wrong after the next",
    },
    "memorisation.parquet": {
        "image": "the image's id",
        "patient": "whose it is",
        "site": "the hospital that has it",
        "value": "mean answer of models trained on it less that of models that were not; -1 to 1",
        "low": _LOW,
        "high": _HIGH,
        "n_in": "shadow models trained on it",
        "n_out": "shadow models that were not",
    },
    "calendar.parquet": {
        "policy": "its label",
        "request": "id of the request",
        "kind": "what it asks for: `patients`, `images`, `whole_site`, or `opt_out`, which bars later use alone",
        "site": "the hospital that asks",
        "received": "the day on which it came in",
        "state": "when the year ends: `open` (not decided), `refused`, `waiting` (accepted), `unlearned`, or `barred` "
        "where there was nothing to unlearn",
        "reason": "why it was refused, a code; else empty",
        "accepted": "the day on which it was; from then on nobody trains on its images",
        "answered": "the day on which it was unlearned, barred or refused",
        "days": "from receipt to answer",
        "due": "the last day on which an answer is in time: a month after receipt",
        "late": "days after that; of one without an answer, until the year ends",
        "late_three": "days after three months, the most that Art. 12(3) GDPR allows, likewise",
    },
    "memory.parquet": {
        "policy": "its label",
        "strategy": "label of the strategy",
        "seed": "training seed",
        "request": "id of the request",
        "round": "rounds trained at this look; looks before the request's answer have no row",
        "date": "the day of it",
        "memory_left": "`left` divided by `known`; NaN where `known` is not above twice `noise`",
        "left": "by how much the model is surer of the request's images than the one that never saw them, in nats",
        "known": "the same of the original model",
        "noise": "how far luck moves `known`: one standard deviation",
        "patients": "patients of the request who can be compared with held-out ones",
    },
    "years.parquet": {
        "policy": "its label; empty of `original` and `retrained`, which are the same for all",
        "strategy": "label of the strategy, or `original`, or `retrained` (never saw any accepted request)",
        "seed": "training seed",
        "round": "rounds trained at this look",
        "date": "the day of it",
        "measure": "`test_accuracy` and `worst_site_accuracy` (of volumes, `dice`), `calibration_error`, `distance` "
        "(of weights, from `retrained`), `memory_left` and `memory_back` (of all requests answered by then), "
        "`waiting_days` and `blocked_days`, and what answering cost so far: `images`, `site_seconds`, `bytes`, "
        "`stored_bytes`, and `share_of_retraining`, against training anew on each day of acceptance (`images` of "
        "`retrained`)",
        "value": "the measure, in its unit",
    },
    "policies.parquet": {
        "policy": "its label",
        "strategy": "label of the strategy",
        "measure": "as in `years.parquet`, when the year ends; of requests to unlearn `accepted`, `answered`, `late` "
        "and `late_three` (shares later than one and three months), `median_days`, `most_days`; `retrainings`; and "
        "`test_difference`, `worst_site_difference`, `calibration_difference` from `retrained`",
        "value": "the measure; of costs and quality the mean over seeds",
        "low": f"{_LOW}; NaN where there is none",
        "high": _HIGH,
        "n": "requests, seeds or patients behind it",
        "place": "the hospital that lost most; else empty",
    },
    "signals/*.parquet": signals(),
    "copies/*.parquet": {
        "image": "the image's id",
        "copy": "0 shifted, 1 mirrored, 2 noisy",
        **signals(brief=True),
    },
    "probes/relearn.parquet": {
        **_MODEL,
        "seed": "training seed",
        "epoch": "epochs of training on the images to forget; 0 is before",
        "loss": "their mean loss then",
        "goal": "the loss at which they count as known as well as to the original",
    },
}
"""By file or pattern, its columns; `*` stands for any text, and for further columns."""


def about(file: str) -> str | None:
    """What a file of a run folder is, by its path from there; None if nothing is known of it."""
    return next((told for pattern, told in FILES.items() if fnmatchcase(file, pattern)), None)


def described(table: str, column: str) -> str | None:
    """What a column of a table holds; None if nothing is known of it."""
    columns = next((found for name, found in COLUMNS.items() if fnmatchcase(table, name)), {})
    return columns.get(column) or next(
        (told for name, told in columns.items() if fnmatchcase(column, name)), None
    )
