"""Bringing arrays of images into one shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F

_CHUNK = 256  # images resized at once: bounds memory


def channels_first(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Images as (N, C, *spatial).

    Args:
        images: (N, H, W) grey; (N, H, W, 1 or 3) colour; (N, D, H, W) volumes; (N, D, H, W, 1) volumes.

    Raises:
        ValueError: none of these.
    """
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        return images[:, None]
    if images.ndim == 4 or (images.ndim == 5 and images.shape[-1] == 1):
        return np.ascontiguousarray(np.moveaxis(images, -1, 1))
    raise ValueError(f"images of shape {images.shape[1:]} are neither (H, W), (H, W, 3) nor (D, H, W)")


def ranges(pixels: npt.NDArray[Any], kind: str) -> pd.DataFrame:
    """What `sites.collection.Collection.seen` says of images that lie in one array.

    Args:
        pixels: (N, C, *spatial) as they are stored.
        kind: the format of their file.
    """
    size, within = " × ".join(map(str, pixels.shape[2:])), tuple(range(1, pixels.ndim))
    low, high = pixels.min(axis=within), pixels.max(axis=within)
    return pd.DataFrame({"format": kind, "size": size, "low": low, "high": high, "orientation": ""})


def resized(pixels: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Pixels (N, C, *spatial) with every edge ``size``, same dtype; an aspect ratio is not kept.

    Shrinking averages areas, so that no pattern aliases; enlarging interpolates linearly.
    """
    spatial = pixels.shape[2:]
    if all(edge == size for edge in spatial):
        return pixels
    out = np.empty((*pixels.shape[:2], *(size for _ in spatial)), dtype=pixels.dtype)
    linear = "bilinear" if len(spatial) == 2 else "trilinear"
    mode = "area" if min(spatial) >= size else linear
    for start in range(0, len(pixels), _CHUNK):
        part = torch.from_numpy(pixels[start : start + _CHUNK].astype(np.float32))
        part = F.interpolate(part, size=out.shape[2:], mode=mode)
        if pixels.dtype == np.uint8:
            part = part.round_().clamp_(0, 255)
        out[start : start + _CHUNK] = part.numpy().astype(pixels.dtype)
    return out


@contextmanager
def one_thread() -> Iterator[None]:
    """As in every worker: the bits depend on it, and where processes share cores, more threads are ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
