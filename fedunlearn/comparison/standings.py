"""Rankings of strategies over many runs: of memory, of usefulness and of cost, each run a block.

A run counts once: its requests share their original models, so they are no blocks of their own. So a ranking is of one
request that enough runs have, or else of the mean over a run's requests. Strategies take part that every run has, and
in a ranking over all requests, for every one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from fedunlearn.comparison.ranks import FEWEST_BLOCKS, FEWEST_STRATEGIES, Ranking, ranking
from fedunlearn.comparison.runs import Compared
from fedunlearn.results.overview import Overview, Row

ALL = ""
"""The request of a ranking that is of the mean over each run's requests."""


@dataclass(frozen=True)
class Criterion:
    """What strategies are ranked by.

    Attributes:
        name: in words.
        better: what rank 1 means.
        of: the number of a strategy at a request, smaller is better; NaN where it is not known.
    """

    name: str
    better: str
    of: Callable[[Row, Overview], float]


CRITERIA = (
    Criterion(
        "memory left",
        "nearest to retraining, above or below",
        lambda row, one: abs(row.left.value) if one.visible else math.nan,
    ),
    Criterion("use on unseen data", "the least lost against retraining", lambda row, one: -row.test.value),
    Criterion("cost", "the least work of hospitals, against retraining", lambda row, one: row.cost),
)


@dataclass(frozen=True)
class Standing:
    """A ranking, or why there is none.

    Attributes:
        request: whose; `ALL` for the mean over each run's requests.
        criterion: by what.
        runs: the numbers (from 1) of the runs that take part.
        ranking: None where `missing` says why.
        left_out: strategies that some run does not have or, over all requests, some request; or of which something is
            not known.
        missing: empty if there is a ranking.
    """

    request: str
    criterion: Criterion
    runs: tuple[int, ...]
    ranking: Ranking | None
    left_out: tuple[str, ...] = ()
    missing: str = ""


def standings(runs: Sequence[Compared]) -> list[Standing]:
    """Rankings by all criteria; none where there are fewer runs than a ranking needs."""
    if len(runs) < FEWEST_BLOCKS:
        return []
    requests = dict.fromkeys(name for run in runs for name in run.overviews)
    often = [name for name in requests if sum(name in run.overviews for run in runs) >= FEWEST_BLOCKS]
    return [_standing(runs, request, criterion) for request in often or [ALL] for criterion in CRITERIA]


def _standing(runs: Sequence[Compared], request: str, criterion: Criterion) -> Standing:
    known = {number: _values(run, request, criterion) for number, run in enumerate(runs, 1)}
    known = {number: values for number, values in known.items() if values}
    table = pd.DataFrame(known).T.astype(float) if known else pd.DataFrame()
    everywhere = table.dropna(axis="columns")
    left_out = tuple(str(name) for name in table.columns if name not in everywhere.columns)
    missing = ""
    if len(known) < FEWEST_BLOCKS:
        missing = f"only {len(known)} runs can tell; {FEWEST_BLOCKS} are needed"
    elif len(everywhere.columns) < FEWEST_STRATEGIES:
        count = len(everywhere.columns)
        missing = f"only {count} strategies are known in all of these runs; {FEWEST_STRATEGIES} are needed"
    found = None if missing else ranking(everywhere)
    return Standing(request, criterion, tuple(known), found, left_out, missing)


def _values(run: Compared, request: str, criterion: Criterion) -> Mapping[str, float]:
    """By strategy; empty where the run cannot tell of any, NaN of one that serves only some of a run's requests.

    Requests are not equally hard: a mean over the easy ones is not to be ranked beside a mean over all.
    """
    found, count = dict[str, list[float]](), len(run.overviews) if request == ALL else 1
    for name, one in run.overviews.items():
        for row in one.rows if request in (ALL, name) else ():
            found.setdefault(row.strategy, []).append(criterion.of(row, one))
    means = {
        strategy: sum(values) / count if len(values) == count else math.nan
        for strategy, values in found.items()
    }
    return means if any(math.isfinite(value) for value in means.values()) else {}


def frames_of(found: Ranking) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A ranking as `fedunlearn.charts.critical` takes it: ranks by strategy and run, and groups that are not apart."""
    rows = [
        (name, mean, rank) for (name, mean), own in zip(found.ranks, found.each, strict=True) for rank in own
    ]
    groups = [(group[0], group[-1]) for group in found.groups]
    return (
        pd.DataFrame(rows, columns=["strategy", "mean", "rank"]),
        pd.DataFrame(groups, columns=["first", "last"], dtype=object),
    )
