"""Slices of volumes with the contours that models and labels draw in them, as a picture; by matplotlib.

A `Picture` is values only: what is drawn, kept beside the drawing (`packed`), so that it can be drawn again. The same
values give the same bytes. Axes of volumes are taken to run to the right, to the front and up, as NIfTI's are made to:
then a slice's first axis is drawn to the right and its second one up.
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedunlearn.results.columns import called
from fedunlearn.results.wording import safe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Array = npt.NDArray[Any]

COLUMNS = 8
"""The most columns of one line; what does not fit goes on in further lines, each with the references again."""

_CELL, _GAP, _LEFT = 1.7, 0.08, 1.3  # inches: a cell's width, space, the words beside a row
_HEADING, _CAPTION, _TITLE, _LEGEND, _NOTE = (
    0.4,
    0.24,
    0.19,
    0.17,
    0.13,
)  # inches: heights, of a line of text each
_ENTRY, _LETTER = 1.1, 0.07  # inches: the width of an entry of the legend, at least; and of a letter in it
_LONGEST = 30
"""Letters of a class's name that the legend shows."""
_DPI = 140
_SALT = {"svg.hashsalt": "fedunlearn"}  # else ids in an SVG are drawn at random
_UNKNOWN: Mapping[str, Any] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}
"""What a file would say of the moment and the program it was made by and at."""
_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00", "#0072B2")
"""Told apart by who is colour-blind (Okabe and Ito, "Color Universal Design", 2008)."""


@dataclass(frozen=True, eq=False)
class Row:
    """One volume, in one slice.

    Attributes:
        words: what it is, a line each, the first one in bold.
        image: (A, B) its pixels there.
        labels: (A, B) its labels there.
        predicted: by model, (A, B) the classes it gives there; a model that diverged is left out.
        dice: by model, the mean Dice of the whole volume, in [0, 1]; NaN where it is undefined.
    """

    words: tuple[str, ...]
    image: Array
    labels: Array
    predicted: Mapping[str, Array]
    dice: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Picture:
    """What a picture is drawn from.

    Attributes:
        title: what it is about.
        note: what there is to know about it, a paragraph each.
        classes: how many there are; class 0 is the background and has no contour.
        references: models in the order of their columns, in every line.
        others: further models.
        rows: volumes in the order of their rows.
        names: what classes are called, the background among them; empty where they have no names.
    """

    title: str
    note: tuple[str, ...]
    classes: int
    references: tuple[str, ...]
    others: tuple[str, ...]
    rows: tuple[Row, ...]
    names: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------- as arrays


def packed(picture: Picture) -> dict[str, Array]:
    """A picture as arrays by name, for an NPZ file; texts are arrays of strings."""
    arrays: dict[str, Array] = {
        "title": np.array(picture.title),
        "note": np.array(picture.note, dtype=str),
        "classes": np.array(picture.classes),
        "references": np.array(picture.references, dtype=str),
        "others": np.array(picture.others, dtype=str),
        "names": np.array(picture.names, dtype=str),
    }
    for number, row in enumerate(picture.rows):
        arrays[f"{number}/words"] = np.array(row.words, dtype=str)
        arrays[f"{number}/image"], arrays[f"{number}/labels"] = row.image, row.labels
        arrays |= {f"{number}/predicted/{model}": there for model, there in row.predicted.items()}
        arrays |= {f"{number}/dice/{model}": np.array(value) for model, value in row.dice.items()}
    return arrays


def unpacked(arrays: Mapping[str, Array]) -> Picture:
    """The picture that `packed` made arrays of."""

    def texts(name: str) -> tuple[str, ...]:
        return tuple(str(text) for text in arrays[name])

    def of_models(prefix: str) -> dict[str, Array]:
        return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}

    numbers = itertools.takewhile(lambda n: f"{n}/words" in arrays, itertools.count())
    rows = [
        Row(
            texts(f"{n}/words"),
            arrays[f"{n}/image"],
            arrays[f"{n}/labels"],
            of_models(f"{n}/predicted/"),
            {model: float(value) for model, value in of_models(f"{n}/dice/").items()},
        )
        for n in numbers
    ]
    models = texts("references"), texts("others")
    names = texts("names") if "names" in arrays else ()  # older runs drew numbers
    return Picture(str(arrays["title"]), texts("note"), int(arrays["classes"]), *models, tuple(rows), names)


