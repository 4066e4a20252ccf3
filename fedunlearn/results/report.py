"""A run folder as a table a person can read: one row per model, one table per request, one verdict per strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.tables import Line, further, headed, legends, lines, short
from fedunlearn.results.wording import cell, item, line, plain, quoted, row
from fedunlearn.scoring.judgement.bias import sentences
from fedunlearn.scoring.judgement.difference import CONTROLS
from fedunlearn.scoring.measures.composite import RETAINED, TESTED

STYLES = {"PASS": "green", "UNDER": "yellow", "OVER": "magenta", "DAMAGED": "red", "INCONCLUSIVE": "dim"}


def show(run: RunFolder, console: Console) -> None:
    """Print every request's table, with each verdict's reasons below it."""
    manifest = run.read_manifest()
    console.print()
    _say(console, f"{manifest['name']}: {manifest['data']['note']}")
    _say(console, f"Means over {len(manifest['seeds'])} seed(s).")
    for legend in legends(run):
        console.print(plain(legend), soft_wrap=True)
    for request in manifest["moments"]:
        columns = headed(run)
        rows = lines(run, request["id"], columns)
        console.print()
        _say(console, _title(request))
        console.print(_table(rows, columns))
        for strategies, reasons in _grouped(rows):
            _say(console, f"  {strategies}: {reasons}")
        if sight := _sight(run, request["id"]):
            _say(console, f"  {sight}")
        for strategies, reason in _skipped(manifest["skipped"], request["forgets"]):
            _say(console, f"  {strategies}: not run: {reason}")
        for sentence in fairness(run, request["id"]):
            _say(console, f"  {sentence}")
        for others in further(run):
            if found := lines(run, request["id"], others):
                console.print(_table(found, others))


def fairness(run: RunFolder, request: str) -> list[str]:
    """Who paid for it, in words: groups treated unequally, and the hospital hit hardest; nothing in an old run."""
    if "bias.parquet" not in run.read_manifest()["sha256"]:
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
    if "statistics.parquet" not in run.read_manifest()["sha256"]:
        return ""
    table = run.read_table("statistics.parquet")
    named = (table["request"] == request) & (table["strategy"] == "original")
    known = table[named & (table["measure"] == "mia_loss_auc")].dropna(subset="smallest_visible")
    return "".join(
        f"With {row['patients']} patients to forget and {row['seeds']} seeds, a difference below "
        f"{short(row['smallest_visible'], 2)} in MIA AUC would go unseen (80 % power); the original's is "
        f"{short(row['difference'], 2)}."
        for row in known.to_dict("records")
    )


def _say(console: Console, text: str) -> None:
    console.print(plain(line(text)), soft_wrap=True)


def _grouped(rows: Sequence[Line]) -> list[tuple[str, str]]:
    """(strategies, reasons), once for all that share them; of a PASS only the first, the rest is in the table."""
    found: dict[str, list[str]] = {}
    for one in rows:
        first, _, others = one.reasons.partition("; ")
        shown = {"PASS": [first], "INCONCLUSIVE": [first, others]}.get(one.verdict, [one.reasons])
        for reasons in filter(None, shown):
            found.setdefault(reasons, []).append(one.strategy)
    return [(", ".join(strategies), reasons) for reasons, strategies in found.items()]


def _skipped(skipped: Sequence[Mapping[str, str]], request: str) -> list[tuple[str, str]]:
    """(strategies, reason), once for all that share it."""
    found: dict[str, list[str]] = {}
    for one in skipped:
        if one["request"] == request:
            found.setdefault(one["reason"], []).append(one["strategy"])
    return [(", ".join(strategies), reason) for reason, strategies in found.items()]


def markdown(run: RunFolder) -> str:
    """The same tables in Markdown, for a document."""
    parts: list[str] = []
    for request in run.read_manifest()["moments"]:
        columns = headed(run)
        rows = lines(run, request["id"], columns)
        parts += [f"**{quoted(_title(request))}**\n", *_rows(rows, columns)]
        parts += ["", *(item(f"{strategies}: {reasons}") for strategies, reasons in _grouped(rows))]
        parts += [*(item(sentence) for sentence in fairness(run, request["id"])), ""]
        if sight := _sight(run, request["id"]):
            parts += [f"{sight}\n"]
        for others in further(run):
            if found := lines(run, request["id"], others):
                parts += [*_rows(found, others), ""]
    return "\n".join(parts)


def _rows(rows: Sequence[Line], columns: Mapping[str, str]) -> list[str]:
    header = ["strategy", *columns.values(), "verdict"]
    body = [row([one.strategy.strip(), *one.cells, one.verdict]) for one in rows]
    return [row(header), row(["---"] * len(header)), *body]


def _table(rows: Sequence[Line], columns: Mapping[str, str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    table.add_column("strategy", overflow="fold")  # a label that was cut off could be another's
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in rows:
        verdict = cell(one.verdict, STYLES.get(one.verdict, "dim"))
        table.add_row(cell(one.strategy), *map(cell, one.cells), verdict)
    return table


def _title(request: dict[str, str]) -> str:
    return f"{request['id']}: {request['summary']}"
