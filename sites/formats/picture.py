"""One image as every reader gives it, and how values that are no greys become greys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sites.formats.unreadable import Unreadable

Array = npt.NDArray[Any]
Greys = npt.NDArray[np.uint8]

Seen = tuple[str, str, float, float, str]
"""A row of `sites.collection.Collection.seen`: format, size, low, high, orientation."""

LOWEST, HIGHEST = 0.5, 99.5
"""Percentiles between which values without a range of their own are spread over 0…255."""

THIN = 4
"""A volume has more slices than an image can have channels: at least so many along each edge."""


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes:
        pixels: (C, H, W) of 1 or 3 channels, or a volume (1, D, H, W); uint8.
        format: PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI or NPY.
        size: its edges as stored, such as 512 × 512.
        low: the smallest value in the file, after DICOM's modality transformation; padding does not count.
        high: the largest one.
        orientation: where its axes run as it is stored, the fastest first, such as LPS for rows to the left, columns to
            the back and slices up, or LP of one slice; empty for whatever does not tell.
        notes: what was done that its owner should know of, the same words for every file of its kind.
        person: whose it is, where the file names somebody (DICOM's PatientID).
    """

    pixels: npt.NDArray[np.uint8]
    format: str
    size: str
    low: float
    high: float
    orientation: str = ""
    notes: tuple[str, ...] = ()
    person: str = ""

    @property
    def seen(self) -> Seen:
        """Its row of `Collection.seen`."""
        return self.format, self.size, self.low, self.high, self.orientation


def counted(notes: Iterable[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """The notes of many files, each once: how many files it is about, and the first of them.

    Args:
        notes: the name of every file, and its notes.
    """
    files = defaultdict[str, list[str]](list)
    for name, those in notes:
        for note in those:
            files[note].append(name)
    return tuple(
        f"{names[0]}: {note}" if len(names) == 1 else f"{len(names):,} files, first {names[0]}: {note}"
        for note, names in files.items()
    )


def size(shape: Sequence[int]) -> str:
    """Edges in words."""
    return " × ".join(map(str, shape))


def checked(values: Array) -> Array:
    """Values of a file, if they are finite numbers and there are any.

    Raises:
        Unreadable: they are not.
    """
    if values.dtype.kind not in "biuf":
        message = f"has values of the type {values.dtype}, expected numbers: save it as integers or floats"
        raise Unreadable("no numbers", message)
    if not values.size:
        raise Unreadable("no pixels", f"has no pixels (the shape {values.shape}): get it again")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        found = [f"{nan:,} that are NaN"] * (nan > 0) + [f"{infinite:,} that are infinite"] * (infinite > 0)
        message = f"has {' and '.join(found)} among its {values.size:,} values: mask or repair them"
        raise Unreadable("values that are not finite", message)
    return values


def limits(values: Array) -> tuple[float, float]:
    """The smallest and the largest value; 0 and 0 of none."""
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def spread(values: Array, shown: Array | None = None) -> npt.NDArray[np.uint8]:
    """Any values as uint8: 8 bits as they are, yes and no as 255 and 0, all others between their percentiles.

    Args:
        values: of any shape.
        shown: those of them that count for the percentiles; None for all.

    Returns:
        uint8 of the same shape; constant ones become 0.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    exact = values.astype(np.float64)
    counting = exact if shown is None else shown.astype(np.float64)
    low, high = np.percentile(counting, (LOWEST, HIGHEST)) if counting.size else (0.0, 0.0)
    return scaled(exact, float(low), float(high))


def scaled(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Values between ``low`` and ``high`` as 0…255; those beyond as the nearer end, all as 0 without a range."""
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    made = (values - low) * (255 / (high - low))
    return np.clip(made, 0, 255).round().astype(np.uint8)
