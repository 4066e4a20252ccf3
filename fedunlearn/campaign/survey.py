"""What `check` shows of the data: who has what, what its files were, and what should be known before training."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from fedunlearn import files
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.core import IGNORED
from fedunlearn.core.held import held
from fedunlearn.core.kinds import facts
from fedunlearn.results.contact import Sheet, drawn
from fedunlearn.results.wording import cell, line

_WIDTH = 100
_MOST = 20  # hospitals that are shown
_CLASSES = 12  # classes that are counted one by one
_FINDINGS, _ACROSS = 20, 6  # findings that have a row, and hospitals that have a column there
_NARROW = 5  # letters: the least width of a column of counts
_PARTS = ("train", "val", "test", "proxy")

Column = tuple[str, Callable[[pd.DataFrame], str]]


def survey(cohort: Cohort) -> list[str]:
    """The data in lines: what it is, tables by hospital, notes."""
    tables = [*_who(cohort), *_kinds(cohort), *_people(cohort), *_files(cohort)]
    notes = [f"- {line(note)}" for note in cohort.notes]
    return [f"data: {line(cohort.note)}", *tables, *(["", "notes:", *notes] if notes else [])]


def draw(cohort: Cohort, name: str, file: Path) -> None:
    """Draw a few images of every hospital and class into a file, as the network will see them.

    Raises:
        RunError: it cannot be written.
    """
    shape = " × ".join(map(str, cohort.shape))
    what = "image" if len(cohort.shape) == 3 else "volume"
    title = f"{name}: {what}s of {shape} as the network will see them"
    targets, names = held(cohort.kind).strata(cohort.targets, cohort.names) or (cohort.targets, cohort.names)
    shown = cohort.pixels, targets, cohort.site, cohort.sites, tuple(names)
    sheet = Sheet(title, *shown, unit=what, note=cohort.note)
    files.write(file, drawn(sheet, file.suffix))


def _who(cohort: Cohort) -> list[str]:
    """How many patients and images each hospital has, in which parts."""
    parts = [part for part in _PARTS if (cohort.split == part).any()]
    columns: list[Column] = [
        ("patients", lambda own: f"{own['patient'].nunique():,}"),
        ("images", lambda own: f"{len(own):,}"),
        *((part, _count_of(part)) for part in parts),
    ]
    return _table(cohort, cohort.table, columns)


def _kinds(cohort: Cohort) -> list[str]:
    """How many images of each class every hospital has, or volumes with each structure; images with each finding."""
    kind, has = held(cohort.kind), cohort.has
    if kind.unknown:
        return _findings(cohort, has)
    about = facts(cohort.kind)
    classes = range(int(about.background), has.shape[1])
    what = f"{about.what}s {'of' if about.one_class else 'with'} {kind.one}"
    names = [cohort.names[c] for c in classes]
    if (
        sum(max(len(name), _NARROW) + 2 for name in names) > _WIDTH - 2 * _NARROW
    ):  # too wide: numbers, told above
        what += f" ({', '.join(f'{c} {cohort.names[c]}' for c in classes)})"
        names = [str(c) for c in classes]
    columns: list[Column] = [(name, _holders(has[:, c])) for c, name in zip(classes, names, strict=True)]
    if len(columns) > _CLASSES:
        columns = [("classes", lambda own: f"{int(has[own.index].any(axis=0).sum())} of {len(classes)}")]
    return _table(cohort, cohort.table, columns, what)


def _findings(cohort: Cohort, has: Any) -> list[str]:
    """How many images with each finding every hospital has, a row for each, and of how many nobody knows."""
    hospitals = cohort.sites if len(cohort.sites) <= _ACROSS else ()
    names = cohort.names[:_FINDINGS]
    drawn = _drawn("finding", [*hospitals, "all", "unknown"])
    for number, name in enumerate(names):
        own, unknown = has[:, number], int((cohort.targets[:, number] == IGNORED).sum())
        counts = [int(own[cohort.rows(site)].sum()) for site in hospitals]
        drawn.add_row(cell(name), *(f"{count:,}" for count in (*counts, int(own.sum()), unknown)))
    none = (cohort.targets == 0).all(axis=1)
    others = {"none of them": none, "unknown": ~has.any(axis=1) & ~none}
    for name, own in others.items():
        counts = [int(own[cohort.rows(site)].sum()) for site in hospitals]
        if own.any() or name == "none of them":
            drawn.add_row(name, *(f"{count:,}" for count in (*counts, int(own.sum()))), "")
    more = len(cohort.names) - len(names)
    return _shown(drawn, f"images with a finding{f', and {more} more findings' if more else ''}")


def _count_of(part: str) -> Callable[[pd.DataFrame], str]:
    return lambda own: f"{int((own['split'] == part).sum()):,}"


def _holders(has: Any) -> Callable[[pd.DataFrame], str]:
    return lambda own: f"{int(has[own.index].sum()):,}"


def _people(cohort: Cohort) -> list[str]:
    """Sex and age by patient, where the data tells."""
    table = cohort.table.drop_duplicates(["site", "patient"])
    columns: list[Column] = []
    if "sex" in table:
        columns.append(("sex (patients)", lambda own: _counts(own["sex"])))
    if "age" in table:
        columns.append(("age: from … to (median)", lambda own: _spread(own["age"])))
    return _table(cohort, table, columns) if columns else []


def _files(cohort: Cohort) -> list[str]:
    """Formats, sizes, values and orientations of the files, as they were found."""
    if cohort.seen is None:
        return []
    columns: list[Column] = [
        ("format", lambda own: _counts(own["format"])),
        ("size", lambda own: _counts(own["size"])),
        ("values: from … to (median of both)", _values),
    ]
    if (cohort.seen["orientation"] != "").any():
        columns.append(("orientation", lambda own: _counts(own["orientation"])))
    return _table(cohort, cohort.seen.assign(site=cohort.site), columns)


def _values(own: pd.DataFrame) -> str:
    low, high = own["low"], own["high"]
    middle = f"{low.median():.4g} … {high.median():.4g}"
    return f"{low.min():.4g} … {high.max():.4g} ({middle})"


def _counts(values: pd.Series) -> str:
    """The most frequent values with their numbers; one that all have, alone."""
    counts = values.astype(str).value_counts()
    if len(counts) == 1:
        return str(counts.index[0]) or "-"
    shown = [f"{value or '-'} {count:,}" for value, count in counts.head(3).items()]
    return ", ".join(shown) + (f", {len(counts) - 3} more" if len(counts) > 3 else "")


def _spread(values: pd.Series) -> str:
    numbers = pd.to_numeric(values, errors="coerce").dropna()
    if numbers.empty:
        return "-"
    unknown = f", {len(values) - len(numbers)} unknown" if len(numbers) < len(values) else ""
    return f"{numbers.min():g} … {numbers.max():g} ({numbers.median():g}){unknown}"


def _table(cohort: Cohort, table: pd.DataFrame, columns: Sequence[Column], title: str = "") -> list[str]:
    """Lines of a table with a row for every hospital, and one for all of them."""
    drawn = _drawn("hospital", [name for name, _ in columns])
    for name, own in _rows(cohort, table):
        drawn.add_row(cell(name), *(cell(value(own)) for _, value in columns))
    return _shown(drawn, title)


def _drawn(first: str, names: Sequence[str]) -> Table:
    """A table without rows."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    drawn.add_column(first, overflow="fold")
    for name in names:
        drawn.add_column(cell(name), justify="right", overflow="fold", min_width=min(len(name), 12))
    return drawn


def _shown(drawn: Table, title: str) -> list[str]:
    """The lines of a table, below its title."""
    text = io.StringIO()
    Console(file=text, width=_WIDTH, color_system=None).print(drawn)
    titled = [line(f"{title}:")] if title else []
    return ["", *titled, *(told.rstrip() for told in text.getvalue().splitlines())]


def _rows(cohort: Cohort, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    groups: Mapping[Any, pd.DataFrame] = dict(iter(table.groupby("site", sort=False)))
    for site in cohort.sites[:_MOST]:
        yield site, groups.get(site, table.iloc[:0])
    if (more := len(cohort.sites) - _MOST) > 0:
        yield f"{more} more", table[table["site"].isin(cohort.sites[_MOST:])]
    yield "all", table
