"""Manifests: tables of image files in CSV or Parquet, every cell read as text and known by its place."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fedunlearn.core import InputError, Problem

FORMATS = (".png", ".npy", ".nii", ".nii.gz", ".dcm")
VOLUMES = (".nii", ".nii.gz")
"""Of images that have label maps, and of the maps."""

LABELS = ("label", "label_map")
"""A manifest has one of these columns: a class for every image, or the file of its label map."""


@dataclass(frozen=True)
class Row:
    """One image of a manifest.

    Attributes:
        cells: by column name; ids keep their leading zeros.
        manifest: the file it stands in.
        line: its line in a CSV file, its number in a Parquet file, from 1.
        columns: where each cell starts in the line, from 1; empty where the file has no lines.
    """

    cells: Mapping[str, str]
    manifest: str
    line: int
    columns: Mapping[str, int]

    def problem(self, column: str, message: str) -> Problem:
        """A problem with one of the cells."""
        if not self.columns:
            return Problem(f"row {self.line}, column {column}: {message}", self.manifest)
        return Problem(f"{column}: {message}", self.manifest, self.line, self.columns.get(column))


def read_manifest(file: Path) -> list[Row]:
    """All rows of a manifest.

    Raises:
        InputError: it is missing, no CSV or Parquet file, or lacks columns; all problems together.
    """
    if not file.is_file():
        raise InputError(
            f"folder: found no manifest {file}, expected a CSV or Parquet file with the columns "
            f"file, label or label_map, and patient: put it there or give its folder as --data-root"
        )
    if file.suffix == ".parquet":
        return _parquet(file)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return _csv(file, lines.read())
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            [Problem(f"is no CSV file in UTF-8 ({error}): save it as one", str(file))]
        ) from error


def _csv(file: Path, text: str) -> list[Row]:
    lines = text.splitlines(keepends=True)
    reader = csv.reader(lines, strict=True)
    header = next(reader, [])
    _require(file, header)
    rows, problems, start = [], [], reader.line_num + 1
    for cells in reader:
        line, start = start, reader.line_num + 1
        if len(cells) == len(header):
            places = dict(zip(header, _starts(lines[line - 1]), strict=False))
            rows.append(Row(dict(zip(header, map(str.strip, cells), strict=True)), str(file), line, places))
        elif cells:  # not a blank line
            message = f"found {len(cells)} cells, expected {len(header)}, one for each column"
            problems.append(Problem(message, str(file), line))
    if problems:
        raise InputError(problems)
    return rows


def _starts(line: str) -> Iterator[int]:
    """The column where each cell of a CSV line starts, from 1."""
    yield 1
    quoted = False
    for place, character in enumerate(line, start=1):
        quoted ^= character == '"'
        if character == "," and not quoted:
            yield place + 1


def _parquet(file: Path) -> list[Row]:
    try:
        table = pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise InputError([Problem(f"is no Parquet file ({error}): save it as one", str(file))]) from error
    header = [str(name) for name in table.columns]
    _require(file, header)
    for column in {"patient", "site", "image"} & set(header):
        if table[column].dtype.kind == "f":
            raise InputError(
                [Problem(f"{column} ids are decimal numbers, expected text or integers", str(file))]
            )
    cells = [
        ["" if missing else str(v) for v, missing in zip(table[c], table[c].isna(), strict=True)]
        for c in header
    ]
    return [
        Row(dict(zip(header, row, strict=True)), str(file), number, {})
        for number, row in enumerate(zip(*cells, strict=True), start=1)
    ]


def _require(file: Path, header: list[str]) -> None:
    labels = [column for column in LABELS if column in header]
    wanted = ("file", *(labels or LABELS[:1]), "patient")
    missing = [column for column in wanted if column not in header]
    twice = sorted({column for column in header if header.count(column) > 1})
    problems = []
    if missing:
        message = f"found the columns {', '.join(header) or 'none'}, expected also {', '.join(missing)}"
        problems.append(Problem(message, str(file), 1))
    if len(labels) > 1:
        problems.append(Problem("found the columns label and label_map, expected one of them", str(file), 1))
    if twice:
        problems.append(Problem(f"found the columns {', '.join(twice)} more than once", str(file), 1))
    if problems:
        raise InputError(problems)


def suffix(file: str) -> str:
    """What tells a file's format."""
    return ".nii.gz" if file.lower().endswith(".nii.gz") else Path(file).suffix.lower()


def row_problems(rows: Sequence[Row], folder: Path) -> list[Problem]:
    """Everything wrong with the rows of a manifest in ``folder``; no image is opened."""
    if not rows:
        return [Problem("folder: the manifest has no rows, expected one per image")]
    problems: list[Problem] = []
    labels = [row.cells["label"] for row in rows if "label" in row.cells]
    numbered = sum(label.isdecimal() for label in labels) * 2 > len(rows)
    seen: dict[str, int] = {}
    for row in rows:
        problems += cell_problems(row, folder, numbered)
        image = row.cells.get("image", row.cells["file"])
        if (first := seen.setdefault(image, row.line)) != row.line:
            column = "image" if "image" in row.cells else "file"
            problems.append(
                row.problem(column, f"found {image!r} again (first in line {first}), expected unique ids")
            )
    classes = {int(label) for label in labels if label.isdecimal()}
    if numbered and not problems and classes != set(range(len(classes))):
        problems.append(
            Problem(
                f"found the labels {sorted(classes)[:12]}, expected 0, 1, … without a gap", rows[0].manifest
            )
        )
    return problems


def cell_problems(row: Row, folder: Path, numbered: bool = False) -> list[Problem]:
    """Everything wrong with one row.

    Args:
        row: of a manifest.
        folder: the manifest's.
        numbered: whether labels must be numbers.
    """
    problems = []
    for column in {"patient", "label", "label_map", "site", "image"} & set(row.cells):
        if not row.cells[column]:
            problems.append(row.problem(column, f"found nothing, expected the {column} of this image"))
    if numbered and row.cells["label"] and not row.cells["label"].isdecimal():
        found = row.cells["label"]
        problems.append(
            row.problem("label", f"found {found!r}, expected a class number as in most rows (0, 1, …)")
        )
    maps = "label_map" in row.cells
    problems += _file_problems(row, "file", VOLUMES if maps else FORMATS, folder)
    if maps and row.cells["label_map"]:
        problems += _file_problems(row, "label_map", VOLUMES, folder)
    return sorted(problems)


def _file_problems(row: Row, column: str, formats: Sequence[str], folder: Path) -> list[Problem]:
    file = row.cells[column]
    if suffix(file) not in formats:
        return [row.problem(column, f"found {file!r}, expected one of {', '.join(formats)}")]
    if not (folder / file).is_file():
        return [row.problem(column, f"found no file {folder / file}; paths start at the manifest's folder")]
    return []
