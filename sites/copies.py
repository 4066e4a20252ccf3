"""Images that are equal to the pixel, and what their labels say of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED

Array = npt.NDArray[Any]


def copies(pixels: Array) -> list[list[int]]:
    """The images (N, C, *spatial) by equal pixels, each group in order; blank ones are left out."""
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, image in enumerate(pixels):
        if (image != image.flat[0]).any():
            key = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
            groups[key].append(row)
    return list(groups.values())


def contradicting(pixels: Array, targets: Array, images: Sequence[str]) -> tuple[str, ...]:
    """A note if images that are equal have different labels: one of them is wrong, or the picture tells nothing of it.

    Args:
        pixels: (N, C, *spatial).
        targets: (N,) classes, or (N, findings), where what nobody knows contradicts nothing.
        images: (N,) ids.
    """
    found = [rows for rows in copies(pixels) if len(rows) > 1 and _differ(targets[rows])]
    if not found:
        return ()
    first = " and ".join(repr(images[row]) for row in found[0][:2])
    what = "images are" if len(found) == 1 else f"{len(found):,} groups of images are"
    return (f"{what} equal to the pixel, but have different labels, first {first}: see which is right",)


def _differ(targets: Array) -> bool:
    """Whether labels (K,) or (K, findings) of one picture contradict each other."""
    if targets.ndim == 1:
        return len(set(targets.tolist())) > 1
    return any(len({*column.tolist()} - {IGNORED}) > 1 for column in targets.T)
