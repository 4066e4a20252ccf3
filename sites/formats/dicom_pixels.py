"""The values that a DICOM file stores, as they were before it packed or compressed them."""

from __future__ import annotations

from typing import Any

from sites.formats.picture import Array, checked
from sites.formats.unreadable import Unreadable

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
"""The elements that hold pixels; a file has one of them."""

_GREY = ("MONOCHROME1", "MONOCHROME2")
_RLE = "1.2.840.10008.1.2.5"

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
    if not syntax.is_encapsulated:
        _complete(header)
    options = {**as_pixel_options(header), "bits_stored": (width := _width(header))}
    try:
        stored, about = decoder.as_array(header, **options)
    except StopIteration as error:
        message = "is a DICOM file that is cut off: it has fewer frames than it says: get it again"
        raise Unreadable("cut off", message) from error
    except RuntimeError as error:
        if syntax not in _PACKAGES:
            raise
        raise _lacking(syntax, str(error).splitlines()[-1].strip()) from error
    if (found := int(about["number_of_frames"])) != (said := int(header.get("NumberOfFrames") or 1)):
        message = f"has the pixels of {found} frames, but says {said} (NumberOfFrames): export it again"
        raise Unreadable("another number of frames", message)
    kind = str(about["photometric_interpretation"])
    colours = None if kind in _GREY else kind
    expected = 3 if colours == "RGB" else 1
    if colours not in (None, "RGB", "PALETTE COLOR") or header.SamplesPerPixel != expected:
        message = (
            f"has {header.SamplesPerPixel} values a pixel and calls them {kind}: export it as RGB or grey"
        )
        raise Unreadable("colours of an unknown kind", message)
    return _lowered(checked(stored), header, width), colours


def _complete(header: Any) -> None:
    """Refuse pixels of which some are missing.

    Raises:
        Unreadable: there are fewer bytes than its size asks for.
    """
    from pydicom.pixels.utils import get_expected_length

    found = max(len(header.get(name) or b"") for name in PIXELS)
    if found < (expected := get_expected_length(header)):
        message = (
            f"is a DICOM file that is cut off: it has {found:,} of {expected:,} bytes of pixels: get it again"
        )
        raise Unreadable("cut off", message)


def _lacking(syntax: Any, said: str = "") -> Unreadable:
    advice = f"install {_PACKAGES[syntax]}, or " if syntax in _PACKAGES else ""
    also = f"; is it damaged? ({said[:120]})" if said else ""
    found = f"has compressed pixels ({syntax.name}) that what is installed cannot decode{also}"
    message = f"{found}: {advice}export it uncompressed"
    return Unreadable(f"compressed as {syntax.name}", message)


def _width(header: Any) -> int:
    """How many bits of a value are read: those that it says are stored, and those it uses beyond them."""
    stored, allocated = int(header.BitsStored), int(header.BitsAllocated)
    syntax = header.file_meta.TransferSyntaxUID
    if "PixelData" not in header or (syntax.is_encapsulated and syntax != _RLE):
        return stored
    padding, last = (header.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    signed = int(header.PixelRepresentation)
    low, high = -(2 ** (stored - 1)) * signed, 2 ** (stored - signed)
    if any(isinstance(one, int) and not low <= one < high for one in (padding, last)):
        return allocated  # else padding becomes a value like any other
    highest = header.get("HighBit")
    return highest + 1 if isinstance(highest, int) and stored <= highest < allocated else stored


def _lowered(values: Array, header: Any, width: int) -> Array:
    """Values of ``width`` bits, of which some lie in the upper bits of theirs (PS3.5 8.1.1, before 2014).

    Raises:
        Unreadable: they lie there by the header, but not by what is found.
    """
    above = width - int(header.BitsStored)
    if width != (header.get("HighBit") or 0) + 1 or above <= 0:
        return values
    if not (values & ((1 << above) - 1)).any():
        return values >> above
    signed = int(header.PixelRepresentation)
    least = -(2 ** (int(header.BitsStored) - 1)) * signed
    if least <= values.min() and values.max() < least + 2 ** int(header.BitsStored):
        return values
    message = (
        f"says that {header.BitsStored} bits are stored, the highest of them bit {header.HighBit}, but uses "
        f"all {width}: export it again"
    )
    raise Unreadable("values in other bits than said", message)
