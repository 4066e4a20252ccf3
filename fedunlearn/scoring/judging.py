"""Judge a strategy's models as soon as the last of them is measured, and keep no more of them than tables say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from operator import itemgetter

import numpy as np
import pandas as pd

from fedunlearn.scoring.attacks import roc
from fedunlearn.scoring.attacks.roc import Curves
from fedunlearn.scoring.evidence import Floats, Ints
from fedunlearn.scoring.judgement.band import bands
from fedunlearn.scoring.judgement.bench import Bench
from fedunlearn.scoring.judgement.bias import compare, gaps
from fedunlearn.scoring.judgement.difference import CONTROLS, Difference, Whole, differences
from fedunlearn.scoring.judgement.verdict import PROBED, Findings, evidence
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.lineup import Entrant, Lineup, Models
from fedunlearn.scoring.measuring import Measured, intervals
from fedunlearn.scoring.together import Together

COLUMNS = (
    "request",
    "strategy",
    "seed",
    "measure",
    "group",
    "value",
    "low",
    "high",
    "retrained",
    "null_low",
    "null_high",
    "n",
)
"""Of ``scores.parquet``."""


@dataclass(frozen=True, eq=False)
class Rows:
    """One model's rows of ``scores.parquet``, column by column, which takes a quarter of the memory of tuples.

    Attributes:
        measures, groups: (n,) what each is of.
        numbers: (4, n) value, low, high and the retrained model's value.
        images: (n,) how many images each speaks for.
    """

    measures: list[str]
    groups: list[str]
    numbers: Floats
    images: Ints


@dataclass(frozen=True, eq=False)
class Judged:
    """What is kept of the models of a strategy, or of a control.

    Attributes:
        strategy: its label.
        rows: by seed; None where it has no model.
        differences: from retrained models, by measure.
        findings: what its answers rest on; None of the retrained models themselves.
        bias: its rows of ``bias.parquet``.
        curves: how the attack by loss goes on each of its models.
    """

    strategy: str
    rows: tuple[Rows | None, ...]
    differences: Mapping[str, Difference]
    findings: Findings | None
    bias: pd.DataFrame
    curves: Sequence[Curves]


@dataclass(frozen=True, eq=False)
class Judge:
    """Who judges the models of a request.

    Attributes:
        lineup, bench: what all of them are compared with, and judged by.
        retrained: by seed, the measures of the retrained models.
    """

    lineup: Lineup
    bench: Bench
    retrained: Sequence[Measured]

    def judged(self, models: Models, known: Collection[str] = ()) -> Judged:
        """What is to be kept of ``models``; ``known`` are the measures by which the original's differ."""
        strategy = models.strategy
        apart = self._differences(models)
        rows = tuple(
            None if own is None else _rows(own, reference)
            for own, reference in zip(models.measured, self.retrained, strict=True)
        )
        findings = None if strategy == "retrained" else self._findings(models, apart, known)
        return Judged(strategy, rows, apart, findings, self._bias(models), models.curves)

    def _differences(self, models: Models) -> Mapping[str, Difference]:
        wholes = [
            {"retrained": self._whole(reference)}
            | ({} if own is None else {models.strategy: self._whole(own)})
            for own, reference in zip(models.measured, self.retrained, strict=True)
        ]
        lineup = self.lineup
        return differences(wholes, lineup.measures, lineup.frame).get(models.strategy, {})

    def _whole(self, measured: Measured) -> Whole:
        """What differences are taken of."""
        measures = self.lineup.measures
        wanted = (name for name in measured if measures[name].margin is not None and "all" in measured[name])
        return {name: measured[name]["all"] for name in wanted}

    def _findings(self, models: Models, apart: Mapping[str, Difference], known: Collection[str]) -> Findings:
        quality = [own.get(self.bench.quality, {}) for own in models.measured if own is not None]
        lacking = self._lacking(models.strategy, apart, known)
        return self.bench.findings(models.recalled, quality, apart, models.diverged, lacking)

    def _lacking(self, strategy: str, apart: Collection[str], known: Collection[str]) -> list[str]:
        """The evidence that the original's models have, and not all of a strategy's.

        Controls have fewer references, and models of a strategy's earlier rounds are not probed.
        """
        if strategy in CONTROLS:
            return []
        stop = any(strategy in one.stops for one in self.lineup.comparisons)
        return [
            name
            for name in evidence(bool(self.lineup.run.shadows))
            if name in known and name not in apart and not (stop and name.startswith(PROBED))
        ]

    def _bias(self, models: Models) -> pd.DataFrame:
        """How a strategy, or doing nothing, treats groups; untold if one of its models diverged or is not there."""
        strategy, lineup = models.strategy, self.lineup
        every = [own for own in models.measured if own is not None]
        whole = len(every) == len(self.retrained) and not models.diverged
        found = {}
        if whole and (strategy == "original" or strategy not in CONTROLS):
            compared = scored(lineup.run.kind).biased
            pairs = zip(every, self.retrained, strict=True)
            found[strategy] = [gaps(lineup.frame, compared, own, reference) for own, reference in pairs]
        return compare(lineup.request, found)


