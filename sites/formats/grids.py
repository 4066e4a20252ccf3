"""Where the voxels of two files lie to each other: on one grid, on grids of other voxels, or elsewhere."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sites.formats.picture import Array
from sites.formats.turning import Affine
from sites.formats.unreadable import Unreadable

APART = 0.1
"""Millimetres that the corners of an image and of its label map may lie apart: rounding of affines."""

_QUARTER = 0.25  # of the smallest edge of a voxel that they may at most, where voxels are small

_ALIKE = 0.01  # of an edge or a direction: rounding of headers
_SHARE = 0.5  # of the larger voxel that two grids' ends may lie apart, since programs resample so or so


@dataclass(frozen=True)
class Grid:
    """Voxels turned to RAS, and where they lie.

    Attributes:
        voxels: three axes.
        affine: from voxels to millimetres to the right, to the front and up.
        placed: the file says so; else it is known how large voxels are, and no more.
    """

    voxels: Array
    affine: Affine
    placed: bool

    @property
    def edges(self) -> Array:
        """Those of a voxel, in millimetres."""
        lengths: Array = np.linalg.norm(self.affine[:3, :3], axis=0)
        return lengths


def on_one(image: Grid, other: Grid, name: str) -> None:
    """Refuse a grid that is not the image's.

    Raises:
        Unreadable: it is not; ``name`` is the image's.
    """
    if image.placed != other.placed:
        message = f"and {name} do not both tell where their axes run: copy the header of one to the other"
        raise Unreadable("no orientation", message)
    if image.voxels.shape != other.voxels.shape:
        message = f"has the shape {other.voxels.shape}, expected {image.voxels.shape} as {name} has"
        raise Unreadable("another shape than its image", message)
    apart = _apart(image, other, 0.0)
    if apart > _slack(image):
        advice = "resample it onto that grid; or, if its voxels are the same, copy that header"
        away = f"{apart:.1f}" if apart >= APART else f"{apart:.1g}"
        message = f"lies up to {away} mm away from {name}: {advice}"
        raise Unreadable("away from its image", message)


def coarser_or_finer(image: Grid, other: Grid) -> bool:
    """Whether a grid covers the same place by voxels of another size."""
    if image.placed != other.placed:
        return False
    ways = [one.affine[:3, :3] / one.edges for one in (image, other)]
    same_size = np.allclose(image.edges, other.edges, rtol=_ALIKE)
    if same_size or np.abs(ways[0] - ways[1]).max() > _ALIKE:
        return False
    return _apart(image, other, 0.5) <= _SHARE * float(max(*image.edges, *other.edges)) + _slack(image)


def _slack(image: Grid) -> float:
    """Millimetres that the corners of another grid may lie apart from an image's."""
    return min(APART, _QUARTER * float(image.edges.min()))


def _apart(image: Grid, other: Grid, beyond: float) -> float:
    """Millimetres between the corners of two grids, ``beyond`` the middle of the voxels there."""
    places = []
    for grid in (image, other):
        ends = ((-beyond, edge - 1 + beyond) for edge in grid.voxels.shape)
        places.append(np.array([(*corner, 1) for corner in itertools.product(*ends)]) @ grid.affine.T)
    return float(np.abs(places[0] - places[1]).max())


def resampled(labels: Grid, image: Grid) -> Array:
    """Labels on the image's grid by nearest neighbour; beyond the map those at its ends.

    Raises:
        Unreadable: a label has no voxel there any more.
    """
    between = np.linalg.inv(labels.affine) @ image.affine
    places = [
        np.clip(
            np.floor(between[axis, axis] * np.arange(edge) + between[axis, 3] + 0.5).astype(int), 0, most - 1
        )
        for axis, (edge, most) in enumerate(zip(image.voxels.shape, labels.voxels.shape, strict=True))
    ]
    made: Array = labels.voxels[np.ix_(*places)]
    if lost := sorted({*np.unique(labels.voxels).tolist()} - {*np.unique(made).tolist()}):
        message = f"has the label {lost[0]:g} in structures too small for the voxels of its image: resample one of them"
        raise Unreadable("a label lost on its image's grid", message)
    return made
