"""Score a run folder: measures of every model and control, bands, differences, verdicts, groups treated unequally."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from fedunlearn import files
from fedunlearn.core import RequestId, RunError, derive
from fedunlearn.scoring.evidence import Answers, Estimate, Estimates, Evidence, Frame, Part
from fedunlearn.scoring.evidence.reading import Comparison, Run, read
from fedunlearn.scoring.judgement.band import bands
from fedunlearn.scoring.judgement.bias import MEASURES, Gaps, comparable, compare, gaps
from fedunlearn.scoring.judgement.difference import (
    CONTROLS,
    Difference,
    Whole,
    differences,
    table as statistics,
)
from fedunlearn.scoring.judgement.verdict import Diverged, verdicts
from fedunlearn.scoring.measures import memorisation
from fedunlearn.scoring.measures.catalogue import COSTS, Measure, measures_of

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
        bias: its rows of `bias.parquet`.
    """

    scores: pd.DataFrame
    differences: Mapping[str, Mapping[str, Difference]]
    diverged: Sequence[Diverged]
    bias: pd.DataFrame


WRITTEN = (
    "scores.parquet",
    "statistics.parquet",
    "verdicts.parquet",
    "bias.parquet",
    "memorisation.parquet",
)
"""What `score` writes, the last only where there are shadow models."""


@dataclass(frozen=True)
class _Later:
    """Which replicates are read again once a model is measured; those of all models would take gigabytes.

    Attributes:
        parts: the measures that others are made of.
        whole: the measures of all images that differences are taken of.
        compared: the measures and groups that are looked at for unequal treatment.
    """

    parts: frozenset[str]
    whole: frozenset[str]
    compared: frozenset[tuple[str, str]]

    def settled(self, name: str, estimates: Estimates) -> Estimates:
        """A measure's estimates; intervals take the place of replicates that nobody reads again."""
        over = [
            group
            for group in estimates
            if (name, group) not in self.compared and not (group == "all" and name in self.whole)
        ]
        intervals = _intervals([estimates[group] for group in over])
        done = {
            group: replace(estimates[group], replicates=np.empty(0), exact=interval)
            for group, interval in zip(over, intervals, strict=True)
        }
        return {group: done.get(group, estimate) for group, estimate in estimates.items()}


