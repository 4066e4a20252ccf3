"""Which measures of a run folder a person is shown, how they are headed, and the rows of each table, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from fedunlearn.results.classes import reasons
from fedunlearn.results.columns import called
from fedunlearn.results.kinds import words
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.kinds import scored

_COSTS = {"site_seconds": "site s", "bytes": "MB"}
_OF_COSTS = """site s, MB: the hospitals' work and traffic, of
the original for all of training, of the others up to the moment shown; tune s:
their work for finding a strategy's settings, once for all requests and seeds."""


def columns_of(kind: str) -> Mapping[str, str]:
    """The measures shown of a kind of task, as they are headed; `scores.parquet` has all of them."""
    return {**words(kind).columns, **_COSTS}


def tuned_of(kind: str) -> Mapping[str, str]:
    """The same where strategies were tuned: what finding their settings cost stands beside the hospitals' own work."""
    return {**columns_of(kind), "tuning_site_seconds": "tune s"}


def probed_of(kind: str) -> Mapping[str, str]:
    """Those of models that were trained a little more, in a table of their own where a run has them."""
    forget = scored(kind).on("forget")
    return {
        "relearn_epochs": "relearn",
        "relearn_ratio": "ratio",
        f"probe_{forget}": "refit",
        "probe_mia_loss_auc": "MIA AUC",
        f"resurgence_{forget}": "later",
        "resurgence_mia_loss_auc": "MIA AUC",
    }


def legend_of(kind: str) -> str:
    """How to read `columns_of`."""
    return f"{words(kind).legend} {_OF_COSTS}"


MEDIANS = ("relearn_epochs", "relearn_ratio")
"""Measures that are shown in the median over seeds: one seed that does not relearn at all would leave no mean."""

EPOCHS = {"epochs": "epochs"}
"""One more column where models were measured at horizons."""

PROBED_LEGEND = """\
After more training. relearn: epochs, trained on the images to forget, until
they are known as well as to the original, and their ratio to retraining's
(below 1: memory left; medians; ∞: not in the epochs given). refit: forget
and MIA AUC once the last layer alone is refitted on what is retained;
later: once the hospitals have trained on without what was forgotten."""

RETRAININGS_LEGEND = """\
retraining: its row is of the strategies' seeds alone. Answers compare with all
retrained models, of which there are more: rows cannot be subtracted."""

HORIZONS_LEGEND = """\
NAME@20: what NAME had in hand once hospitals had been asked for 20 epochs, if it
was still at work; NAME: what it ended with, after so many epochs."""

CONTROLS_LEGENDS: Mapping[str, str] = {
    "retrained_other": """\
retraining again: every retrained model judged as a strategy, against another
seed's: what luck alone does. They are the same models, so their means are too.""",
    "damaged": "a broken model: answers dealt out at random; it must not be found good.",
}
"""What controls are, by label; a run may lack either."""


@dataclass(frozen=True)
class Line:
    """One row of a request's table: a model's means over seeds, formatted, its verdict in two answers and one word."""

    strategy: str
    cells: tuple[str, ...]
    verdict: str
    answers: tuple[str, str] = ("", "")
    reasons: tuple[str, ...] = ()


