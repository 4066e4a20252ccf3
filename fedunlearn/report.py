"""A run folder as a table a person can read: one row per model, one table per request, one verdict per strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedunlearn.runfolder import RunFolder
from fedunlearn.scoring.bias import sentences
from fedunlearn.scoring.composite import RETAINED, TESTED
from fedunlearn.scoring.difference import CONTROLS

_COSTS = {"site_seconds": "site s", "bytes": "MB"}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "classification": {
        "forget_accuracy": "forget",
        "retain_accuracy": "retain",
        "test_accuracy": "test",
        "mia_loss_auc": "MIA AUC",
        "avg_gap": "gap",
        "tow": "ToW",
        **_COSTS,
    },
    "segmentation": {
        "forget_dice": "forget",
        "retain_dice": "retain",
        "test_dice": "test",
        "mia_loss_auc": "MIA AUC",
        "avg_dice_gap": "gap",
        "dice_gap": "ret-fgt",
        **_COSTS,
    },
}
"""By kind of task, the measures shown, as they are headed; `scores.parquet` has all of them."""

TUNED: Mapping[str, Mapping[str, str]] = {
    kind: {**columns, "tuning_site_seconds": "tune s"} for kind, columns in COLUMNS.items()
}
"""The same where strategies were tuned: what finding their settings cost the hospitals stands beside their own work."""

EPOCHS = {"epochs": "epochs"}
"""One more column where models were measured at horizons."""

PROBED: Mapping[str, Mapping[str, str]] = {
    kind: {
        "relearn_epochs": "relearn",
        "relearn_ratio": "ratio",
        f"probe_forget_{quality}": "refit",
        "probe_mia_loss_auc": "MIA AUC",
        f"resurgence_forget_{quality}": "later",
        "resurgence_mia_loss_auc": "MIA AUC",
    }
    for kind, quality in (("classification", "accuracy"), ("segmentation", "dice"))
}
"""Those of models that were trained a little more, in a table of their own where a run has them."""

PROBED_LEGEND = """\
After more training. relearn: epochs, trained on the images to forget, until
they are known as well as to the original, and their ratio to retraining's
(below 1: memory left; medians; ∞: not in the epochs given). refit: forget
and MIA AUC once the last layer alone is refitted on what is retained;
later: once the hospitals have trained on without what was forgotten."""

HORIZONS_LEGEND = """\
NAME@20: what NAME had in hand once hospitals had been asked for 20 epochs, if it
was still at work; NAME: what it ended with, after so many epochs."""

_OF_COSTS = """site s, MB: the hospitals' work and traffic, of
the original for all of training, of the others up to the moment shown; tune s:
their work for finding a strategy's settings, once for all requests and seeds."""
LEGENDS: Mapping[str, str] = {
    "classification": f"""\
forget, retain, test: accuracy. MIA AUC: how often a forgotten image has a lower
loss than an unseen one (.5: no memory). gap: distance from retraining in
points; ToW: closeness to it. {_OF_COSTS}""",
    "segmentation": f"""\
forget, retain, test: Dice. MIA AUC: how often a forgotten volume has a lower
loss than an unseen one (.5: no memory). gap: distance from retraining in
points; ret-fgt: retain less forget. {_OF_COSTS}""",
}
_DISTANCES = ("avg_gap", "avg_dice_gap")

STYLES = {"PASS": "green", "UNDER": "yellow", "OVER": "magenta", "DAMAGED": "red", "INCONCLUSIVE": "dim"}


@dataclass(frozen=True)
class Line:
    """One row of a request's table: a model's means over seeds, formatted, and its verdict."""

    strategy: str
    cells: tuple[str, ...]
    verdict: str
    reasons: str


