"""What a model is like after somebody has trained it a little more; how, `fedunlearn.campaign.probing` says.

A run has probes only where its scenario asks for them; without one, its measures are left out. A probe that diverged is
no number: NaN, as is then the mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedunlearn.scoring.evidence import Answers, Estimate, Estimates, Evidence, Relearnt
from fedunlearn.scoring.evidence.measure import Measure

_ROUNDING = 1 / math.sqrt(12)
"""Standard deviation of what is rounded to whole epochs."""


def after(probe: str, measure: Callable[[Evidence[Any]], Estimates]) -> Callable[[Evidence[Any]], Estimates]:
    """``measure`` of what the model answers after ``probe``, as a function of evidence."""

    def function(evidence: Evidence[Any]) -> Estimates:
        answers = evidence.probed.get(probe)
        if answers is None:
            return {}
        if not answers.finite:
            like = measure(replace(evidence, unlearned=evidence.retrained))
            return {group: Estimate(math.nan, estimate.n) for group, estimate in like.items()}
        return measure(replace(evidence, unlearned=answers))

    function.__name__, function.__doc__ = f"{probe}_{measure.__name__}", measure.__doc__
    return function


def relearn_epochs(evidence: Evidence[Answers]) -> Estimates:
    """Epochs of training on the images to forget until their loss is within 5 % of the original model's.

    Golatkar et al., "Eternal Sunshine of the Spotless Net", CVPR 2020 (arXiv 1911.04933): relearn time, with
    the deviations of `fedunlearn.campaign.probing`. A model at or below that loss from the start needs 0. One that
    never came there in the epochs it was given is censored: infinity, so that it counts as late in a median and leaves
    no mean.
    """
    if evidence.relearnt is None:
        return {}
    epochs = _epochs(evidence.relearnt, never=math.inf)
    return {"all": Estimate(epochs, int(evidence.frame.rows("forget").sum()))}


def relearn_log(evidence: Evidence[Answers]) -> Estimates:
    """The logarithm of 1 + `relearn_epochs`: what models are compared by, with all retrained ones.

    A ratio to the retrained model of the same seed is 1 for that model whatever luck did. One epoch is added, since a
    model may need none. One that never came there counts as if one epoch more had brought it there: it is no sooner
    than others that did not. Epochs are whole numbers, so that luck is at least what rounding comes to.
    """
    if evidence.relearnt is None:
        return {}
    epochs = _epochs(evidence.relearnt, never=float(len(evidence.relearnt.losses)))
    found = Estimate(
        math.log1p(epochs), int(evidence.frame.rows("forget").sum()), luck=_ROUNDING / (1 + epochs)
    )
    return {"all": found}


def _epochs(relearnt: Relearnt, never: float) -> float:
    """After how many epochs the goal was reached; ``never`` if it was not, NaN if the model diverged on the way."""
    there = np.flatnonzero(relearnt.losses <= relearnt.goal)
    return float(there[0]) if there.size else math.nan if np.isnan(relearnt.losses).any() else never


def relearn_ratio(evidence: Evidence[Answers]) -> Estimates:
    """The model's `relearn_epochs` divided by the retrained model's: below 1 it had something left to build on.

    After the anamnesis index of Chundawat et al., "Zero-Shot Machine Unlearning", IEEE TIFS 2023 (arXiv 2201.05629).
    Deviation: epochs to a loss, not steps to an accuracy. Undefined, and left out, where the retrained model needs no
    epoch or never got there. It is shown; what counts is `relearn_log`.
    """
    own, retrained = (
        measured.get("relearn_epochs", {}) for measured in (evidence.measured, evidence.reference)
    )
    if "all" not in own or "all" not in retrained:
        return {}
    epochs, reference = own["all"], retrained["all"].value
    return {"all": Estimate(epochs.value / reference, epochs.n)} if 0 < reference < math.inf else {}


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


def measures_after(measures: Iterable[Measure], *names: str) -> tuple[Measure, ...]:
    """Those of ``names`` among ``measures``, of a model that was trained a little more."""
    return tuple(
        replace(
            one,
            name=f"{prefix}_{one.name}",
            summary=f"{one.summary}, {when}",
            retrained=f"what it scores after the same: {one.retrained}",
            source=f"{source}. {one.source}",
            function=after(probe, one.function),
        )
        for probe, (prefix, when, source) in _PROBES.items()
        for one in measures
        if one.name in names
    )


RELEARN = (
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
        function=relearn_epochs,
    ),
    Measure(
        name="relearn_ratio",
        summary="relearn_epochs, relative to the retrained model's: below 1 memory is left, far above 1 it is damaged",
        unit="ratio",
        low=0.0,
        high=None,
        direction="match",
        retrained="1 with the same seed, by definition: it is shown, and counts for nothing",
        margin=None,
        source="Chundawat et al., IEEE TIFS 2023 (arXiv 2201.05629): anamnesis index, here of epochs to a loss",
        function=relearn_ratio,
        parts=("relearn_epochs",),
    ),
    Measure(
        name="relearn_log",
        summary="logarithm of 1 + relearn_epochs, by which answers compare; a model that never came there counts as if "
        "one epoch more had done",
        unit="log epochs",
        low=0.0,
        high=None,
        direction="match",
        retrained="more than any model that remembers",
        margin=0.3,
        source="as relearn_epochs; the margin is about a quarter of the epochs",
        function=relearn_log,
    ),
)
