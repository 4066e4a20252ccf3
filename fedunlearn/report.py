"""A run folder as a table a person can read: one row per model, one table per request, one verdict per strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedunlearn.runfolder import RunFolder

COLUMNS = {
    "forget_accuracy": "forget",
    "retain_accuracy": "retain",
    "test_accuracy": "test",
    "mia_loss_auc": "MIA AUC",
    "avg_gap": "gap",
    "tow": "ToW",
    "site_seconds": "site s",
    "bytes": "MB",
}
"""The measures shown, as they are headed; `scores.parquet` has all of them."""

LEGEND = """\
forget, retain, test: accuracy. MIA AUC: how often a forgotten image has a lower
loss than an unseen one (.5: no memory). gap: distance from retraining in
points; ToW: closeness to it. site s, MB: the hospitals' work and traffic, of
the original for all of training, of the others up to the moment shown."""

STYLES = {"PASS": "green", "UNDER": "yellow", "OVER": "magenta", "DAMAGED": "red", "INCONCLUSIVE": "dim"}


@dataclass(frozen=True)
class Line:
    """One row of a request's table: a model's means over seeds, formatted, and its verdict."""

    strategy: str
    cells: tuple[str, ...]
    verdict: str
    reasons: str


def lines(run: RunFolder, request: str) -> list[Line]:
    """The rows of one request's table: original, retrained and its band, then the strategies as they were listed."""
    scores, verdicts = run.read_table("scores.parquet"), run.read_table("verdicts.parquet")
    shown = scores[
        (scores["request"] == request) & (scores["group"] == "all") & scores["measure"].isin(list(COLUMNS))
    ]
    by_model = shown.groupby(["strategy", "measure"], sort=False)["value"]
    means = by_model.agg(lambda values: values.mean(skipna=False))  # a seed that diverged leaves no mean
    known = verdicts[verdicts["request"] == request].set_index("strategy")
    order = list(dict.fromkeys(["original", "retrained", *shown["strategy"]]))
    rows = []
    for strategy in order:
        cells = tuple(formatted(name, means.get((strategy, name))) for name in COLUMNS)
        verdict, reasons = (
            ("reference", "") if strategy not in known.index else known.loc[strategy, ["verdict", "reasons"]]
        )
        rows.append(Line(strategy, cells, str(verdict), str(reasons)))
    band = shown[shown["strategy"] == "retrained"].groupby("measure")[["null_low", "null_high"]].mean()
    rows.insert(2, Line("  its band", tuple(_band(band, name) for name in COLUMNS), "", ""))
    return rows


def show(run: RunFolder, console: Console) -> None:
    """Print every request's table, with each verdict's reasons below it."""
    manifest = run.read_manifest()
    _say(console, f"\n{manifest['name']}: {manifest['data']['note']}")
    _say(console, f"Means over {len(manifest['seeds'])} seed(s).\n{LEGEND}")
    for request in manifest["moments"]:
        rows = lines(run, request["id"])
        _say(console, f"\n{_title(request)}")
        console.print(_table(rows))
        for strategies, reasons in _grouped(rows):
            _say(console, f"  {strategies}: {reasons}")
        for skipped in manifest["skipped"]:
            if skipped["request"] == request["forgets"]:
                _say(console, f"  {skipped['strategy']}: not run: {skipped['reason']}")


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
        header, rows = ["strategy", *COLUMNS.values(), "verdict"], lines(run, request["id"])
        parts += [f"**{_title(request)}**\n", _row(header), _row(["---"] * len(header))]
        parts += [_row([line.strategy.strip(), *line.cells, line.verdict]) for line in rows]
        parts += ["", *(f"- {strategies}: {reasons}" for strategies, reasons in _grouped(rows)), ""]
    return "\n".join(parts)


def _table(rows: Sequence[Line]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    table.add_column("strategy", no_wrap=True)
    for heading in COLUMNS.values():
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
    if measure in ("bytes", "avg_gap") or measure.endswith("seconds"):
        return f"{value / 1e6 if measure == 'bytes' else value:.1f}"
    return _short(value, 3)


def _band(band: pd.DataFrame, measure: str) -> str:
    if measure not in band.index or band.loc[measure].isna().any():
        return ""
    low, high = (float(edge) for edge in band.loc[measure].to_numpy())
    return (
        f"≤{high:.1f}"
        if measure == "avg_gap"
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
