"""Where the slices of a DICOM volume lie, by their headers (PS3.3 C.7.6.2, C.7.6.16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sites.formats.picture import Array
from sites.formats.turning import Affine
from sites.formats.unreadable import Unreadable

_TURN = 1e-3  # that directions of slices of one volume may differ by: rounding of texts
_ROUNDING = 2e-3  # of a pixel's edge that edges may differ by: rounding of texts
_UNEVEN = 0.05  # of the usual distance that distances may differ by: rounding, and bending of tables
_BESIDE = 0.5  # of a pixel's edge that a slice may lie beside the line of the others
_FLAT = 0.1  # of the distance that slices may move sideways before the stack is called tilted

_ENDS = ("RL", "AP", "IS")  # of DICOM's axes
_LETTERS = {**{one: one for one in "RLAP"}, "H": "S", "F": "I"}  # of Patient Orientation: head and feet

_TILTED = "slices lie askew in their stack (a tilted gantry): read as they are"


@dataclass(frozen=True)
class Place:
    """Where one slice lies, in millimetres to the left, to the back and up.

    Attributes:
        position: of the middle of its first pixel.
        row: the direction in which a row runs, of length 1.
        column: the direction in which a column runs.
        edges: of a pixel, down a column and along a row.
    """

    position: tuple[float, ...]
    row: tuple[float, ...]
    column: tuple[float, ...]
    edges: tuple[float, float]


def item(header: Any, number: int, sequence: str) -> Any | None:
    """A frame's item of a functional group: its own, or all frames'; None if there is none."""
    own, shared = header.get("PerFrameFunctionalGroupsSequence"), header.get("SharedFunctionalGroupsSequence")
    for groups in (own[number] if own and number < len(own) else None, shared[0] if shared else None):
        if groups is not None and groups.get(sequence):
            return groups[sequence].value[0]
    return None


def letters(header: Any) -> str:
    """Where the rows and the columns of one image run, such as LP; empty if its file does not tell."""
    turn, said = header.get("ImageOrientationPatient"), header.get("PatientOrientation")
    if turn and len(turn) == 6:
        ways = np.array([float(one) for one in turn]).reshape(2, 3)
        if np.isfinite(ways).all() and np.abs(ways).max(axis=1).min() > 0:
            axes = np.abs(ways).argmax(axis=1)
            return "".join(_ENDS[axis][int(way[axis] > 0)] for axis, way in zip(axes, ways, strict=True))
    if said and len(said) == 2 and all(one and str(one)[0] in _LETTERS for one in said):
        return "".join(_LETTERS[str(one)[0]] for one in said)
    return ""


def frames(header: Any, count: int) -> list[Place] | None:
    """Where all frames of a file lie; None if it does not tell."""
    found = []
    for number in range(count):
        position, plane = (
            item(header, number, f"Plane{name}Sequence") for name in ("Position", "Orientation")
        )
        if position is None or plane is None:
            return None
        place = _place(position, plane, item(header, number, "PixelMeasuresSequence"))
        if place is None:
            return None
        found.append(place)
    return found


def of(header: Any) -> Place | None:
    """Where the slice of a file lies; None if it does not tell."""
    return _place(header, header, header)


def _place(position: Any, plane: Any, measures: Any) -> Place | None:
    at, turn = position.get("ImagePositionPatient"), plane.get("ImageOrientationPatient")
    if not at or not turn or len(at) != 3 or len(turn) != 6:
        return None
    spacing = (measures.get("PixelSpacing") if measures is not None else None) or (1.0, 1.0)
    down, along = (float(edge) for edge in spacing)
    row, column = (np.array([float(one) for one in part]) for part in (turn[:3], turn[3:]))
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    edges = np.array([*lengths, down, along])
    finite = np.isfinite(edges).all() and np.isfinite(np.array([*map(float, at)])).all()
    if not finite or edges.min() <= 0 or abs(row @ column) > _FLAT * lengths[0] * lengths[1]:
        message = "has an ImageOrientationPatient or PixelSpacing that makes no sense: export it again"
        raise Unreadable("no place", message)
    return Place(tuple(map(float, at)), tuple(row / lengths[0]), tuple(column / lengths[1]), (down, along))


def stacked(where: Sequence[Place]) -> tuple[Array, Affine, tuple[str, ...]]:
    """How slices make a volume: their order, the affine of (slices, rows, columns) to RAS, and what is to be known.

    Raises:
        Unreadable: they lie in several directions, twice at one place, with gaps, or beside each other.
    """
    first = where[0]
    directions = np.array([(*one.row, *one.column) for one in where])
    if np.abs(directions - directions[0]).max() > _TURN:
        message = (
            "has slices in several directions, perhaps a scout: keep one series of parallel slices a folder"
        )
        raise Unreadable("several orientations", message)
    edges = np.array([one.edges for one in where])
    if (np.ptp(edges, axis=0) > _ROUNDING * edges[0]).any():
        raise Unreadable("unlike slices", "has slices of several pixel spacings: keep one series a folder")
    normal = np.cross(first.row, first.column)
    positions = np.array([one.position for one in where])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    apart = np.diff(positions @ normal)
    _even(apart, positions @ normal)
    step = (positions[-1] - positions[0]) / (len(where) - 1)
    beside = positions - positions[0] - np.arange(len(where))[:, None] * step
    _in_line(beside - np.outer(beside @ normal, normal), _BESIDE * float(edges.max()))
    sideways = np.linalg.norm(step - (step @ normal) * normal)
    affine = np.eye(4)
    for axis, way in enumerate(
        (step, np.array(first.column) * first.edges[0], np.array(first.row) * first.edges[1])
    ):
        affine[:3, axis] = way
    affine[:3, 3] = positions[0]
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's axes run to the left and to the back
    return order, to_ras @ affine, (_TILTED,) if sideways > _FLAT * float(np.median(apart)) else ()


def _in_line(beside: Array, most: float) -> None:
    """Refuse slices that lie beside the line of the others: one voxel upon the other would be of two places.

    Args:
        beside: (slices, 3) millimetres from that line.
        most: millimetres that they may.

    Raises:
        Unreadable: they lie further.
    """
    far = np.linalg.norm(beside, axis=1)
    if (count := int((far > most).sum())) > 0:
        message = f"has {count} slices up to {far.max():.1f} mm beside the line of the others: keep one stack a folder"
        raise Unreadable("slices beside each other", message)


def _even(apart: Array, at: Array) -> None:
    """Refuse distances between slices that are not all alike.

    Raises:
        Unreadable: they are not.
    """
    usual = float(np.median(apart))
    if (twice := int((apart < 0.01 * max(usual, 1e-3)).sum())) > 0:
        advice = "keep one series, and one point in time, a folder"
        raise Unreadable(
            "slices at one place", f"has {twice} slices at a place where another one lies: {advice}"
        )
    wrong = np.flatnonzero(np.abs(apart - usual) > _UNEVEN * usual)
    if wrong.size:
        between = f"{at[wrong[0]]:g} and {at[wrong[0] + 1]:g} mm"
        message = (
            f"has slices {usual:g} mm apart, but {apart[wrong[0]]:g} mm between {between}: are some missing?"
        )
        raise Unreadable("a gap between slices", f"{message} Export the whole series")
