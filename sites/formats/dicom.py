"""DICOM files: one image, or the frames of a volume."""

from __future__ import annotations

import struct
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from sites.formats import places, sizes
from sites.formats.content import preamble
from sites.formats.dicom_values import Values, coloured, measured, together
from sites.formats.picture import THIN, Array, Picture, checked, limits, size, spread
from sites.formats.turning import codes, turned
from sites.formats.unreadable import Unreadable, blaming

_DEFLATED = "1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"
_SIZES = ("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_ONCE = ("NumberOfFrames", "SamplesPerPixel")  # 1 where they are missing
_GREY = ("MONOCHROME1", "MONOCHROME2")
_DEFAULTS = {"PixelRepresentation": 0, "SamplesPerPixel": 1}

_JPEG = "python-gdcm, or pylibjpeg with pylibjpeg-libjpeg (GPL)"
_PACKAGES = {
    "1.2.840.10008.1.2.4.50": _JPEG,
    "1.2.840.10008.1.2.4.51": _JPEG,
    "1.2.840.10008.1.2.4.57": _JPEG,
    "1.2.840.10008.1.2.4.70": _JPEG,
    "1.2.840.10008.1.2.4.80": f"pyjpegls, {_JPEG}",
    "1.2.840.10008.1.2.4.81": f"pyjpegls, {_JPEG}",
    "1.2.840.10008.1.2.4.90": "python-gdcm, or pylibjpeg with pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "python-gdcm, or pylibjpeg with pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg with pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg with pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg with pylibjpeg-openjpeg",
}  # what pydicom decodes with, beside Pillow, by transfer syntax

_STORED = "not told where the frames lie: read in the order stored"


def guarded() -> AbstractContextManager[None]:
    """Blames a file for whatever pydicom raises of damaged ones."""
    from pydicom.errors import BytesLengthException, InvalidDicomError  # here, since it takes a second

    return blaming(
        "a DICOM file",
        *(InvalidDicomError, BytesLengthException, struct.error, zlib.error, RuntimeError),
        *(AttributeError, TypeError, LookupError, ArithmeticError, AssertionError),  # of nonsense in elements
    )


def claim(file: Path) -> sizes.Claim:
    """How large the pixels are, by the header.

    Raises:
        Unreadable: it is damaged, no image, or may expand to more than memory holds.
    """
    with guarded():
        header = heading(file)
        values = [header.get(name) or (1 if name in _ONCE else header.get(name)) for name in _SIZES]
    if wrong := [name for name, value in zip(_SIZES, values, strict=True) if not isinstance(value, int)]:
        message = f"is a DICOM file that has no number as {', '.join(wrong)}: export it again"
        raise Unreadable("no size", message)
    frames, rows, columns, samples, bits = map(int, values)
    shape = (*([frames] if frames > 1 else []), rows, columns, *([samples] if samples > 1 else []))
    width = max(1, -(-bits // 8))
    with guarded():
        return sizes.Claim(shape, np.dtype(f"u{width}" if width in (1, 2, 4, 8) else f"V{width}"))


def heading(file: Path) -> Any:
    """All of a file but its pixels, as pydicom has it.

    Raises:
        Unreadable: it is no image.
        Exception: one that `guarded` knows; it stands inside.
    """
    import pydicom

    # pydicom expands all of a deflated file to read its first element.
    if message := sizes.too_large(file.stat().st_size * (sizes.DEFLATE if _deflated(file) else 1)):
        raise Unreadable("too large", f"may take all the memory before its size is known: it {message}")
    header = pydicom.dcmread(file, stop_before_pixels=True, force=not preamble(file))
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""
    if kind == _DIRECTORY or "DirectoryRecordSequence" in header:
        message = "is a DICOMDIR, the table of contents of a disc: list the images that it names"
        raise Unreadable("a DICOMDIR", message)
    if header.get("Rows") is None and header.get("Columns") is None:
        name = getattr(kind, "name", "") or "of an unknown kind"
        raise Unreadable("no pixels", f"is a DICOM file without an image ({name}): list images only")
    return header


def read(file: Path) -> Picture:
    """One image, or the frames of a volume: turned to the nearest of RAS if it tells where they lie.

    Raises:
        Unreadable: it is damaged, no image, or compressed in a way for which a package is missing.
    """
    with guarded():
        header = whole(file)
        stored, colours = decoded(header)
        if colours is not None:
            return _colour(header, stored, colours)
        if stored.ndim == 2:
            values = frame(stored, header, 0)
            pixels = values.greys()[None]
            return Picture(pixels, "DICOM", size(stored.shape), *values.limits, notes=values.notes)
        if len(stored) < THIN:
            message = (
                f"has {len(stored)} frames, expected one, or a volume of at least {THIN}: save each as a file"
            )
            raise Unreadable("too few slices", message)
        values = together((frame(one, header, number) for number, one in enumerate(stored)), len(stored))
        return volume(values, places.frames(header, len(stored)))


def volume(values: Values, where: list[places.Place] | None) -> Picture:
    """Slices as a volume: ordered and turned if it is known where they lie; else as they come.

    Raises:
        Unreadable: the slices do not make a volume.
    """
    pixels, shape = values.greys(), values.physical.shape
    if where is None:
        return Picture(pixels[None], "DICOM", size(shape), *values.limits, notes=(*values.notes, _STORED))
    order, affine, tilted = places.stacked(where)
    made, _ = turned(pixels[order], affine)
    notes = (*values.notes, *tilted)
    ready = np.ascontiguousarray(made)[None]
    return Picture(ready, "DICOM", size(shape), *values.limits, codes(affine), notes)


def whole(file: Path) -> Any:
    """A file as pydicom has it, with the elements that may be left out.

    Raises:
        Unreadable: it has no pixels.
        Exception: one that `guarded` knows; it stands inside.
    """
    import pydicom

    header = pydicom.dcmread(file, force=not preamble(file))
    if not any(name in header for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        message = "is a DICOM file whose pixels are missing (no Pixel Data): export it again, with its image"
        raise Unreadable("no pixels", message)
    for name, value in _DEFAULTS.items():
        if header.get(name) is None:
            setattr(header, name, value)
    if header.get("BitsStored") is None:
        header.BitsStored = header.BitsAllocated
    header.PhotometricInterpretation = (
        str(header.get("PhotometricInterpretation") or "MONOCHROME2").upper().strip()
    )
    if not header.file_meta.get("TransferSyntaxUID"):
        header.file_meta.TransferSyntaxUID = _native(*header.original_encoding)
    return header


def decoded(header: Any) -> tuple[Array, str | None]:
    """The stored values ([N,] H, W) and None; or those of colours and what kind of colours: RGB or PALETTE COLOR.

    Raises:
        Unreadable: they cannot be decoded, or are neither.
        Exception: one that `guarded` knows; it stands inside.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        message = f"has pixels in a way that is not known here ({syntax.name}): export it uncompressed"
        raise Unreadable("an unknown compression", message) from error
    if not decoder.is_available:
        raise _lacking(syntax)
    try:
        stored, about = decoder.as_array(header, **as_pixel_options(header))
    except RuntimeError as error:
        if syntax not in _PACKAGES:
            raise
        raise _lacking(syntax, str(error).splitlines()[-1].strip()) from error
    kind = str(about["photometric_interpretation"])
    colours = None if kind in _GREY else kind
    expected = 3 if colours == "RGB" else 1
    if colours not in (None, "RGB", "PALETTE COLOR") or header.SamplesPerPixel != expected:
        message = (
            f"has {header.SamplesPerPixel} values a pixel and calls them {kind}: export it as RGB or grey"
        )
        raise Unreadable("colours of an unknown kind", message)
    return checked(stored), colours


def _lacking(syntax: Any, said: str = "") -> Unreadable:
    advice = f"install {_PACKAGES[syntax]}, or " if syntax in _PACKAGES else ""
    also = f"; is it damaged? ({said[:120]})" if said else ""
    found = f"has compressed pixels ({syntax.name}) that what is installed cannot decode{also}"
    message = f"{found}: {advice}export it uncompressed"
    return Unreadable(f"compressed as {syntax.name}", message)


def frame(stored: Array, header: Any, number: int) -> Values:
    """The values of one frame (H, W) of a file.

    Raises:
        Unreadable: an element has a value that makes no sense.
    """
    modality = places.item(header, number, "PixelValueTransformationSequence")
    voi = places.item(header, number, "FrameVOILUTSequence")
    return measured(stored, header, header if modality is None else modality, header if voi is None else voi)


def _colour(header: Any, stored: Array, colours: str) -> Picture:
    """A picture in colours.

    Raises:
        Unreadable: there are several.
    """
    if stored.ndim - (colours == "RGB") > 2:
        message = f"has {len(stored)} frames in colour, expected one image: save each as a file of its own"
        raise Unreadable("several pages", message)
    palette = colours == "PALETTE COLOR"
    values = coloured(stored, header) if palette else stored
    pixels = np.ascontiguousarray(np.moveaxis(spread(values), -1, 0))
    notes = ("the palette was applied",) if palette else ()
    return Picture(pixels, "DICOM", size(stored.shape[:2]), *limits(values), notes=notes)


def _deflated(file: Path) -> bool:
    with file.open("rb") as opened:
        return _DEFLATED.encode() in opened.read(4096)


def _native(implicit: bool | None, little: bool | None) -> Any:
    """The transfer syntax of a file that names none."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if implicit is not False:
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if little is False else ExplicitVRLittleEndian