def score(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write what `tables` says of a run folder into it; return its scores and verdicts.

    Raises:
        RunError: see `tables`; or a file cannot be written.
    """
    found = tables(run)
    for name, table in found.items():
        with files.replacing(run / name) as temporary:
            table.to_parquet(temporary, index=False)
    return found["scores.parquet"], found["verdicts.parquet"]


def tables(run: Path) -> dict[str, pd.DataFrame]:
    """Read a run folder; return what is to be written to it, by file (`WRITTEN`).

    Beside `scores.parquet` and `verdicts.parquet` stands `statistics.parquet`: the differences that verdicts rest on
    (`difference.table`).

    Every request has rows that need no strategy. ``original``: do nothing. ``retrained``: the reference.
    ``retrained_other``: the retrained model of the next seed (of the first, after the last) as if it were a strategy;
    not there with one seed. Its mean over seeds is the retrained models' own, so what it shows is the noise.
    ``damaged``: the original model's answers, dealt to the images at random; it has no rows of cost.
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
        found = {request: _request(content, request) for request in requests}
    scores = pd.concat([one.scores for one in found.values()], ignore_index=True)
    apart = {request: one.differences for request, one in found.items()}
    judged = verdicts(scores, apart, [lost for one in found.values() for lost in one.diverged], content.kind)
    told = [statistics(request, of_request) for request, of_request in apart.items()]
    written = {
        "scores.parquet": scores,
        "statistics.parquet": pd.concat(told, ignore_index=True),
        "verdicts.parquet": judged,
        "bias.parquet": pd.concat([one.bias for one in found.values()], ignore_index=True),
    }
    if content.shadows:
        written["memorisation.parquet"] = memorisation.table(content.images, content.kind, content.shadows)
    return written


def measure(
    evidence: Evidence[Any],
    measures: Mapping[str, Measure],
    reference: Measured | None,
    later: _Later | None = None,
) -> Measured:
    """Every measure of one model.

    Args:
        evidence: what is known of it.
        measures: by name, in order.
        reference: the retrained model's; None if it is the retrained model that is measured.
        later: what is read again later: of all else intervals take the place of replicates; None to keep them all.
    """
    measured: dict[str, Estimates] = {}
    against = measured if reference is None else reference
    for name, one in measures.items():
        found = one.function(replace(evidence, measured=measured, reference=against))
        measured[name] = found if later is None or name in later.parts else later.settled(name, found)
    if later is None or reference is None:  # others are compared with it
        return measured
    return {name: later.settled(name, estimates) for name, estimates in measured.items()}


def _request(run: Run, request: RequestId) -> _Scored:
    """The scores of one request, the differences, and which models diverged."""
    frame, measures = run.frame(request), measures_of(run.kind)
    comparisons = [comparison for comparison in run.comparisons if comparison.request == request]
    known = _known(run, frame, comparisons)
    later = _later(measures, frame, MEASURES[run.kind])
    found = [_references(run, comparisons, known, i, measures, later) for i in range(len(comparisons))]
    diverged = _strategies(run, comparisons, known, found, measures, later)
    rows = [row for c, models in zip(comparisons, found, strict=True) for row in _rows(c, models)]
    wholes = [{strategy: _whole(m, measures) for strategy, m in models.items()} for models in found]
    scores = pd.DataFrame(rows, columns=[c for c in COLUMNS if not c.startswith("null")])
    nulls = bands(scores[scores["strategy"] == "retrained"], measures)
    scores = scores.merge(nulls, on=["measure", "group"], how="left", validate="many_to_one")
    bias = compare(request, _gaps(MEASURES[run.kind], frame, comparisons, found, diverged))
    return _Scored(scores[list(COLUMNS)], differences(wholes, measures, frame), diverged, bias)


def _later(measures: Mapping[str, Measure], frame: Frame, compared: Mapping[str, Part]) -> _Later:
    return _Later(
        parts=frozenset(part for one in measures.values() for part in one.parts),
        whole=frozenset(name for name, one in measures.items() if one.margin is not None),
        compared=frozenset(
            (name, group) for name, part in compared.items() for group in comparable(frame, part)
        ),
    )


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


def _references(
    run: Run,
    comparisons: Sequence[Comparison],
    known: Sequence[Evidence[Answers]],
    i: int,
    measures: Mapping[str, Measure],
    later: _Later,
) -> dict[str, Measured]:
    """The measures of the models of the i-th seed that need no strategy: references and controls."""
    comparison, of, following = comparisons[i], known[i], (i + 1) % len(comparisons)
    reference = measure(
        _probed(run, comparison, "retrained", replace(of, siblings=of.others)), measures, None, later
    )
    training = run.spent("original", "", "original", comparison.seed)
    original = replace(of, unlearned=of.original, spent=training, siblings=of.originals)
    original = _probed(run, comparison, "original", original)
    models = {"original": measure(original, measures, reference, later), "retrained": reference}
    if following != i:
        other = known[following]
        # No model is its own reference: an attack would find it exactly as expected.
        others = tuple(known[j].retrained for j in range(len(known)) if j not in (i, following))
        control = replace(
            of, unlearned=other.retrained, spent=other.spent, others=others, siblings=other.others
        )
        models["retrained_other"] = measure(control, measures, reference, later)
    free = {name: one for name, one in measures.items() if name not in COSTS}
    damaged = replace(of, unlearned=_damaged(of.original, comparison.seed))
    return {**models, "damaged": measure(damaged, free, reference, later)}


def _strategies(
    run: Run,
    comparisons: Sequence[Comparison],
    known: Sequence[Evidence[Answers]],
    found: Sequence[dict[str, Measured]],
    measures: Mapping[str, Measure],
    later: _Later,
) -> list[Diverged]:
    """Add the measures of every strategy's models to ``found``, by seed; return which of the models diverged.

    One strategy at a time, so that no more than its models and the references are held at once.
    """
    diverged: list[Diverged] = []
    for strategy in dict.fromkeys(name for comparison in comparisons for name in comparison.strategies):
        if strategy in CONTROLS:
            raise RunError(f"{run.path}: a strategy is called {strategy!r}, which is the name of a control")
        models = [comparison.strategies.get(strategy) for comparison in comparisons]
        answers = [None if m is None else run.answers(m, known[0].frame) for m in models]
        for i, (comparison, model) in enumerate(zip(comparisons, models, strict=True)):
            if model is None:
                continue
            whose, rounds = comparison.spending(strategy)
            request = run.forgets[comparison.request][0]
            spent = run.spent("unlearn", request, whose, comparison.seed, rounds)
            siblings = tuple(a for j, a in enumerate(answers) if j != i and a is not None)
            own = replace(known[i], spent=spent, siblings=siblings)
            probed = answers[i] is not None and strategy not in comparison.stops
            own = _probed(run, comparison, strategy, own) if probed else own
            found[i][strategy] = _measured(own, answers[i], measures, found[i]["retrained"], later)
            if answers[i] is None:
                where = run.diverged.get(model, "in its answers")
                diverged.append(Diverged(comparison.request, strategy, comparison.seed, where))
    return diverged


def _probed(
    run: Run, comparison: Comparison, strategy: str, evidence: Evidence[Answers]
) -> Evidence[Answers]:
    """``evidence`` with what became of the model under the run's probes, if it has any."""
    whose = comparison.request, strategy, comparison.seed
    return replace(evidence, probed=run.probed(*whose, evidence.frame), relearnt=run.relearnt(*whose))


def _measured(
    evidence: Evidence[Answers],
    answers: Answers | None,
    measures: Mapping[str, Measure],
    reference: Measured,
    later: _Later,
) -> Measured:
    """The measures of a strategy's model; of one that diverged, its costs, and that the rest is undefined."""
    if answers is None:
        return {**_undefined(reference), **measure(evidence, COSTS, reference)}
    return measure(replace(evidence, unlearned=answers), measures, reference, later)


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
    plain = [
        i
        for i, e in enumerate(estimates)
        if e.exact is None and e.replicates.size and np.isfinite(e.replicates).all()
    ]
    found = dict[int, tuple[float, float]]()
    for start in range(0, len(plain), 256):
        some = plain[start : start + 256]
        lows, highs = np.quantile(np.stack([estimates[i].replicates for i in some]), [0.025, 0.975], axis=1)
        found |= dict(zip(some, zip(lows.tolist(), highs.tolist(), strict=True), strict=True))
    return [found[i] if i in found else e.interval() for i, e in enumerate(estimates)]
