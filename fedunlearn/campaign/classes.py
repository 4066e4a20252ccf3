"""Which classes, findings or structures hospitals have, and which of them lack what others have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED, SiteId
from sites.collection import labels_of
from sites.dealing.patients import places

Array = npt.NDArray[Any]


def called(kind: str, targets: Array) -> str:
    """What `present` tells of: a class, a finding or a structure."""
    if labels_of(kind, targets) is not None:
        return "class"
    return "finding" if targets.ndim == 2 else "structure"


def present(kind: str, targets: Array, classes: int) -> npt.NDArray[np.bool_]:
    """Whether an image is of a class, has a finding, or its label map a structure; background is none.

    Args:
        kind: of task.
        targets: (N,) classes, (N, F) findings, or (N, *spatial) label maps.
        classes: how many there are.

    Returns:
        (N, classes), of findings (N, F).
    """
    labels, found = labels_of(kind, targets), np.zeros((len(targets), classes), dtype=bool)
    if labels is not None:
        found[np.arange(len(targets)), labels] = True
        return found
    if targets.ndim == 2:
        one: npt.NDArray[np.bool_] = targets == 1
        return one
    for row, target in enumerate(targets):
        labels = np.unique(target)
        found[row, labels[(labels != IGNORED) & (labels != 0)]] = True
    return found


def lacking(
    has: npt.NDArray[np.bool_], site: Array, sites: Sequence[SiteId], called: Sequence[str]
) -> list[str]:
    """Which hospitals have no image of what others have, in sentences.

    Args:
        has: (N, classes) of training images (`present`).
        site: (N,) whose they are.
        sites: the hospitals.
        called: what each class is called, such as "class 2".
    """
    rows, none = places(site), np.zeros(0, dtype=np.int64)
    own = {name: has[rows.get(name, none)].any(axis=0) for name in sites}
    anywhere = np.logical_or.reduce(list(own.values()))
    without = {name: np.flatnonzero(anywhere & ~there).tolist() for name, there in own.items()}
    return [
        f"hospital {name} trains on no image of {', '.join(called[c] for c in classes)}, which others have"
        for name, classes in without.items()
        if classes
    ]
