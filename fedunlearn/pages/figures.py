"""A page's figures: what is drawn, how to read it, and the table behind it.

Charts are drawn once for screens and paper, and once for phones: nothing of a still picture can be laid out anew.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import pandas as pd

from fedunlearn.charts import balance, dots, lines, parts, work
from fedunlearn.charts.layers import Spec
from fedunlearn.pages.tables import Table
from fedunlearn.results import frames
from fedunlearn.results.held import Held

WIDE, NARROW = 1080, 330
"""How many pixels wide every chart is drawn."""


Draw = Callable[[Spec], tuple[Future[str], ...]]
"""Has a chart drawn, `WIDE` and `NARROW` (`charts.painters`)."""


@dataclass(frozen=True)
class Picture:
    """An SVG element that may still be drawn.

    Attributes:
        svg: its text.
        id: what its ids begin with: they are no other picture's, even where another looks the same.
    """

    svg: Future[str]
    id: str

    def __html__(self) -> str:
        """As Jinja takes it, once it is there."""
        own = self.svg.result().replace('id="clip', f'id="{self.id}-clip')
        return own.replace("url(#clip", f"url(#{self.id}-clip")


@dataclass(frozen=True)
class Figure:
    """A chart.

    Attributes:
        id: of the element.
        title: what it shows.
        caption: how to read it.
        wide, narrow: of the same values.
        table: what it was drawn from; None where that is beside it, as the caption says.
    """

    id: str
    title: str
    caption: str
    wide: Picture
    narrow: Picture
    table: Table | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of figure.

    Attributes:
        name: ends the element's id.
        frame: what it is drawn from.
        chart: what that is made into.
        title, caption: see `Figure`.
    """

    name: str
    frame: Callable[[Held, str], pd.DataFrame]
    chart: Callable[[pd.DataFrame], Spec]
    title: str
    caption: str


MEMORY = Kind(
    "memory",
    frames.memory,
    dots.memory,
    "How much of each patient is left",
    "One mark is one patient: 0 as if never seen, 100 as in the original model. Grey: where honest retrainings lie. "
    "Bar: the mean with its 95 % interval; dashed: how much may be left of it. Numbers: below, under “Every patient”.",
)

TRADEOFF = Kind(
    "tradeoff",
    frames.useful,
    balance.tradeoff,
    "How good it still is, and what it cost",
    "Right: more work for the hospitals, in % of training anew. Up: better on unseen images than retraining, down: "
    "worse. Bars: 95 %; dashed: how much may be lost. Best is near the line, far to the left. Numbers: in the table "
    "above.",
)
GROUPS = Kind(
    "groups",
    frames.groups,
    parts.groups,
    "Who pays: every hospital, class and group",
    "One mark is one strategy: quality on unseen images less that of retraining; left of the line, worse. Grey: where "
    "honest retrainings lie; black: how much may be lost. Named are those beyond it, with their 95 % interval.",
)
CURVES = Kind(
    "curves",
    frames.curves,
    lines.curves,
    "Images to forget, round by round",
    "Left of the vertical line: training. Right of it: unlearning and recovery, and training anew. Bands: least and "
    "most over seeds. Who forgets comes to where training anew ends.",
)
VALIDATION = Kind(
    "validation",
    frames.curves,
    partial(lines.curves, part="validation"),
    "Unseen images, round by round",
    "The same models on validation images. Who stays good comes back to where training anew ends.",
)
ROC = Kind(
    "roc",
    frames.roc,
    lines.roc,
    "Can an attack tell the images to forget from unseen ones?",
    "Across: unseen images wrongly taken for known ones; up: images to forget that are found. Both axes are "
    "logarithmic, since an attack that is sure of a few patients harms them. Grey: where training anew lies. "
    "Diagonal: guessing.",
)
RELEARNING = Kind(
    "relearning",
    frames.relearning,
    lines.relearning,
    "How fast they are known again",
    "Loss on the images to forget when training on them again. Who falls faster than training anew had kept something.",
)
PROBES = Kind(
    "probes",
    frames.probes,
    work.probes,
    "What a little more training brings back",
    "After each probe; the line is training anew after the same.",
)
COSTS = Kind(
    "costs",
    frames.costs,
    work.costs,
    "Work of the hospitals",
    "Each in % of training anew. Everything else that it cost is in the table.",
)


def figure(
    kind: Kind, run: Held, request: str, prefix: str, draw: Draw, table: Table | None = None
) -> tuple[Figure, ...]:
    """A figure of a request; none where there is nothing to draw."""
    frame = kind.frame(run, request)
    if frame.empty:
        return ()
    id = f"{prefix}-{kind.name}-figure"
    return (Figure(id, kind.title, kind.caption, *pictures(draw, kind.chart(frame), id), table),)


def pictures(draw: Draw, chart: Spec, id: str) -> tuple[Picture, Picture]:
    """A chart, wide and narrow."""
    wide, narrow = draw(chart)
    return Picture(wide, f"{id}-0"), Picture(narrow, f"{id}-1")
