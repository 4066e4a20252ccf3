"""DICOM files: one image, or the frames of a volume."""

from __future__ import annotations

import struct
import zlib
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sites.formats import places, sizes
from sites.formats.content import preamble
from sites.formats.dicom_pixels import PIXELS, beyond, decoded
from sites.formats.dicom_values import Values, coloured, measured, together
from sites.formats.picture import THIN, Array, Picture, limits, size, spread
from sites.formats.turning import codes, turned
from sites.formats.unreadable import Unreadable, blaming
from sites.identity import tidied

_DEFLATED = "1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"
_SIZES = ("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
_ONCE = ("NumberOfFrames", "SamplesPerPixel")  # 1 where they are missing

_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_BURNT = "annotations are burnt into the pixels (Burned In Annotation): see that they name nobody"
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
        frames, rows, columns, samples, bits = _sizes(heading(file))
        shape = (*([frames] if frames > 1 else []), rows, columns, *([samples] if samples > 1 else []))
        width = max(1, -(-bits // 8))
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
    return _image(pydicom.dcmread(file, stop_before_pixels=True, force=not preamble(file)))


def _image(header: Any) -> Any:
    """``header``, if it is an image's.

    Raises:
        Unreadable: it is none.
    """
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""
    if kind == _DIRECTORY or "DirectoryRecordSequence" in header:
        message = "is a DICOMDIR, the table of contents of a disc: list the images that it names"
        raise Unreadable("a DICOMDIR", message)
    if kind in _SEGMENTATIONS or header.get("Modality") == "SEG":
        message = (
            "is a DICOM segmentation, expected an image: convert it to NIfTI, and list it as a label map"
        )
        raise Unreadable("a segmentation", message)
    if header.get("Rows") is None and header.get("Columns") is None:
        name = getattr(kind, "name", "") or "of an unknown kind"
        raise Unreadable("no pixels", f"is a DICOM file without an image ({name}): list images only")
    _sizes(header)
    return header


def _sizes(header: Any) -> tuple[int, ...]:
    """Frames, rows, columns, values a pixel, bits a value.

    Raises:
        Unreadable: one of them is no number.
    """
    values = [header.get(name) or (1 if name in _ONCE else header.get(name)) for name in _SIZES]
    if wrong := [name for name, value in zip(_SIZES, values, strict=True) if not isinstance(value, int)]:
        message = f"is a DICOM file that has no number as {', '.join(wrong)}: export it again"
        raise Unreadable("no size", message)
    return tuple(map(int, values))


def read(file: Path) -> Picture:
    """One image, or the frames of a volume: turned to the nearest of RAS if it tells where they lie.

    Raises:
        Unreadable: it is damaged, no image, or compressed in a way for which a package is missing.
    """
    with guarded():
        header = whole(file)
        return replace(_picture(header), person=person(header))


def person(header: Any) -> str:
    """Whom a file names as its patient."""
    return tidied(str(header.get("PatientID") or ""))


def _picture(header: Any) -> Picture:
    stored, colours = decoded(header)
    if colours is not None:
        return _colour(header, stored, colours)
    if stored.ndim == 2:
        values = frame(stored, header, 0)
        pixels = values.greys()[None]
        lies = places.letters(header)
        return Picture(pixels, "DICOM", size(stored.shape), *values.limits, lies, values.notes)
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
    return Picture(ready, "DICOM", size(shape), *values.limits, codes(affine)[::-1], notes)


def whole(file: Path) -> Any:
    """A file as pydicom has it, with the elements that may be left out.

    Raises:
        Unreadable: it has no pixels.
        Exception: one that `guarded` knows; it stands inside.
    """
    import pydicom

    header = _image(pydicom.dcmread(file, force=not preamble(file)))
    if not any(name in header for name in PIXELS):
        message = "is a DICOM file whose pixels are missing (no Pixel Data): export it again, with its image"
        raise Unreadable("no pixels", message)
    return _filled(header)


def _filled(header: Any) -> Any:
    """``header`` with the elements that old exports leave out and that have one sensible value.

    Raises:
        Unreadable: there is none of what cannot be known.
    """
    if "PixelData" not in header:  # floats
        header.PixelRepresentation = 1
    for name, what in (
        ("PhotometricInterpretation", "0 is black or white"),
        ("PixelRepresentation", "values have signs"),
    ):
        if header.get(name) in (None, ""):
            raise Unreadable(f"no {name}", f"does not tell whether {what} (no {name}): export it again")
    for name, value in (("SamplesPerPixel", 1), ("BitsStored", header.BitsAllocated)):
        if header.get(name) is None:
            setattr(header, name, value)
    header.PhotometricInterpretation = str(header.PhotometricInterpretation).upper().strip()
    if not header.file_meta.get("TransferSyntaxUID"):
        header.file_meta.TransferSyntaxUID = _native(*header.original_encoding)
    return header


def frame(stored: Array, header: Any, number: int) -> Values:
    """The values of one frame (H, W) of a file, and what is to be known of all of it.

    Raises:
        Unreadable: an element has a value that makes no sense.
    """
    modality = places.item(header, number, "PixelValueTransformationSequence")
    voi = places.item(header, number, "FrameVOILUTSequence")
    found = measured(stored, header, header if modality is None else modality, header if voi is None else voi)
    return replace(found, notes=(*found.notes, *_told(header)))


def _told(header: Any) -> tuple[str, ...]:
    """What is to be known of a file whatever its values are."""
    burnt = str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES"
    return (*beyond(header), *(_BURNT,) * burnt)


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
    if header.BitsStored == 8 and not header.PixelRepresentation:  # whatever room they have
        values = values.astype(np.uint8)
    pixels = np.ascontiguousarray(np.moveaxis(spread(values), -1, 0))
    notes = (*(("the palette was applied",) if palette else ()), *_told(header))
    return Picture(pixels, "DICOM", size(stored.shape[:2]), *limits(values), places.letters(header), notes)


def _deflated(file: Path) -> bool:
    with file.open("rb") as opened:
        return _DEFLATED.encode() in opened.read(4096)


def _native(implicit: bool | None, little: bool | None) -> Any:
    """The transfer syntax of a file that names none."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if implicit is not False:
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if little is False else ExplicitVRLittleEndian
