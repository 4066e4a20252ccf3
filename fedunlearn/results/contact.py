"""A contact sheet: a few images of every hospital and class as the network will see them, in one picture.

Whatever was read wrongly at one hospital alone, mirrored, upside down, inverted, dark, shows beside the others. Grey
levels are drawn the same for all images, black to white over the whole range that the network is given. The same
values give the same bytes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.core import InputError
from fedunlearn.results.drawing import Page, colours, content, contour
from fedunlearn.results.wording import line

Array = npt.NDArray[Any]

ENDINGS = (".png", ".pdf", ".svg")
HOSPITALS, CLASSES = 12, 8
"""The most that are shown."""

_IMAGE, _GAP, _LEFT = 0.95, 0.06, 1.45  # inches: an image's width, space, the words beside a row
_BETWEEN, _CAPTION, _TITLE, _LINE = (
    0.22,
    0.2,
    0.22,
    0.14,
)  # inches: between cells; heights, of a line of text each
_LETTERS = {11: 0.092, 9: 0.075, 8: 0.064, 7.5: 0.058}  # inches: the width of a letter by size
_LONGEST = 24  # letters of an entry of the legend
_ACROSS = 12  # images beside one another, if there are few classes


@dataclass(frozen=True, eq=False)
class Sheet:
    """What a contact sheet is drawn from.

    Attributes:
        title: what it is about.
        pixels: (N, C, *spatial) uint8, or float in [-1, 1].
        targets: (N,) classes, or (N, *spatial) label maps.
        site: (N,) the hospital of each image.
        sites: the hospitals in the order of their rows.
        names: of the classes, in their order; their numbers where they have no other.
        unit: what an image is called.
        note: what the data is, in words, such as the names of its classes.
    """

    title: str
    pixels: Array
    targets: Array
    site: Array
    sites: tuple[str, ...]
    names: tuple[str, ...]
    unit: str = "image"
    note: str = ""

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.names)

    def called(self, number: int, what: str, room: int) -> str:
        """What a class is called, in so many letters."""
        name = line(self.names[number])
        if name == str(number):
            return f"{what} {number}"
        told = f"{number} {name}"
        return told if len(told) <= room else f"{told[: room - 1]}…"


@dataclass(frozen=True)
class _Cell:
    """A few images under one caption."""

    caption: str
    rows: tuple[int, ...]


def writable(file: Path) -> None:
    """Make sure that a picture can be written there, before anything is read for it; an older one is replaced.

    Raises:
        InputError: another kind of file is asked for, or there is no such folder.
    """
    if file.suffix.lower() not in ENDINGS:
        found = f"the ending {file.suffix!r}" if file.suffix else "no ending"
        raise InputError(
            f"{file}: found {found}, expected one of {', '.join(ENDINGS)}: name the file pictures.png, say"
        )
    if file.is_dir():
        raise InputError(f"{file} is a folder, expected a file's name: write {file}/pictures.png, say")
    if not file.absolute().parent.is_dir():
        raise InputError(f"{file}: there is no folder {file.parent}: make it, or name a file elsewhere")


def drawn(sheet: Sheet, ending: str) -> bytes:
    """The picture as a file with one of `ENDINGS`."""
    return content(lambda: figure(sheet), ending.lower().removeprefix("."))


def figure(sheet: Sheet) -> Any:
    """The drawing, as a figure of matplotlib's: a row for every hospital, a column for every class."""
    several = range(min(sheet.classes, CLASSES)) if sheet.targets.ndim == 1 else range(1)
    each = max(2, min(6, _ACROSS // len(several)))
    shown = sheet.sites[:HOSPITALS]
    tall = _IMAGE * proportion(sheet.pixels)
    wide = each * _IMAGE + (each - 1) * _GAP
    room = int(wide / _LETTERS[7.5])
    cells = [[_cell(sheet, site, number, each, room) for number in several] for site in shown]
    width = _LEFT + len(several) * (wide + _BETWEEN)
    title, note = _wrapped([sheet.title], width, 11), _wrapped(_notes(sheet), width, 7.5)
    top, block = _TITLE * len(title) + 3 * _GAP, _CAPTION + tall + 2 * _GAP
    end = top + block * len(shown)
    page = Page.blank(width, end + _LINE * len(note) + 2 * _GAP)
    page.text(_GAP, _GAP, "\n".join(title), 11, weight="bold")
    if sheet.targets.ndim > 1:
        _legend(page, sheet, top)
    for number, (site, row) in enumerate(zip(shown, cells, strict=True)):
        y = top + number * block
        _beside(page, sheet, site, y + _CAPTION)
        for place, cell in enumerate(row):
            _strip(page, sheet, cell, (_LEFT + place * (wide + _BETWEEN), y), tall)
    page.text(_GAP, end + _GAP, "\n".join(note), 7.5, color="0.3")
    return page.figure


def _cell(sheet: Sheet, site: str, number: int, most: int, room: int) -> _Cell:
    """A hospital's images of a class, spread evenly over all of them; volumes have no class of their own."""
    own = sheet.site == site
    if sheet.targets.ndim == 1:
        own = own & (sheet.targets == number)
    rows = np.flatnonzero(own)
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]
    count = f" · {_counted(len(rows), sheet.unit)}"
    caption = sheet.called(number, "class", room - len(count)) + count
    return _Cell(caption if sheet.targets.ndim == 1 else "", tuple(some.tolist()))


def _legend(page: Page, sheet: Sheet, y: float) -> None:
    """The structures in their colours, above the first row, as many as there is room for."""
    x = _LEFT
    for number, colour in enumerate(colours(sheet.classes), 1):
        words = sheet.called(number, "structure", _LONGEST)
        wide = len(words) * _LETTERS[8] + _BETWEEN
        full = x + wide + _BETWEEN > page.width and number < sheet.classes - 1
        page.text(x, y + _CAPTION - 0.04, "…" if full else words, 7.5, "left", "baseline", colour, "bold")
        x += wide
        if full:
            break


def _beside(page: Page, sheet: Sheet, site: str, y: float) -> None:
    """The words beside a hospital's row."""
    name = textwrap.wrap(site, int((_LEFT - 2 * _GAP) / _LETTERS[9]), max_lines=3, placeholder="…")
    page.text(_GAP, y, "\n".join(name), 9, weight="bold")
    count = _counted(int((sheet.site == site).sum()), sheet.unit)
    page.text(_GAP, y + 0.16 * len(name) + 0.02, count, 8, color="0.3")


def _strip(page: Page, sheet: Sheet, cell: _Cell, corner: tuple[float, float], tall: float) -> None:
    x, y = corner
    page.text(
        x, y + _CAPTION - 0.04, cell.caption, 7.5, vertical="baseline", color="black" if cell.rows else "0.5"
    )
    for place, row in enumerate(cell.rows):
        labels = sheet.targets[row] if sheet.targets.ndim > 1 else None
        axes = page.axes(x + place * (_IMAGE + _GAP), y + _CAPTION, _IMAGE, tall)
        image(axes, np.asarray(sheet.pixels[row]), labels, sheet.classes)


def image(axes: Any, pixels: Array, labels: Array | None, classes: int) -> None:
    """An image, or the middle slice of a volume along its last axis, with the outlines of its label map."""
    low, high = (0, 255) if pixels.dtype == np.uint8 else (-1, 1)
    volume = pixels.ndim == 4
    if volume:
        middle = pixels.shape[-1] // 2
        pixels, labels = pixels[..., middle], None if labels is None else labels[..., middle]
    if volume:  # as in `drawing`: the first axis to the right, the second one up
        pixels, labels = pixels.swapaxes(1, 2), None if labels is None else labels.T
    share = np.clip((pixels.astype(np.float32) - low) / (high - low), 0, 1)
    seen = np.moveaxis(share, 0, -1) if len(share) == 3 else share[0]
    axes.imshow(seen, cmap="gray", vmin=0, vmax=1, origin="lower" if volume else "upper")
    if labels is not None:
        for number, colour in enumerate(colours(classes), 1):
            contour(axes, (labels == number).T, colour, 1.0, "solid")
    tall, wide = seen.shape[:2]
    up = (-0.5, tall - 0.5) if volume else (tall - 0.5, -0.5)
    axes.set(xlim=(-0.5, wide - 0.5), ylim=up)  # contours reach beyond


def _notes(sheet: Sheet) -> list[str]:
    """What there is to know about it, a paragraph each."""
    what = f"{sheet.unit}s"
    said = [
        f"A few {what} of every hospital as the network will see them, spread over all that it has. All are drawn with "
        "the same grey levels: a hospital that looks mirrored, turned, inverted, dark or empty beside the others was "
        "probably read or taken otherwise."
    ]
    if sheet.pixels.ndim == 5:
        said.append(
            "Of a volume, the middle slice along the last axis; its first axis runs to the right, its second one up."
        )
    if sheet.targets.ndim > 1:
        said.append("Outlines: the structures of its label map; class 0 has none.")
    if more := sheet.sites[HOSPITALS:]:
        said.append(f"Not shown: {len(more)} more hospitals ({_some([line(site) for site in more])}).")
    if sheet.targets.ndim == 1 and (rest := range(CLASSES, sheet.classes)):
        said.append(
            f"Not shown: {len(rest)} more classes ({_some([line(sheet.names[number]) for number in rest])})."
        )
    return [*said, *([sheet.note] if sheet.note else [])]


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["…"] if len(names) > 5 else [])])


def _counted(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def proportion(pixels: Array) -> float:
    """Height of an image divided by its width, as it is drawn; what is longer or wider is drawn smaller."""
    tall, wide = pixels.shape[2:4] if pixels.ndim == 4 else (pixels.shape[3], pixels.shape[2])
    return float(min(max(tall / wide, 0.5), 1.6))


def _wrapped(paragraphs: Iterable[str], width: float, size: float) -> list[str]:
    """Paragraphs as lines of ``width`` inches."""
    return [part for text in paragraphs for part in textwrap.wrap(text, int(width / _LETTERS[size]))]
