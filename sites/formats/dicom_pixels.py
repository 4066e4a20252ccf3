"""The values that a DICOM file stores, as they were before it packed or compressed them."""

from __future__ import annotations

from typing import Any

from sites.formats.codestreams import edges
from sites.formats.dicom_bits import of_words
from sites.formats.picture import Array, checked
from sites.formats.unreadable import Unreadable

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
"""The elements that hold pixels; a file has one of them."""

_BEYOND = "more bytes of pixels than its size asks for: those at the end were left out"

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
    options = as_pixel_options(header)
    if "PixelData" in header and (not syntax.is_encapsulated or syntax == _RLE):
        options["bits_stored"] = options["bits_allocated"]  # all of them, not cut to what the header says
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
    if syntax.is_encapsulated:
        _of_one_size(header, found)
    kind = str(about["photometric_interpretation"])
    colours = None if kind in _GREY else kind
    expected = 3 if colours == "RGB" else 1
    if colours not in (None, "RGB", "PALETTE COLOR") or header.SamplesPerPixel != expected:
        message = (
            f"has {header.SamplesPerPixel} values a pixel and calls them {kind}: export it as RGB or grey"
        )
        raise Unreadable("colours of an unknown kind", message)
    return of_words(checked(stored), header), colours


def beyond(header: Any) -> tuple[str, ...]:
    """A note if there are more bytes of pixels than the size of a file asks for."""
    from pydicom.pixels.utils import get_expected_length

    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        return ()
    expected = get_expected_length(header)
    return (_BEYOND,) * (max(len(header.get(name) or b"") for name in PIXELS) > expected + expected % 2)


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


def _of_one_size(header: Any, count: int) -> None:
    """Refuse frames whose streams tell another size than the file: their rows would be cut at wrong places.

    Raises:
        Unreadable: they do.
    """
    from pydicom.encaps import generate_frames

    said = int(header.Rows), int(header.Columns)
    for stream in generate_frames(header.PixelData, number_of_frames=count):
        if (found := edges(stream)) not in (None, said):
            message = (
                f"has compressed pixels of {found[0]} × {found[1]}, but says {said[0]} × {said[1]} (Rows, Columns): "
                "export it again"
            )
            raise Unreadable("another size than said", message)


def _lacking(syntax: Any, said: str = "") -> Unreadable:
    advice = f"install {_PACKAGES[syntax]}, or " if syntax in _PACKAGES else ""
    also = f"; is it damaged? ({said[:120]})" if said else ""
    found = f"has compressed pixels ({syntax.name}) that what is installed cannot decode{also}"
    message = f"{found}: {advice}export it uncompressed"
    return Unreadable(f"compressed as {syntax.name}", message)
