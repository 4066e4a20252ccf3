"""Score a run folder: every measure of every model and of the controls, the bands, the differences, the verdicts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from fedunlearn.core import RequestId, RunError, derive
from fedunlearn.scoring.band import bands
from fedunlearn.scoring.difference import CONTROLS, Difference, Whole, differences, table as statistics
from fedunlearn.scoring.evidence import Answers, Estimate, Estimates, Evidence, Frame
from fedunlearn.scoring.measures import COSTS, Measure, measures_of
from fedunlearn.scoring.reading import Comparison, Run, read
from fedunlearn.scoring.verdict import Diverged, verdicts

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
Measured = Mapping[str, Estimates]


@dataclass(frozen=True)
class _Scored:
    """What is known of one request.

    Attributes:
        scores: its rows of `scores.parquet`.
        differences: by strategy and measure.
        diverged: its models that are not finite.
    """

    scores: pd.DataFrame
    differences: Mapping[str, Mapping[str, Difference]]
    diverged: Sequence[Diverged]


@dataclass(frozen=True)
class _Compared:
    """What is known of one request and seed: the measures of every model by strategy, and which diverged."""

    models: dict[str, Measured] = field(default_factory=dict)
    diverged: list[Diverged] = field(default_factory=list)


def score(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a run folder, write its `scores.parquet` and `verdicts.parquet`, and return both.

    Beside them stands `statistics.parquet`: the differences that verdicts rest on (`difference.table`).

    Every request has rows that need no strategy. ``original``: do nothing. ``retrained``: the reference.
    ``retrained_other``: the retrained model of the next seed (of the first, after the last) as if it were a strategy;
    not there with one seed. Its mean over seeds is the retrained models' own, so what it shows is the noise.
    ``damaged``: the original model's answers, dealt to the images at random; it has no rows of cost.

    ``retrained`` is the value of the retrained model of the same seed; ``low`` and ``high`` the 95 % bootstrap interval
    by patient (NaN for costs and where a single patient stands behind a value); ``null_low`` and ``null_high`` the
    retrained-versus-retrained band of the mean over seeds (see `band`). A measure that is undefined on a group has no
    row there. A request in the middle of training costs what unlearning cost; training on afterwards is not counted;
    the original model's cost is always that of its whole training.

    Raises:
        RunError: a file is missing or damaged, or a reference model is missing or diverged.
    """
    content = read(run)
    requests = list(dict.fromkeys(comparison.request for comparison in content.comparisons))
    with threadpool_limits(
        1, "blas"
    ):  # the matrices are small: more threads would only get in one another's way
        found = {request: _request(content, request) for request in requests}
    scores = pd.concat([one.scores for one in found.values()], ignore_index=True)
    apart = {request: one.differences for request, one in found.items()}
    judged = verdicts(scores, apart, [lost for one in found.values() for lost in one.diverged])
    tables = [statistics(request, of_request) for request, of_request in apart.items()]
    _write(scores, run / "scores.parquet")
    _write(pd.concat(tables, ignore_index=True), run / "statistics.parquet")
    _write(judged, run / "verdicts.parquet")
    return scores, judged


def measure(evidence: Evidence[Any], measures: Mapping[str, Measure], reference: Measured | None) -> Measured:
    """Every measure of one model.

    Args:
        evidence: what is known of it.
        measures: by name, in order.
        reference: the retrained model's; None if it is the retrained model that is measured.
    """
    measured: dict[str, Estimates] = {}
    against = measured if reference is None else reference
    for name, one in measures.items():
        measured[name] = one.function(replace(evidence, measured=measured, reference=against))
    return measured


def _request(run: Run, request: RequestId) -> _Scored:
    """The scores of one request, the differences, and which models diverged."""
    frame, measures = run.frame(request), measures_of(run.kind)
    comparisons = [comparison for comparison in run.comparisons if comparison.request == request]
    rows: list[tuple[Any, ...]] = []
    wholes: list[Mapping[str, Whole]] = []
    diverged: list[Diverged] = []
    for comparison in comparisons:
        compared = _compare(run, frame, comparison, comparisons, measures)
        rows += _rows(comparison, compared.models)
        wholes.append({strategy: _whole(m, measures) for strategy, m in compared.models.items()})
        diverged += compared.diverged
    scores = pd.DataFrame(rows, columns=[c for c in COLUMNS if not c.startswith("null")])
    nulls = bands(scores[scores["strategy"] == "retrained"], measures)
    scores = scores.merge(nulls, on=["measure", "group"], how="left", validate="many_to_one")
    return _Scored(scores[list(COLUMNS)], differences(wholes, measures, frame), diverged)


