"""The catalogue of measures: what each is, and what its numbers mean. ``list measures --json`` prints it.

Each kind of task brings its own measures; those of cost are of every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from fedunlearn.core import RunError
from fedunlearn.scoring.attacks.ladder import ATTACKS, BY_LOSS
from fedunlearn.scoring.evidence import Estimates, Evidence, Part
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.evidence.measure import Measure as Measure  # part of the catalogue
from fedunlearn.scoring.measures import composite, cost, performance, probes
from fedunlearn.scoring.measures.clinical import CLINICAL
from fedunlearn.scoring.measures.segmentation import SEGMENTATION


def measures_of(kind: str) -> Mapping[str, Measure]:
    """The measures of a kind of task, by name, each after those it builds on.

    Raises:
        RunError: there is no such kind.
    """
    if kind not in KINDS:
        raise RunError(f"cannot score a run of kind {kind!r}; known are {', '.join(sorted(KINDS))}")
    return KINDS[kind]


PARTS: Mapping[Part, str] = {
    "retain": "the training images that stay",
    "forget": "the training images to forget",
    "test": "every hospital's test images, a leaving hospital's too",
}
LIKE: Mapping[Part, str] = {
    "retain": "as one model trained on these images",
    "forget": "as on images it never saw: near its test value, not near 0",
    "test": "what the remaining data can teach",
}


def _on(part: Part, measure: Callable[[Evidence[Outputs], Part], Estimates]) -> Callable[..., Estimates]:
    """The measure on one part of the images, as a function of evidence."""

    def function(evidence: Evidence[Outputs]) -> Estimates:
        return measure(evidence, part)

    function.__name__, function.__doc__ = f"{part}_{measure.__name__}", measure.__doc__
    return function


# Margins of accuracies and AUC are three standard deviations of five retrainings on the same phantom
# data. A wrong answer of a confident model costs about 5 nats, hence 5 times the margin of accuracy for losses.
_FAMILIES: tuple[tuple[Callable[[Evidence[Outputs], Part], Estimates], str, str, float, str], ...] = (
    (performance.accuracy, "share of images classified rightly", "share", 1, "argmax = label"),
    (
        performance.balanced_accuracy,
        "mean over classes of the share of each recognised",
        "share",
        1,
        "Brodersen et al., ICPR 2010: mean recall over classes",
    ),
    (
        performance.auroc,
        "area under the ROC curve, one class against the rest, mean over classes",
        "share",
        1,
        "Hanley and McNeil, Radiology 1982: P(score of the class's image > another's) + P(equal)/2",
    ),
    (performance.loss, "mean cross-entropy", "nats", 5, "-log p_y"),
)
_MARGIN: Mapping[Part, float] = {"retain": 0.04, "forget": 0.05, "test": 0.04}

_PERFORMANCE = tuple(
    Measure(
        name=f"{part}_{function.__name__}",
        summary=f"{summary}, on {PARTS[part]}",
        unit=unit,
        low=0.0,
        high=1.0 if unit == "share" else None,
        direction="match",
        retrained=LIKE[part],
        margin=scale * _MARGIN[part],
        source=source,
        function=_on(part, function),
    )
    for function, summary, unit, scale, source in _FAMILIES
    for part in PARTS
)

_WORST_SITE = Measure(
    name="worst_site",
    summary="lowest change of retain or test accuracy (of volumes, Dice) from the retrained model's at any hospital "
    "that stays",
    unit="share",
    low=-1.0,
    high=1.0,
    direction="higher",
    retrained="0 with the same seed; with another seed below 0, by the noise of the smallest hospital",
    margin=None,
    source="minimum over hospitals of RA-RA* and TA-TA* (or Dice), as means hide one that paid for the others",
    function=composite.worst_site,
    parts=(*composite.RETAINED, *composite.TESTED),
)

_COMPOSITE = (
    Measure(
        name="avg_gap",
        summary="mean distance from the retrained model in forget, retain and test accuracy and mia_svc_confidence",
        unit="percentage points",
        low=0.0,
        high=100.0,
        direction="lower",
        retrained="0 with the same seed; with another seed, the band",
        margin=None,
        source="Fan et al., SalUn, ICLR 2024 (arXiv 2310.12508): mean of |UA-UA*|, |RA-RA*|, |TA-TA*|, |MIA-MIA*|",
        function=composite.avg_gap,
        parts=composite.AVERAGED,
    ),
    Measure(
        name="tow",
        summary="tug of war: closeness to the retrained model in forget, retain and test accuracy, multiplied",
        unit="share",
        low=0.0,
        high=1.0,
        direction="higher",
        retrained="1 with the same seed; with another seed, the band",
        margin=None,
        source="Zhao et al., RUM, NeurIPS 2024 (arXiv 2406.01257): (1-|FA-FA*|)(1-|RA-RA*|)(1-|TA-TA*|)",
        function=composite.tow,
        parts=composite.ACCURACIES,
    ),
    _WORST_SITE,
)


_PROBES: Mapping[str, tuple[str, str, str]] = {
    "linear_probe": (
        "probe",
        "once its last layer is refitted on what is retained",
        "Gao et al., AISTATS 2026 (arXiv 2604.08271): linear probing; here the images to forget take no part",
    ),
    "resurgence": (
        "resurgence",
        "once it has trained on without what was forgotten",
        "as without more training; the retrained model trains on as well",
    ),
}
"""By probe: what its measures are called, when they are taken, and where it comes from."""


def _after(measures: Iterable[Measure], *names: str) -> tuple[Measure, ...]:
    """Those of ``names``, of a model that was trained a little more."""
    return tuple(
        replace(
            one,
            name=f"{prefix}_{one.name}",
            summary=f"{one.summary}, {when}",
            retrained=f"what it scores after the same: {one.retrained}",
            source=f"{source}. {one.source}",
            function=probes.after(probe, one.function),
        )
        for probe, (prefix, when, source) in _PROBES.items()
        for one in measures
        if one.name in names
    )


_AFTER = _after((*_PERFORMANCE, *ATTACKS), "forget_accuracy", "retain_accuracy", "mia_loss_auc")

_CANARY = Measure(
    name="canary_success",
    summary="share of a leaving hospital's deliberately mislabelled images to which the model gives the wrong label",
    unit="share",
    low=0.0,
    high=1.0,
    direction="match",
    retrained="near 0: as often as it mistakes such images for that very class",
    margin=0.1,
    source="attack success rate, Halimi et al., arXiv 2207.05521; here wrong labels instead of a trigger",
    function=performance.canary_success,
)

_RELEARN = (
    Measure(
        name="relearn_epochs",
        summary="epochs of training on the images to forget until the model knows them as well as the original did; "
        "infinite if it never came there: compare medians",
        unit="epochs",
        low=0.0,
        high=None,
        direction="match",
        retrained="longer than any model that remembers",
        margin=2.0,
        source="Golatkar et al., CVPR 2020 (arXiv 1911.04933): forget loss <= 1.05 times the original's",
        function=probes.relearn_epochs,
    ),
    Measure(
        name="relearn_ratio",
        summary="relearn_epochs, relative to the retrained model's: below 1 memory is left, far above 1 it is damaged",
        unit="ratio",
        low=0.0,
        high=None,
        direction="match",
        retrained="1 with the same seed",
        margin=0.25,
        source="Chundawat et al., IEEE TIFS 2023 (arXiv 2201.05629): anamnesis index, here of epochs to a loss",
        function=probes.relearn_ratio,
        parts=("relearn_epochs",),
    ),
)


def _cost(name: str, summary: str, unit: str, function: Callable[..., Estimates], retrained: str) -> Measure:
    return Measure(name, summary, unit, 0.0, None, "lower", retrained, None, "the run's ledger", function)


_OWN = "its own cost"
_COST = (
    _cost("seconds", "work of hospitals and server, added up", "s", cost.seconds, _OWN),
    _cost("site_seconds", "work of the hospitals, added up", "s", cost.site_seconds, _OWN),
    _cost(
        "share_of_retraining",
        "passes of images through networks, relative to retraining",
        "ratio",
        cost.share_of_retraining,
        "1",
    ),
    _cost(
        "tuning_site_seconds",
        "hospitals' work for finding its hyper-parameters, once for all requests and seeds",
        "s",
        cost.tuning_site_seconds,
        "0: retraining has nothing to tune",
    ),
    _cost("bytes", "sent to and received from hospitals", "bytes", cost.bytes_moved, _OWN),
    _cost(
        "storage_bytes",
        "training history the server holds to be able to do it",
        "bytes",
        cost.storage_bytes,
        _OWN,
    ),
    _cost("rounds", "how often any hospital was asked", "rounds", cost.rounds, _OWN),
    _cost(
        "images",
        "passes of an image (of a volume's patch) through a network, each time it was trained on, differentiated or "
        "asked about",
        "images",
        cost.images,
        _OWN,
    ),
    _cost(
        "epochs",
        "of training, the most that anybody was asked for in each round",
        "epochs",
        cost.epochs,
        _OWN,
    ),
)


def _by_name(*measures: Measure) -> Mapping[str, Measure]:
    return {measure.name: measure for measure in measures}


COSTS: Mapping[str, Measure] = _by_name(*_COST)
"""Those that say what a model cost, whatever it answers."""

PROBES: Mapping[str, Measure] = _by_name(*_AFTER, *_RELEARN, _CANARY)
"""Those that need work after unlearning, or canaries before training: what a run does only if it is asked to."""

_CLASSIFICATION = _by_name(*_PERFORMANCE, *CLINICAL, *ATTACKS, *_COMPOSITE)
_SEGMENTATION = _by_name(*SEGMENTATION, *BY_LOSS, _WORST_SITE)
_SEGMENTATION_PROBES = _by_name(
    *_after(_SEGMENTATION.values(), "forget_dice", "retain_dice", "mia_loss_auc"), *_RELEARN
)
KINDS: Mapping[str, Mapping[str, Measure]] = {
    "classification": {**_CLASSIFICATION, **PROBES, **COSTS},
    "segmentation": {**_SEGMENTATION, **_SEGMENTATION_PROBES, **COSTS},
}
"""The measures of each kind of task."""

MEASURES: Mapping[str, Measure] = {name: m for measures in KINDS.values() for name, m in measures.items()}
"""All measures by name."""
