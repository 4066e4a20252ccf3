"""Score a run folder: every measure of every model, the bands, the verdicts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from fedunlearn.core import RequestId, RunError, derive
from fedunlearn.scoring import memorisation
from fedunlearn.scoring.band import bands
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
    """Read a run folder, write its `scores.parquet` and `verdicts.parquet`, and return both.

    Where there are shadow models, `memorisation.parquet` is written too (`memorisation`).

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
    scores = pd.concat([table for table, _ in tables], ignore_index=True)
    judged = verdicts(scores, [lost for _, several in tables for lost in several])
    _write(scores, run / "scores.parquet")
    _write(judged, run / "verdicts.parquet")
    if content.shadows and content.kind in memorisation.SIGNALS:
        _write(
            memorisation.table(content.images, content.kind, content.shadows), run / "memorisation.parquet"
        )
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


def _request(run: Run, request: RequestId) -> tuple[pd.DataFrame, list[Diverged]]:
    """The scores of one request, and which models diverged."""
    frame, measures = run.frame(request), measures_of(run.kind)
    rows: list[tuple[Any, ...]] = []
    diverged: list[Diverged] = []
    for comparison in run.comparisons:
        if comparison.request == request:
            models, failed = _compare(run, frame, comparison, measures)
            rows += _rows(comparison, models)
            diverged += failed
    scores = pd.DataFrame(rows, columns=[c for c in COLUMNS if not c.startswith("null")])
    nulls = bands(scores[scores["strategy"] == "retrained"], measures)
    scores = scores.merge(nulls, on=["measure", "group"], how="left", validate="many_to_one")
    return scores[list(COLUMNS)], diverged


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
        shadows=run.shadows,
    )

    def probed(evidence: Evidence[Answers], strategy: str) -> Evidence[Answers]:
        whose = comparison.request, strategy, comparison.seed
        return replace(evidence, probed=run.probed(*whose, frame), relearnt=run.relearnt(*whose))

    reference = measure(probed(known, "retrained"), measures, None)
    training = run.spent("original", "", "original", comparison.seed)
    models = {
        "original": measure(
            probed(replace(known, unlearned=original, spent=training), "original"), measures, reference
        ),
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
            evidence = probed(replace(known, unlearned=answers, spent=spent), strategy)
            models[strategy] = measure(evidence, measures, reference)
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
