"""How well a finding is told from its absence at all thresholds: areas, sensitivity, and their bootstrap by patient.

All of it follows from how many images without a finding score above each image that has it. These counts are whole
numbers, added up over patients as often as they are drawn, so that nothing is rounded before a division.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fedunlearn.kinds.multilabel.evidence import Findings
from fedunlearn.scoring.evidence import (
    Bools,
    Estimate,
    Estimates,
    Floats,
    Frame,
    Ints,
    Part,
    Singles,
    basic,
)
from fedunlearn.scoring.evidence.bootstrap import macro, several

if TYPE_CHECKING:
    from scipy.sparse import csr_array

NAMES = ("auroc", "auprc", "sensitivity_at_90")
"""What is found of each finding, in this order."""

SPECIFICITY = 0.9
"""Of the threshold at which sensitivity is told."""

FEWEST = 20
"""Patients with a finding, and as many without, for it to be told by itself: of fewer, an area of .8 has a standard
error above .05 (Hanley and McNeil, Radiology 1982), and no verdict could rest on it."""

_AT_ONCE = 256  # thresholds whose counts are held at a time


@lru_cache(maxsize=12)  # three parts of the few models that are measured at a time
def areas(frame: Frame, answers: Findings, part: Part) -> Mapping[str, Estimates]:
    """By name (`NAMES`), the mean over findings of which some images have it and some have not, by group.

    Of "all", the group "class=f" has finding f by itself, where `FEWEST` patients have it and have it not. On groups of
    attributes only the area under the ROC curve has replicates: that is what groups are compared by.
    """
    rows = frame.rows(part)
    found: dict[str, dict[str, Estimate]] = {name: {} for name in NAMES}
    for group, here in frame.within(rows).items():
        judged = basic(group)
        told = _told(frame, answers, here, judged or several(frame.units[here]))
        if not told:
            continue
        n = int(answers.known[here].any(axis=1).sum())
        values = np.stack(list(told.values()))  # (findings, 3, 1 + draws)
        over, under = np.nan_to_num(values), np.isfinite(values).astype(np.float64)
        mean = macro(np.moveaxis(over, 0, -1), np.moveaxis(under, 0, -1))
        for k, name in enumerate(NAMES):
            found[name][group] = _estimate(mean[k], n, judged or name == "auroc")
        if group != "all":
            continue
        for f in told:
            sides = [rows & (answers.targets[:, f] == state) for state in (1, 0)]
            rarer = min(sides, key=frame.patients_in)  # an area is as sure as these are many
            if frame.patients_in(rarer) >= FEWEST:
                known = int(answers.known[here, f].sum())
                for k, name in enumerate(NAMES):
                    one = _estimate(told[f][k], known, True)
                    found[name][f"class={f}"] = replace(one, having=rarer)
    return found


def _estimate(values: Floats, n: int, drawn: bool) -> Estimate:
    """Of a value and, behind it, its replicates."""
    return Estimate(float(values[0]), n, values[1:].copy() if drawn else np.empty(0))


def _told(frame: Frame, answers: Findings, here: Ints, drawn: bool) -> dict[int, Floats]:
    """By finding that some of the images ``here`` have and some have not, (3, 1 + draws): see `one_finding`."""
    found = {}
    drawn = drawn and several(frame.units[here])
    first, last = int(frame.units[here].min()), int(frame.units[here].max())
    draws = np.ones((last - first + 1, 1), dtype=np.float32)
    if drawn:
        draws = np.concatenate([draws, frame.drawn[first : last + 1]], axis=1, dtype=np.float32)
    for f in range(answers.targets.shape[1]):
        own = here[answers.known[here, f]]
        present = answers.targets[own, f] == 1
        if present.any() and not present.all():
            found[f] = one_finding(answers.logits[own, f], present, frame.units[own] - first, draws)
    return found


def one_finding(scores: Floats, present: Bools, units: Ints, draws: Singles) -> Floats:
    """(3, D) `NAMES` of one finding, for each column of ``draws``; NaN where no image has it, or all have.

    With images that have the finding at scores t, as weights w of drawn units have it, TP and FP those that have it and
    have it not and score t or more::

        auroc = sum w (N - FP + E / 2) / (P N),  E those that have it not and score exactly t
        auprc = sum w TP / (TP + FP) / P
        sensitivity_at_90 = sum w [FP <= (1 - SPECIFICITY) N] / P

    The first as scikit-learn's ``roc_auc_score``, the second as its ``average_precision_score``, the third the highest
    rate of true positives in its ``roc_curve`` at a rate of false ones of at most 1 - SPECIFICITY.

    Args:
        scores: (n,) of the images of which it is known.
        present: (n,) whether they have it.
        units: (n,) whose they are, from 0.
        draws: (units, D) how often each is drawn.
    """
    having, equal, above = _by_score(scores, present, units, len(draws))
    every, without = (
        np.bincount(units[of], minlength=len(draws)).astype(np.float64) @ draws for of in (present, ~present)
    )
    total = np.zeros((3, draws.shape[1]))
    true, false = (np.zeros(draws.shape[1]) for _ in range(2))
    allowed = (1 - SPECIFICITY) * without + 1e-9
    for start in range(0, having.shape[0], _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        w, e, a = ((of[some] @ draws).astype(np.float64) for of in (having, equal, above))
        tp, fp = true + np.cumsum(w, axis=0), false + np.cumsum(e + a, axis=0)
        total[0] += (w * (without - fp + e / 2)).sum(axis=0)
        total[1] += (w * tp / np.maximum(tp + fp, 1)).sum(axis=0)
        total[2] += (w * (fp <= allowed)).sum(axis=0)
        true, false = tp[-1], fp[-1]
    under = np.stack([every * without, every, every])
    defined = (every > 0) & (without > 0)
    return np.divide(total, under, out=np.full_like(total, np.nan), where=defined)


def _by_score(
    scores: Floats, present: Bools, units: Ints, width: int
) -> tuple[csr_array, csr_array, csr_array]:
    """(K, units) images of each unit at every distinct score of those that have the finding, highest score first.

    Those that have it, of this score; those that have it not, of this score; and those that have it not, of more than
    this one and less than the one before.
    """
    from scipy.sparse import csr_array  # here, because importing it takes a third of a second

    at = np.unique(-scores[present])
    place = np.searchsorted(at, -scores)
    inside = place < len(at)
    level = inside & (at[np.minimum(place, len(at) - 1)] == -scores)

    def counted(which: Bools) -> csr_array:
        ones = np.ones(int(which.sum()), dtype=np.float32)
        return csr_array((ones, (place[which], units[which])), shape=(len(at), width))

    return counted(present), counted(level & ~present), counted(inside & ~level)
