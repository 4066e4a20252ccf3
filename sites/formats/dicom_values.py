"""From the numbers that a DICOM file stores to greys, in the standard's order (PS3.4 N.2, PS3.3 C.7.6.3, C.7.9, C.11).

Stored values are made physical ones (modality table or rescaling), these are made greys (VOI table or window), and
MONOCHROME1 is turned over last, about the whole range. Padding has no part in any range, and is black.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sites.formats.picture import HIGHEST, LOWEST, Array, Greys, limits, scaled
from sites.formats.unreadable import Unreadable
from sites.formats.windows import LOOKS, Table, Window, look_of, number_of, table_of

_INVERTED = "white is 0 (MONOCHROME1): inverted"
_INVERSE = "white is 0 (Presentation LUT Shape INVERSE): inverted"
_PADDED = "padding was left out, and is black"
_UNLIKE = "slices have windows of their own: spread between the percentiles of all"


@dataclass(frozen=True)
class Values:
    """Physical values, and how they become greys.

    Attributes:
        physical: (H, W), or (N, H, W) of slices.
        shown: which of them are no padding; None for all.
        look: what makes them greys; None where the file has nothing.
        plain: they are greys in 0…255 already.
        inverted: white is the smallest.
        notes: as in `sites.formats.picture.Picture`.
    """

    physical: Array
    shown: npt.NDArray[np.bool_] | None
    look: Window | Table | None
    plain: bool
    inverted: bool
    notes: tuple[str, ...]

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest, padding left out."""
        return limits(self.counting)

    @property
    def counting(self) -> Array:
        """Those that are no padding."""
        return self.physical if self.shown is None else self.physical[self.shown]

    def greys(self) -> Greys:
        """uint8 of the shape of `physical`."""
        if self.physical.ndim == 2:
            return self._greys()
        low, high = self._ends()
        made = np.empty(self.physical.shape, np.uint8)
        for number, physical in enumerate(self.physical):  # one by one, which takes less memory
            shown = None if self.shown is None else self.shown[number]
            made[number] = replace(self, physical=physical, shown=shown)._greys((low, high))
        return made

    def _ends(self) -> tuple[float, float]:
        if self.plain or self.look is not None or not self.counting.size:
            return 0.0, 0.0
        low, high = np.percentile(self.counting, (LOWEST, HIGHEST))
        return float(low), float(high)

    def _greys(self, ends: tuple[float, float] | None = None) -> Greys:
        if self.plain:
            made = np.clip(self.physical, 0, 255).astype(np.uint8)
        elif self.look is not None:
            made = self.look.greys(self.physical)
        else:
            made = scaled(self.physical.astype(np.float64), *(ends or self._ends()))
        if self.inverted:
            made = 255 - made
        return made if self.shown is None else np.where(self.shown, made, np.uint8(0))


def measured(stored: Array, header: Any, modality: Any, voi: Any) -> Values:
    """The values of one image or slice.

    Args:
        stored: (H, W), as they are in the file.
        header: of the file.
        modality: where its modality transformation stands: the header, or a functional group's item.
        voi: likewise, its window or VOI table.

    Raises:
        Unreadable: an element has a value that makes no sense.
    """
    physical, changed = _physical(stored, header, modality)
    look, notes = look_of(header, voi, signed=_below_zero(header, modality))
    shown = unpadded(stored, header)
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    # Of MONOCHROME1 it says the same once more, and inverts nothing back (PS3.3 C.11.6.1.2).
    inverse = not inverted and str(header.get("PresentationLUTShape") or "").upper() == "INVERSE"
    eight = header.BitsStored == 8 and not header.PixelRepresentation
    if header.BitsStored == 1:
        physical, eight = physical * 255, True
    notes += (_INVERTED,) * inverted + (_INVERSE,) * inverse + (_PADDED,) * (shown is not None)
    return Values(physical, shown, look, eight and not changed and look is None, inverted or inverse, notes)


