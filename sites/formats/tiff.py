"""What Pillow leaves to be done with a TIFF: signs, white as 0, and what it would get wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from sites.formats.picture import Array
from sites.formats.unreadable import Unreadable

_BITS, _PHOTOMETRIC, _PLANES, _SIGNS = 258, 262, 284, 339  # tags
_WHITE_IS_ZERO, _SEPARATE, _UNSIGNED, _SIGNED = 0, 2, 1, 2  # values of the last three of them

_DEEP = 65535  # the largest value of 16 bits
_INVERTED = "white is 0 (TIFF): inverted"


def supported(opened: Any) -> None:
    """Refuse what Pillow reads as something else.

    Raises:
        Unreadable: colours of more than 8 bits lie in separate planes, which it takes for planes of 8 bits.
    """
    if opened.format != "TIFF" or len(opened.getbands()) == 1:
        return
    bits = max(opened.tag_v2.get(_BITS, (8,)))
    if opened.tag_v2.get(_PLANES) == _SEPARATE and bits > 8:
        message = (
            f"has colours of {bits} bits in separate planes: save it with its colours interleaved, or as PNG"
        )
        raise Unreadable("deep colours in separate planes", message)


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