def judge(lineup: Lineup, first: Measured, pool: Together) -> tuple[Judge, list[Judged]]:
    """Measure and judge the models of a request: who judged them, and what was found, controls first.

    Few strategies at a time, so that little more than their models and the references is held at once.

    Args:
        lineup: of the request.
        first: the measures of the retrained model of the first seed.
        pool: who works. No work waits for other work that was begun later.
    """
    retrained = [first, *pool.each(lineup.retrained, range(1, len(lineup.known)))]
    bench = pool.beside(partial(lineup.bench, retrained))

    def measured(task: tuple[Entrant, int]) -> tuple[Entrant, int, Measured]:
        of, i = task
        return of, i, lineup.measured(of, i, retrained[i])

    def judged(of: Entrant, models: Mapping[int, Measured], known: Callable[[], Judged] | None) -> Judged:
        told = Judge(lineup, bench(), retrained)
        return told.judged(lineup.models(of, models, told.bench), known().differences if known else ())

    found = list[Callable[[], Judged]]()
    tasks = ((of, i) for of in lineup.entrants() for i in of.seeds)
    for of, several in groupby(pool.each(measured, tasks), itemgetter(0)):
        models, known = {i: one for _, i, one in several}, found[0] if found else None  # the original's
        found.append(pool.beside(partial(judged, of, models, known)))
    told = Judge(lineup, bench(), retrained)
    original, *others = (result() for result in found)
    return told, [original, told.judged(lineup.references(retrained)), *others]


def _rows(measured: Measured, reference: Measured) -> Rows:
    flat = [(name, group, one) for name, of in measured.items() for group, one in of.items()]
    retrained = [reference.get(name, {}).get(group) for name, group, _ in flat]
    ends = np.array(intervals([one for *_, one in flat]), dtype=np.float64).reshape(-1, 2)
    numbers = np.array(
        [
            [one.value for *_, one in flat],
            ends[:, 0],
            ends[:, 1],
            [float("nan") if one is None else one.value for one in retrained],
        ],
        dtype=np.float64,
    )
    images = np.array([one.n for *_, one in flat], dtype=np.int64)
    return Rows([name for name, *_ in flat], [group for _, group, _ in flat], numbers, images)


def tables(judge: Judge, judged: Sequence[Judged]) -> dict[str, pd.DataFrame]:
    """The tables of one request, by file: of all strategies, after the controls."""
    lineup, bench = judge.lineup, judge.bench
    findings = {one.strategy: one.findings for one in judged if one.findings is not None}
    apart = {one.strategy: one.differences for one in judged if one.differences}
    bias = [one.bias for one in judged if len(one.bias)] or [judged[0].bias]
    scores = _scores(lineup, judged)
    nulls = bands(scores[scores["strategy"] == "retrained"], lineup.measures)
    scores = scores.merge(nulls, on=["measure", "group"], how="left", validate="many_to_one")
    return {
        "scores.parquet": scores[list(COLUMNS)],
        **bench.tables(lineup.request, findings, apart),
        "bias.parquet": pd.concat(bias, ignore_index=True),
        "roc.parquet": roc.table(lineup.request, lineup.frame, {one.strategy: one.curves for one in judged}),
    }


def _scores(lineup: Lineup, judged: Sequence[Judged]) -> pd.DataFrame:
    """``scores.parquet`` without bands, seed by seed."""
    every = [
        (one.strategy, comparison.seed, rows)
        for i, comparison in enumerate(lineup.comparisons)
        for one in judged
        if (rows := one.rows[i]) is not None
    ]
    counts = [rows.images.size for *_, rows in every]
    value, low, high, retrained = np.concatenate([rows.numbers for *_, rows in every], axis=1)
    return pd.DataFrame(
        {
            "request": lineup.request,
            "strategy": np.repeat([strategy for strategy, *_ in every], counts),
            "seed": np.repeat([seed for _, seed, _ in every], counts),
            "measure": list(chain.from_iterable(rows.measures for *_, rows in every)),
            "group": list(chain.from_iterable(rows.groups for *_, rows in every)),
            "value": value,
            "low": low,
            "high": high,
            "retrained": retrained,
            "n": np.concatenate([rows.images for *_, rows in every]),
        }
    )
