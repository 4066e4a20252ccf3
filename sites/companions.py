"""What comes beside each image, taken out of a table's columns: a report's words, or numbers.

A column of reports or numbers that is taken is no attribute any more: the words of a report are kept nowhere but as
numbers (`sites.tokens`), and no group of patients is made of it. Columns of which a report is made up stay attributes,
unless they are texts themselves: some entry has three words or more, or there are many different ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge

from fedunlearn.core import IGNORED, InputError, Problem
from sites.collection import Collection
from sites.identity import is_missing, quoted
from sites.rows import Fault, grouped
from sites.tokens import longest, tokens, words

_FIELD = re.compile(r"\{([^{}]*)\}")
_OWN = ("image", "patient", "site")
_SENTENCE = 3  # words, numbers aside: an entry of so many is a text
_FEW = 20  # different entries are never too many for an attribute


@dataclass(frozen=True)
class Beside:
    """What comes beside each image, by which and with which it is to be classified: a report, or a table.

    Attributes:
        report: the column of the reports; or how one is made up of columns, such as "{view}, {age} years. {findings}".
            Columns that are texts themselves are no attributes then.
        unsaid: what is struck out of reports, word for word, whatever stands between the words: what names the class,
            above all.
        columns: the columns of a table's numbers, in place of a report; an empty cell is unknown.
        words: kept of each report; longer ones are cut.
    """

    report: str | None = None
    unsaid: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    words: Annotated[int, Ge(1)] = 64


NOTHING = Beside()
"""Images come alone."""


def joined(found: Collection, beside: Beside, place: str) -> Collection:
    """The same collection with what comes beside each image, for the kind "paired".

    Args:
        found: images with one class each.
        beside: what is taken out of its table; `NOTHING` to leave it as it is.
        place: the source's name and file, for messages.

    Raises:
        InputError: there is no such column, a number is none, or images have no class of their own.
    """
    if beside.report is None and not beside.columns:
        return found
    if problems := _misplaced(found, beside, place):
        raise InputError(problems)
    if beside.report is None:
        name, values, notes = "table", *_numbers(found.table, beside.columns, place)
        gone: Sequence[str] = beside.columns
    else:
        name, values, notes = "report", *_reports(found.table, beside)
        gone = _texts(found.table.drop(columns=[*_OWN], errors="ignore"), beside.report)
    return replace(
        found,
        targets=np.repeat(found.targets[:, None], 3, 1).astype(
            np.min_scalar_type(max(found.classes, IGNORED))
        ),
        table=found.table.drop(columns=[name for name in gone if name not in _OWN]),
        kind="paired",
        note=found.note + _told(beside, gone),
        notes=(*found.notes, *notes),
        companions={name: values},
    )


def _told(beside: Beside, texts: Sequence[str]) -> str:
    if beside.report is None:
        return f" Beside each, numbers: {', '.join(beside.columns)}."
    if _own_column(beside.report):
        return " Beside each, its report."
    fields = ", ".join(_fields(beside.report))
    if not texts:
        return f" Beside each, a report that is made up of {fields}: nobody wrote it."
    return f" Beside each, a report that is put together of {fields}; people wrote {', '.join(texts)}."


def _fields(report: str) -> list[str]:
    """The columns that a report takes."""
    return list(dict.fromkeys(_FIELD.findall(report))) or [report]


def _own_column(report: str) -> bool:
    """Whether reports are one column as it is."""
    return not _FIELD.search(report) or _FIELD.fullmatch(report) is not None


def _texts(table: pd.DataFrame, report: str) -> list[str]:
    """The columns of a report that people wrote as texts: its own, or those of a template that are no attributes."""
    fields = [name for name in _fields(report) if name in table]
    return fields if _own_column(report) else [name for name in fields if _is_text(table[name])]


def _is_text(column: pd.Series[Any]) -> bool:
    """Whether an entry has several words, or many differ, numbers aside; ``|`` and ``;`` join entries."""
    entries = {part for cell in set(map(str, column)) for part in re.split(r"[|;]", cell)}
    said = {tuple(word for word in words(entry) if word[0].isalpha()) for entry in entries} - {()}
    return len(said) > max(_FEW, len(column) / 4) or any(len(entry) >= _SENTENCE for entry in said)


def _misplaced(found: Collection, beside: Beside, place: str) -> list[Problem]:
    given = [name for name in ("report", "columns") if getattr(beside, name)]
    if len(given) != 1:
        return [Problem(f"{place}: beside: found {' and '.join(given)}, expected one of them")]
    if found.kind != "classification":
        return [
            Problem(
                f"{place}: beside: found images for {found.kind}, expected one class for each: leave it out"
            )
        ]
    wanted = list(beside.columns) or _fields(beside.report or "")
    known = [column for column in found.table.columns if column not in ("image", "patient")]
    return [
        Problem(
            f"{place}: beside: found no column {quoted(name)}, expected one of {', '.join(known) or 'none'}"
        )
        for name in wanted
        if name not in known
    ]


def _reports(table: pd.DataFrame, beside: Beside) -> tuple[npt.NDArray[Any], list[str]]:
    """The reports as numbers of words, and what to know of them."""
    report = beside.report or ""
    template = report if _FIELD.search(report) else f"{{{report}}}"
    columns = {name: [_plain(value) for value in table[name]] for name in _fields(template)}
    rows = ({name: cells[row] for name, cells in columns.items()} for row in range(len(table)))
    texts = [_struck(_filled(template, row), beside.unsaid) for row in rows]
    values, most = tokens(texts, beside.words), longest(texts)
    notes = list[str]()
    if empty := int((values == 0).all(axis=1).sum()):
        notes.append(f"{empty:,} of {len(texts):,} images have a report without words")
    if most > beside.words:
        notes.append(
            f"reports are cut after {beside.words} words, the longest has {most:,}: raise beside.words"
        )
    return values, notes


def _plain(value: Any) -> str:
    """A cell as it is read aloud: no word where nothing is known, ``|`` between findings parts them."""
    text = "" if value is None or (isinstance(value, float) and np.isnan(value)) else str(value)
    return "" if is_missing(text) else text.replace("|", ", ").replace("_", " ")


def _filled(template: str, row: Mapping[str, str]) -> str:
    """The template with the cells of one row in the places of its fields."""
    return _FIELD.sub(lambda field: row[field[1]], template)


def _struck(text: str, unsaid: Sequence[str]) -> str:
    """The words of a text without phrases that are not to be said, nor those that show once others are struck out."""
    phrases = sorted(map(words, unsaid), key=len, reverse=True)  # "pleural effusion" before "pleural"
    left, before = words(text), list[str]()
    while left != before:
        before = left
        for phrase in filter(None, phrases):
            left = _without(left, phrase)
    return " ".join(left)


def _without(said: Sequence[str], phrase: Sequence[str]) -> list[str]:
    """Words without those of a phrase, where they follow one another."""
    left = list[str]()
    for word in said:
        left.append(word)
        if left[-len(phrase) :] == phrase:
            del left[-len(phrase) :]
    return left


def _numbers(table: pd.DataFrame, columns: Sequence[str], place: str) -> tuple[npt.NDArray[Any], list[str]]:
    """The numbers (N, columns) float32, NaN where a cell is empty, and what to know of them."""
    values, faults = np.empty((len(table), len(columns)), np.float32), list[Fault]()
    for k, name in enumerate(columns):
        cells = table[name].map(_plain)
        numbers = pd.to_numeric(cells.where(cells != "", None), errors="coerce")
        values[:, k] = numbers.to_numpy(np.float32)
        for row in np.flatnonzero(numbers.isna() & (cells != "")):
            where = f"{place}: {name} of image {table['image'].iloc[row]!r}"
            message = f"{where}: found {quoted(cells.iloc[row])}, expected a number or nothing"
            faults.append(Fault(Problem(message), f"{place}: {name}: no numbers"))
    if faults:
        raise InputError(grouped(faults))
    unknown = [(name, int(np.isnan(values[:, k]).sum())) for k, name in enumerate(columns)]
    return values, [
        f"{name} is unknown of {count:,} of {len(table):,} images: the mean is taken"
        for name, count in unknown
        if count
    ]
