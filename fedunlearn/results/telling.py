"""What a finished run came to, as events (`fedunlearn.results.events`)."""

from __future__ import annotations

from fedunlearn.results.events import Events
from fedunlearn.results.runfolder import RunFolder


def finished(run: RunFolder, told: Events) -> None:
    """What a run came to, and where it is."""
    answers(run, told)
    told.tell("written", folder=str(run.path))


def answers(run: RunFolder, told: Events, **of: object) -> None:
    """One ``result`` for every request and strategy.

    Args:
        run: a finished run's folder.
        told: where to.
        of: further fields, such as a sweep's cell.
    """
    for row in run.read_table("verdicts.parquet").to_dict("records"):
        found = {key: str(row[key]) for key in ("request", "strategy", "forgotten", "useful", "verdict")}
        told.tell("result", **of, **found)
