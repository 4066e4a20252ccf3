"""What makes greys of the values of DICOM: windows and tables (PS3.3 C.11.1, C.11.2, C.7.9)."""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sites.formats.picture import Array, Greys, scaled
from sites.formats.unreadable import Unreadable

_TABLE, _WINDOW = "scaled by the VOI table", "scaled by the window"
_TABLES, _WINDOWS = "of several VOI tables the first was used", "of several windows the first was used"
_NARROW = "a window without width was left out"
LOOKS = frozenset({_TABLE, _WINDOW, _TABLES, _WINDOWS, _NARROW})
"""What `look_of` may have to say."""

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


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


def look_of(header: Any, item: Any, *, signed: bool) -> tuple[Window | Table | None, tuple[str, ...]]:
    """What makes greys of values, and what is to be known of it.

    Args:
        header: of the file.
        item: where its window or VOI table stands.
        signed: values may be below 0.

    Raises:
        Unreadable: the function is none of the standard's.
    """
    if tables := item.get("VOILUTSequence"):
        several = (_TABLES,) * (len(tables) > 1)
        return table_of(tables[0], header, "LUT", signed=signed), (_TABLE, *several)
    centre, width = (number_of(item, name) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None, ()
    function = str(item.get("VOILUTFunction") or "LINEAR").upper()
    if function not in _FUNCTIONS:
        message = (
            f"has the VOI LUT function {function!r}, expected one of {', '.join(_FUNCTIONS)}: export it again"
        )
        raise Unreadable("an unknown VOI LUT function", message)
    if width < 1 if function == "LINEAR" else width <= 0:
        return None, (_NARROW,)
    several = (_WINDOWS,) * _several(item, "WindowWidth")
    return Window(centre, width, function), (_WINDOW, *several)


def table_of(item: Any, header: Any, name: str, *, signed: bool) -> Table:
    """A table of an item.

    Args:
        item: where it stands.
        header: of the file, whose order of bytes it has.
        name: what its elements start with.
        signed: what is looked up may be below 0, so that 65535 as its first number is -1, whatever it is written as.

    Raises:
        Unreadable: it has not as many entries as it says.
    """
    count, first, bits = (int(one) for one in item[f"{name}Descriptor"].value)
    count, first = count or 2**16, first - 2**16 if signed and first >= 2**15 else first
    if bits not in range(8, 17):
        raise Unreadable(
            "a senseless table", f"has a table of {bits} bits an entry, expected 8…16: export it again"
        )
    data = item[f"{name}Data"].value
    if isinstance(data, bytes):
        width = 1 if len(data) in (count, count + 1) else 2  # programs pack 8 bits, whatever they say
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


def number_of(item: Any, name: str) -> float | None:
    """The first value of an element; None if it has none.

    Raises:
        Unreadable: it is not finite.
    """
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