# -------------------------------------------------------------------------------------------- the drawing


def png(picture: Picture) -> bytes:
    """The drawing as a PNG file."""
    return content(lambda: figure(picture))


def content(draw: Callable[[], Figure], kind: str = "png") -> bytes:
    """A drawing as a file: of the same drawing the same bytes, whenever it is made and whatever a user's settings are.

    Args:
        draw: makes it.
        kind: png, pdf or svg.
    """
    from matplotlib import style  # here, since it takes a second

    file = io.BytesIO()
    with style.context(["default", _SALT]):  # not a matplotlibrc of the user's
        draw().savefig(file, format=kind, dpi=_DPI, metadata=_UNKNOWN[kind])
    return file.getvalue()


def figure(picture: Picture) -> Figure:
    """The drawing: volumes below one another; beside one another the labels and what every model makes of them."""
    lines = _lines(picture)
    width = _LEFT + (1 + max(map(len, lines))) * (_CELL + _GAP)
    title, note = _wrapped([picture.title], width, 0.092), _wrapped(picture.note, width, 0.058)
    tall = [_CELL * _proportion(row.image) for row in picture.rows]
    classes = _classes(picture)
    entry = max(_ENTRY, 0.5 + _LETTER * max(map(len, classes), default=0))
    entries = max(1, int(width / entry))  # of the legend, in one line of it
    legend = 2 * _GAP + _TITLE * len(title)
    top = legend + _LEGEND * math.ceil(picture.classes / entries)
    block = _HEADING + sum(tall) + _CAPTION * len(tall) + _GAP
    end = top + block * len(lines)
    page = Page.blank(width, end + _NOTE * len(note) + 2 * _GAP)
    page.text(_GAP, _GAP, "\n".join(title), 11, weight="bold")
    _legend(page, classes, legend, entries)
    for number, line in enumerate(lines):
        _line(page, picture, line, top + number * block, tall)
    page.text(_GAP, end + _GAP, "\n".join(note), 7.5, color="0.3")
    return page.figure


def colours(classes: int) -> list[str]:
    """The colour of each class but the background, in hexadecimal."""
    if classes - 1 <= len(_COLOURS):
        return list(_COLOURS[: classes - 1])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["turbo"](x)) for x in np.linspace(0.2, 0.9, classes - 1)]


