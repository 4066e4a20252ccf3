"""One number out of several, as papers report it. For comparison with them only: no verdict rests on one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedunlearn.scoring.evidence import Answers, Estimate, Estimates, Evidence, Floats
from fedunlearn.scoring.evidence.measure import Measure, Values

ACCURACIES = ("forget_accuracy", "retain_accuracy", "test_accuracy")
AVERAGED = (*ACCURACIES, "mia_svc_confidence")


def gap(model: Values, retrained: Values) -> Floats:
    """See `avg_gap`."""
    return apart(model, retrained, AVERAGED)


def closeness(model: Values, retrained: Values) -> Floats:
    """See `tow`."""
    product: Floats = np.prod([1 - np.abs(model[name] - retrained[name]) for name in ACCURACIES], axis=0)
    return product


def avg_gap(evidence: Evidence[Answers]) -> Estimates:
    """``(|UA - UA*| + |RA - RA*| + |TA - TA*| + |MIA - MIA*|) / 4`` in percentage points; * is the retrained model.

    "Avg. Gap" of Fan et al., "SalUn", ICLR 2024 (arXiv 2310.12508). UA = 1 - forget accuracy, whose difference is
    that of forget accuracy; RA, TA: retain and test accuracy; MIA: `mia_svc_confidence` (see its deviations). The
    interval resamples patients, the same for both models; absolute values of noise are above 0, so it leans upwards
    near 0.
    """
    return combined(evidence, AVERAGED, gap)


def tow(evidence: Evidence[Answers]) -> Estimates:
    """Tug of war: ``(1 - |FA - FA*|) (1 - |RA - RA*|) (1 - |TA - TA*|)``, accuracies of forget, retain and test.

    Zhao et al., "What makes unlearning hard and what to do about it", NeurIPS 2024 (arXiv 2406.01257). If the images
    to forget are easy, doing nothing scores almost 1: look at the row of the original model first.
    """
    return combined(evidence, ACCURACIES, closeness)


def worst_site(quality: str) -> Measure:
    """The lowest change of quality, on retained or test images, from the retrained model's at a hospital that stays.

    A mean over hospitals hides one that paid for the others. The lowest of several noisy changes is below 0 for honest
    retraining too, the more so the more hospitals there are: look at the hospital's own row before blaming anybody.
    Of volumes, of Dice; a hospital with nothing to overlap has no change.
    """
    retain, test = f"retain_{quality}", f"test_{quality}"

    def function(evidence: Evidence[Answers]) -> Estimates:
        return _worst_site(evidence, retain, test)

    function.__name__, function.__doc__ = "worst_site", worst_site.__doc__
    return Measure(
        name="worst_site",
        summary="lowest change of retain or test accuracy (of volumes, Dice) from the retrained model's at any "
        "hospital that stays",
        unit="share",
        low=-1.0,
        high=1.0,
        direction="higher",
        retrained="0 with the same seed; with another seed below 0, by the noise of the smallest hospital",
        margin=None,
        source="minimum over hospitals of RA-RA* and TA-TA* (or Dice), as means hide one that paid for the others",
        function=function,
        parts=(retain, test),
    )


def _worst_site(evidence: Evidence[Answers], retain: str, test: str) -> Estimates:
    found: list[tuple[float, Estimate, Estimate]] = []
    staying = [group for group in evidence.measured.get(retain, {}) if group.startswith("site=")]
    for name in (retain, test):
        both = evidence.measured.get(name, {}), evidence.reference.get(name, {})
        pairs = [(both[0][site], both[1][site]) for site in staying if all(site in of for of in both)]
        changes = [(one.value - other.value, one, other) for one, other in pairs]
        found += [change for change in changes if np.isfinite(change[0])]
    if not found:
        return {}
    replicates = np.empty(0)
    if all(e.replicates.size for _, *both in found for e in both):
        replicates = np.min([one.replicates - other.replicates for _, one, other in found], axis=0)
    n = sum(one.n for _, one, _ in found)
    return {"all": Estimate(min(change for change, *_ in found), n, replicates)}


def apart(model: Values, retrained: Values, names: tuple[str, ...]) -> Floats:
    """The mean distance over ``names``, in percentage points."""
    apart: Floats = 100 * np.mean([np.abs(model[name] - retrained[name]) for name in names], axis=0)
    return apart


def combined(
    evidence: Evidence[Answers], names: tuple[str, ...], combine: Callable[[Values, Values], Floats]
) -> Estimates:
    """By group, where all of ``names`` were measured of both models."""
    both = (evidence.measured, evidence.reference)
    if any(name not in of for of in both for name in names):
        return {}
    groups = [g for g in evidence.measured[names[0]] if all(g in of[name] for of in both for name in names)]
    estimates = {}
    for group in groups:
        parts = [[of[name][group] for name in names] for of in both]
        model, retrained = (
            {n: np.array(e.value) for n, e in zip(names, found, strict=True)} for found in parts
        )
        every = [e.replicates for found in parts for e in found]
        replicates = np.empty(0)
        if all(r.size for r in every):
            drawn = [{n: e.replicates for n, e in zip(names, found, strict=True)} for found in parts]
            replicates = combine(*drawn)
        n = sum(e.n for name, e in zip(names, parts[0], strict=True) if not name.startswith("mia_"))
        estimates[group] = Estimate(float(combine(model, retrained)), n, replicates)
    return estimates


COMPOSITES = (
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
        function=avg_gap,
        combine=gap,
        parts=AVERAGED,
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
        function=tow,
        combine=closeness,
        parts=ACCURACIES,
    ),
)
