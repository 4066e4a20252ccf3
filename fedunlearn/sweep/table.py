"""A sweep's folder as one table: a row per cell, request and strategy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from fedunlearn.core import RunError
from fedunlearn.core.kinds import kinds
from fedunlearn.results import almanac, report, tables, years
from fedunlearn.results.columns import called
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.summary import table as placed, wrapped
from fedunlearn.results.wording import cell, line, plain, quoted, row
from fedunlearn.scoring.judgement.difference import CONTROLS
from fedunlearn.sweep.naming import columns, stored, text_of

WIDEST = 400
"""Columns that a table may take; a terminal that has fewer breaks its lines, and nothing is cut off."""


def measures(kind: str) -> tuple[str, ...]:
    """By kind of task, the measures in ``summary.parquet``, means over seeds: a run's, and what it and tuning cost."""
    return (*tables.columns_of(kind), "share_of_retraining", "tuning_site_seconds")


def summary(folder: Path) -> pd.DataFrame:
    """One row per finished cell, request and strategy: ``cell``, the swept values, `measures`, and the verdict.

    Columns of swept keys are called as `naming.columns` says.

    A measure that a model does not have, or not for every seed, is NaN.

    Raises:
        RunError: a file of a cell is missing or damaged.
    """
    cells, shown = about(folder)["cells"], measures(_kind(folder))
    own = ("request", "strategy", "n_seeds", *shown, "verdict")
    named = columns(cells[0]["values"], {"cell", *own})
    kinds = {key: {type(one["values"][key]) for one in cells} for key in named}
    rows = []
    for one in cells:
        path = folder / "cells" / one["slug"]
        if (path / "DONE").is_file():
            values = {column: stored(one["values"][key], kinds[key]) for key, column in named.items()}
            rows += [{"cell": one["slug"], **values, **row} for row in _rows(RunFolder.open(path))]
    return pd.DataFrame(rows, columns=["cell", *named.values(), *own])


def show(folder: Path, console: Console) -> None:
    """Print the summary, however wide it is."""
    headings, rows = _shown(folder)
    numbers, legend = _headings(folder).values(), tables.legend_of(_kind(folder))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    for heading in headings:
        numeric = heading in numbers
        table.add_column(cell(heading), justify="right" if numeric else "left", no_wrap=True)
    for *cells, verdict in rows:
        table.add_row(*map(cell, cells), cell(verdict, report.STYLES.get(verdict, "dim")))
    console.print(plain(f"\n{_title(folder, line)}\n{legend}"), soft_wrap=True)
    wide = Console(file=console.file, width=max(console.width, WIDEST), force_terminal=console.is_terminal)
    wide.print(table, soft_wrap=True)
    for title, found in streams(folder):
        console.print(plain(f"\n{title}"), soft_wrap=True)
        for text in [
            *placed(*almanac.over_streams(found)),
            *wrapped(almanac.streams_legend(found), "  ", "  ", "dim"),
        ]:
            console.print(text, soft_wrap=True)


STREAM = "arrivals.seed"
"""The key that makes cells differ in when people ask alone."""


def streams(folder: Path) -> list[tuple[str, pd.DataFrame]]:
    """What policies came to over a sweep's streams of requests (`years.streams`), for each of its other values.

    Nothing of a sweep that has one stream only.

    Raises:
        RunError: a file of a cell is missing or damaged.
    """
    grouped: dict[str, list[RunFolder]] = {}
    for one in about(folder)["cells"]:
        path = folder / "cells" / one["slug"]
        if STREAM in one["values"] and (path / "DONE").is_file():
            others = {key: value for key, value in one["values"].items() if key != STREAM}
            of = ", ".join(f"{key} {text_of(value)}" for key, value in others.items())
            grouped.setdefault(of, []).append(RunFolder.open(path))
    found = []
    for of, runs in grouped.items():
        frame = years.streams([years.policies(run) for run in runs])
        if len(runs) > 1 and not frame.empty:
            title = f"Over {len(runs)} streams of requests{f', {line(of)}' if of else ''}"
            found.append((title, frame))
    return found


