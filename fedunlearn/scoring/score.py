"""Score a run folder: every measure of every model, the bands, the verdicts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
    comparisons = [comparison for comparison in run.comparisons if comparison.request == request]
    known = _known(run, frame, comparisons)
    found: list[dict[str, Measured]] = []
    for comparison, of in zip(comparisons, known, strict=True):
        training = run.spent("original", "", "original", comparison.seed)
        reference = measure(
            _probed(run, comparison, "retrained", replace(of, siblings=of.others)), measures, None
        )
        original = replace(of, unlearned=of.original, spent=training, siblings=of.originals)
        original = _probed(run, comparison, "original", original)
        found.append({"original": measure(original, measures, reference), "retrained": reference})
    diverged: list[Diverged] = []
    # One strategy at a time, so that no more than its models and the references are held at once.
    for strategy in dict.fromkeys(name for comparison in comparisons for name in comparison.strategies):
        answers = [
            run.answers(comparison.strategies[strategy], frame) if strategy in comparison.strategies else None
            for comparison in comparisons
        ]
        for i, comparison in enumerate(comparisons):
            if strategy not in comparison.strategies:
                continue
            spent = run.spent("unlearn", run.forgets[request][0], strategy, comparison.seed)
            siblings = tuple(a for j, a in enumerate(answers) if j != i and a is not None)
            own = replace(known[i], spent=spent, siblings=siblings)
            own = own if answers[i] is None else _probed(run, comparison, strategy, own)
            found[i][strategy] = _measured(own, answers[i], measures, found[i]["retrained"])
            if answers[i] is None:
                where = run.diverged.get(comparison.strategies[strategy], "in its answers")
                diverged.append(Diverged(request, strategy, comparison.seed, where))
    rows = [row for c, models in zip(comparisons, found, strict=True) for row in _rows(c, models)]
    scores = pd.DataFrame(rows, columns=[c for c in COLUMNS if not c.startswith("null")])
    nulls = bands(scores[scores["strategy"] == "retrained"], measures)
    scores = scores.merge(nulls, on=["measure", "group"], how="left", validate="many_to_one")
    return scores[list(COLUMNS)], diverged


def _known(run: Run, frame: Frame, comparisons: Sequence[Comparison]) -> list[Evidence[Answers]]:
    """What all models of a request share, by seed; the model in question is the retrained one."""
    originals = [_reference(run, frame, comparison.original) for comparison in comparisons]
    retrained = [_reference(run, frame, comparison.retrained) for comparison in comparisons]
    known = []
    for i, comparison in enumerate(comparisons):
        spent = run.spent("retrained", run.forgets[comparison.request][0], "retrained", comparison.seed)
        evidence: Evidence[Answers] = Evidence(
            frame=frame,
            original=originals[i],
            retrained=retrained[i],
            unlearned=retrained[i],
            spent=spent,
            retraining=spent,
            seed=derive(comparison.seed, "scoring", "attack", comparison.request),
            others=(*retrained[:i], *retrained[i + 1 :]),
            originals=(*originals[:i], *originals[i + 1 :]),
            shadows=run.shadows,
        )
        known.append(evidence)
    return known


def _probed(
    run: Run, comparison: Comparison, strategy: str, evidence: Evidence[Answers]
) -> Evidence[Answers]:
    """``evidence`` with what became of the model under the run's probes, if it has any."""
    whose = comparison.request, strategy, comparison.seed
    return replace(evidence, probed=run.probed(*whose, evidence.frame), relearnt=run.relearnt(*whose))


def _measured(
    evidence: Evidence[Answers], answers: Answers | None, measures: Mapping[str, Measure], reference: Measured
) -> Measured:
    """The measures of a strategy's model; of one that diverged, its costs, and that the rest is undefined."""
    if answers is None:
        return {**_undefined(reference), **measure(evidence, COSTS, reference)}
    return measure(replace(evidence, unlearned=answers), measures, reference)


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
