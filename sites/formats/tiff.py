"""What Pillow leaves to be done with a TIFF: signs, white as 0, and what it would get wrong."""

from __future__ import annotations

import math
import os
import re
from typing import Any

import numpy as np

from sites.formats.picture import Array
from sites.formats.unreadable import Unreadable

_BITS, _PHOTOMETRIC, _ABOUT, _SAMPLES, _STRIPS, _PLANES = 258, 262, 270, 277, 279, 284  # tags
_TILES, _SIGNS, _DEPTH = 325, 339, 32997
_WHITE_IS_ZERO, _SEPARATE, _UNSIGNED, _SIGNED = 0, 2, 1, 2  # values of the last three of them

_DEEP = 65535  # the largest value of 16 bits
_INVERTED = "white is 0 (TIFF): inverted"
_CHANNELS = "channels beyond its colours were left out"
_IMAGEJ = re.compile(r"^ImageJ=.*^images=(\d+)", re.DOTALL | re.MULTILINE)
_SHAPED = re.compile(r'^\{"shape": \[([\d, ]+)\]')  # of tifffile, and of libraries built on it


def supported(opened: Any) -> None:
    """Refuse what Pillow reads as something else.

    Raises:
        Unreadable: it has several slices, of which it sees the first, or colours of more than 8 bits in separate
            planes, which it takes for planes of 8 bits.
    """
    if opened.format != "TIFF":
        return
    if (slices := _slices(opened)) > 1:
        message = (
            f"has {slices} slices on one page, expected one image: save it as NIfTI or NPY, or each as a file"
        )
        raise Unreadable("several pages", message)
    if len(opened.getbands()) == 1:
        return
    bits = max(opened.tag_v2.get(_BITS, (8,)))
    if opened.tag_v2.get(_PLANES) == _SEPARATE and bits > 8:
        message = (
            f"has colours of {bits} bits in separate planes: save it with its colours interleaved, or as PNG"
        )
        raise Unreadable("deep colours in separate planes", message)


def _slices(opened: Any) -> int:
    """How many slices lie on a page, which programs tell in ways of their own."""
    tags, (width, height) = opened.tag_v2, opened.size
    about, told = str(tags.get(_ABOUT, "")), 1
    if found := _IMAGEJ.search(about):
        told = int(found[1])
    elif found := _SHAPED.match(about):
        values = math.prod(int(edge) for edge in found[1].split(",") if edge.strip())
        told = values // (width * height * int(tags.get(_SAMPLES, 1)))
    # A page that was cut out of a stack may still be told of as one.
    page = sum(tags.get(_STRIPS) or tags.get(_TILES) or (1,))
    held = opened.fp.seek(0, os.SEEK_END) // max(1, page)
    return max(int(tags.get(_DEPTH, 1)), min(told, int(held)))


def further(opened: Any) -> tuple[str, ...]:
    """A note if a TIFF has channels that are no colours, nor called transparency."""
    samples = opened.tag_v2.get(_SAMPLES, 1) if opened.format == "TIFF" else 1
    return (_CHANNELS,) * (samples > len(opened.getbands()))


def numbers(opened: Any, values: Array) -> tuple[Array, tuple[str, ...]]:
    """The values (H, W) of a grey TIFF with their signs, black as the smallest, and what was done to them."""
    if opened.format != "TIFF" or values.ndim != 2:
        return values, ()
    tags = opened.tag_v2
    signs = tags.get(_SIGNS, (_UNSIGNED,))[0]
    if values.dtype == np.int32 and signs == _UNSIGNED:
        values = values.view(np.uint32)
    if values.dtype == np.uint8 and opened.mode == "L" and signs == _SIGNED:
        values = values.view(np.int8)
    # Pillow turns over what has 1 to 8 bits, and nothing else.
    if tags.get(_PHOTOMETRIC) != _WHITE_IS_ZERO or opened.mode in ("1", "L"):
        return values, ()
    if values.dtype == np.uint16:
        return _DEEP - values, (_INVERTED,)
    return values.min() + (values.max() - values), (_INVERTED,)
