"""Which classes, findings or structures hospitals have, and which of them lack what others have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.core import SiteId
from sites.dealing.patients import places

Array = npt.NDArray[Any]

MOST = 20
"""Hospitals of which it is told one by one."""


def lacking(
    has: npt.NDArray[np.bool_], site: Array, sites: Sequence[SiteId], called: Sequence[str]
) -> list[str]:
    """Which hospitals have no image of what others have, in sentences.

    Args:
        has: (N, classes) of training images (`fedunlearn.core.held.Held.has`).
        site: (N,) whose they are.
        sites: the hospitals.
        called: what each class is called, such as "class 2".
    """
    rows, none = places(site), np.zeros(0, dtype=np.int64)
    own = {name: has[rows.get(name, none)].any(axis=0) for name in sites}
    anywhere = np.logical_or.reduce(list(own.values()))
    without = {name: np.flatnonzero(anywhere & ~there).tolist() for name, there in own.items()}
    told = [
        f"hospital {name} trains on no image of {', '.join(called[c] for c in classes)}, which others have"
        for name, classes in without.items()
        if classes
    ]
    more = len(told) - MOST
    return [*told[:MOST], *([f"{more:,} more hospitals lack images of what others have"] if more > 0 else [])]
