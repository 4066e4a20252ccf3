"""A run folder for people: a summary of every request, and behind it, as details, tables of all that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from rich.console import Console
from rich.table import Table

from fedunlearn.results import almanac, margins, purged, summary
from fedunlearn.results.columns import called
from fedunlearn.results.overview import WHOLE, Source, asked, overview, read
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.sentences import limits, shared
from fedunlearn.results.summary import lines, wrapped
from fedunlearn.results.tables import Line, further, headed, legends, lines as of_models, short
from fedunlearn.results.wording import cell, item, line, plain, row
from fedunlearn.scoring.judgement.bias import sentences
from fedunlearn.scoring.judgement.difference import CONTROLS
from fedunlearn.scoring.kinds import qualities, said

STYLES = {
    "PASS": "green",
    "DISPUTED": "yellow",
    "UNDER": "yellow",
    "OVER": "magenta",
    "DAMAGED": "red",
    "INCONCLUSIVE": "dim",
}
"""Of verdicts in one word."""
_ROOM = 100
"""Columns of a terminal that has room for both answers beside all numbers."""


def show(run: RunFolder, console: Console, details: bool = False) -> None:
    """Print a summary of every request; with ``details`` all of its tables instead, and all reasons.

    Raises:
        InputError: the run was judged by an older version.
        RunError: a file is missing or damaged.
    """
    manifest, tables = run.read_manifest(), read(run)
    console.print()
    for text in wrapped(f"{manifest['name']}: {manifest['data']['note']}", "", "  "):
        console.print(text, soft_wrap=True)
    for sentence in _beware(run):
        for text in wrapped(sentence, "", "  "):
            console.print(text, soft_wrap=True)
    if details:
        _details(run, console)
        return
    if year := almanac.lines(run):
        console.print()
        for text in year:
            console.print(text, soft_wrap=True)
    for moment in manifest["moments"]:
        console.print()
        for text in lines(overview(tables, manifest, moment)):
            console.print(text, soft_wrap=True)
    console.print()
    for text in wrapped(limits(manifest.get("probes", {}).get("names", ())), "", "  "):
        console.print(text, soft_wrap=True)
    _say(console, "Everything else, all reasons among it: fedunlearn report RUN --details")


def _beware(run: RunFolder) -> list[str]:
    """What was done to a run since it ended: what was purged from it, and whether other margins judge it."""
    return [*purged.told(run.read_manifest()), *filter(None, [margins.changed(run)])]


def _details(run: RunFolder, console: Console) -> None:
    manifest, columns = run.read_manifest(), headed(run)
    _say(console, f"Means over {len(manifest['seeds'])} seed(s).")
    for legend in legends(run):
        console.print(plain(legend), soft_wrap=True)
    for request in manifest["moments"]:
        rows = of_models(run, request["id"], columns)
        console.print()
        _say(console, f"{request['id']}: {asked(request, manifest)}")
        for sentence in request.get("warnings", ()):
            _say(console, f"  {sentence}")
        console.print(_table(rows, columns, console.width >= _ROOM))
        for strategies, reasons in _grouped(rows):
            _say(console, f"  {strategies}: {reasons[0]}")
            for reason in reasons[1:]:
                _say(console, f"    {reason}")
        if sight := _sight(run, request["id"]):
            _say(console, f"  {sight}")
        skipped = [
            (s["strategy"], s["reason"]) for s in manifest["skipped"] if s["request"] == request["forgets"]
        ]
        for strategies, reason in shared(skipped):
            _say(console, f"  {strategies}: not run: {reason}")
        for sentence in fairness(run, request["id"]):
            _say(console, f"  {sentence}")
        for others in further(run):
            if found := of_models(run, request["id"], others):
                console.print(_table(found, others, console.width >= _ROOM))


def fairness(run: Source, request: str) -> list[str]:
    """Who paid for it, in words: groups treated unequally, and the hospital hit hardest; nothing in an old run."""
    if "bias.parquet" not in run.read_manifest()["sha256"]:
        return []
    bias, scores = run.read_table("bias.parquet"), run.read_table("scores.parquet")
    found = bias[bias["request"] == request]
    found = found.assign(
        strategy=found["strategy"].map(called), attribute=found["attribute"].replace(_ATTRIBUTES)
    )
    told = sentences(found, run.read_manifest().get("names", ()))
    return told + _hit_hardest(scores[scores["request"] == request])


_ATTRIBUTES = {"learnt": "how soon images were learnt", "site": "hospital"}
"""What makes groups of patients, where its name is not a word for it."""


def _hit_hardest(scores: pd.DataFrame) -> list[str]:
    """Each strategy's worst hospital of those that stay, if its mean over seeds is below that hospital's own band."""
    retained, tested = qualities("retain"), qualities("test")
    staying = set(scores.loc[scores["measure"].isin(retained), "group"]) - {"all"}
    rows = scores[
        scores["measure"].isin([*retained, *tested])
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
        f"{row['strategy']}: {str(row['group']).partition('=')[2]} {row['change']:.2f} ({said(str(row['measure']))})"
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
        f"With {row['patients']} patients to forget and {row['seeds']} seeds, {_unseen(row['smallest_visible'])} "
        f"(80 % power); the original's is {short(row['difference'], 2)}."
        for row in known.to_dict("records")
    )


def _unseen(smallest: float) -> str:
    """Which differences of an AUC would not be seen; two of them never differ by more than 1."""
    if smallest >= WHOLE:
        return "no difference in MIA AUC would be seen"
    return f"a difference below {short(smallest, 2)} in MIA AUC would go unseen"


def _say(console: Console, text: str) -> None:
    console.print(plain(line(text)), soft_wrap=True)


def _grouped(rows: Sequence[Line]) -> list[tuple[str, tuple[str, ...]]]:
    """(strategies, reasons), once for all that share them."""
    found: dict[tuple[str, ...], list[str]] = {}
    for one in rows:
        if one.reasons:
            found.setdefault(one.reasons, []).append(one.strategy)
    return [(", ".join(strategies), reasons) for reasons, strategies in found.items()]


def markdown(run: RunFolder) -> str:
    """Summaries and tables in Markdown, for a document.

    Raises:
        InputError: the run was judged by an older version.
        RunError: a file is missing or damaged.
    """
    parts: list[str] = []
    manifest, tables, columns = run.read_manifest(), read(run), headed(run)
    parts += [f"{line(sentence)}\n" for sentence in _beware(run)]
    parts += almanac.markdown(run)
    for request in manifest["moments"]:
        rows = of_models(run, request["id"], columns)
        parts += summary.markdown(overview(tables, manifest, request))
        parts += _rows(rows, columns)
        parts.append("")
        for strategies, reasons in _grouped(rows):
            parts += [item(f"{strategies}:"), *(f"  {item(reason)}" for reason in reasons)]
        parts += [*(item(sentence) for sentence in fairness(run, request["id"])), ""]
        if sight := _sight(run, request["id"]):
            parts += [f"{sight}\n"]
        for others in further(run):
            if found := of_models(run, request["id"], others):
                parts += [*_rows(found, others), ""]
    return "\n".join([*parts, limits(manifest.get("probes", {}).get("names", ()))])


def _rows(rows: Sequence[Line], columns: Mapping[str, str]) -> list[str]:
    header = ["strategy", *columns.values(), "forgotten", "still good", "verdict"]
    body = [row([one.strategy.strip(), *one.cells, *one.answers, one.verdict]) for one in rows]
    return [row(header), row(["---"] * len(header)), *body]


def _table(rows: Sequence[Line], columns: Mapping[str, str], wide: bool) -> Table:
    """A table, with both answers if it may be ``wide``, else the verdict in one word."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    table.add_column("strategy", overflow="fold")  # a label that was cut off could be another's
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("forgotten", "still good") if wide else ("verdict",):
        table.add_column(heading, no_wrap=True)
    for one in rows:
        found = one.answers if wide else (one.verdict,)
        words = [cell(word, {**STYLES, **summary.STYLES}.get(word, "dim")) for word in found]
        table.add_row(cell(one.strategy), *map(cell, one.cells), *words)
    return table