def lines(run: RunFolder, request: str, columns: Mapping[str, str] | None = None) -> list[Line]:
    """The rows of one request's table: original, retrained and its band, other controls, then strategies as listed.

    Empty if no model has any of the measures.
    """
    scores, verdicts = run.read_table("scores.parquet"), run.read_table("verdicts.parquet")
    columns = columns or COLUMNS[_kind(run)]
    shown = scores[
        (scores["request"] == request) & (scores["group"] == "all") & scores["measure"].isin(list(columns))
    ]
    if shown.empty:
        return []
    by_model = shown.groupby(["strategy", "measure"], sort=False)["value"]
    means = by_model.agg(lambda values: values.mean(skipna=False))  # a seed that diverged leaves no mean
    medians = by_model.agg(lambda values: values.median(skipna=False))
    means.update(medians[medians.index.isin(["relearn_epochs", "relearn_ratio"], level="measure")])
    known = verdicts[verdicts["request"] == request].set_index("strategy")
    order = list(dict.fromkeys(["original", "retrained", *shown["strategy"]]))
    rows = []
    for strategy in order:
        cells = tuple(formatted(name, means.get((strategy, name))) for name in columns)
        verdict, reasons = (
            ("reference", "") if strategy not in known.index else known.loc[strategy, ["verdict", "reasons"]]
        )
        rows.append(Line(strategy, cells, str(verdict), str(reasons)))
    band = shown[shown["strategy"] == "retrained"].groupby("measure")[["null_low", "null_high"]].mean()
    rows.insert(2, Line("  its band", tuple(_band(band, name) for name in columns), "", ""))
    return rows


def headed(run: RunFolder) -> Mapping[str, str]:
    """The columns of a run's tables: `COLUMNS`, or `TUNED` if any of its strategies was; `EPOCHS` too with horizons."""
    tuned = (run.read_table("ledger.parquet")["phase"] == "tune").any()
    columns = (TUNED if tuned else COLUMNS)[_kind(run)]
    return {**columns, **EPOCHS} if run.read_manifest().get("horizons") else columns


def show(run: RunFolder, console: Console) -> None:
    """Print every request's table, with each verdict's reasons below it."""
    manifest = run.read_manifest()
    _say(console, f"\n{manifest['name']}: {manifest['data']['note']}")
    _say(console, f"Means over {len(manifest['seeds'])} seed(s).\n{LEGENDS[_kind(run)]}")
    if manifest.get("horizons"):
        _say(console, HORIZONS_LEGEND)
    if manifest.get("probes", {}).get("names"):
        _say(console, PROBED_LEGEND)
    for request in manifest["moments"]:
        columns = headed(run)
        rows = lines(run, request["id"], columns)
        _say(console, f"\n{_title(request)}")
        console.print(_table(rows, columns))
        for strategies, reasons in _grouped(rows):
            _say(console, f"  {strategies}: {reasons}")
        if sight := _sight(run, request["id"]):
            _say(console, f"  {sight}")
        for skipped in manifest["skipped"]:
            if skipped["request"] == request["forgets"]:
                _say(console, f"  {skipped['strategy']}: not run: {skipped['reason']}")
        for sentence in fairness(run, request["id"]):
            _say(console, f"  {sentence}")
        if probed := lines(run, request["id"], PROBED[_kind(run)]):
            console.print(_table(probed, PROBED[_kind(run)]))


def fairness(run: RunFolder, request: str) -> list[str]:
    """Who paid for it, in words: groups treated unequally, and the hospital hit hardest; nothing in an old run."""
    if not (run.path / "bias.parquet").is_file():
        return []
    bias, scores = run.read_table("bias.parquet"), run.read_table("scores.parquet")
    told = sentences(bias[bias["request"] == request])
    return told + _hit_hardest(scores[scores["request"] == request])


def _hit_hardest(scores: pd.DataFrame) -> list[str]:
    """Each strategy's worst hospital of those that stay, if its mean over seeds is below that hospital's own band."""
    staying = set(scores.loc[scores["measure"].isin(RETAINED), "group"]) - {"all"}
    rows = scores[
        scores["measure"].isin([*RETAINED, *TESTED])
        & scores["group"].isin([group for group in staying if group.startswith("site=")])
        & ~scores["strategy"].isin(CONTROLS)
    ]
    keys = ["strategy", "measure", "group"]
    means = rows.groupby(keys, sort=False)[["value", "retrained", "null_low"]].mean().reset_index()
    means["change"] = means["value"] - means["retrained"]
    below = means[means["value"] < means["null_low"] - 1e-9]
    worst = below.sort_values("change", kind="stable").drop_duplicates("strategy")
    if worst.empty:
        return []
    each = [
        f"{row['strategy']}: {str(row['group']).partition('=')[2]} {row['change']:.2f} ({row['measure']})"
        for row in worst.to_dict("records")
    ]
    return [f"hospital hit hardest, below its own band of retraining: {', '.join(each)}"]


