"""Score a run folder: measures of every model and control, bands, differences, verdicts, groups treated unequally."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
from threadpoolctl import threadpool_limits

from fedunlearn import files
from fedunlearn.core import RequestId
from fedunlearn.scoring import judging
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.evidence.reading import Run, read
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.lineup import Lineup, line_up
from fedunlearn.scoring.measures import memorisation
from fedunlearn.scoring.measures.catalogue import measures_of
from fedunlearn.scoring.measuring import Measured, later
from fedunlearn.scoring.together import together
from fedunlearn.scoring.years import tables as years

WRITTEN = (
    "scores.parquet",
    "statistics.parquet",
    "verdicts.parquet",
    "patients.parquet",
    "requests.parquet",
    "bias.parquet",
    "roc.parquet",
    "memorisation.parquet",
)
"""What `score` writes of every run, the last only where there are shadow models; of a year, `years.WRITTEN` too."""
ADDED = ("roc.parquet",)
"""Those of `WRITTEN` that runs of older versions lack until they are scored again."""


def score(run: Path, workers: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write what `tables` says of a run folder into it; return its scores and verdicts.

    Args:
        run: the folder.
        workers: see `tables`.

    Raises:
        RunError: see `tables`; or a file cannot be written.
    """
    found = tables(run, workers=workers)
    for name, table in found.items():
        with files.replacing(run / name) as temporary:
            table.to_parquet(temporary, index=False)
    return found["scores.parquet"], found["verdicts.parquet"]


def tables(run: Path, margins: Margins | None = None, workers: int | None = None) -> dict[str, pd.DataFrame]:
    """Read a run folder; return what is to be written to it, by file (`WRITTEN`).

    Beside `scores.parquet` stand the judgements (`judgement.tables`): `verdicts.parquet`, two answers for every
    strategy; `patients.parquet`, what is left of each patient; `requests.parquet`, what a request's models let anybody
    see; and `statistics.parquet`, what all that rests on. `roc.parquet` shows the attack by loss at all rates (`roc`).

    Every request has rows that need no strategy. ``original``: do nothing. ``retrained``: the reference.
    ``retrained_other``: the retrained model of the next seed (of the first, after the last) as if it were a strategy;
    not there with one seed. Its mean over seeds is the retrained models' own, so what it shows is the noise.
    ``damaged``: the original model's answers, dealt to the images at random; it has no rows of cost.
    Where there are shadow models, `memorisation.parquet` is written too (`memorisation`); where requests came in over a
    year, `calendar.parquet`, `memory.parquet`, `years.parquet` and `policies.parquet` (`years`).

    ``retrained`` is the value of the retrained model of the same seed; ``low`` and ``high`` the 95 % bootstrap interval
    by patient (NaN for costs and where a single patient stands behind a value); ``null_low`` and ``null_high`` the
    retrained-versus-retrained band of the mean over seeds (see `band`). A measure that is undefined on a group has no
    row there. A request in the middle of training costs what unlearning cost; training on afterwards is not counted;
    the original model's cost is always that of its whole training.

    Args:
        run: the folder.
        margins: to judge with; None for those that its manifest has.
        workers: how many models are measured at once, which changes no number; None for one per core, 4 at most.

    Raises:
        RunError: a file is missing or damaged, or a reference model is missing or diverged.
    """
    content = read(run)
    content = content if margins is None else replace(content, margins=margins)
    requests = list(dict.fromkeys(comparison.request for comparison in content.comparisons))
    # The matrices are small: a product on several cores would only be in the way of other models.
    with threadpool_limits(1, "blas"), together(workers) as pool:
        # The next request is lined up beside this one: what is worked out first is worked out by one thread.
        lineups = (pool.beside(partial(_lined_up, content, one)) for one in requests)
        waiting, following = list[Callable[[], dict[str, pd.DataFrame]]](), next(lineups, None)
        while following is not None:
            this, following = following, next(lineups, None)
            waiting.append(pool.beside(partial(judging.tables, *judging.judge(*this(), pool))))
        found = [result() for result in waiting]
    written = {
        name: pd.concat([of[name] for of in found], ignore_index=True)
        for name in WRITTEN
        if all(name in of for of in found)
    }
    if content.shadows:
        written["memorisation.parquet"] = memorisation.table(content.images, content.kind, content.shadows)
    with threadpool_limits(1, "blas"):  # as many threads, as many orders of adding up
        return written | years.tables(content, written["statistics.parquet"])


def _lined_up(run: Run, request: RequestId) -> tuple[Lineup, Measured]:
    """A request's models, and the measures of its first retrained one: what the images decide, all others find done."""
    frame, measures, kind = run.frame(request), measures_of(run.kind), scored(run.kind)
    lineup = line_up(run, request, frame, measures, later(measures, frame, kind.biased, kind.tested))
    return lineup, lineup.retrained(0)
