"""Images with several findings are dealt and picked by the one of theirs that fewest images have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED
from fedunlearn.core.held import Array, Bools, Held

NONE = "No Finding"
"""What is said of an image that has none of the findings."""

RAREST = "rarest_finding"
"""The column with the finding of each image that fewest images have, or `NONE`: what it is dealt and picked by."""

OURS = ("findings", "unknown", RAREST)
"""Columns of ``sites.parquet`` that tell of several findings."""


def rarest(targets: Array) -> npt.NDArray[np.int64]:
    """(N,) 0 for an image without any finding, else 1 + the number of the one that fewest images have.

    Args:
        targets: (N, F) 1 where an image has a finding.
    """
    has = targets == 1
    counts = np.where(has, has.sum(axis=0), len(targets) + 1)
    found: npt.NDArray[np.int64] = np.where(has.any(axis=1), counts.argmin(axis=1) + 1, 0).astype(np.int64)
    return found


def told(targets: Array, names: Sequence[str]) -> dict[str, list[str]]:
    """What `OURS` say of each image: columns of texts.

    Args:
        targets: (N, F) 1 where an image has a finding, `IGNORED` where nobody knows.
        names: of the findings.
    """
    words = [NONE, *names]
    return {
        "findings": [_joined(names, row == 1) or NONE for row in targets],
        "unknown": [_joined(names, row == IGNORED) for row in targets],
        RAREST: [words[number] for number in rarest(targets)],
    }


def _joined(names: Sequence[str], which: Bools) -> str:
    return "|".join(name for name, one in zip(names, which, strict=True) if one)


def _has(targets: Array, _: int) -> Bools:
    found: Bools = targets == 1
    return found


HELD = Held(
    one="finding",
    labels=lambda _: None,
    has=_has,
    strata=lambda targets, names: (rarest(targets), (NONE, *names)),
    columns=told,
    named=OURS,
    unknown=True,
)
