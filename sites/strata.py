"""What images are dealt, picked and told by: their class, or of several findings the one that fewest images have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED
from sites.collection import Collection
from sites.findings import NONE

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

RAREST = "rarest_finding"
"""The column with the finding of each image that fewest images have, or `NONE`: what it is dealt and picked by."""

OURS = ("findings", "unknown", RAREST)
"""Columns of ``sites.parquet`` that tell of several findings."""


def strata(collection: Collection) -> npt.NDArray[Any]:
    """What images are dealt by, evenly or not: (N,) their class, or their `rarest` finding; label maps as they are.

    Args:
        collection: the images.
    """
    if (labels := collection.labels) is not None:
        return labels
    return rarest(collection.targets) if collection.targets.ndim == 2 else collection.targets


def told(targets: Bytes, names: Sequence[str]) -> dict[str, list[str]]:
    """What `OURS` of several findings say of each image: columns of texts.

    Args:
        targets: (N, F) as in `Findings`.
        names: of the findings.
    """
    words = [NONE, *names]
    return {
        "findings": [_joined(names, row == 1) or NONE for row in targets],
        "unknown": [_joined(names, row == IGNORED) for row in targets],
        RAREST: [words[number] for number in rarest(targets)],
    }


def _joined(names: Sequence[str], which: npt.NDArray[np.bool_]) -> str:
    return "|".join(name for name, one in zip(names, which, strict=True) if one)


def rarest(targets: Bytes) -> Ints:
    """(N,) 0 for an image without any finding, else 1 + the number of the one that fewest images have.

    Args:
        targets: (N, F) as in `Findings`.
    """
    has = targets == 1
    counts = np.where(has, has.sum(axis=0), len(targets) + 1)
    found: Ints = np.where(has.any(axis=1), counts.argmin(axis=1) + 1, 0).astype(np.int64)
    return found
