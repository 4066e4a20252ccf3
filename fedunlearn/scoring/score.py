"""Score a run folder: every measure of every model, the bands, the verdicts, unequal treatment of groups."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from fedunlearn.core import RequestId, RunError, derive
from fedunlearn.scoring.band import bands
from fedunlearn.scoring.bias import Gaps, compare, gaps
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


def score(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a run folder, write its `scores.parquet`, `verdicts.parquet` and `bias.parquet`; return the first two.

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
        tables = [_request(content, request) for request in requests]
    scores = pd.concat([table for table, _, _ in tables], ignore_index=True)
    judged = verdicts(scores, [lost for _, several, _ in tables for lost in several])
    _write(scores, run / "scores.parquet")
    _write(judged, run / "verdicts.parquet")
    _write(pd.concat([bias for *_, bias in tables], ignore_index=True), run / "bias.parquet")
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


def _request(run: Run, request: RequestId) -> tuple[pd.DataFrame, list[Diverged], pd.DataFrame]:
    """The scores of one request, which models diverged, and who was treated unequally."""
    frame, measures = run.frame(request), measures_of(run.kind)
    rows: list[tuple[Any, ...]] = []
    diverged: list[Diverged] = []
    apart: dict[str, list[Mapping[str, Gaps]]] = {}
    for comparison in run.comparisons:
        if comparison.request == request:
            models, failed = _compare(run, frame, comparison, measures)
            rows += _rows(comparison, models)
            diverged += failed
            for strategy in models.keys() - {"retrained", *(lost.strategy for lost in failed)}:
                apart.setdefault(strategy, []).append(gaps(frame, models[strategy], models["retrained"]))
    scores = pd.DataFrame(rows, columns=[c for c in COLUMNS if not c.startswith("null")])
    nulls = bands(scores[scores["strategy"] == "retrained"], measures)
    scores = scores.merge(nulls, on=["measure", "group"], how="left", validate="many_to_one")
    listed = [strategy for strategy in dict.fromkeys(scores["strategy"]) if strategy in apart]
    return scores[list(COLUMNS)], diverged, compare(request, {name: apart[name] for name in listed})


def _compare(
    run: Run, frame: Frame, comparison: Comparison, measures: Mapping[str, Measure]
) -> tuple[dict[str, Measured], list[Diverged]]:
    """The measures of every model of one request and seed, by strategy, and which of them diverged."""
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
    diverged = []
    for strategy, model in comparison.strategies.items():
        answers = run.answers(model, frame)
        spent = run.spent("unlearn", forgets, strategy, comparison.seed)
        if answers is None:
            where = run.diverged.get(model, "in its answers")
            diverged.append(Diverged(comparison.request, strategy, comparison.seed, where))
            models[strategy] = {
                **_undefined(reference),
                **measure(replace(known, spent=spent), COSTS, reference),
            }
        else:
            models[strategy] = measure(replace(known, unlearned=answers, spent=spent), measures, reference)
    return models, diverged


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
    intervals = iter(_intervals([e for m in models.values() for es in m.values() for e in es.values()]))
    for strategy, measured in models.items():
        for name, estimates in measured.items():
            for group, estimate in estimates.items():
                reference = models["retrained"].get(name, {}).get(group)
                value = float("nan") if reference is None else reference.value
                key = (comparison.request, strategy, comparison.seed, name, group)
                rows.append((*key, estimate.value, *next(intervals), value, estimate.n))
    return rows


def _intervals(estimates: Sequence[Estimate]) -> list[tuple[float, float]]:
    """`Estimate.interval` of each, many at once: one by one they would take as long as all measures."""
    plain = [i for i, e in enumerate(estimates) if e.replicates.size and np.isfinite(e.replicates).all()]
    found = dict[int, tuple[float, float]]()
    for start in range(0, len(plain), 256):
        some = plain[start : start + 256]
        lows, highs = np.quantile(np.stack([estimates[i].replicates for i in some]), [0.025, 0.975], axis=1)
        found |= dict(zip(some, zip(lows.tolist(), highs.tolist(), strict=True), strict=True))
    return [found[i] if i in found else e.interval() for i, e in enumerate(estimates)]


def _write(table: pd.DataFrame, file: Path) -> None:
    """Whole or not at all."""
    temporary = file.with_name(f"{file.name}.part")
    table.to_parquet(temporary, index=False)
    os.replace(temporary, file)
