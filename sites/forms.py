"""What a network is built for, of the arrays that it is shown and asked for: for sources and for workers alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from fedunlearn.core import Companion, Form


def form(
    pixels: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    classes: int,
    companions: Mapping[str, npt.NDArray[Any]],
) -> Form:
    """What a network is built for that is shown ``pixels`` and ``companions`` and asked for ``targets``."""
    beside = {name: Companion(_sizes(x), x.dtype.kind in "iu") for name, x in companions.items()}
    return Form(_sizes(pixels), classes, _sizes(targets), beside)


def _sizes(array: npt.NDArray[Any]) -> tuple[int, ...]:
    """The shape of what belongs to one image."""
    return tuple(int(n) for n in array.shape[1:])
