"""Reading one image file of any format into an array, after its header was asked how large it will be."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sites.formats import sizes
from sites.formats.sizes import suffix
from sites.pixels import channels_first

Array = npt.NDArray[Any]

_CLAIMS = {".png": sizes.picture, ".npy": sizes.npy, ".dcm": sizes.dicom}


def unreadable() -> tuple[type[Exception], ...]:
    """What readers raise for a file that is damaged or none of its format, and nothing else."""
    from nibabel.filebasedimages import ImageFileError  # here, since it takes a second
    from nibabel.spatialimages import HeaderDataError, HeaderTypeError
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        OSError,  # the disk, gzip, and Pillow's own errors
        ValueError,  # NumPy, pydicom, and ours
        EOFError,  # a compressed file that is cut off
        zlib.error,
        struct.error,
        SyntaxError,  # Pillow, of a broken PNG
        ImageFileError,
        HeaderDataError,
        HeaderTypeError,
        InvalidDicomError,
        BytesLengthException,
        RuntimeError,  # pydicom, of pixels that it cannot decode; NotImplementedError, of unknown encodings, is one
    )


def claimed(file: Path) -> sizes.Claim:
    """What a file's header says of its size.

    Raises:
        Exception: one of `unreadable`: it is damaged or none of its format.
    """
    return _CLAIMS.get(suffix(file.name), sizes.nifti)(file)


@dataclass(frozen=True)
class Picture:
    """One image file, read.

    Attributes:
        pixels: (C, *spatial) uint8.
        format: of the file.
        size: its edges as stored.
        low: the least value in it.
        high: the largest.
        orientation: of a volume.
        notes: how it was read, where that should be known.
    """

    pixels: npt.NDArray[np.uint8]
    format: str
    size: str
    low: float
    high: float
    orientation: str = ""
    notes: tuple[str, ...] = ()


def reading() -> Callable[[Path], Picture]:
    """SHIM."""
    read = _reading()

    def whole(file: Path) -> Picture:
        values = read(file)
        image = channels_first(values[None])[0]
        size = " × ".join(map(str, values.shape))
        return Picture(_stretched(image), suffix(file.name), size, float(values.min()), float(values.max()))

    return whole


def _stretched(image: Array) -> npt.NDArray[np.uint8]:
    """Any image as uint8; constant ones become 0."""
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image.astype(np.float64), (0.5, 99.5))
    scaled = (image.astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
    stretched: Array = np.clip(scaled, 0, 255).round().astype(np.uint8)
    return stretched


def _reading() -> Callable[[Path], Array]:
    """A function that reads a file as (H, W), (H, W, 3) or (D, H, W), in its own dtype.

    It raises one of `unreadable` for files that are damaged or none of their format. MONAI is imported here, which
    takes seconds, and may fail for reasons that are no file's.
    """
    from monai.data import image_reader

    def read(file: Path) -> Array:
        kind = suffix(file.name)
        if kind == ".npy":
            return _checked(kind, np.load(file, allow_pickle=False))
        readers = {
            ".png": image_reader.PILReader(converter=_unpacked),
            ".dcm": image_reader.PydicomReader(),
        }
        reader = readers.get(kind) or image_reader.NibabelReader()
        opened, image = _opened(reader, file)
        if getattr(opened, "PhotometricInterpretation", "") == "MONOCHROME1":  # DICOM with white as 0
            image = image.max() - image
        return _checked(kind, _turned(kind, image))

    return read


def _opened(reader: Any, file: Path) -> tuple[Any, Array]:
    """What a reader of MONAI's knows of a file, and its values.

    Raises:
        ValueError: an element of DICOM has no value, or several, or text, where a number is expected.
    """
    opened = reader.read(file)
    try:
        with warnings.catch_warnings():  # of DICOM that does not tell where the patient lay; we do not ask
            warnings.filterwarnings("ignore", message="PydicomReader: ImageOrientationPatient")
            return opened, np.asarray(reader.get_data(opened)[0])
    except TypeError as error:
        raise ValueError(f"it has a value of a wrong type: {error}") from error


def _turned(kind: str, image: Array) -> Array:
    """MONAI's axes in our order, and without transparency."""
    if kind in (".png", ".dcm"):  # MONAI has width first, and slices last
        image = image.T if image.ndim == 3 and image.shape[-1] > 4 else np.swapaxes(image, 0, 1)
    if kind == ".png" and image.ndim == 3 and image.shape[-1] in (2, 4):  # the last one is transparency
        image = image[..., 0] if image.shape[-1] == 2 else image[..., :3]
    return image


def _checked(kind: str, image: Array) -> Array:
    if image.dtype.kind not in "biuf":
        raise ValueError(f"it has values of the type {image.dtype}, expected numbers")
    if image.size == 0 or not np.isfinite(image).all():
        raise ValueError("it has no pixels, or some that are not finite")
    if kind in (".nii", ".nii.gz") and image.ndim == 3 and image.shape[-1] in (1, 3):
        raise ValueError(
            f"a volume of {image.shape[-1]} slices; expected 2D files, or volumes of at least 4 slices"
        )
    return image


def _unpacked(image: Any) -> Any:
    """A Pillow image whose pixels are colours, not numbers of colours in a palette."""
    return image.convert("RGB") if image.mode == "P" else image
