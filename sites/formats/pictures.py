"""Pictures of cameras, scanners and screens: PNG, JPEG, TIFF, BMP and WebP, by way of Pillow."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sites.formats import sizes, tiff
from sites.formats.picture import Array, Picture, checked, limits, size, spread
from sites.formats.unreadable import Unreadable, blaming

_ORIENTATION = 0x112  # a tag of EXIF

_ZEROS, _END = 64, b"\xff\xd9"  # bytes at the end that tell something, and how a JPEG ends

_UNKNOWN = (
    "is a picture that is damaged, cut off or of a rare kind (such as floats of 64 bits, or channels that are no "
    "colours): get it again, save it as PNG of 8 or 16 bits, or its numbers as NPY"
)

# Pillow raises these of damaged files.
_ERRORS = (SyntaxError, struct.error, zlib.error, TypeError, LookupError, AttributeError, OverflowError)

_AS = {
    "1": ("L", None),
    "P": ("RGB", "the palette was applied"),
    "PA": ("RGB", "the palette was applied"),
    "LA": ("L", "transparency was left out"),
    "La": ("L", "transparency was left out"),
    "RGBA": ("RGB", "transparency was left out"),
    "RGBa": ("RGB", "transparency was left out"),
    "RGBX": ("RGB", None),
    "CMYK": ("RGB", "CMYK colours were made RGB"),
    "YCbCr": ("RGB", None),
}  # Pillow's modes: what they are made, and what to say of it
_PLAIN = ("L", "RGB", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def claim(file: Path) -> sizes.Claim:
    """How large a picture is, by its header.

    Raises:
        Unreadable: it is damaged, or has more pixels than is safe.
    """
    with blaming("a picture", *_ERRORS), _identified():
        return sizes.picture(file)


def read(file: Path) -> Picture:
    """A picture with its palette, orientation and transparency seen to.

    Raises:
        Unreadable: it is damaged, has several pages, or colours of an unknown kind.
    """
    from PIL import Image, ImageOps

    blamed = blaming("a picture", *_ERRORS, Image.DecompressionBombError)
    # Given a stream, Pillow reads; given a name, it maps some TIFFs, and forgets to turn these.
    with (
        blamed,
        _identified(),
        file.open("rb") as stream,
        Image.open(stream, formats=sizes.PICTURES) as opened,
    ):
        name = {"MPO": "JPEG", "WEBP": "WebP"}.get(opened.format or "", opened.format or "")
        if (pages := getattr(opened, "n_frames", 1)) > 1 and opened.format != "MPO":
            advice = "save each as a file of its own, or a volume as NIfTI"
            raise Unreadable("several pages", f"has {pages} pages, expected one image: {advice}")
        tiff.supported(opened)
        if name in ("JPEG", "WebP"):
            _whole(file)
        notes = _said(opened)
        opened.load()
        values, further = _values(ImageOps.exif_transpose(opened))
        stored = tuple(reversed(opened.size))
        values, done = tiff.numbers(opened, values)
    values = checked(values)
    first = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    pixels = np.ascontiguousarray(spread(first))
    return Picture(pixels, name, size(stored), *limits(values), notes=(*notes, *further, *done))


def _whole(file: Path) -> None:
    """Refuse a file of which only the start is there: its decoder makes a picture of whatever follows.

    Some programs ask for a file's room before they fill it, so that a copy that was broken off ends in zeros. Cameras
    fill up with them, too, after the end.

    Raises:
        Unreadable: it ends in zeros where its picture has not ended.
    """
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _ZEROS))
        if stream.read().strip(b"\0"):
            return
        stream.seek(0)
        content = stream.read()
    if not content.rstrip(b"\0").endswith(_END):
        zeros = len(content) - len(content.rstrip(b"\0"))
        message = f"ends in {zeros:,} zeros, before its picture does: it is a copy that was broken off; get it again"
        raise Unreadable("cut off", message)


@contextmanager
def _identified() -> Iterator[None]:
    """Say what to save a picture as that Pillow does not know."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError as error:
        raise Unreadable("damaged", _UNKNOWN) from error


def _said(opened: Any) -> tuple[str, ...]:
    """What is to be known of a picture, asked before its pixels are expanded."""
    coding = (
        str(opened.tile[0][3]) if opened.tile else ""
    )  # first, since asking for EXIF may expand the pixels
    cut = len(opened.getbands()) > 1 and ";16" in coding
    turned = opened.getexif().get(_ORIENTATION, 1) in range(2, 9)
    return (
        *("of several pictures in the file (MPO) the first was read",) * (getattr(opened, "n_frames", 1) > 1),
        *("turned as the EXIF orientation says",) * turned,
        *("of 16 bits per colour the upper 8 were read",) * cut,
        *tiff.further(opened),
    )


def _values(image: Any) -> tuple[Array, tuple[str, ...]]:
    """A picture as (H, W) or (H, W, 3), and what was done to it.

    Raises:
        Unreadable: its colours are of an unknown kind.
    """
    if image.mode in _PLAIN:
        values = np.asarray(image)
        return values.astype(np.uint16) if image.mode.startswith("I;16") else values, ()
    if image.mode not in _AS:
        message = (
            f"has colours of the kind {image.mode}, expected grey, RGB, a palette or CMYK: save it as PNG"
        )
        raise Unreadable("colours of an unknown kind", message)
    mode, note = _AS[image.mode]
    return np.asarray(image.convert(mode)), (note,) if note else ()
