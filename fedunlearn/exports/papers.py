"""A run as one tidy table: a row for every request and model, a column for every number, nothing rounded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from fedunlearn.results.overview import Overview, Row, Value, asked, over_seeds, overview, read
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import sure_of
from fedunlearn.results.summary import rows_of
from fedunlearn.results.tables import columns_of

KEYS: Mapping[str, str] = {
    "scenario": "the scenario's name",
    "request": "the request's id, or ID@ROUND right after unlearning in the middle of training",
    "asks": "what it asks for",
    "strategy": "a label; original, retrained and retrained_other are models whose truth is known",
    "role": "original, reference (the retrained models), control or strategy",
    "seeds": "models of it that the means are over",
    "references": "retrained models that it is compared with",
}
ANSWERS: Mapping[str, str] = {
    "forgotten": "the answer to `forgotten?` (docs/verdicts.md); empty for references",
    "useful": "the answer to `still good?`",
    "best": "both answers are yes, that to `forgotten?` also after Holm's correction, and none of these costs less",
    "p_holm": "of `twice the margin of memory is left`, after that correction",
    "memory_left": "a share of what the original knew, mean over patients; empty if the run cannot tell",
    "memory_left_half": "half of its 95 % interval",
    "patients_known": "patients who are still known; empty if the run cannot tell",
    "patients_compared": "patients who could be looked at",
    "test_difference": "from retraining, on unseen images: accuracy or Dice",
    "test_difference_half": "half of its 95 % interval",
    "worst_site": "the hospital that lost most",
    "worst_site_difference": "how much",
    "worst_class": "the class or structure that lost most",
    "worst_class_difference": "how much",
}
MEASURED = ("share_of_retraining", "images", "mia_loss_tpr_at_fpr_0.01")
"""Beside those that `report --details` shows, measures that every row has."""


def described(kind: str) -> dict[str, str]:
    """Every column of `tidy`, and what is in it."""
    each = {
        column: text
        for name in measures(kind)
        for column, text in (
            (name, "mean over seeds (`list measures`)"),
            (f"{name}_half", "half of its 95 % interval, by Student's t over seeds"),
        )
    }
    return {**KEYS, **ANSWERS, **each}


def measures(kind: str) -> tuple[str, ...]:
    """The measures that a table for a paper has, by kind of task."""
    return tuple(dict.fromkeys((*columns_of(kind), *MEASURED)))


def tidy(run: RunFolder) -> pd.DataFrame:
    """A row per request and model: original, retrained, then strategies, best first, and retraining again.

    Shares are between 0 and 1. What is not known is empty (NaN); half an interval is infinite where there is one seed.

    Raises:
        InputError: the run was judged by an older version.
        RunError: a file is missing or damaged.
    """
    manifest, tables = run.read_manifest(), read(run)
    rows = [
        row
        for moment in manifest["moments"]
        for row in _rows(overview(tables, manifest, moment), tables["scores"], manifest, moment)
    ]
    return pd.DataFrame(rows, columns=list(described(manifest["kind"])))


def _rows(
    one: Overview, scores: pd.DataFrame, manifest: Mapping[str, Any], moment: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    whole = scores[(scores["request"] == moment["id"]) & (scores["group"] == "all")]
    judged = {row.strategy: row for row in rows_of(one)}
    best = next(iter(sure_of(one)), None) if len(one.rows) > 1 else None
    order = ["original", "retrained", *(name for name in judged if name != "original")]
    for strategy in order:
        own = whole[whole["strategy"] == strategy]
        yield {
            "scenario": manifest["name"],
            "request": moment["id"],
            "asks": asked(moment, manifest),
            "strategy": strategy,
            "role": _ROLES.get(strategy, "strategy"),
            "seeds": own["seed"].nunique(),
            "references": one.references,
            **_answers(judged.get(strategy), one),
            "best": best is not None and best.strategy == strategy,
            **_measured(own, manifest["kind"]),
        }


_ROLES = {"original": "original", "retrained": "reference", "retrained_other": "control"}


def _answers(row: Row | None, one: Overview) -> dict[str, Any]:
    """What is judged of a model; nothing of the retrained ones, which are what is compared with."""
    if row is None:
        return {}
    answered = row.strategy != "retrained_other"  # its numbers show the noise, but it is no strategy
    left = row.left if one.tells else Value()
    return {
        "forgotten": row.forgotten if answered else "",
        "useful": row.useful if answered else "",
        "p_holm": row.p if one.tells else math.nan,
        "memory_left": left.value,
        "memory_left_half": left.half,
        "patients_known": len(row.known) if row.compared and one.tells else math.nan,
        "patients_compared": row.compared,
        "test_difference": row.test.value,
        "test_difference_half": row.test.half,
        "worst_site": row.site.name,
        "worst_site_difference": row.site.value,
        "worst_class": row.group.name,
        "worst_class_difference": row.group.value,
    }


def _measured(own: pd.DataFrame, kind: str) -> dict[str, float]:
    found = dict[str, float]()
    for name in measures(kind):
        values = own.loc[own["measure"] == name, "value"]
        mean = over_seeds(values) if len(values) else Value()
        found |= {name: mean.value, f"{name}_half": mean.half}
    return found
