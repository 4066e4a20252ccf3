"""One volume with its label map, from NIfTI files to arrays like those of all other volumes, by way of MONAI."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED
from sites.formats import sizes
from sites.formats.grids import Grid, coarser_or_finer, on_one, resampled
from sites.formats.maps import meanings, merged, whole_numbers
from sites.formats.nifti_file import claim, opened
from sites.formats.picture import Seen, limits, size
from sites.formats.turning import codes, turned
from sites.formats.unreadable import Unreadable

Array = npt.NDArray[Any]

_RESAMPLED = "label map of another resolution than its image: resampled onto its grid (nearest neighbour)"

_IGNORED = (
    f"label {IGNORED} in the label map: its voxels are ignored; "
    f"if it is a structure, set labels: {{{IGNORED}: …}}"
)
_TOO_SMALL = "a structure too small for the spacing given was lost: give a finer spacing"


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
        labels: some labels as they are found, and the label (or `IGNORED`) that each stands for.
    """

    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    dtype: Literal["uint8", "float32"] = "uint8"
    classes: tuple[int, ...] | None = None
    labels: tuple[tuple[int, int], ...] | None = None


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


@dataclass(frozen=True)
class Volume:
    """One volume, made like all others.

    Attributes:
        pixels: (C, D, H, W).
        labels: (D, H, W), the label map.
        seen: its row of `Collection.seen`.
        notes: as in `sites.formats.picture.Picture`.
    """

    pixels: Array
    labels: npt.NDArray[np.uint8]
    seen: Seen
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """One file of a pair, turned to RAS, and what it was found to be."""

    grid: Grid
    seen: Seen
    notes: tuple[str, ...]


def preparing(how: Handling) -> Callable[[int, Pair], Volume | list[Bad]]:
    """A function that reads one pair, given its number, and makes it like all others; or tells all that is wrong."""
    transform = _transforms(how)

    def prepare(number: int, pair: Pair) -> Volume | list[Bad]:
        read, bad = list[_Read](), list[Bad]()
        for place, file in enumerate((*pair.images, pair.label_map)):
            try:
                one = _opened(file)
                read.append(_classes(one, how) if place == len(pair.images) else one)
            except Unreadable as error:
                bad.append(Bad(number, file, str(error), error.kind))
        if not bad:
            try:
                return _alike(pair, read, transform, how)
            except _Unusable as error:
                bad.append(Bad(number, error.file, error.message, error.kind))
        return bad

    return prepare


def _opened(file: Path) -> _Read:
    """A file's voxels as float32, turned to RAS.

    Raises:
        Unreadable: the file is no NIfTI volume, damaged, too large, or lies nowhere.
    """
    if message := sizes.excess({"it": claim(file)}, sizes.WORK):
        raise Unreadable("too large", message)
    found = opened(file, np.float32)
    if len(found.shape) < 3:
        message = f"has the shape {found.shape}, expected three edges: save one volume a file"
        raise Unreadable("no three edges", message)
    voxels, affine = turned(found.voxels, found.affine) if found.placed else (found.voxels, found.affine)
    where = codes(found.affine) if found.placed else ""
    seen = ("NIfTI", size(found.shape), *limits(voxels), where)
    return _Read(Grid(np.ascontiguousarray(voxels), affine, found.placed), seen, found.notes)


def _classes(read: _Read, how: Handling) -> _Read:
    """Labels as classes.

    Raises:
        Unreadable: some labels are unknown.
    """
    voxels = whole_numbers(read.grid.voxels)
    found = np.unique(voxels).tolist()
    table = meanings(found, how.labels, how.classes)
    classes = table[voxels.astype(np.int64)].astype(np.float32)
    said = how.labels is not None and IGNORED in dict(how.labels)
    notes = (*read.notes, *(_IGNORED,) * (IGNORED in found and not said), *merged(found, how.labels))
    return replace(read, grid=replace(read.grid, voxels=classes), notes=notes)


