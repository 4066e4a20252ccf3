"""Images with several findings are dealt and picked by the one of theirs that fewest images have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED
from fedunlearn.core.held import Array, Bools, Held

NONE = "No Finding"
"""What is said of an image that is known to have none of the findings."""

UNKNOWN = "unknown"
"""What is said of an image that may have one: none is present, and of some nobody knows. No finding is called so."""

RAREST = "rarest_finding"
"""The column with the finding of each image that fewest images have, `NONE` or `UNKNOWN`: what it is dealt by."""

OURS = ("findings", "unknown", RAREST)
"""Columns of ``sites.parquet`` that tell of several findings."""


def rarest(targets: Array) -> npt.NDArray[np.int64]:
    """(N,) 1 + the number of the finding that fewest images have; 0 for an image without any, F + 1 if it may have one.

    Args:
        targets: (N, F) 1 where an image has a finding, `IGNORED` where nobody knows.
    """
    has = targets == 1
    counts = np.where(has, has.sum(axis=0), len(targets) + 1)
    others = np.where((targets == IGNORED).any(axis=1), targets.shape[1] + 1, 0)
    found: npt.NDArray[np.int64] = np.where(has.any(axis=1), counts.argmin(axis=1) + 1, others).astype(
        np.int64
    )
    return found


def told(targets: Array, names: Sequence[str]) -> dict[str, list[str]]:
    """What `OURS` say of each image: columns of texts.

    Args:
        targets: (N, F) 1 where an image has a finding, `IGNORED` where nobody knows.
        names: of the findings.
    """
    words = [NONE, *names, UNKNOWN]
    by = [words[number] for number in rarest(targets)]
    return {
        "findings": [_joined(names, row == 1) or other for row, other in zip(targets, by, strict=True)],
        "unknown": [_joined(names, row == IGNORED) for row in targets],
        RAREST: by,
    }


def strata(targets: Array, names: Sequence[str]) -> tuple[Array, Sequence[str]]:
    """What images are dealt by, `rarest`, and what these numbers are called; `UNKNOWN` where there are such."""
    found = rarest(targets)
    return found, (NONE, *names, UNKNOWN)[: max(len(names) + 1, int(found.max(initial=0)) + 1)]


def _joined(names: Sequence[str], which: Bools) -> str:
    return "|".join(name for name, one in zip(names, which, strict=True) if one)


def _has(targets: Array, _: int) -> Bools:
    found: Bools = targets == 1
    return found


HELD = Held(
    one="finding",
    labels=lambda _: None,
    has=_has,
    strata=strata,
    columns=told,
    named=OURS,
    unknown=True,
)
