"""Arrays of NumPy: whether one is an image or a volume is told by its shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sites.formats import sizes
from sites.formats.picture import THIN, Array, Picture, checked, limits, size, spread
from sites.formats.unreadable import Unreadable, blaming

_ADVICE = "save an image as (H, W) or (H, W, 3), a volume as (D, H, W) with edges of 5 or more"


def claim(file: Path) -> sizes.Claim:
    """How large an array is, by its header.

    Raises:
        Unreadable: it is damaged, or claims more than the file holds.
    """
    with blaming("an NPY file"):
        return sizes.npy(file)


def read(file: Path) -> Picture:
    """An array as an image or a volume.

    Raises:
        Unreadable: it is damaged, holds no finite numbers, or has a shape that can be read in two ways.
    """
    with blaming("an NPY file", TypeError):
        stored = np.load(file, allow_pickle=False)
    values, notes = _arranged(checked(stored))
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return Picture(spread(native), "NPY", size(stored.shape), *limits(native), notes=notes)


def _arranged(values: Array) -> tuple[Array, tuple[str, ...]]:
    """An array as (C, H, W) or (1, D, H, W), and what was done to it.

    Raises:
        Unreadable: its shape is none of these.
    """
    shape = values.shape
    while values.ndim > 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim == 2:
        return values[None], ()
    if values.ndim != 3:
        message = f"has the shape {shape}, expected one image or one volume: {_ADVICE}"
        raise Unreadable("another shape", message)
    front, _, back = (edge in (1, 3) for edge in values.shape)
    if back and not front and min(values.shape[:2]) > THIN:
        return np.moveaxis(values, -1, 0), ()
    if front and not back and min(values.shape[1:]) > THIN:
        return values, ("channels came first, as (C, H, W)",)
    if min(values.shape) > THIN:
        return values[None], ()
    message = (
        f"has the shape {shape}, of which it cannot be told whether it is an image or a volume: {_ADVICE}"
    )
    raise Unreadable("another shape", message)