def together(slices: Iterator[Values], count: int) -> Values:
    """``count`` slices as one volume.

    Raises:
        Unreadable: they do not belong together.
    """
    first = next(slices)
    physical = np.empty((count, *first.physical.shape), np.float32)
    shown, looks, notes = np.ones(physical.shape, np.bool_), {first.look}, dict[str, None]()
    plain = True
    for number, one in enumerate(itertools.chain([first], slices)):
        if one.physical.shape != first.physical.shape or one.inverted != first.inverted:
            raise Unreadable(
                "unlike slices", "has slices of several sizes or kinds: keep one series a folder"
            )
        physical[number], plain = one.physical, plain and one.plain
        if one.shown is not None:
            shown[number] = one.shown
        looks.add(one.look)
        notes |= dict.fromkeys(one.notes)
    whole = None if shown.all() else shown
    if len(looks) == 1:
        return Values(physical, whole, first.look, plain, first.inverted, tuple(notes))
    kept = (note for note in notes if note not in LOOKS)  # no window was used
    return Values(physical, whole, None, plain, first.inverted, (*kept, _UNLIKE))


def coloured(stored: Array, header: Any) -> Greys:
    """Numbers of a palette as colours: (..., 3) uint8.

    Raises:
        Unreadable: the palettes are too short, or do not belong together.
    """
    names = ("Red", "Green", "Blue")
    if "SegmentedRedPaletteColorLookupTableData" in header:
        from pydicom.pixels.processing import apply_color_lut

        made = apply_color_lut(stored, header)[..., :3]
        return scaled(made.astype(np.float64), 0, np.iinfo(made.dtype).max)
    signed = bool(header.PixelRepresentation)
    tables = [table_of(header, header, f"{name}PaletteColorLookupTable", signed=signed) for name in names]
    if max(max(table.entries) for table in tables) < 2**8:  # 8 bits in words of 16, which would be all black
        tables = [replace(table, bits=8) for table in tables]
    if len({(table.first, table.bits, len(table.entries)) for table in tables}) > 1:
        message = "has palettes of red, green and blue that do not belong together: export it again, as RGB"
        raise Unreadable("unlike palettes", message)
    return np.stack([table.greys(stored) for table in tables], axis=-1)


def _physical(stored: Array, header: Any, item: Any) -> tuple[Array, bool]:
    """Values after the modality transformation, and whether that changed them.

    Raises:
        Unreadable: they are all made one.
    """
    if item.get("ModalityLUTSequence"):
        table = table_of(item.ModalityLUTSequence[0], header, "LUT", signed=bool(header.PixelRepresentation))
        return table.looked_up(stored), True
    slope, intercept = (number_of(item, name) for name in ("RescaleSlope", "RescaleIntercept"))
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0:
        raise Unreadable(
            "a slope of 0", "has a RescaleSlope of 0, which makes all values one: export it again"
        )
    if (slope, intercept) == (1.0, 0.0):
        return stored, False
    return stored.astype(np.float64) * slope + intercept, True


def _below_zero(header: Any, item: Any) -> bool:
    """Whether there may be values below 0 after the modality transformation (PS3.3 C.11.2.1.1)."""
    if item.get("ModalityLUTSequence"):
        return False
    return bool(header.PixelRepresentation) or (number_of(item, "RescaleIntercept") or 0) < 0


def unpadded(stored: Array, header: Any) -> npt.NDArray[np.bool_] | None:
    """Which stored values are no padding (PS3.3 C.7.5.1.1.2); None if all are."""
    if stored.dtype.kind == "f":
        padding = number_of(header, "FloatPixelPaddingValue")
        return None if padding is None or not (stored == padding).any() else stored != padding
    value = header.get("PixelPaddingValue")
    if value is None or value == "":
        return None
    last = header.get("PixelPaddingRangeLimit")
    ends = [_as_stored(one, header) for one in (value, value if last in (None, "") else last)]
    shown: npt.NDArray[np.bool_] = (stored < min(ends)) | (stored > max(ends))
    return None if shown.all() else shown


def _as_stored(value: Any, header: Any) -> int:
    """A number of 16 bits as it would be in the pixels: signed if these are, whatever the file had it written as."""
    size = 1 << int(header.BitsAllocated)
    number = (int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)) % size
    return number - size if header.PixelRepresentation and number >= size // 2 else number
