"""One NIfTI file: its voxels, and where they lie."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sites.formats import sizes
from sites.formats.content import packed, told
from sites.formats.picture import THIN, Array, Picture, checked, limits, size, spread
from sites.formats.turning import Affine, codes, turned, whole
from sites.formats.unreadable import Unreadable, blaming

UNPLACED = "not told where the axes run (no sform, no qform): read as stored"
_MORE = "more follows than the voxels that the header tells of: it was left out"
_SLICE = "one slice of voxels: the first of its axes, turned to RAS where that is told, runs down the image"
_DISAGREE = "sform and qform lay the voxels differently: the sform was used"
_UNLIKE = (
    0.01  # of a voxel's edge that its edges may differ by, in length and direction: rounding of quaternions
)
_ELSEWHERE = 0.5  # of a voxel's edge that its first voxel may lie elsewhere
_UNITS = {
    1: (1e3, "metres"),
    3: (1e-3, "micrometres"),
}  # codes of xyzt_units, in millimetres; else it is these

_SEVERAL = (
    "several volumes in one file, perhaps over time or, of a label map, one a class (then take the argmax): "
)


@dataclass(frozen=True)
class Opened:
    """A NIfTI file.

    Attributes:
        voxels: three axes, as stored, one of them maybe flat; finite, and scaled as the header says.
        affine: from voxels to millimetres to the right, to the front and up.
        placed: the header says so; else ``affine`` knows the edges of voxels only.
        shape: as stored.
        notes: as in `sites.formats.picture.Picture`.
    """

    voxels: Array
    affine: Affine
    placed: bool
    shape: tuple[int, ...]
    notes: tuple[str, ...]


def claim(file: Path) -> sizes.Claim:
    """How large the voxels are, by the header.

    Raises:
        Unreadable: it is damaged, has colours as voxels, or claims more than the file holds.
    """
    if file.is_dir():
        message = "is a folder, expected a NIfTI volume: convert a DICOM series to one, say by dcm2niix"
        raise Unreadable("another format", message)
    if (found := told(file)) != "NIfTI":
        raise Unreadable("another format", f"is a {found} file, expected a NIfTI volume: convert it")
    with blaming("a NIfTI volume", zlib.error, KeyError, TypeError, OverflowError):
        claimed = sizes.nifti(file)
    if claimed.dtype.names:
        message = "has colours (RGB) as voxels: save it as PNG, or one colour as a NIfTI of numbers"
        raise Unreadable("colours in NIfTI", message)
    return claimed


def read(file: Path) -> Picture:
    """A volume turned to the nearest of RAS, or a slice of it as an image.

    Raises:
        Unreadable: it is damaged, or neither.
    """
    found = opened(file)
    voxels = found.voxels
    if found.placed:
        voxels, _ = turned(voxels, found.affine)
    flat = [edge for edge in voxels.shape if edge == 1]
    if len(flat) > 1:
        message = (
            f"has the shape {found.shape}, expected an image or a volume: save more than a row of voxels"
        )
        raise Unreadable("another shape", message)
    if not flat and min(voxels.shape) < THIN:
        message = f"is a volume of {min(voxels.shape)} slices; expected 2D files, or volumes of at least {THIN} slices"
        raise Unreadable("too few slices", message)
    values = np.squeeze(voxels)[None]
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    where = codes(found.affine) if found.placed and not flat else ""
    notes = (*found.notes, *(_SLICE,) * bool(flat))
    return Picture(spread(native), "NIfTI", size(found.shape), *limits(native), where, notes)


def opened(file: Path, dtype: type[np.float32] | None = None) -> Opened:
    """The voxels of a file, in memory.

    Args:
        file: of the format.
        dtype: of the voxels; None for what the file has, or float64 if its header scales.

    Raises:
        Unreadable: it is none, damaged, has not three axes, values that are not finite, or lies nowhere.
    """
    from nibabel.filebasedimages import ImageFileError  # here, since it takes a second
    from nibabel.nifti1 import Nifti1Image
    from nibabel.nifti2 import Nifti2Image
    from nibabel.spatialimages import HeaderDataError, HeaderTypeError

    claim(file)
    errors = (
        ImageFileError,
        HeaderDataError,
        HeaderTypeError,
        zlib.error,
        KeyError,
        TypeError,
        OverflowError,
    )
    with blaming("a NIfTI volume", *errors), _stream(file) as stream:
        kind: Any = Nifti1Image if (348).to_bytes(4, "little") in _orders(stream.read(4)) else Nifti2Image
        stream.seek(0)
        image = kind.from_stream(stream)
        voxels = np.asarray(image.dataobj, dtype=dtype)
        stream.seek(image.dataobj.offset + voxels.size * image.get_data_dtype().itemsize)
        more = stream.read(1)  # at the end of what is compressed, its checksum is compared
        affine, placed, notes = _placed(image.header)
    notes = (*notes, *(_MORE,) * bool(more))
    return Opened(checked(_three(voxels)), affine, placed, tuple(map(int, voxels.shape)), notes)


@contextmanager
def _stream(file: Path) -> Iterator[IO[bytes]]:
    with file.open("rb") as plain:
        if not packed(file):
            yield plain
            return
        with gzip.GzipFile(fileobj=plain) as expanded:
            yield expanded  # type: ignore[misc]  # a reader of bytes in all but name


def _orders(word: bytes) -> tuple[bytes, bytes]:
    return word, word[::-1]


def _three(voxels: Array) -> Array:
    """Voxels with three axes.

    Raises:
        Unreadable: they have more, or fewer than two.
    """
    shape = voxels.shape
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim == 2:
        voxels = voxels[..., None]
    if voxels.ndim != 3 or not voxels.size:
        several = _SEVERAL if voxels.ndim > 3 else ""
        message = f"has the shape {shape}, expected three edges: {several}save one volume a file"
        raise Unreadable("no three edges", message)
    return voxels


def _placed(header: Any) -> tuple[Affine, bool, tuple[str, ...]]:
    """The affine of a header in millimetres, whether the header has one at all, and what is to be known of it."""
    times, unit = _UNITS.get(int(header["xyzt_units"]) & 7, (1.0, ""))
    notes = (f"places are told in {unit}: made millimetres",) * bool(unit)
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    in_millimetres = np.diag([times, times, times, 1.0])
    if not sform and not qform:
        edges = np.abs(np.nan_to_num(np.asarray(header["pixdim"][1:4], np.float64)))
        affine = whole(np.diag([*np.where(edges > 0, edges, 1.0), 1.0]))
        return in_millimetres @ affine, False, (UNPLACED, *notes)
    affine = whole(np.asarray(header.get_best_affine(), np.float64))
    notes = (*(_DISAGREE,) * (bool(sform and qform) and _unlike(header, affine)), *notes)
    return in_millimetres @ affine, True, notes


def _unlike(header: Any, affine: Affine) -> bool:
    """Whether the qform is good, too, and lays the voxels otherwise."""
    from nibabel.spatialimages import HeaderDataError

    try:
        apart = np.abs(whole(np.asarray(header.get_qform(), np.float64)) - affine)
    except (HeaderDataError, ValueError):
        return False
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((apart[:3, :3] > _UNLIKE * edges).any() or (apart[:3, 3] > _ELSEWHERE * edges.min()).any())
