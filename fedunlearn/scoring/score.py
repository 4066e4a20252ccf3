"""Score a run folder: measures of every model and control, bands, differences, verdicts, groups treated unequally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from fedunlearn import files
from fedunlearn.core import RequestId
from fedunlearn.scoring.attacks import roc
from fedunlearn.scoring.attacks.roc import Curves
from fedunlearn.scoring.evidence import Frame, Part
from fedunlearn.scoring.evidence.margins import Margins
from fedunlearn.scoring.evidence.reading import Comparison, Run, read
from fedunlearn.scoring.judgement.band import bands
from fedunlearn.scoring.judgement.bench import Bench
from fedunlearn.scoring.judgement.bias import Gaps, compare, gaps
from fedunlearn.scoring.judgement.difference import CONTROLS, Difference, Whole, differences
from fedunlearn.scoring.judgement.verdict import PROBED, Diverged, Recalled, evidence
from fedunlearn.scoring.kinds import scored
from fedunlearn.scoring.lineup import Lineup, line_up
from fedunlearn.scoring.measures import memorisation
from fedunlearn.scoring.measures.catalogue import Measure, measures_of
from fedunlearn.scoring.measuring import Measured, intervals, later
from fedunlearn.scoring.together import Together, together
from fedunlearn.scoring.years import tables as years

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
        judged = [pool.beside(partial(_judged, content, _measured(content, one, pool))) for one in requests]
        found = [result() for result in judged]
    written = {
        name: pd.concat([of[name] for of in found], ignore_index=True)
        for name in WRITTEN
        if all(name in of for of in found)
    }
    if content.shadows:
        written["memorisation.parquet"] = memorisation.table(content.images, content.kind, content.shadows)
    with threadpool_limits(1, "blas"):  # as many threads, as many orders of adding up
        return written | years.tables(content, written["statistics.parquet"])


@dataclass(frozen=True, eq=False)
class _Request:
    """What was measured of a request's models.

    Attributes:
        id: whose.
        lineup, bench: what all of them are compared with, and judged by.
        found: by seed, the measures of each model.
        memory: what each strategy's models still know.
        attacked: how the attack by loss goes on them.
        diverged: the models that did.
    """

    id: RequestId
    lineup: Lineup
    bench: Bench
    found: Sequence[Mapping[str, Measured]]
    memory: Mapping[str, Recalled]
    attacked: Mapping[str, Sequence[Curves]]
    diverged: Sequence[Diverged]


def _measured(run: Run, request: RequestId, pool: Together) -> _Request:
    frame, measures, kind = run.frame(request), measures_of(run.kind), scored(run.kind)
    lineup = line_up(run, request, frame, measures, later(measures, frame, kind.biased, kind.tested))
    found = lineup.references(pool)
    bench = lineup.bench(found, measures[kind.tested])
    memory, attacked = lineup.recalled(bench), lineup.attacked()
    diverged = lineup.strategies(bench, found, memory, attacked, pool)
    return _Request(request, lineup, bench, found, memory, attacked, diverged)


def _judged(run: Run, of: _Request) -> dict[str, pd.DataFrame]:
    """The tables of one request, by file."""
    lineup, bench, found = of.lineup, of.bench, of.found
    comparisons, frame, measures = lineup.comparisons, lineup.frame, lineup.measures
    rows = [row for c, models in zip(comparisons, found, strict=True) for row in _rows(c, models)]
    wholes = [{strategy: _whole(m, measures) for strategy, m in models.items()} for models in found]
    scores = pd.DataFrame(rows, columns=[c for c in COLUMNS if not c.startswith("null")])
    nulls = bands(scores[scores["strategy"] == "retrained"], measures)
    scores = scores.merge(nulls, on=["measure", "group"], how="left", validate="many_to_one")
    bias = compare(of.id, _gaps(scored(run.kind).biased, frame, comparisons, found, of.diverged))
    apart = differences(wholes, measures, frame)
    findings = {
        strategy: bench.findings(
            of.memory.get(strategy, Recalled()),
            [models[strategy].get(bench.quality, {}) for models in found if strategy in models],
            apart.get(strategy, {}),
            [one for one in of.diverged if one.strategy == strategy],
            _lacking(run, apart, strategy, comparisons),
        )
        for strategy in dict.fromkeys(name for models in found for name in models if name != "retrained")
    }
    judged = bench.tables(of.id, findings, apart)
    attack = roc.table(of.id, frame, of.attacked)
    return {"scores.parquet": scores[list(COLUMNS)], **judged, "bias.parquet": bias, "roc.parquet": attack}


def _lacking(
    run: Run,
    apart: Mapping[str, Mapping[str, Difference]],
    strategy: str,
    comparisons: Sequence[Comparison],
) -> list[str]:
    """The evidence that the original's models have, and not all of a strategy's.

    Controls have fewer references, and models of a strategy's earlier rounds are not probed.
    """
    if strategy in CONTROLS:
        return []
    stop = any(strategy in one.stops for one in comparisons)
    asked = (name for name in evidence(bool(run.shadows)) if not (stop and name.startswith(PROBED)))
    return [
        name for name in asked if name in apart.get("original", {}) and name not in apart.get(strategy, {})
    ]


def _gaps(
    compared: Mapping[str, Part],
    frame: Frame,
    comparisons: Sequence[Comparison],
    found: Sequence[Mapping[str, Measured]],
    diverged: Sequence[Diverged],
) -> dict[str, list[Mapping[str, Gaps]]]:
    """How groups are treated, by those of the seeds that did not diverge: by doing nothing and by every strategy."""
    lost = {(one.strategy, one.seed) for one in diverged}
    apart: dict[str, list[Mapping[str, Gaps]]] = {}
    for comparison, models in zip(comparisons, found, strict=True):
        for strategy in ("original", *comparison.strategies):
            if (strategy, comparison.seed) not in lost:
                own = gaps(frame, compared, models[strategy], models["retrained"])
                apart.setdefault(strategy, []).append(own)
    return apart


def _whole(measured: Measured, measures: Mapping[str, Measure]) -> Whole:
    """What differences are taken of; the rest need not be kept until the last seed is read."""
    wanted = (name for name in measured if measures[name].margin is not None and "all" in measured[name])
    return {name: measured[name]["all"] for name in wanted}


def _rows(comparison: Comparison, models: Mapping[str, Measured]) -> list[tuple[Any, ...]]:
    rows = []
    found = iter(intervals([e for m in models.values() for es in m.values() for e in es.values()]))
    for strategy, measured in models.items():
        for name, estimates in measured.items():
            for group, estimate in estimates.items():
                reference = models["retrained"].get(name, {}).get(group)
                value = float("nan") if reference is None else reference.value
                key = (comparison.request, strategy, comparison.seed, name, group)
                rows.append((*key, estimate.value, *next(found), value, estimate.n))
    return rows