@dataclass(frozen=True, eq=False)
class Page:
    """A figure that is filled from its upper left corner, in inches."""

    figure: Figure
    width: float
    height: float

    @staticmethod
    def blank(width: float, height: float) -> Page:
        """An empty one."""
        from matplotlib.figure import Figure  # here, since it takes a second

        return Page(Figure((width, height), facecolor="white"), width, height)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float,
        align: str = "left",
        vertical: str = "top",
        color: str = "black",
        weight: str = "normal",
    ) -> Text:
        """Write words; the place is that of their corner which ``align`` and ``vertical`` name."""
        place = x / self.width, 1 - y / self.height
        look = {"ha": align, "va": vertical, "color": color, "weight": weight, "linespacing": 1.25}
        return self.figure.text(*place, safe(words), look, size=size, parse_math=False)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """A frame for an image."""
        low = 1 - (y + height) / self.height
        box = (x / self.width, low, width / self.width, height / self.height)
        axes = self.figure.add_axes(box, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes


def _lines(picture: Picture) -> list[tuple[str, ...]]:
    """The models of each line of columns, which has one column more, for the labels."""
    others, room = picture.others, COLUMNS - 1 - len(picture.references)
    count = max(1, math.ceil(len(others) / room))
    each = math.ceil(len(others) / count)
    return [(*picture.references, *others[n * each : (n + 1) * each]) for n in range(count)]


def _line(page: Page, picture: Picture, models: Sequence[str], top: float, tall: Sequence[float]) -> None:
    """A line of columns: headings, then every volume."""
    places = [_LEFT + number * (_CELL + _GAP) for number in range(len(models) + 1)]
    for x, name in zip(places, ["labels", *models], strict=True):
        words = textwrap.wrap(called(name), 20, max_lines=2, placeholder="…")
        for up, word in enumerate(reversed(words)):
            y = top + _HEADING - 0.06 - 0.155 * up
            page.text(x + _CELL / 2, y, word, 9, "center", "baseline", weight="bold")
    y = top + _HEADING
    for row, height in zip(picture.rows, tall, strict=True):
        name, *words = (word if len(word) <= 18 else f"{word[:17]}…" for word in row.words)
        page.text(_GAP, y + height / 2, name, 9, vertical="bottom", weight="bold")
        page.text(_GAP, y + height / 2, "\n".join(words), 8)
        _slice(page.axes(places[0], y, _CELL, height), row, None, picture.classes)
        for x, model in zip(places[1:], models, strict=True):
            axes, middle = page.axes(x, y, _CELL, height), x + _CELL / 2
            if model not in row.predicted:
                page.text(middle, y + height / 2, "diverged:\nno picture", 8, "center", "center", "0.4")
                continue
            _slice(axes, row, row.predicted[model], picture.classes)
            page.text(middle, y + height + 0.03, _dice(row.dice[model]), 8, "center")
        y += height + _CAPTION


def _slice(axes: Axes, row: Row, predicted: Array | None, classes: int) -> None:
    """A slice in grey, and in it what is ``predicted``, over the labels as white dashes; else the labels alone."""
    low, high = np.percentile(row.image, [0.5, 99.5])
    most = high + (high - low) / 4  # so that nothing is as bright as the dashes
    axes.imshow(row.image.T, cmap="gray", vmin=low, vmax=most, origin="lower", interpolation="nearest")
    if predicted is not None:
        for number in range(1, classes):
            contour(axes, row.labels == number, "white", 0.9, "dashed")
    for number, colour in enumerate(colours(classes), 1):
        contour(axes, (row.labels if predicted is None else predicted) == number, colour, 1.2, "solid")
    wide, high = row.image.shape
    axes.set(xlim=(-0.5, wide - 0.5), ylim=(-0.5, high - 0.5))  # contours reach beyond


def contour(axes: Axes, mask: Array, colour: str, width: float, style: str) -> None:
    """The outline of ``mask``, a little inside, so that the outlines of neighbours lie beside one another."""
    if not mask.any():
        return  # matplotlib would warn
    around = np.pad(mask.T.astype(float), 1)
    y, x = (np.arange(n) - 1 for n in around.shape)
    axes.contour(x, y, around, levels=[0.65], colors=[colour], linewidths=width, linestyles=style)


def _classes(picture: Picture) -> list[str]:
    """What the legend calls every class but the background."""
    own = dict(enumerate(picture.names))
    names = (own.get(n, str(n)) for n in range(1, picture.classes))
    told = (f"class {name}" if name.isdecimal() else name for name in names)
    return [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in told]


def _legend(page: Page, classes: Sequence[str], y: float, columns: int) -> None:
    from matplotlib.lines import Line2D

    drawn = zip(colours(len(classes) + 1), classes, strict=True)
    solid = [Line2D([], [], color=colour, label=safe(name)) for colour, name in drawn]
    dashed = Line2D([], [], color="0.5", linestyle="dashed", linewidth=0.8, label="labels (white)")
    page.figure.legend(
        handles=[*solid, dashed],
        loc="upper left",
        bbox_to_anchor=(_GAP / page.width, 1 - y / page.height),
        ncols=columns,
        fontsize=8,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
    )


def _dice(value: float) -> str:
    return "Dice n/a" if math.isnan(value) else f"Dice {value:.2f}"


def _proportion(image: Array) -> float:
    """Height of an image's cell divided by its width; what is longer or wider is drawn smaller."""
    wide, high = map(int, image.shape)
    return min(max(high / wide, 0.6), 1.4)


def _wrapped(paragraphs: Iterable[str], width: float, letter: float) -> list[str]:
    """Paragraphs as lines of ``width`` inches, letters taking ``letter`` each."""
    return [line for text in paragraphs for line in textwrap.wrap(text, int(width / letter))]