def _whole(measured: Measured, measures: Mapping[str, Measure]) -> Whole:
    """What differences are taken of; the rest need not be kept until the last seed is read."""
    wanted = (name for name in measured if measures[name].margin is not None and "all" in measured[name])
    return {name: measured[name]["all"] for name in wanted}


def _compare(
    run: Run,
    frame: Frame,
    comparison: Comparison,
    comparisons: Sequence[Comparison],
    measures: Mapping[str, Measure],
) -> _Compared:
    """The measures of every model of one request and seed; ``comparisons`` are all of the request."""
    forgets = run.forgets[comparison.request][0]
    original = _reference(run, frame, comparison.original)
    retrained = _reference(run, frame, comparison.retrained)
    retraining = run.spent("retrained", forgets, "retrained", comparison.seed)
    known: Evidence[Answers] = Evidence(
        frame=frame,
        original=original,
        retrained=retrained,
        unlearned=retrained,
        spent=retraining,
        retraining=retraining,
        seed=derive(comparison.seed, "scoring", "attack", comparison.request),
    )
    reference = measure(known, measures, None)
    training = run.spent("original", "", "original", comparison.seed)
    models = {
        "original": measure(replace(known, unlearned=original, spent=training), measures, reference),
        "retrained": reference,
    }
    if len(comparisons) > 1:
        other = comparisons[(comparisons.index(comparison) + 1) % len(comparisons)]
        spent = run.spent("retrained", forgets, "retrained", other.seed)
        answers = _reference(run, frame, other.retrained)
        models["retrained_other"] = measure(
            replace(known, unlearned=answers, spent=spent), measures, reference
        )
    free = {name: one for name, one in measures.items() if name not in COSTS}
    models["damaged"] = measure(
        replace(known, unlearned=_damaged(original, comparison.seed)), free, reference
    )
    compared = _Compared(models)
    for strategy in comparison.strategies:
        _add(compared, strategy, run, known, comparison, measures)
    return compared


def _add(
    to: _Compared,
    strategy: str,
    run: Run,
    known: Evidence[Answers],
    comparison: Comparison,
    measures: Mapping[str, Measure],
) -> None:
    """The measures of a strategy's model; of a diverged one only what it cost."""
    if strategy in CONTROLS:
        raise RunError(f"{run.path}: a strategy is called {strategy!r}, which is the name of a control")
    model, reference = comparison.strategies[strategy], to.models["retrained"]
    answers = run.answers(model, known.frame)
    spent = run.spent("unlearn", run.forgets[comparison.request][0], strategy, comparison.seed)
    if answers is not None:
        evidence = replace(known, unlearned=answers, spent=spent)
        to.models[strategy] = measure(evidence, measures, reference)
        return
    where = run.diverged.get(model, "in its answers")
    to.diverged.append(Diverged(comparison.request, strategy, comparison.seed, where))
    costs = measure(replace(known, spent=spent), COSTS, reference)
    to.models[strategy] = {**_undefined(reference), **costs}


def _damaged(original: Answers, seed: int) -> Answers:
    """The original model's answers, dealt to the images at random: a model that is certainly broken."""
    return original.mixed_up(np.random.default_rng(derive(seed, "scoring", "damaged")))


def _reference(run: Run, frame: Frame, model: str) -> Answers:
    answers = run.answers(model, frame)
    if answers is None:
        raise RunError(
            f"reference model {model} diverged (answers not finite): there is nothing to compare with"
        )
    return answers


def _undefined(like: Measured) -> dict[str, Estimates]:
    """The measures of a model whose answers are not numbers."""
    return {
        name: {group: Estimate(float("nan"), estimate.n) for group, estimate in estimates.items()}
        for name, estimates in like.items()
    }


def _rows(comparison: Comparison, models: Mapping[str, Measured]) -> list[tuple[Any, ...]]:
    rows = []
    for strategy, measured in models.items():
        for name, estimates in measured.items():
            for group, estimate in estimates.items():
                reference = models["retrained"].get(name, {}).get(group)
                value = float("nan") if reference is None else reference.value
                key = (comparison.request, strategy, comparison.seed, name, group)
                rows.append((*key, estimate.value, *estimate.interval(), value, estimate.n))
    return rows


def _write(table: pd.DataFrame, file: Path) -> None:
    """Whole or not at all."""
    temporary = file.with_name(f"{file.name}.part")
    table.to_parquet(temporary, index=False)
    os.replace(temporary, file)
