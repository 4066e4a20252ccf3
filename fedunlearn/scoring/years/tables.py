"""The tables of a year of requests."""

from __future__ import annotations

import pandas as pd

from fedunlearn.scoring.evidence.reading import Run
from fedunlearn.scoring.years import answers, course, memory, summary
from fedunlearn.scoring.years.models import looking

WRITTEN = ("calendar.parquet", "memory.parquet", "years.parquet", "policies.parquet")


def tables(run: Run, statistics: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What is written of a run's year, by file (`WRITTEN`); nothing of a run without one.

    Args:
        run: the folder.
        statistics: ``statistics.parquet``.

    Raises:
        RunError: a file of signals is missing or damaged.
    """
    if run.year is None:
        return {}
    look = looking(run, run.year)
    seen = look.all_seen()
    calendar, recalled = answers.table(run.year), memory.table(look, seen)
    gone_through = course.table(run, run.year, seen, recalled)
    came_to = summary.table(run.kind, run.year, calendar, recalled, gone_through, statistics)
    return dict(zip(WRITTEN, (calendar, recalled, gone_through, came_to), strict=True))