def markdown(folder: Path) -> str:
    """The summary in Markdown, for a document."""
    headings, rows = _shown(folder)
    lines = [headings, ["---"] * len(headings), *rows]
    told = [f"**{_title(folder, quoted)}**\n", *map(row, lines)]
    for title, found in streams(folder):
        told += [f"\n{quoted(title)}\n", *almanac.streams_markdown(found)]
    return "\n".join(told)


def _rows(run: RunFolder) -> Iterator[dict[str, Any]]:
    """One run's models: original, retrained, then the strategies as they were listed; not the controls."""
    scores, manifest = run.read_table("scores.parquet"), run.read_manifest()
    verdicts = run.read_table("verdicts.parquet").set_index(["request", "strategy"])["verdict"]
    wanted = measures(manifest["kind"])
    whole = scores[(scores["group"] == "all") & scores["measure"].isin(wanted)]
    for moment in manifest["moments"]:
        known = whole[whole["request"] == moment["id"]]
        listed = [name for name in known["strategy"] if name not in CONTROLS]
        for strategy in dict.fromkeys(["original", "retrained", *listed]):
            of_model = known[known["strategy"] == strategy].groupby("measure")["value"]
            # A seed that diverged leaves no mean.
            means = of_model.agg(lambda values: values.mean(skipna=False))
            yield {
                "request": moment["id"],
                "strategy": strategy,
                "n_seeds": len(manifest["seeds"]),
                **{name: float(means.get(name, math.nan)) for name in wanted},
                "verdict": str(verdicts.get((moment["id"], strategy), "reference")),
            }


def _shown(folder: Path) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table; keys by their last word where that is enough."""
    table, keys = summary(folder), list(about(folder)["cells"][0]["values"])
    shown, swept = _headings(folder), table.columns[1 : 1 + len(keys)]
    last = [key.rpartition(".")[2] for key in keys]
    named = [word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)]
    several = ["request"] if table["request"].nunique() > 1 else []
    rows = [
        [
            *(text_of(row[column]) for column in swept),
            *(row[key] for key in several),
            called(row["strategy"]),
            *(tables.formatted(name, row[name]) for name in shown),
            row["verdict"],
        ]
        for row in table.to_dict("records")
    ]
    return [*named, *several, "strategy", *shown.values(), "verdict"], rows


def _kind(folder: Path) -> str:
    """The kind of task of its cells, as the first finished one tells."""
    paths = (folder / "cells" / cell["slug"] for cell in about(folder)["cells"])
    finished = (RunFolder.open(path) for path in paths if (path / "DONE").is_file())
    return next((str(run.read_manifest()["kind"]) for run in finished), kinds()[0])


def _headings(folder: Path) -> dict[str, str]:
    """The measures shown, as they are headed."""
    return {**tables.columns_of(_kind(folder)), "tuning_site_seconds": "tuning s"}


def _title(folder: Path, shown: Callable[[str], str]) -> str:
    """What a sweep is, its name as ``shown``."""
    content = about(folder)
    count = len(content["cells"])
    done = sum((folder / "cells" / cell["slug"] / "DONE").is_file() for cell in content["cells"])
    missing = "" if done == count else f", {count - done} of them not finished: run `simulate` again to go on"
    return f"{shown(content['name'])}: {count} cells{missing}"


def slugs(folder: Path) -> list[str]:
    """The names of a sweep's cells, whether they are finished or not.

    Raises:
        RunError: what the folder says of its cells is missing or damaged.
    """
    return [str(cell["slug"]) for cell in about(folder)["cells"]]


def about(folder: Path) -> dict[str, Any]:
    """The content of ``sweep.json``.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        content: dict[str, Any] = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {folder / 'sweep.json'}: {error}") from error
    return content
