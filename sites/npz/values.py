"""What is wrong with the values in an `.npz` file, and the call that mends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED
from sites.findings import Wanted, numbers
from sites.formats.maps import only_ignored
from sites.formats.sizes import Claim

Array = npt.NDArray[Any]


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype in this machine's order of bytes."""
    return dtype.newbyteorder("=")


def unfit(headers: Mapping[str, Claim], splits: Sequence[str], label: str | None) -> list[str]:
    """The arrays whose values have to be looked at to say what is wrong, if anything: images, and ``label``."""
    first = splits[0]
    names = ["images"] if native(headers[f"{first}_images"].dtype) not in (np.uint8, np.float32) else []
    shape = () if label is None else headers[f"{first}_{label}"].shape
    return names + ([label] if label is not None and len(shape) == 2 and shape[1] > 1 else [])


def wrong_kind(name: str, arrays: Mapping[str, Array], wanted: Wanted) -> str:
    """What to say of images of another type, or of several labels per image; empty if these are findings.

    Args:
        name: images, or what the labels are called.
        arrays: of all parts, by name.
        wanted: the findings that are asked for.
    """
    return _other_type(arrays) if name == "images" else _several(arrays, wanted)


def _other_type(arrays: Mapping[str, Array]) -> str:
    key, array = next(iter(arrays.items()))
    found = f"{key} has dtype {array.dtype}, expected uint8, or float32 within -1…1"
    if array.dtype.kind == "b":
        return f"{found}: convert it: {key}.astype(np.uint8) * 255"
    if array.dtype.kind not in "iuf" or not all(one.size for one in arrays.values()):
        return f"{found}: save numbers"
    return f"{found}: {rescaling(key, *_range(arrays))}"


def _range(arrays: Mapping[str, Array]) -> tuple[float, float]:
    return min(float(one.min()) for one in arrays.values()), max(float(one.max()) for one in arrays.values())


def rescaling(key: str, low: float, high: float) -> str:
    """The call that makes values low…high those of an image."""
    if not np.isfinite([low, high]).all():
        return "some values are not finite (NaN): repair these images, then convert"
    values = f"its values are {low:g}…{high:g}; "
    if low >= -1 and high <= 1:
        return f"{values}convert them: {key}.astype(np.float32)"
    if low >= 0 and high <= 255:
        return f"{values}convert them: {key}.round().astype(np.uint8)"
    shifted = key if low == 0 else f"({key} - {low:g})" if low > 0 else f"({key} + {-low:g})"
    width = (high - low) or 1
    return f"{values}divide them, in all parts alike: ({shifted} / {width:g} * 255).round().astype(np.uint8)"


def _several(arrays: Mapping[str, Array], wanted: Wanted) -> str:
    key, array = next(iter(arrays.items()))
    found = f"{key} has {array.shape[1]} labels per image"
    advice = f"or keep one column, such as {key}[:, 0]"
    if array.dtype.kind not in "biuf":
        return f"{found}, which are text, expected one: write findings as 0 and 1, {advice}"
    values = np.concatenate([one.astype(np.float64) for one in arrays.values()])
    sums, binary = values.sum(axis=1), numbers(values)
    hot = bool(len(values)) and bool((values >= 0).all()) and float(np.abs(sums - 1).max()) < 1e-3
    if hot and not (binary and wanted):
        what = "they are one-hot" if binary else "they are probabilities, which sum to 1"
        also = (
            "; or, if these are findings of which every image has just one, say findings: all"
            if binary
            else ""
        )
        return f"{found}, expected one: {what}; take the argmax: {key}.argmax(1){also}"
    if not binary:
        odd = values[~np.isin(values, (0, 1, -1, IGNORED)) & ~np.isnan(values)][0]
        return (
            f"{found}, of which some are {odd:g}, expected one, or findings as 1 (present), 0 (absent) and -1, "
            f"{IGNORED} or NaN (unknown): correct them, {advice}"
        )
    if isinstance(wanted, tuple) and len(wanted) != array.shape[1]:
        return f"{found}, and findings names {len(wanted)}: name them all, in the order of {key}'s columns"
    return ""


def wrong_pixels(pixels: Array, images: Sequence[str]) -> list[str]:
    """What is wrong with float32 images: values that are not finite, or not within -1…1."""
    if pixels.dtype != np.float32:
        return []
    extremes = [(float(image.min()), float(image.max())) for image in pixels]  # NaN if one of them is
    infinite = [row for row, (low, high) in enumerate(extremes) if not np.isfinite([low, high]).all()]
    if infinite:
        return [
            f"{len(infinite):,} images have values that are not finite (NaN or infinite), first "
            f"{images[infinite[0]]!r}: repair them, or leave them out"
        ]
    low, high = min(one for one, _ in extremes), max(one for _, one in extremes)
    if low >= -1 and high <= 1:
        return []
    first = next(row for row, (one, other) in enumerate(extremes) if one < -1 or other > 1)
    return [
        f"images are float32 but not all within -1…1 (first is {images[first]!r}): {rescaling('images', low, high)}"
    ]


def wrong_maps(maps: Array, images: Sequence[str]) -> list[str]:
    """What is wrong with label maps of integers."""
    found = np.unique(maps)
    classes = found[found != IGNORED]
    if len(classes) < 2:
        return [
            f"found the labels {found.tolist()[:12]}, expected 0 for background and at least 1: number the structures "
            f"from 1 ({IGNORED} stands for voxels to be ignored)"
        ]
    if classes[0] != 0 or classes[-1] != len(classes) - 1:
        last = next(image for image, one in zip(images, maps, strict=True) if (one == classes[-1]).any())
        return [
            f"found the labels {classes[:12].tolist()}, the last of them first in {last!r}, expected 0, 1, … without "
            "a gap: renumber them"
        ]
    if IGNORED in found:
        bare = [image for image, one in zip(images, maps, strict=True) if only_ignored(_some(one))]
        if bare:
            return [
                f"{len(bare):,} label maps have the labels 0 and {IGNORED} only, first that of {bare[0]!r}, and "
                f"{IGNORED} stands for voxels to be ignored: if it is a structure, set labels[labels == {IGNORED}] = 1 "
                "in these maps, else leave them out"
            ]
    return []


def _some(one: Array) -> list[float]:
    """The labels of a map, as far as it must be known whether they are more than 0 and `IGNORED`."""
    has = (one == IGNORED).any()
    others = one[(one != IGNORED) & (one != 0)]
    return [*([float(IGNORED)] if has else []), *others.reshape(-1)[:1].tolist()]


def whole(labels: Array) -> bool:
    """Whether all numbers are whole ones."""
    return labels.dtype.kind != "f" or bool((np.isfinite(labels) & (labels % 1 == 0)).all())
