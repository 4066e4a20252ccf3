"""From the numbers that a DICOM file stores to greys, in the standard's order (PS3.4 N.2, PS3.3 C.7.6.3, C.7.9, C.11).

Stored values are made physical ones (modality table or rescaling), these are made greys (VOI table or window), and
MONOCHROME1 is turned over last, about the whole range. Padding has no part in any range, and is black.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, MutableSequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sites.formats.picture import HIGHEST, LOWEST, Array, limits, scaled
from sites.formats.unreadable import Unreadable

Greys = npt.NDArray[np.uint8]

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_INVERTED = "white is 0 (MONOCHROME1): inverted"
_PADDED = "padding was left out, and is black"
_UNLIKE = "slices have windows of their own: spread between the percentiles of all"


@dataclass(frozen=True)
class Window:
    """Which values are greys between black and white (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    centre: float
    width: float
    function: str

    def greys(self, values: Array) -> Greys:
        """Values as 0…255."""
        exact = values.astype(np.float64)
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):  # far outside it is 0
                made = 255 / (1 + np.exp(-4 * (exact - self.centre) / self.width))
            return made.round().astype(np.uint8)
        if self.function == "LINEAR_EXACT":
            return scaled(exact, self.centre - self.width / 2, self.centre + self.width / 2)
        low, high = self.centre - 0.5 - (self.width - 1) / 2, self.centre - 0.5 + (self.width - 1) / 2
        if low == high:  # a width of 1 is a threshold
            return np.where(exact > low, 255, 0).astype(np.uint8)
        return scaled(exact, low, high)


@dataclass(frozen=True)
class Table:
    """A grey, or a physical value, for each of a row of whole numbers (PS3.3 C.11.1.1 and C.11.2.1.1)."""

    first: int
    entries: tuple[int, ...]
    bits: int

    def looked_up(self, values: Array) -> Array:
        """Entries; beyond the table those at its ends."""
        places = np.rint(values).astype(np.int64) - self.first
        found: Array = np.asarray(self.entries)[np.clip(places, 0, len(self.entries) - 1)]
        return found

    def greys(self, values: Array) -> Greys:
        """Values as 0…255."""
        return scaled(self.looked_up(values).astype(np.float64), 0, 2**self.bits - 1)


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
    look, notes = _look(header, voi)
    shown = _unpadded(stored, header)
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    eight = header.BitsStored == 8 and not header.PixelRepresentation
    if header.BitsStored == 1:
        physical, eight = physical * 255, True
    notes += (_INVERTED,) * inverted + (_PADDED,) * (shown is not None)
    return Values(physical, shown, look, eight and not changed and look is None, inverted, notes)


def together(slices: Iterator[Values], count: int) -> Values:
    """``count`` slices as one volume.

    Raises:
        Unreadable: they do not belong together.
    """
    first = next(slices)
    physical = np.empty((count, *first.physical.shape), np.float32)
    shown, looks, plain, notes = (
        np.ones(physical.shape, np.bool_),
        {first.look},
        first.plain,
        dict[str, None](),
    )
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
    look = first.look if len(looks) == 1 else None
    further = () if len(looks) == 1 else (_UNLIKE,)
    whole = None if shown.all() else shown
    return Values(physical, whole, look, plain, first.inverted, (*notes, *further))


def coloured(stored: Array, header: Any) -> Greys:
    """Numbers of a palette as colours: (..., 3) uint8."""
    names = ("Red", "Green", "Blue")
    if "SegmentedRedPaletteColorLookupTableData" in header:
        from pydicom.pixels.processing import apply_color_lut

        made = apply_color_lut(stored, header)[..., :3]
        return scaled(made.astype(np.float64), 0, np.iinfo(made.dtype).max)
    tables = (_table(header, header, f"{name}PaletteColorLookupTable") for name in names)
    return np.stack([table.greys(stored) for table in tables], axis=-1)


def _physical(stored: Array, header: Any, item: Any) -> tuple[Array, bool]:
    """Values after the modality transformation, and whether that changed them.

    Raises:
        Unreadable: they are all made one.
    """
    if item.get("ModalityLUTSequence"):
        return _table(item.ModalityLUTSequence[0], header, "LUT").looked_up(stored), True
    slope, intercept = (_number(item, name) for name in ("RescaleSlope", "RescaleIntercept"))
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0:
        raise Unreadable(
            "a slope of 0", "has a RescaleSlope of 0, which makes all values one: export it again"
        )
    if (slope, intercept) == (1.0, 0.0):
        return stored, False
    return stored.astype(np.float64) * slope + intercept, True


def _look(header: Any, item: Any) -> tuple[Window | Table | None, tuple[str, ...]]:
    """What makes greys of values, and what is to be known of it.

    Raises:
        Unreadable: the function is none of the standard's.
    """
    if tables := item.get("VOILUTSequence"):
        several = ("of several VOI tables the first was used",) * (len(tables) > 1)
        return _table(tables[0], header, "LUT"), ("scaled by the VOI table", *several)
    centre, width = (_number(item, name) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None, ()
    function = str(item.get("VOILUTFunction") or "LINEAR").upper()
    if function not in _FUNCTIONS:
        message = (
            f"has the VOI LUT function {function!r}, expected one of {', '.join(_FUNCTIONS)}: export it again"
        )
        raise Unreadable("an unknown VOI LUT function", message)
    if width < 1 if function == "LINEAR" else width <= 0:
        return None, ("a window without width was left out",)
    several = ("of several windows the first was used",) * _several(item, "WindowWidth")
    return Window(centre, width, function), ("scaled by the window", *several)


def _unpadded(stored: Array, header: Any) -> npt.NDArray[np.bool_] | None:
    """Which values are no padding (PS3.3 C.7.5.1.1.2); None if all are."""
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


def _table(item: Any, header: Any, name: str) -> Table:
    """A table of an item, whose elements start with ``name``.

    Raises:
        Unreadable: it has not as many entries as it says.
    """
    count, first, bits = (int(one) for one in item[f"{name}Descriptor"].value)
    count, first = count or 2**16, first - 2**16 if header.PixelRepresentation and first >= 2**15 else first
    data = item[f"{name}Data"].value
    if isinstance(data, bytes):
        width = 1 if len(data) < 2 * count else 2
        entries = np.frombuffer(data, f"{'<' if _little(header) else '>'}u{width}")
        bits = 8 * width if width == 1 or "Palette" in name else bits
    else:
        entries = np.atleast_1d(np.asarray(data))
    if len(entries) < count:
        message = f"has a table of {len(entries)} entries, expected {count} as it says: export it again"
        raise Unreadable("a short table", message)
    return Table(first, tuple(entries[:count].tolist()), bits)


def _little(header: Any) -> bool:
    return bool(header.original_encoding[1] is not False)


def _number(item: Any, name: str) -> float | None:
    """The first value of an element; None if it has none."""
    value = item.get(name)
    if isinstance(value, MutableSequence):
        value = value[0] if value else None
    if value is None or value == "":
        return None
    number = float(value)
    if not np.isfinite(number):
        raise Unreadable("a number that is none", f"has {number} as {name}: export it again")
    return number


def _several(item: Any, name: str) -> bool:
    value: object = item.get(name)
    return bool(isinstance(value, MutableSequence) and len(value) > 1)