def lines(run: RunFolder, request: str, columns: Mapping[str, str] | None = None) -> list[Line]:
    """The rows of one request's table: original, retrained and its band, other controls, then strategies as listed.

    Empty if no model has any of the measures.
    """
    scores, verdicts = run.read_table("scores.parquet"), run.read_table("verdicts.parquet")
    manifest, columns = run.read_manifest(), columns or columns_of(_kind(run))
    shown = scores[
        (scores["request"] == request) & (scores["group"] == "all") & scores["measure"].isin(list(columns))
    ]
    if shown.empty:
        return []
    by_model = shown.groupby(["strategy", "measure"], sort=False)["value"]
    means = by_model.agg(lambda values: values.mean(skipna=False))  # a seed that diverged leaves no mean
    medians = by_model.agg(lambda values: values.median(skipna=False))
    means.update(medians[medians.index.isin(MEDIANS, level="measure")])
    known = verdicts[verdicts["request"] == request].set_index("strategy")
    order = list(dict.fromkeys(["original", "retrained", *shown["strategy"]]))
    rows = []
    for strategy in order:
        cells = tuple(formatted(name, means.get((strategy, name))) for name in columns)
        if strategy not in known.index:
            rows.append(Line(called(strategy), cells, "reference", ("reference", "")))
            continue
        found = known.loc[strategy]
        answers = str(found["forgotten"]), str(found["useful"])
        told = reasons(found["reasons"], manifest)
        rows.append(Line(called(strategy), cells, str(found["verdict"]), answers, told))
    band = shown[shown["strategy"] == "retrained"].groupby("measure")[["null_low", "null_high"]].mean()
    rows.insert(2, Line("  its band", tuple(_band(band, name) for name in columns), ""))
    return rows


def headed(run: RunFolder) -> Mapping[str, str]:
    """The columns of a run's tables: `columns_of`, or `tuned_of` if any strategy was; `EPOCHS` too with horizons."""
    tuned = (run.read_table("ledger.parquet")["phase"] == "tune").any()
    columns = (tuned_of if tuned else columns_of)(_kind(run))
    return {**columns, **EPOCHS} if run.read_manifest().get("horizons") else columns


def further(run: RunFolder) -> list[Mapping[str, str]]:
    """The columns of further tables; a run may have none of their measures."""
    kind = _kind(run)
    own = words(kind).further
    return [*([own] if own else []), probed_of(kind)]


def legends(run: RunFolder) -> list[str]:
    """How to read a run's tables."""
    manifest, kind = run.read_manifest(), _kind(run)
    probed = bool(manifest.get("probes", {}).get("names"))
    scores = run.read_table("scores.parquet")
    models = set(
        scores.loc[(scores["group"] == "all") & scores["measure"].isin(list(headed(run))), "strategy"]
    )
    wanted = [
        *((text, control in models) for control, text in CONTROLS_LEGENDS.items()),
        (RETRAININGS_LEGEND, bool(manifest.get("references"))),
        (HORIZONS_LEGEND, bool(manifest.get("horizons"))),
        (words(kind).further_legend, bool(words(kind).further)),
        (PROBED_LEGEND, probed),
    ]
    return [legend_of(kind), *(text for text, shown in wanted if shown)]


def formatted(measure: str, value: float | None) -> str:
    """A measure's value as tables show it."""
    if value is None or pd.isna(value):
        return "n/a"
    if measure == "bytes" or _distance(measure) or measure.endswith("seconds"):
        return f"{value / 1e6 if measure == 'bytes' else value:.1f}"
    if measure in ("relearn_epochs", "epochs") or math.isinf(value):
        return "∞" if math.isinf(value) else f"{value:g}"
    return short(value, 4 if "mae" in measure else 3)


def _band(band: pd.DataFrame, measure: str) -> str:
    if measure not in band.index or band.loc[measure].isna().any():
        return ""
    low, high = (float(edge) for edge in band.loc[measure].to_numpy())
    return (
        f"≤{high:.1f}"
        if _distance(measure)
        else f"≥{short(low, 2)}"
        if measure == "tow"
        else _between(low, high, 4 if "mae" in measure else 2)
    )


def _distance(measure: str) -> bool:
    """Whether it is a distance from the retrained model, in percentage points."""
    return measure.startswith("avg_") and measure.endswith("gap")


def _between(low: float, high: float, digits: int) -> str:
    return f"{short(low, digits)}–{short(high, digits)}"


def short(value: float, digits: int) -> str:
    """A share without its leading zero, so that a table fits 80 columns."""
    if abs(value) >= 1:
        return f"{value:.{digits - 1}f}"
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def _kind(run: RunFolder) -> str:
    """The run's kind of task."""
    return str(run.read_manifest()["kind"])
