"""A strip of images, and below each what some models say of it: a picture, by matplotlib.

A `Strip` is values only; the same values give the same bytes.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedunlearn.results.contact import image, proportion
from fedunlearn.results.drawing import Page, content
from fedunlearn.results.wording import line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

_LEFT, _IMAGE, _GAP, _BELOW = 1.7, 1.05, 0.12, 0.5  # inches: beside rows, an image's width, space, its words
_ROW, _BAR, _TITLE, _NOTE = 0.4, 0.13, 0.22, 0.14  # inches: heights of a model's row, a bar, lines of text
_LETTERS = 18  # of a name, in the space that there is
_FULL, _REST = "#0072B2", "0.88"


@dataclass(frozen=True, eq=False)
class Strip:
    """What a strip is drawn from.

    Attributes:
        title: what it is about.
        note: what there is to know about it, a paragraph each.
        names: of the classes.
        pixels: (n, C, *spatial) uint8, or float in [-1, 1]; of volumes the middle slice is drawn.
        labels: (n,) the images' classes.
        whose: (n,) an image's id, its patient and its hospital.
        models: in the order of rows.
        said: (models, n, classes) the probabilities that they give; NaN of one that diverged.
    """

    title: str
    note: tuple[str, ...]
    names: tuple[str, ...]
    pixels: Array
    labels: Array
    whose: tuple[tuple[str, ...], ...]
    models: tuple[str, ...]
    said: npt.NDArray[np.float64]


def packed(strip: Strip) -> dict[str, Array]:
    """A strip as arrays by name, for an NPZ file; texts are arrays of strings."""
    return {
        "title": np.array(strip.title),
        "note": np.array(strip.note, dtype=str),
        "names": np.array(strip.names, dtype=str),
        "pixels": strip.pixels,
        "labels": strip.labels,
        "whose": np.array(strip.whose, dtype=str),
        "models": np.array(strip.models, dtype=str),
        "said": strip.said,
    }


def png(strip: Strip) -> bytes:
    """The drawing as a PNG file."""
    return content(lambda: figure(strip))


def figure(strip: Strip) -> Figure:
    """The drawing: images beside one another, and a row of bars for every model."""
    width = max(_LEFT + len(strip.labels) * (_IMAGE + _GAP) + _GAP, 6.0)
    title = textwrap.wrap(line(strip.title), int(width / 0.092))
    note = [part for text in strip.note for part in textwrap.wrap(line(text), int(width / 0.058))]
    tall = _IMAGE * proportion(strip.pixels)
    images = 2 * _GAP + _TITLE * len(title)
    rows = images + tall + _BELOW
    end = rows + _ROW * len(strip.models)
    page = Page.blank(width, end + _NOTE * len(note) + 2 * _GAP)
    page.text(_GAP, _GAP, "\n".join(title), 11, weight="bold")
    for number in range(len(strip.labels)):
        _column(page, strip, number, images, tall)
    for number, name in enumerate(strip.models):
        page.text(_GAP, rows + number * _ROW + _BAR / 2, _cut(name, 22), 9, vertical="center", weight="bold")
        for place in range(len(strip.labels)):
            _answer(page, strip, number, place, rows + number * _ROW)
    page.text(_GAP, end + _GAP, "\n".join(note), 7.5, color="0.3")
    return page.figure


def _column(page: Page, strip: Strip, number: int, y: float, tall: float) -> None:
    """An image, and whose it is."""
    x = _LEFT + number * (_IMAGE + _GAP)
    image(page.axes(x, y, _IMAGE, tall), strip.pixels[number], None, len(strip.names))
    _, patient, site = strip.whose[number]
    said = [_cut(patient), _cut(f"of {site}"), _cut(_class(strip, int(strip.labels[number])))]
    page.text(x, y + tall + 0.04, "\n".join(said), 7.5)


def _answer(page: Page, strip: Strip, model: int, number: int, y: float) -> None:
    """What a model says of an image."""
    x, own, label = _LEFT + number * (_IMAGE + _GAP), strip.said[model, number], int(strip.labels[number])
    if not np.isfinite(own).all():
        page.text(x, y + _BAR / 2, "diverged", 7.5, vertical="center", color="0.4")
        return
    bar = page.axes(x, y, 0.7 * _IMAGE, _BAR)
    bar.set(xlim=(0, 1), ylim=(0, 1))
    bar.barh([0.5], [1.0], 1.0, color=_REST)
    bar.barh([0.5], [own[label]], 1.0, color=_FULL)
    page.text(x + 0.74 * _IMAGE, y + _BAR / 2, _share(float(own[label])), 7.5, vertical="center")
    if (top := int(own.argmax())) != label:
        page.text(
            x, y + _BAR + 0.02, f"{_cut(_class(strip, top), 13)} {_share(float(own[top]))}", 6.5, color="0.3"
        )


def _class(strip: Strip, number: int) -> str:
    name = strip.names[number]
    return f"class {number}" if name == str(number) else name


def _share(value: float) -> str:
    """A probability in per cent, which is 100 only where it is."""
    return f"{min(math.floor(100 * value + 0.5), 99) if value < 1 else 100} %"


def _cut(text: str, most: int = _LETTERS) -> str:
    told = line(text)
    return told if len(told) <= most else f"{told[: most - 1]}…"
