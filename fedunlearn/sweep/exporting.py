"""Runs and whole sweeps as others read them: a table in one of several formats, MLflow's layout, cards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from fedunlearn import files
from fedunlearn.core import InputError, RunError
from fedunlearn.exports import filestore, mlflow_server
from fedunlearn.exports.cards import models
from fedunlearn.exports.croissant import croissant
from fedunlearn.exports.latex import latex
from fedunlearn.exports.papers import described, tidy
from fedunlearn.exports.tracking import tracked
from fedunlearn.results import report
from fedunlearn.results.runfolder import RunFolder, parquet
from fedunlearn.sweep.naming import columns, stored
from fedunlearn.sweep.table import about, markdown

Format = Literal["csv", "latex", "markdown", "parquet"]
_ADDRESS = re.compile(r"^[a-z+-]{2,}:(?!\\)")
"""What begins an address, such as ``http://`` or ``sqlite:``; a folder on a drive does not."""


@dataclass(frozen=True)
class _Runs:
    """Finished runs: one, or a sweep's cells with their swept values."""

    runs: tuple[RunFolder, ...]
    values: tuple[dict[str, str | int | float], ...]

    @property
    def kind(self) -> str:
        """Their kind of task; a sweep has one model."""
        return str(self.runs[0].read_manifest()["kind"])

    @property
    def keys(self) -> list[str]:
        """The columns ``cell`` and of swept keys."""
        return list(self.values[0])


def table(path: Path) -> pd.DataFrame:
    """The tidy table of a run; of a sweep, of all finished cells, before it ``cell`` and the swept keys.

    A swept key that the table has for a result, such as seeds, is called ``set.seeds`` (`naming.columns`).

    Raises:
        InputError: there is no finished run.
        RunError: a file is missing or damaged.
    """
    return _table(_read(path))


def formatted(path: Path, form: Format) -> bytes:
    """A run or a sweep in a format for papers and programs; csv and parquet are the tidy `table`, nothing rounded.

    Raises:
        InputError: there is no finished run.
        RunError: a file is missing or damaged.
    """
    found = _read(path)
    if form == "markdown":
        text = markdown(path) if found.keys else report.markdown(found.runs[0])
        return f"{text}\n".encode()
    rows = _table(found)
    if form == "parquet":
        return parquet(rows)
    if form == "latex":
        return latex(rows, found.kind, [key for key in found.keys if key != "cell"]).encode()
    return rows.to_csv(index=False, lineterminator="\n").encode()


def export(
    path: Path,
    form: Format | None = None,
    out: Path | None = None,
    mlflow: str | None = None,
    cards: Path | None = None,
) -> list[str]:
    """All that is asked for; return what is to be printed: a table that goes to no file, and where the rest is.

    Args:
        path: a run, or a sweep.
        form: of the table; None for none.
        out: the table's file; None to print it.
        mlflow: see `to_mlflow`; None for nothing.
        cards: the folder for cards; None for none.

    Raises:
        InputError: there is no finished run, a file or folder cannot be written to, or options do not go together.
        RunError: a file is missing or damaged, or a server took nothing.
    """
    if out is not None and form is None:
        raise InputError("--out FILE needs --format, which says what is to be written there")
    if form == "parquet" and out is None:
        raise InputError("--format parquet is no text: name a file for it with --out FILE")
    said = list[str]()
    if form is not None:
        content = formatted(path, form)
        if out is not None:
            _write(out, content)
        said.append(content.decode().rstrip("\n") if out is None else f"{path}: written as {form} to {out}")
    if mlflow is not None:
        said.append(to_mlflow(path, mlflow))
    if cards is not None:
        said.append(to_cards(path, cards))
    return said


def to_cards(path: Path, folder: Path) -> str:
    """Write a card for every model of a run, and one for its data; say where they are.

    Raises:
        InputError: it is no finished run, or the folder cannot be written to.
        RunError: a file is missing or damaged.
    """
    found = _read(path)
    if found.keys:
        raise InputError(f"{path} is a sweep: cards are of one run, such as {found.runs[0].path}")
    (run,) = found.runs
    contents = {**models(run), "data/croissant.json": croissant(run)}
    for name, content in contents.items():
        _write(folder / name, content.encode())
    return f"{path}: {len(contents)} cards written to {folder}"


def _write(file: Path, content: bytes) -> None:
    try:
        files.write(file, content)
    except RunError as error:
        raise InputError(str(error)) from error


def to_mlflow(path: Path, where: str) -> str:
    """Give a run, or all finished cells of a sweep, to MLflow; say where they are.

    Args:
        path: the run or sweep.
        where: a folder for MLflow's file store; or the address of a server or database.

    Raises:
        InputError: there is no finished run, or it cannot be given there.
        RunError: a file is missing or damaged, or the server took none.
    """
    for run in _read(path).runs:
        if _ADDRESS.match(where):
            mlflow_server.send(tracked(run), where)
        else:
            filestore.write(tracked(run), Path(where))
    if _ADDRESS.match(where):
        return f"{path}: given to MLflow at {where}"
    command = f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {where}"
    return f"{path}: written for MLflow; look at it with `{command}`"


def _read(path: Path) -> _Runs:
    if not (path / "sweep.json").is_file():
        return _Runs((RunFolder.open(path),), ({},))
    cells = [cell for cell in about(path)["cells"] if (path / "cells" / cell["slug"] / "DONE").is_file()]
    if not cells:
        raise InputError(f"{path} is a sweep of which no cell is finished: run `simulate` again to go on")
    runs = tuple(RunFolder.open(path / "cells" / cell["slug"]) for cell in cells)
    results = described(str(runs[0].read_manifest()["kind"]))
    named = columns(cells[0]["values"], {"cell", *results})
    kinds = {key: {type(cell["values"][key]) for cell in cells} for key in named}
    values = tuple(
        {"cell": str(cell["slug"])}
        | {column: stored(cell["values"][key], kinds[key]) for key, column in named.items()}
        for cell in cells
    )
    return _Runs(runs, values)


def _table(found: _Runs) -> pd.DataFrame:
    each = list[pd.DataFrame]()
    for run, values in zip(found.runs, found.values, strict=True):
        own = tidy(run)
        for place, (key, value) in enumerate(values.items()):
            own.insert(place, key, value)
        each.append(own)
    return pd.concat(each, ignore_index=True)
