"""How charts look: colours with their counterparts on dark paper, type, and how numbers and names are written in them.

Colours are told apart by who is colour-blind (Okabe and Ito, "Color Universal Design", 2008), and never say anything
alone: a shape, a line's pattern or words say it too.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedunlearn.results.kinds import quality_words
from fedunlearn.results.wording import line

LONGEST = 34
"""Letters of a name that an axis shows."""
TOLD = 160
"""Letters of a name that a mark's values show."""


@dataclass(frozen=True)
class Colour:
    """A colour on white paper and its counterpart on dark paper, in hexadecimal."""

    light: str
    dark: str


COLOURS: Mapping[str, Colour] = {
    "ink": Colour("#1f2328", "#e8ecf1"),
    "muted": Colour("#57606a", "#9aa4b0"),
    "grid": Colour("#e3e7eb", "#2c333c"),
    "zone": Colour("#eceff2", "#262c35"),
    "edge": Colour("#b6bec8", "#4a535f"),
    "paper": Colour("#fefefe", "#12161c"),
    "blue": Colour("#0072b2", "#5fb2ea"),
    "red": Colour("#d55e00", "#ff8a3d"),
    "green": Colour("#009e73", "#2cc79a"),
    "amber": Colour("#b37700", "#f0b83c"),
    "pink": Colour("#b8578c", "#e79ac6"),
    "sky": Colour("#3d9bd4", "#a5d8fa"),
}
"""By what they are for. The light ones are unlike any other colour in a drawing, so that `drawn` finds them."""

SERIES = ("blue", "red", "green", "pink", "amber", "sky")
"""Of strategies that are told apart by colour, in this order."""
DASHES: tuple[list[int], ...] = ([1, 0], [6, 2], [2, 2], [8, 2, 2, 2], [4, 4], [10, 3])
"""Line patterns beside them."""


def ink(name: str) -> str:
    """One of `COLOURS` by its name, as charts write it."""
    return COLOURS[name].light


def css() -> str:
    """The variables that drawings take their colours from: a style sheet for light and dark paper."""

    def variables(dark: bool) -> str:
        return "".join(f"--chart-{name}:{c.dark if dark else c.light};" for name, c in COLOURS.items())

    return f":root{{{variables(False)}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{variables(True)}}}}}"


_TEXT = {"labelColor": ink("muted"), "titleColor": ink("muted"), "titleFontWeight": "normal"}
SIZE = 11
"""Of letters, in pixels."""
CONFIG: Mapping[str, Any] = {
    "background": ink("paper"),
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        **_TEXT,
        "domainColor": ink("edge"),
        "tickColor": ink("edge"),
        "gridColor": ink("grid"),
        "labelFontSize": SIZE,
        "titleFontSize": SIZE,
        "titlePadding": 8,
        "labelPadding": 4,
    },
    "axisY": {"labelColor": ink("ink"), "labelLimit": 190},
    "legend": {
        **_TEXT,
        "labelColor": ink("ink"),
        "labelFontSize": SIZE,
        "titleFontSize": SIZE,
        "orient": "top",
        "titleOrient": "left",
        "symbolSize": 70,
        "labelLimit": 260,
        "offset": 8,
        "columnPadding": 18,
    },
    "text": {"color": ink("muted"), "fontSize": SIZE},
}
"""How all charts look; nobody changes it."""


def names(labels: Iterable[Hashable], longest: int = LONGEST) -> dict[Hashable, str]:
    """By label, the same on one line, visible to the last mark, cut where it is too long, and no two alike."""
    found: dict[Hashable, str] = {}
    for label in dict.fromkeys(labels):
        short = cut(label, longest)
        number = 1
        while short in found.values():
            number += 1
            short = f"{cut(label, longest - 4)} ({number})"
        found[label] = short
    return found


def cut(text: object, longest: int = TOLD) -> str:
    """Text on one line, of so many letters at most."""
    whole = line(text)
    return whole if len(whole) <= longest else f"{whole[: longest - 1]}…"


def percent(share: float, sign: bool = False) -> str:
    """A share in percent."""
    if not math.isfinite(share):
        return "unknown"
    number = f"{100 * share:{'+' if sign else ''}.{0 if abs(share) >= 0.1 or not sign else 1}f} %"
    return number.replace("-", "\N{MINUS SIGN}")


def between(low: float, high: float, sign: bool = False) -> str:
    """A 95 % interval of a share, in brackets; nothing where it is unknown."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f" (95 %: {percent(low, sign)} to {percent(high, sign)})"


def quality(measures: Iterable[str]) -> str:
    """What a measure such as ``test_dice`` is of, in words."""
    kinds = {str(measure).rpartition("_")[2] for measure in measures}
    return next((word for name, word in quality_words().items() if name in kinds), "accuracy")