def _alike(pair: Pair, read: Sequence[_Read], transform: _Transforms, how: Handling) -> Volume:
    """Resample, scale and fit the images and the label map.

    Raises:
        _Unusable: they do not lie on one grid, an image shows nothing, or labels lie outside.
    """
    *images, labels = read
    notes = dict.fromkeys(itertools.chain.from_iterable(one.notes for one in read))
    first = images[0].grid
    for file, other in zip(pair.images[1:], images[1:], strict=True):
        with _of(file):
            on_one(first, other.grid, pair.images[0].name)
    with _of(pair.label_map):
        on_image, further = _on_image(first, labels.grid, pair.images[0].name)
    _fits_resampled(pair.images[0], first, how)
    pixels = []
    for file, image in zip(pair.images, images, strict=True):
        # All by one affine: by two that are rounded otherwise, they may be cut into more or fewer voxels.
        resampled = transform.images(_tensor(replace(first, voxels=image.grid.voxels), transform.unit))
        low, high = np.percentile(resampled.numpy(), (0.5, 99.5))
        if not low < high:
            message = f"shows nothing: nearly all voxels have the value {low:g}"
            raise _Unusable(file, "shows nothing", message)
        pixels.append(transform.fit(transform.scale(resampled, low, high)).numpy()[0])
    whole = transform.maps(_tensor(on_image, transform.unit))
    if _structures(on_image.voxels) - _structures(whole.numpy()):
        further = (*further, _TOO_SMALL)
    fitted = transform.fit(whole)
    if lost := _labelled(whole) - _labelled(fitted):
        message = f"has {lost} labelled voxels outside of the shape given, of {tuple(whole.shape[1:])}"
        advice = "give a larger shape, or a coarser spacing"
        raise _Unusable(pair.label_map, "labelled voxels outside of the shape", f"{message}: {advice}")
    scaled = np.stack(pixels)
    final = (scaled * 255).round().astype(np.uint8) if how.dtype == "uint8" else scaled * 2 - 1
    made = fitted.numpy()[0].round().astype(np.uint8)
    return Volume(final, made, images[0].seen, (*notes, *further))


def _on_image(image: Grid, labels: Grid, name: str) -> tuple[Grid, tuple[str, ...]]:
    """A label map on its image's grid, and what is to be known of it.

    Raises:
        Unreadable: it lies elsewhere.
    """
    if not coarser_or_finer(image, labels):
        on_one(image, labels, name)
        return replace(image, voxels=labels.voxels), ()
    return replace(image, voxels=resampled(labels, image)), (_RESAMPLED,)


@contextmanager
def _of(file: Path) -> Iterator[None]:
    """Say which file is `Unreadable`."""
    try:
        yield
    except Unreadable as error:
        raise _Unusable(file, error.kind, str(error)) from error


def _tensor(grid: Grid, unit: float) -> Any:
    """Voxels with a channel in front, as MONAI's tensor with an affine in units of so many millimetres."""
    import torch
    from monai.data.meta_tensor import MetaTensor  # here, since it takes seconds

    affine = np.diag([1 / unit, 1 / unit, 1 / unit, 1.0]) @ grid.affine
    return MetaTensor(torch.from_numpy(grid.voxels)[None], affine=torch.from_numpy(affine))


def _labelled(classes: Any) -> int:
    """How many voxels are of a structure."""
    return int(((classes > 0) & (classes != IGNORED)).sum())


def _structures(classes: Array) -> set[float]:
    """The classes of a map, those to be ignored left out."""
    return {*np.unique(classes).tolist()} - {float(IGNORED)}


def _fits_resampled(file: Path, image: Grid, how: Handling) -> None:
    """Refuse voxels that claim to be so large that memory cannot hold them cut into those of `Handling.spacing`."""
    if how.spacing is None:
        return
    times = math.prod(max(1.0, edge) for edge in image.edges / min(how.spacing))
    if message := sizes.too_large(image.voxels.size * times * sizes.WORK):
        found = " × ".join(f"{edge:g}" for edge in image.edges)
        message = f"claims voxels of {found} mm, and at a spacing of {how.spacing} {message}"
        raise _Unusable(file, "too large", message)


@dataclass(frozen=True)
class _Transforms:
    images: Callable[[Any], Any]  # resample
    maps: Callable[[Any], Any]
    scale: Callable[[Any, float, float], Any]  # from between two values to 0…1
    fit: Callable[[Any], Any]  # pad with 0, or crop
    unit: float  # millimetres that affines are told in


def _transforms(how: Handling) -> _Transforms:
    from monai.transforms.compose import Compose  # here, since it takes seconds
    from monai.transforms.croppad.array import ResizeWithPadOrCrop
    from monai.transforms.intensity.array import ScaleIntensityRange
    from monai.transforms.spatial.array import Spacing

    images, maps, unit = list[Any](), list[Any](), 1.0
    if how.spacing is not None:
        # To MONAI affines are one that differ by a thousandth, so lengths must be about 1; by a power of two nothing is
        # rounded.
        unit = 2.0 ** math.floor(math.log2(min(how.spacing)))
        edges = tuple(edge / unit for edge in how.spacing)
        images.append(Spacing(edges, mode="bilinear"))
        maps.append(Spacing(edges, mode="nearest"))
    return _Transforms(
        images=Compose(images),
        maps=Compose(maps),
        scale=lambda image, low, high: ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(image),
        fit=Compose([] if how.shape is None else [ResizeWithPadOrCrop(how.shape)]),
        unit=unit,
    )
