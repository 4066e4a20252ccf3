"""What the labels of a label map mean: classes, or `IGNORED`."""

from __future__ import annotations

from collections.abc import Iterable

from fedunlearn.core import IGNORED


def only_ignored(labels: Iterable[float]) -> bool:
    """Whether a map has no label but `IGNORED`, and maybe 0: a mask of 0 and 255, hardly meant to be ignored."""
    found = set(labels)
    return IGNORED in found and found <= {0, IGNORED}
