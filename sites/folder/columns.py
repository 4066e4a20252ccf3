"""The columns that a manifest must have, by their names, and how else people write these."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedunlearn.core import InputError, Problem
from sites.identity import tidied

LABELS = ("label", "label_map")
"""A manifest has one of these columns: a class for every image, or the file of its label map."""

WANTED = ("file", *LABELS, "patient", "site", "image")
"""Columns that mean something to us, by the names that they must have."""

KNOWN = (*WANTED, "age", "sex", "split", "difficulty")
"""Those, and others that are known by their names."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What may stand between the cells of a CSV file."""

_MOST = 20  # columns that a message names
_OFTEN = {
    "file": (
        "filename",
        "file_name",
        "path",
        "filepath",
        "file_path",
        "image_path",
        "img",
        "image index",
        "image",
    ),
    "label": (
        "class",
        "diagnosis",
        "target",
        "dx",
        "finding labels",
        "finding_labels",
        "labels",
        "y",
        "category",
    ),
    "label_map": ("mask", "segmentation", "seg", "mask_path"),
    "patient": (
        "patient_id",
        "patientid",
        "patient id",
        "subject",
        "subject_id",
        "pid",
        "case",
        "id",
    ),
}


def known_in(header: str, separator: str) -> set[str]:
    """The known columns of a header if its cells are separated so."""
    try:
        cells = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return set()
    return {tidied(cell).casefold() for cell in cells} & set(KNOWN)


def header_of(cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns' names, and notes; names of ours may be written with capitals and with spaces around them."""
    names, renamed = [], []
    for cell in cells:
        name = tidied(cell)
        known = name.casefold() if name.casefold() in KNOWN else name
        names.append(known)
        if known != name or (known and cell != known and cell.isascii()):
            renamed.append(f"{cell!r} is {known}")
    return names, [f"columns are written otherwise: {', '.join(renamed)}"] if renamed else []


@dataclass(frozen=True)
class Needed:
    """The columns that a table must have.

    Attributes:
        columns: by name.
        labels: and one of `LABELS`.
        findings: where the table has one of these, it must have all, and they stand in place of `LABELS`.
    """

    columns: tuple[str, ...] = ("file", "patient")
    labels: bool = True
    findings: tuple[str, ...] = ()

    def of(self, header: Sequence[str]) -> tuple[str, ...]:
        """All that a table with this header must have."""
        if any(name in header for name in self.findings):
            return (self.columns[0], *self.findings, *self.columns[1:])
        labels = [column for column in LABELS if column in header] or LABELS[:1]
        return (self.columns[0], *(labels if self.labels else ()), *self.columns[1:])


def require(
    file: Path, header: Sequence[str], needed: Needed, line: int = 1, lines: Sequence[str] = ()
) -> None:
    """Refuse a table without the columns that it must have, or with some twice.

    Args:
        file: where it stands.
        header: its columns.
        needed: those that it must have.
        line: of the header.
        lines: of the file, to look for the header elsewhere.

    Raises:
        InputError: it has not; all problems together.
    """
    missing = [column for column in needed.of(header) if column not in header]
    twice = sorted({column for column in header if column and header.count(column) > 1})
    problems = []
    if missing:
        there = [name for name in header if name]
        found = ", ".join(name[:80] for name in there[:20]) + (
            f" and {len(there) - 20:,} more" if len(there) > 20 else ""
        )
        message = f"found the columns {found or 'none'}, expected also {', '.join(missing)}"
        problems.append(Problem(message + _meant(missing, there, line, lines), str(file), line))
    if all(column in header for column in LABELS):
        problems.append(
            Problem("found the columns label and label_map, expected one of them", str(file), line)
        )
    if twice:
        problems.append(Problem(f"found the columns {', '.join(twice[:10])} more than once", str(file), line))
    if problems:
        raise InputError(problems)


def _meant(missing: Sequence[str], header: Sequence[str], line: int, lines: Sequence[str]) -> str:
    """What to do about missing columns: rename others, or remove what stands above the header."""
    for below, text in enumerate(lines[line : line + 10], start=line + 1):
        if any(len(known_in(text, one) & set(WANTED)) > 1 for one in SEPARATORS):
            return f": the header seems to be in line {below}; remove what stands above it"
    if not header:
        return ": the file is empty, or starts with an empty line of separators"
    if len(header) == 1 and sum(word in header[0].casefold() for word in WANTED) > 1:
        return ": that is one column; separate columns by commas, semicolons or tabs"
    if any(name[0] in "'‘“`" for name in header):
        return ': leave out the quotes, or write them as "…"'
    if any(re.fullmatch(r"-?\d+([.,]\d+)?|.*\.\w{2,4}", name) for name in header):
        return f": the first line seems to be an image; write a header above it, such as {','.join(WANTED[:2])},patient"
    by_fold = {name.casefold(): name for name in header}
    renames = [
        f"{by_fold[other]} to {column}"
        for column in missing
        for other in [next((one for one in _OFTEN.get(column, ()) if one in by_fold), "")]
        if other
    ]
    if renames:
        return f": rename {', '.join(renames)}?"
    others = [name for name in header if name not in KNOWN][:2]
    findings = f"; if columns tell findings, name them: findings: [{', '.join(others)}, …]"
    return ": rename the columns that hold them" + (
        findings if missing == ["label"] and len(others) > 1 else ""
    )
