"""Which bits of the words that a DICOM file stores are values, and which overlays (PS3.5 8.1.1, PS3.3 C.9.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sites.formats.dicom_values import unpadded
from sites.formats.picture import Array
from sites.formats.unreadable import Unreadable

_OVERLAYS = range(0x6000, 0x6020, 2)  # groups of elements
_WORD, _BIT, _APART = 0x0100, 0x0102, 0x3000  # elements: an overlay's word, its bit there, its own pixels


def of_words(words: Array, header: Any) -> Array:
    """The values in words of `BitsAllocated` bits: padding as it is, overlays left out.

    Args:
        words: as they are stored, whatever lies in bits that are no value's.
        header: of the file.

    Raises:
        Unreadable: bits are used that belong neither to values, by what the header says, nor to an overlay.
    """
    stored, signed = int(header.BitsStored), int(header.PixelRepresentation)
    size = 8 * words.dtype.itemsize
    least, lift = -(1 << stored - 1) * signed, _lift(header)
    if words.dtype.kind not in "iu" or stored >= min(size, int(header.BitsAllocated)):
        return words
    within = least <= words.min() and words.max() < least + (1 << stored)
    if within and not lift:
        return words
    unsigned = np.dtype(f"{words.dtype.byteorder}u{words.dtype.itemsize}")
    bits: Array = words.view(unsigned) & unsigned.type(_all(size) & ~_overlays(header, stored, lift))
    if lift and not (bits & _all(lift)).any():
        return _signed(bits >> lift, stored, words.dtype)
    if within:
        return words
    if lift:
        message = (
            f"says that {stored} bits are stored, the highest of them bit {stored + lift - 1}, but uses all "
            f"{stored + lift}: export it again"
        )
        raise Unreadable("values in other bits than said", message)
    return _lowest(bits, words, header)


def _lowest(bits: Array, words: Array, header: Any) -> Array:
    """The values in the lowest bits; where there is padding, the words.

    Raises:
        Unreadable: they use more than these.
    """
    stored, size = int(header.BitsStored), 8 * words.dtype.itemsize
    values = _signed(bits & _all(stored), stored, words.dtype)
    above = _all(size) & ~_all(stored) & ~_overlays(header, stored, 0)
    shown = unpadded(words, header) if header.SamplesPerPixel == 1 else None
    if shown is not None:
        values = np.where(shown, values, words)
    over, negative = (bits, values < 0) if shown is None else (bits[shown], values[shown] < 0)
    # A sign is written on into the bits above, or it is not; of all values alike.
    if not (over & above).any() or (over & above == np.where(negative, above, 0)).all():
        return values
    message = (
        f"says that {stored} bits of {size} are stored, but uses others, and tells of no overlay in them: export it "
        "again, or clear these bits if they are an overlay's"
    )
    raise Unreadable("values in other bits than said", message)


def _signed(bits: Array, stored: int, dtype: npt.DTypeLike) -> Array:
    """Numbers of so many bits, of which the highest is a sign if those of ``dtype`` have signs."""
    values: Array = bits.astype(dtype)
    if values.dtype.kind == "i":
        unused = 8 * values.dtype.itemsize - stored
        values = values << unused >> unused
    return values


def _lift(header: Any) -> int:
    """How many bits lie below the values, by the header (as before 2014)."""
    highest, stored = header.get("HighBit"), int(header.BitsStored)
    inside = isinstance(highest, int) and stored <= highest < int(header.BitsAllocated)
    return highest + 1 - stored if inside else 0


def _overlays(header: Any, stored: int, lift: int) -> int:
    """The bits beside the values in which overlays lie, by the header."""
    found = 0
    for group in _OVERLAYS:
        word, bit, apart = (header.get((group, element)) for element in (_WORD, _BIT, _APART))
        if apart is None and word is not None and bit is not None and word.value == header.BitsAllocated:
            found |= 1 << int(bit.value)
    return found & ~(_all(stored) << lift)


def _all(count: int) -> int:
    """That many bits, all set."""
    return (1 << count) - 1
