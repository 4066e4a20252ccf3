"""One number out of several, as papers report it. For comparison with them only: no verdict rests on one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from fedunlearn.scoring.evidence import Answers, Estimate, Estimates, Evidence, Floats

Values = Mapping[str, Floats]
"""Measures by name: single numbers or replicates, in arrays of one shape."""

ACCURACIES = ("forget_accuracy", "retain_accuracy", "test_accuracy")
DICES = ("forget_dice", "retain_dice", "test_dice")
PARTS = (*ACCURACIES, "mia_svc_confidence", *DICES)
"""All that goes into any of them."""

RETAINED, TESTED = ("retain_accuracy", "retain_dice"), ("test_accuracy", "test_dice")
"""How good a model is on what stays and on what is held out, as far as its kind of task has them."""

AVERAGED = (*ACCURACIES, "mia_svc_confidence")


def gap(model: Values, retrained: Values) -> Floats:
    """See `avg_gap`."""
    return _apart(model, retrained, AVERAGED)


def dice_distance(model: Values, retrained: Values) -> Floats:
    """See `avg_dice_gap`."""
    return _apart(model, retrained, DICES)


def closeness(model: Values, retrained: Values) -> Floats:
    """See `tow`."""
    product: Floats = np.prod([1 - np.abs(model[name] - retrained[name]) for name in ACCURACIES], axis=0)
    return product


COMPOSITES: Mapping[str, Callable[[Values, Values], Floats]] = {
    "avg_gap": gap,
    "tow": closeness,
    "avg_dice_gap": dice_distance,
}
"""(model, reference) -> number, by measure."""


def avg_gap(evidence: Evidence[Answers]) -> Estimates:
    """``(|UA - UA*| + |RA - RA*| + |TA - TA*| + |MIA - MIA*|) / 4`` in percentage points; * is the retrained model.

    "Avg. Gap" of Fan et al., "SalUn", ICLR 2024 (arXiv 2310.12508). UA = 1 - forget accuracy, whose difference is
    that of forget accuracy; RA, TA: retain and test accuracy; MIA: `mia_svc_confidence` (see its deviations). The
    interval resamples patients, the same for both models; absolute values of noise are above 0, so it leans upwards
    near 0.
    """
    return _combine(evidence, AVERAGED, gap)


def avg_dice_gap(evidence: Evidence[Answers]) -> Estimates:
    """``(|FD - FD*| + |RD - RD*| + |TD - TD*|) / 3`` in percentage points: Dice of forget, retain and test volumes.

    What `avg_gap` is for classes, without an attack; * is the retrained model. It leans upwards near 0 likewise.
    """
    return _combine(evidence, DICES, dice_distance)


def tow(evidence: Evidence[Answers]) -> Estimates:
    """Tug of war: ``(1 - |FA - FA*|) (1 - |RA - RA*|) (1 - |TA - TA*|)``, accuracies of forget, retain and test.

    Zhao et al., "What makes unlearning hard and what to do about it", NeurIPS 2024 (arXiv 2406.01257). If the images
    to forget are easy, doing nothing scores almost 1: look at the row of the original model first.
    """
    return _combine(evidence, ACCURACIES, closeness)


def worst_site(evidence: Evidence[Answers]) -> Estimates:
    """The lowest change of retain or test accuracy from the retrained model's at any hospital that stays.

    A mean over hospitals hides one that paid for the others. The lowest of several noisy changes is below 0 for honest
    retraining too, the more so the more hospitals there are: look at the hospital's own row before blaming anybody.
    Of volumes, of Dice; a hospital with nothing to overlap has no change.
    """
    found: list[tuple[float, Estimate, Estimate]] = []
    retained = [group for name in RETAINED for group in evidence.measured.get(name, {})]
    staying = [group for group in retained if group.startswith("site=")]
    for name in (*RETAINED, *TESTED):
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


def _apart(model: Values, retrained: Values, names: tuple[str, ...]) -> Floats:
    """The mean distance over ``names``, in percentage points."""
    apart: Floats = 100 * np.mean([np.abs(model[name] - retrained[name]) for name in names], axis=0)
    return apart


def _combine(
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
        n = sum(e.n for name, e in zip(names, parts[0], strict=True) if name in (*ACCURACIES, *DICES))
        estimates[group] = Estimate(float(combine(model, retrained)), n, replicates)
    return estimates
