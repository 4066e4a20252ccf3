"""Turning volumes so that their axes run to the right, to the front and up (RAS)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from sites.formats.unreadable import Unreadable

Array = npt.NDArray[Any]
Affine = npt.NDArray[np.float64]

_LEAST = 1e-9  # mm³ of a voxel: less is none


def whole(affine: Affine) -> Affine:
    """An affine that tells where voxels lie.

    Raises:
        Unreadable: it is not finite, or its voxels have no extent.
    """
    # Here, since it takes a second; it has no types.
    orientations: Any = import_module("nibabel.orientations")
    solid = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= _LEAST
    if solid and np.isfinite(orientations.io_orientation(affine)).all():  # else axes are one, to rounding
        return affine
    message = "has no affine that tells where its voxels lie (not finite, or without extent)"
    raise Unreadable("no affine", f"{message}: convert it again from DICOM")


def codes(affine: Affine) -> str:
    """Where the axes run, such as LPS for the left, the back and up."""
    orientations: Any = import_module(
        "nibabel.orientations"
    )  # here, since it takes a second; it has no types

    return "".join(map(str, orientations.aff2axcodes(affine)))


def turned(voxels: Array, affine: Affine) -> tuple[Array, Affine]:
    """Three axes turned to the nearest of RAS, and their affine; nothing is resampled."""
    orientations: Any = import_module("nibabel.orientations")

    turn = orientations.io_orientation(affine)
    moved: Affine = affine @ orientations.inv_ornt_aff(turn, voxels.shape)
    return orientations.apply_orientation(voxels, turn), moved
