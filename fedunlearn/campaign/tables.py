"""Tables of numbers beside images, or in their place, on one scale: what hospitals must agree on before they train.

The scale is that of training rows that no request ever names: whoever is to be forgotten has no part in it, so that the
original and the retrained model are shown the same numbers, and none of them tells who was there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedunlearn.core import InputError, RequestId
from sites.collection import Collection

MOST = 10.0
"""Standard deviations from the mean, at most: one wrong number must not outweigh all others."""


def on_one_scale(
    collection: Collection, train: npt.NDArray[np.bool_], forgotten: Mapping[RequestId, npt.NDArray[np.bool_]]
) -> Collection:
    """The same collection, each column of its tables less its mean, in standard deviations; NaN, unknown, is the mean.

    Args:
        collection: images, and what comes beside them; label maps and words stay as they are.
        train: (N,) the training images.
        forgotten: by request, (N,) the images it names.

    Raises:
        InputError: every training image is named by a request, so there is nothing to take the scale from.
    """
    tables = {name: x for name, x in collection.companions.items() if x.dtype.kind == "f"}
    alone = collection.pixels.ndim == 2
    if not tables and not alone:
        return collection
    kept = train & ~np.logical_or.reduce([np.zeros_like(train), *forgotten.values()])
    if not kept.any():
        raise InputError(
            "every training image is named by a request; expected some that none names: a table's columns are put on "
            "one scale by them"
        )
    companions = {**collection.companions, **{name: _scaled(x, kept) for name, x in tables.items()}}
    pixels = _scaled(collection.pixels, kept) if alone else collection.pixels
    return replace(collection, pixels=pixels, companions=companions)


def _scaled(table: npt.NDArray[np.floating], kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    known = np.where(np.isfinite(table), table, np.nan).astype(np.float64)
    own = known[kept]
    count = np.isfinite(own).sum(axis=0)
    mean = np.nansum(own, axis=0) / np.maximum(count, 1)
    spread = np.sqrt(np.nansum((own - mean) ** 2, axis=0) / np.maximum(count, 1))
    scaled = (known - mean) / np.where(spread > 0, spread, 1.0)
    within: npt.NDArray[np.float32] = np.clip(np.nan_to_num(scaled), -MOST, MOST).astype(np.float32)
    return within
