"""What a label is: numbers are classes in order of value, names in alphabetical order; what is neither is refused."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from sites import label_notes
from sites.identity import alike, is_missing, listed, quoted, tidied

Ints = npt.NDArray[np.int64]

SHOWN = 5
"""Classes that a sentence names."""

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,2})?")
_SEVERAL = re.compile(r"[|;]")
_PARTS = re.compile(r"[|;,/+&]|\sand\s")
_LIST = re.compile(r"[\[(]?\s*\d+(\.\d+)?([\s,;|]+\d+(\.\d+)?)+\s*[\])]?")
_HUGE = 10**18  # beyond, a label is no number of a class
_SHORT = {"t": "true", "f": "false", "y": "yes", "n": "no", "pos": "positive", "neg": "negative"}
_FEW = 10  # so many classes are never too many
_MOST = 200  # names that are compared, and letters of each


@dataclass(frozen=True)
class Misread:
    """What is wrong with the label of one image.

    Attributes:
        row: its number, from 0.
        kind: in a few words, equal for what is alike.
        message: what was found and expected.
    """

    row: int
    kind: str
    message: str


@dataclass(frozen=True)
class Labels:
    """The labels of all images as classes.

    Attributes:
        names: of the classes, in order.
        targets: (N,) the class of each image; means nothing where anything is wrong.
        notes: what their owner should know of, a sentence each.
        misread: what is wrong with single images' labels.
        wrong: what is wrong with all of them together.
    """

    names: tuple[str, ...]
    targets: Ints
    notes: tuple[str, ...] = ()
    misread: tuple[Misread, ...] = ()
    wrong: tuple[str, ...] = ()


def read_labels(texts: Sequence[str], patients: Sequence[str], place: Callable[[int], str]) -> Labels:
    """The classes of some images; missing labels are told, too.

    Args:
        texts: (N,) labels as written, at least one.
        patients: (N,) whose image each is.
        place: where the label of a row stands, in words.
    """
    written = _Written.of([tidied(text) for text in texts], place)
    misread = [*_missing(written), *_no_numbers(written), *_no_name(written)]
    values = {text: _value(text) for text in written.rows if not is_missing(text)}
    numbers = {text: value for text, value in values.items() if value is not None}
    if len(numbers) == len(values):
        misread += _no_classes(written, numbers)
        order = sorted(set(numbers.values()))
        code = {text: order.index(value) for text, value in numbers.items()}
        names, notes = [f"{value:f}" if value % 1 else f"{int(value)}" for value in order], _numbered(numbers)
    else:
        misread += [*_near(written), *_reordered(written)] if not numbers else []
        names = sorted(values)
        code, notes = (
            {text: number for number, text in enumerate(names)},
            [*_findings(names), *label_notes.unsaid(names)],
        )
    wrong = _unfit(names, len(texts), written) if not misread else []
    targets = np.array([code.get(text, 0) for text in written.texts], dtype=np.int64)
    if not misread and not wrong:
        notes += label_notes.rare(names, targets, patients)
    return Labels(
        tuple(names), targets, tuple(notes), tuple(sorted(misread, key=lambda one: one.row)), tuple(wrong)
    )


@dataclass(frozen=True)
class _Written:
    """The labels as written: (N,) texts, the rows of each text, and where a row stands, in words."""

    texts: Sequence[str]
    rows: dict[str, list[int]]
    place: Callable[[int], str]

    @staticmethod
    def of(texts: Sequence[str], place: Callable[[int], str]) -> _Written:
        rows = defaultdict[str, list[int]](list)
        for row, text in enumerate(texts):
            rows[text].append(row)
        return _Written(texts, dict(rows), place)

    def first(self, text: str) -> str:
        """Where a label is met first."""
        return self.place(self.rows[text][0])


def _value(text: str) -> Decimal | None:
    if not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text)
    return value if abs(value) < _HUGE else None


def _missing(written: _Written) -> Iterator[Misread]:
    for text, rows in written.rows.items():
        if is_missing(text):
            yield from (Misread(row, _kind_of_missing(text), missing("label", text)) for row in rows)


def _kind_of_missing(text: str) -> str:
    return "missing" if text else "nothing"


def missing(column: str, text: str) -> str:
    """What to say of a cell that is empty or has a word for nothing."""
    column = "id" if column == "image" else column
    if not text:
        return f"found nothing, expected the {column} of this image: fill it in, or remove the row"
    return (
        f"found {quoted(text)}, which stands for a missing value: fill in the {column} of this image, or remove the "
        "row; if it is a name, write it in another way"
    )


def _no_numbers(written: _Written) -> Iterator[Misread]:
    """Numbers among names, or names among numbers: those that are fewer."""
    given = {text: rows for text, rows in written.rows.items() if not is_missing(text)}
    numbers = [text for text in given if _value(text) is not None]
    names = [text for text in given if _value(text) is None]
    if not numbers or not names:
        return
    many = sum(len(given[text]) for text in numbers) >= sum(len(given[text]) for text in names)
    expected = (
        "a class number as in most rows (0, 1, …)" if many else f"a name as in most rows ({listed(names)})"
    )
    advice = "or write all of them as names, such as 'grade 1'" if many else "or write all of them as numbers"
    for text in names if many else numbers:
        message = f"found {quoted(text)}, expected {expected}: correct it, {advice}"
        yield from (Misread(row, "no class number" if many else "a number", message) for row in given[text])


def _no_name(written: _Written) -> Iterator[Misread]:
    """Several numbers in one label, which as text would be in no sensible order, and labels that are whole texts."""
    for text, rows in written.rows.items():
        if len(text) > _MOST:
            message = f"found {quoted(text)}, {len(text):,} letters, expected the name of a class: shorten it"
            yield from (Misread(row, "too long", message) for row in rows)
        elif _LIST.fullmatch(text):
            point = f"if the comma is a decimal one, write {text.replace(',', '.')}"
            hot = "if it is one-hot, write the place of the 1, counted from 0"
            advice = point if re.fullmatch(r"\d+,\d+", text) else hot
            message = f"found {quoted(text)}, which is several numbers, expected one: {advice}; else choose one label"
            yield from (Misread(row, "several numbers", message) for row in rows)


def _no_classes(written: _Written, numbers: dict[str, Decimal]) -> Iterator[Misread]:
    for text, value in numbers.items():
        if value < 0:
            message = (
                f"found {quoted(text)}, expected 0, 1, …: a negative number often stands for no label; then remove "
                "the row, or write all labels as names"
            )
            yield from (Misread(row, "a negative number", message) for row in written.rows[text])
        elif value % 1:
            message = f"found {quoted(text)}, which is no whole number, expected classes 0, 1, …: is it a measurement?"
            yield from (Misread(row, "no whole number", message) for row in written.rows[text])


def _numbered(numbers: dict[str, Decimal]) -> list[str]:
    """Notes of numbers that are no 0, 1, …, and of those written in several ways."""
    order, spellings = sorted(set(numbers.values())), defaultdict[Decimal, list[str]](list)
    for text, value in numbers.items():
        spellings[value].append(text)
    notes = []
    if order != list(range(len(order))):
        more = ", …" if len(order) > 2 * SHOWN else ""
        shown = ", ".join(f"label {value:f} is class {i}" for i, value in enumerate(order[: 2 * SHOWN]))
        notes.append(f"labels are numbered in the order of their value: {shown}{more}")
    several = [sorted(texts) for texts in spellings.values() if len(texts) > 1]
    if several:
        shown = "; ".join(" and ".join(map(quoted, texts)) for texts in several[:SHOWN])
        notes.append(
            f"labels that have one value are one class: {shown}{'; …' if len(several) > SHOWN else ''}"
        )
    elif any(text != f"{int(value)}" for text, value in numbers.items()):
        odd = next(text for text, value in numbers.items() if text != f"{int(value)}")
        notes.append(f"labels such as {odd!r} are read as whole numbers")
    return notes


def _near(written: _Written) -> Iterator[Misread]:
    """Names that differ only in case, spaces and the like: the rarer ones."""
    groups = defaultdict[str, list[str]](list)
    for text in written.rows:
        if not is_missing(text):
            groups[_close(text)].append(text)
    for group in groups.values():
        usual = max(group, key=lambda text: (len(written.rows[text]), -written.rows[text][0]))
        for text in group:
            if text != usual:
                first = f"{quoted(usual)} in {written.first(usual)}"
                message = f"found {quoted(text)}, but {first}: write them alike if they are one"
                yield from (Misread(row, f"almost as {quoted(usual)}", message) for row in written.rows[text])


def _close(text: str) -> str:
    close = re.sub(r"(?<=\w)[\s_-]+(?=\w)", "", alike(text.replace("_", " ")))
    return _SHORT.get(close, close)


def _parts(text: str) -> list[str]:
    return [part for part in (tidied(one) for one in _PARTS.split(text.strip("[](){}"))) if part]


def _reordered(written: _Written) -> Iterator[Misread]:
    """Several findings that another label names in another order."""
    first: dict[tuple[str, ...], str] = {}
    for text, rows in written.rows.items():
        parts = [] if _LIST.fullmatch(text) else _parts(text)
        if len(parts) > 1 and (other := first.setdefault(tuple(sorted(parts)), text)) != text:
            message = (
                f"found {quoted(text)}, but {quoted(other)} in {written.first(other)}: these are the same findings, "
                "and a label is one class; give each image one finding, or write them in one order"
            )
            yield from (Misread(row, "findings in another order", message) for row in rows)


def _findings(names: Sequence[str]) -> list[str]:
    several = [name for name in names if _SEVERAL.search(name) and len(_parts(name)) > 1]
    if not several:
        return []
    return [
        f"labels such as {listed(several)} seem to name several findings; each such combination is a class of its own, "
        "since an image has one label: for several, say `findings: all`"
    ]


def _unfit(names: Sequence[str], count: int, written: _Written) -> list[str]:
    if len(names) > max(_FEW, count / 2):
        some = listed(list(written.rows))
        return [
            f"found {len(names):,} different labels in {count:,} images, such as {some}, expected a few classes: these "
            "look like ids, measurements or free text"
        ]
    return []
