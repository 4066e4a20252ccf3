"""One volume with its label map, from NIfTI files to arrays like those of all other volumes, by way of MONAI."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED
from sites.formats import sizes
from sites.formats.images import unreadable

Array = npt.NDArray[Any]

MOST = IGNORED
"""The most labels a map may have: each fits a byte, and so does `IGNORED`."""

_APART = 0.1  # mm that the corners of an image and of its label map may lie apart: rounding of affines
_AXES = (("L", "R"), ("P", "A"), ("I", "S"))  # MONAI's names for the ends of the axes of RAS


@dataclass(frozen=True)
class Pair:
    """The files of one volume: its images, one per channel and all on one grid, and its label map."""

    images: tuple[Path, ...]
    label_map: Path


@dataclass(frozen=True)
class Handling:
    """How volumes are made alike.

    Axes are turned to run to the right, to the front and up (RAS); then volumes are resampled (images linearly, label
    maps by nearest neighbour), each image is scaled from its 0.5th…99.5th percentile, and volumes are padded with the
    darkest value, or cropped, around their centres.

    Attributes:
        shape: edges in voxels to the right, to the front and up; None if all volumes have one shape already.
        spacing: edges of a voxel in millimetres; None for as they are.
        dtype: uint8 in 0…255, or float32 in -1…1.
        classes: the class (or `IGNORED`) of each label 0, 1, …; None if labels are classes. The label `IGNORED` itself
            is always that, any other is unknown.
    """

    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    dtype: Literal["uint8", "float32"] = "uint8"
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Bad:
    """What is wrong with one file of pair ``number``."""

    number: int
    file: Path
    message: str
    kind: str  # in a few words, equal for what is alike


class _Unusable(Exception):
    """A file, what is wrong with it, and of which kind that is."""

    def __init__(self, file: Path, kind: str, message: str) -> None:
        self.file, self.kind, self.message = file, kind, message
        super().__init__(message)


Volume = tuple[Array, npt.NDArray[np.uint8]]
"""Pixels (C, D, H, W) and label map (D, H, W)."""


def preparing(how: Handling) -> Callable[[int, Pair], Volume | list[Bad]]:
    """A function that reads one pair, given its number, and makes it like all others; or tells all that is wrong."""
    transform, errors = _transforms(how), unreadable()

    def opening(file: Path) -> Any:
        return _opened(file, errors)

    def classes(file: Path) -> Any:
        return _classes(file, opening(file), how)

    def prepare(number: int, pair: Pair) -> Volume | list[Bad]:
        opened, bad = [], list[Bad]()
        for read, file in [*((opening, image) for image in pair.images), (classes, pair.label_map)]:
            try:
                opened.append(read(file))
            except _Unusable as error:
                bad.append(Bad(number, file, error.message, error.kind))
        if not bad:
            try:
                return _alike(pair, opened, transform, how)
            except _Unusable as error:
                bad.append(Bad(number, error.file, error.message, error.kind))
        return bad

    return prepare


def _opened(file: Path, errors: tuple[type[Exception], ...]) -> Any:
    """A file's voxels with a channel in front, as MONAI's tensor with an affine.

    Raises:
        _Unusable: the file is no NIfTI volume, damaged, too large, or lies nowhere.
    """
    import nibabel
    import torch
    from monai.data.meta_tensor import MetaTensor  # here, since it takes seconds

    try:
        if message := sizes.excess({"it": sizes.nifti(file)}, sizes.WORK):
            raise _Unusable(file, "too large", message)
        image: Any = nibabel.load(file)
        voxels = np.asarray(image.dataobj, dtype=np.float32)
    except errors as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        message = f"cannot be read as a NIfTI volume ({reason}): get it again"
        raise _Unusable(file, "cannot be read", message) from error
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3 or not voxels.size:
        message = f"has the shape {image.shape}, expected three edges: save one volume a file"
        raise _Unusable(file, "no three edges", message)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        message = "has no affine that tells where its voxels lie (not finite, or without extent)"
        raise _Unusable(file, "no affine", f"{message}: convert it again from DICOM")
    if count := int((~np.isfinite(voxels)).sum()):
        message = f"has {count} voxels that are not finite (NaN): mask or repair them"
        raise _Unusable(file, "voxels that are not finite", message)
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(voxels))[None], affine=torch.from_numpy(affine))


def _classes(file: Path, labels: Any, how: Handling) -> Any:
    """Labels as classes.

    Raises:
        _Unusable: some labels are unknown.
    """
    known = len(how.classes) if how.classes is not None else MOST
    found = np.unique(labels.numpy())
    unknown = [label for label in found.tolist() if label not in (*range(known), IGNORED)]
    if unknown:
        listed = ", ".join(f"{label:g}" for label in unknown[:5])
        expected = f"whole numbers in 0…{known - 1}, or {IGNORED} for voxels to be ignored"
        raise _Unusable(file, "unknown labels", f"has the unknown labels {listed}, expected {expected}")
    if how.classes is not None:
        table = np.full(IGNORED + 1, IGNORED, dtype=np.float32)
        table[:known] = how.classes
        labels.numpy()[:] = table[labels.numpy().astype(np.int64)]
    return labels


def _alike(pair: Pair, opened: Sequence[Any], transform: _Transforms, how: Handling) -> Volume:
    """Turn, resample, scale and fit the images and the label map.

    Raises:
        _Unusable: they do not lie on one grid, an image shows nothing, or labels lie outside.
    """
    first, *_, labels = opened
    for file, other in zip((*pair.images[1:], pair.label_map), opened[1:], strict=True):
        _on_one_grid(pair.images[0], first, file, other)
    _fits_resampled(pair.images[0], first, how)
    pixels = []
    for file, image in zip(pair.images, opened, strict=False):
        resampled = transform.images(image)
        low, high = np.percentile(resampled.numpy(), (0.5, 99.5))
        if not low < high:
            message = f"shows nothing: nearly all voxels have the value {low:g}"
            raise _Unusable(file, "shows nothing", message)
        pixels.append(transform.fit(transform.scale(resampled, low, high)).numpy()[0])
    whole = transform.maps(labels)
    fitted = transform.fit(whole)
    if lost := _labelled(whole) - _labelled(fitted):
        message = f"has {lost} labelled voxels outside of the shape given, of {tuple(whole.shape[1:])}"
        advice = "give a larger shape, or a coarser spacing"
        raise _Unusable(pair.label_map, "labelled voxels outside of the shape", f"{message}: {advice}")
    scaled = np.stack(pixels)
    final = (scaled * 255).round().astype(np.uint8) if how.dtype == "uint8" else scaled * 2 - 1
    return final, fitted.numpy()[0].round().astype(np.uint8)


def _labelled(classes: Any) -> int:
    """How many voxels are of a structure."""
    return int(((classes > 0) & (classes != IGNORED)).sum())


def _on_one_grid(image: Path, first: Any, file: Path, other: Any) -> None:
    if first.shape != other.shape:
        found, expected = tuple(other.shape[1:]), tuple(first.shape[1:])
        message = f"has the shape {found}, expected {expected} as {image.name} has"
        raise _Unusable(file, "another shape than its image", message)
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in first.shape[1:]))])
    apart = np.abs(corners @ (first.affine.numpy() - other.affine.numpy()).T).max()
    if apart > _APART:
        message = f"lies up to {apart:.1f} mm away from {image.name}: resample it onto that grid"
        raise _Unusable(file, "away from its image", message)


def _fits_resampled(file: Path, image: Any, how: Handling) -> None:
    """Refuse voxels that claim to be so large that memory cannot hold them cut into those of `Handling.spacing`."""
    if how.spacing is None:
        return
    edges = np.linalg.norm(image.affine.numpy()[:3, :3], axis=0)
    times = math.prod(max(1.0, edge) for edge in edges / min(how.spacing))
    if message := sizes.too_large(image.numel() * times * sizes.WORK):
        size = " × ".join(f"{edge:g}" for edge in edges)
        message = f"claims voxels of {size} mm, and at a spacing of {how.spacing} {message}"
        raise _Unusable(file, "too large", message)


@dataclass(frozen=True)
class _Transforms:
    images: Callable[[Any], Any]  # turn and resample
    maps: Callable[[Any], Any]
    scale: Callable[[Any, float, float], Any]  # from between two values to 0…1
    fit: Callable[[Any], Any]  # pad with 0, or crop


def _transforms(how: Handling) -> _Transforms:
    from monai.transforms.compose import Compose  # here, since it takes seconds
    from monai.transforms.croppad.array import ResizeWithPadOrCrop
    from monai.transforms.intensity.array import ScaleIntensityRange
    from monai.transforms.spatial.array import Orientation, Spacing

    turn = Orientation("RAS", labels=_AXES)
    images: list[Any] = [turn]
    maps: list[Any] = [turn]
    if how.spacing is not None:
        images.append(Spacing(how.spacing, mode="bilinear"))
        maps.append(Spacing(how.spacing, mode="nearest"))
    return _Transforms(
        images=Compose(images),
        maps=Compose(maps),
        scale=lambda image, low, high: ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(image),
        fit=Compose([] if how.shape is None else [ResizeWithPadOrCrop(how.shape)]),
    )