def _sight(run: RunFolder, request: str) -> str:
    """The smallest memory that this request could have shown; empty where that is unknown."""
    if not (run.path / "statistics.parquet").is_file():
        return ""
    table = run.read_table("statistics.parquet")
    named = (table["request"] == request) & (table["strategy"] == "original")
    known = table[named & (table["measure"] == "mia_loss_auc")].dropna(subset="smallest_visible")
    return "".join(
        f"With {row['patients']} patients to forget and {row['seeds']} seeds, a difference below "
        f"{_short(row['smallest_visible'], 2)} in MIA AUC would go unseen (80 % power); the original's is "
        f"{_short(row['difference'], 2)}."
        for row in known.to_dict("records")
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _grouped(rows: Sequence[Line]) -> list[tuple[str, str]]:
    """(strategies, reasons), once for all that share them; of a PASS only the first, the rest is in the table."""
    found: dict[str, list[str]] = {}
    for row in rows:
        first, _, others = row.reasons.partition("; ")
        shown = {"PASS": [first], "INCONCLUSIVE": [first, others]}.get(row.verdict, [row.reasons])
        for reasons in filter(None, shown):
            found.setdefault(reasons, []).append(row.strategy)
    return [(", ".join(strategies), reasons) for reasons, strategies in found.items()]


def markdown(run: RunFolder) -> str:
    """The same tables in Markdown, for a document."""
    parts: list[str] = []
    for request in run.read_manifest()["moments"]:
        columns = headed(run)
        header, rows = ["strategy", *columns.values(), "verdict"], lines(run, request["id"], columns)
        parts += [f"**{_title(request)}**\n", _row(header), _row(["---"] * len(header))]
        parts += [_row([line.strategy.strip(), *line.cells, line.verdict]) for line in rows]
        parts += ["", *(f"- {strategies}: {reasons}" for strategies, reasons in _grouped(rows))]
        parts += [*(f"- {sentence}" for sentence in fairness(run, request["id"])), ""]
        if sight := _sight(run, request["id"]):
            parts += [f"{sight}\n"]
    return "\n".join(parts)


def _kind(run: RunFolder) -> str:
    """The run's kind of task."""
    return str(run.read_manifest()["kind"])


def _table(rows: Sequence[Line], columns: Mapping[str, str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    table.add_column("strategy", no_wrap=True)
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        table.add_row(row.strategy, *row.cells, Text(row.verdict, style=STYLES.get(row.verdict, "dim")))
    return table


def _title(request: dict[str, str]) -> str:
    return f"{request['id']}: {request['summary']}"


def formatted(measure: str, value: float | None) -> str:
    """A measure's value as tables show it."""
    if value is None or pd.isna(value):
        return "n/a"
    if measure == "bytes" or measure in _DISTANCES or measure.endswith("seconds"):
        return f"{value / 1e6 if measure == 'bytes' else value:.1f}"
    if measure in ("relearn_epochs", "epochs") or math.isinf(value):
        return "∞" if math.isinf(value) else f"{value:g}"
    return _short(value, 3)


def _band(band: pd.DataFrame, measure: str) -> str:
    if measure not in band.index or band.loc[measure].isna().any():
        return ""
    low, high = (float(edge) for edge in band.loc[measure].to_numpy())
    return (
        f"≤{high:.1f}"
        if measure in _DISTANCES
        else f"≥{_short(low, 2)}"
        if measure == "tow"
        else _between(low, high)
    )


def _between(low: float, high: float) -> str:
    return f"{_short(low, 2)}–{_short(high, 2)}"


def _short(value: float, digits: int) -> str:
    """A share without its leading zero, so that a table fits 80 columns."""
    return f"{value:.{digits}f}".removeprefix("0") if 0 <= value < 1 else f"{value:.{digits - 1}f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
