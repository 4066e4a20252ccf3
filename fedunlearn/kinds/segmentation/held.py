"""Volumes are counted by the structures of their label maps; nothing divides them."""

from __future__ import annotations

import numpy as np

from fedunlearn.core import IGNORED
from fedunlearn.core.held import Array, Bools, Held


def _has(targets: Array, classes: int) -> Bools:
    found = np.zeros((len(targets), classes), dtype=bool)
    for row, target in enumerate(targets):
        labels = np.unique(target)
        found[row, labels[(labels != IGNORED) & (labels != 0)]] = True
    return found


HELD = Held(
    one="structure",
    labels=lambda _: None,
    has=_has,
    strata=lambda *_: None,
    columns=lambda *_: {},
)
