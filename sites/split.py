"""Train, validation and test images: by patient, across all hospitals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.core import InputError, Problem
from sites.patients import Ints, Patients, Strings, deal, most_common, patients_of

PARTS = ("train", "val", "test")


def split(
    table: pd.DataFrame,
    targets: npt.NDArray[Any],
    site: Strings,
    fractions: tuple[float, float, float] = (0.6, 0.1, 0.3),
    rng: np.random.Generator | None = None,
) -> Strings:
    """Give every image a part: "train", "val" or "test".

    A patient is in one part, at whichever hospitals it has images. Patients are dealt at the hospital that holds
    most of their images, evenly by majority label and difficulty. The order of the images does not matter.

    Args:
        table: one row per image, with ``patient`` and perhaps ``difficulty``.
        targets: (N,) classes, or label maps (N, …).
        site: (N,) the hospital of each image.
        fractions: of the images of a hospital in train, val and test; positive, together 1.
        rng: decides who goes where; a generator seeded with 0 if left out.

    Returns:
        (N,) the part of each image.

    Raises:
        InputError: the fractions are no fractions, or a hospital has too few patients for three parts.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(
            f"split: found {list(fractions)}, expected three positive fractions that sum to 1 "
            "(train, val, test): for example [0.6, 0.1, 0.3]"
        )
    patients = patients_of(table, targets)
    home = most_common(patients.member, len(patients), site) if len(site) else site
    order = patients.order(rng or np.random.default_rng(0))
    part = np.zeros(len(patients), dtype=np.int64)
    for name in np.unique(home):
        here = order[home[order] == name]
        part[here] = _all_parts(deal(here, patients.images, np.array(fractions)))
    result = np.array(PARTS)[part[patients.member]]
    if problems := _missing(result, site, patients):
        raise InputError(problems)
    return result


def _all_parts(part: Ints) -> Ints:
    """Move single patients, the last ones dealt, from the largest part into parts that got none."""
    for empty in range(len(PARTS)):
        counts = np.bincount(part, minlength=len(PARTS))
        if counts[empty] == 0 and counts.max() > 1:
            part[np.flatnonzero(part == counts.argmax())[-1]] = empty
    return part


def _missing(result: Strings, site: Strings, patients: Patients) -> list[Problem]:
    problems = []
    for name in np.unique(site):
        here = site == name
        if missing := [part for part in PARTS if part not in result[here]]:
            count = len(np.unique(patients.member[here]))
            problems.append(
                Problem(
                    f"hospital {str(name)!r} has {count} patients and none for {' and '.join(missing)}: every "
                    "hospital needs at least 3 patients of its own (train, val, test); use more images or fewer "
                    "hospitals"
                )
            )
    return problems
