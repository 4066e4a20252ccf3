"""Charts: from frames (`fedunlearn.results.frames`) to descriptions in Vega-Lite, one file a chart.

Pages show them as still pictures (`painters`, `drawn`), in colours that follow the page's (`css`). The functions here
make them Altair's: interactive in notebooks, and saved by ``chart.save("x.pdf")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from fedunlearn.charts import balance, dots, lines, parts, work, years
from fedunlearn.charts.drawing import drawn, painters
from fedunlearn.charts.layers import Spec
from fedunlearn.charts.look import css

if TYPE_CHECKING:
    import altair as alt

__all__ = [
    "costs",
    "course",
    "css",
    "curves",
    "drawn",
    "frontier",
    "groups",
    "interactive",
    "memory",
    "painters",
    "probes",
    "relearning",
    "roc",
    "timeline",
    "tradeoff",
]


def interactive(chart: Spec) -> alt.LayerChart:
    """A described chart as one of Altair's."""
    import altair as alt  # here, since it takes a second

    made: alt.LayerChart = alt.LayerChart.from_dict(chart)
    return made


def memory(frame: pd.DataFrame) -> alt.LayerChart:
    """See `dots.memory`."""
    return interactive(dots.memory(frame))


def tradeoff(frame: pd.DataFrame) -> alt.LayerChart:
    """See `balance.tradeoff`."""
    return interactive(balance.tradeoff(frame))


def groups(frame: pd.DataFrame) -> alt.LayerChart:
    """See `parts.groups`."""
    return interactive(parts.groups(frame))


def costs(frame: pd.DataFrame) -> alt.LayerChart:
    """See `work.costs`."""
    return interactive(work.costs(frame))


def curves(frame: pd.DataFrame, part: str = "forget", measure: str = "") -> alt.LayerChart:
    """See `lines.curves`."""
    return interactive(lines.curves(frame, part, measure))


def roc(frame: pd.DataFrame) -> alt.LayerChart:
    """See `lines.roc`."""
    return interactive(lines.roc(frame))


def relearning(frame: pd.DataFrame) -> alt.LayerChart:
    """See `lines.relearning`."""
    return interactive(lines.relearning(frame))


def probes(frame: pd.DataFrame, measure: str = "") -> alt.LayerChart:
    """See `work.probes`."""
    return interactive(work.probes(frame, measure))


def timeline(frame: pd.DataFrame) -> alt.LayerChart:
    """See `years.timeline`."""
    return interactive(years.timeline(frame))


def course(frame: pd.DataFrame, policy: str, measure: str = "memory_left") -> alt.LayerChart:
    """See `years.course`."""
    return interactive(years.course(frame, policy, measure))


def frontier(frame: pd.DataFrame, against: str = "memory_left") -> alt.LayerChart:
    """See `years.frontier`."""
    return interactive(years.frontier(frame, against))
