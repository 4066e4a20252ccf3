"""Several findings of one image: which it has, which it has not, and which nobody knows.

They are written as one column for each finding, as one cell that names those an image has (``Effusion|Mass``), or as
numbers. What nobody knows is neither present nor absent: training, scores and attacks leave it out.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED
from fedunlearn.core.blanks import NOBODY
from fedunlearn.kinds.multilabel.held import NONE, UNKNOWN
from sites.identity import alike, is_missing, listed, quoted, tidied, twins
from sites.labels import Misread

Bytes = npt.NDArray[np.uint8]

Wanted = tuple[str, ...] | Literal["all"] | None
"""The findings that a scenario asks for, by name; all there are; or none: an image has one label."""

CLASSES = 2
"""What can be of a finding: absent 0, present 1."""

SHOWN = 8
"""Findings that a sentence names."""

_PRESENT = frozenset(["1", "true", "t", "yes", "y", "positive", "pos", "present", "+"])
_ABSENT = frozenset(["0", "false", "f", "no", "n", "negative", "neg", "absent"])
_UNKNOWN = NOBODY | {"-1", "u", "uncertain", "unclear", "equivocal"}
_DASHES = frozenset("-–—−")  # beside a plus they may say absent
_FEW, _MOST = 20, 300  # so many findings are never too many; a cell of more letters is a text
_EXPECTED = "expected 1 (present), 0 (absent), or -1, u or nothing where nobody knows"


@dataclass(frozen=True)
class Findings:
    """The findings of all images.

    Attributes:
        names: of the findings, in order.
        targets: (N, F) 0 absent, 1 present, `fedunlearn.core.IGNORED` unknown; means nothing where anything is wrong.
        notes: what their owner should know of, a sentence each.
        misread: by column, what is wrong with single cells.
        wrong: what is wrong with all of them together.
    """

    names: tuple[str, ...]
    targets: Bytes
    notes: tuple[str, ...] = ()
    misread: Mapping[str, tuple[Misread, ...]] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()


def of_columns(columns: Mapping[str, Sequence[str]], patients: Sequence[str]) -> Findings:
    """Findings of which each has a column; where one has a plus, a dash is neither absent nor unknown, but refused.

    Args:
        columns: by finding, (N,) cells as written.
        patients: (N,) whose image each is.
    """
    targets = np.full((len(patients), len(columns)), IGNORED, dtype=np.uint8)
    misread, unknown = dict[str, tuple[Misread, ...]](), Counter[str]()
    signs = any(tidied(cell) == "+" for cells in columns.values() for cell in set(cells))
    for number, (name, cells) in enumerate(columns.items()):
        found = {cell: None if signs and tidied(cell) in _DASHES else _state(cell) for cell in set(cells)}
        targets[:, number] = [IGNORED if (state := found[cell]) is None else state for cell in cells]
        bad = [row for row, cell in enumerate(cells) if found[cell] is None]
        misread[name] = tuple(_no_answer(row, cells[row]) for row in bad)
        unknown.update(
            quoted(tidied(cell)) if cell else "nothing" for cell in cells if found[cell] == IGNORED
        )
    return _judged(tuple(columns), targets, patients, misread, _words(unknown), _taken(columns))


def _words(unknown: Counter[str]) -> str:
    """The most frequent words for what nobody knows, in brackets."""
    return f" ({' and '.join(word for word, _ in unknown.most_common(4))})" if unknown else ""


def _no_answer(row: int, cell: str) -> Misread:
    """What to say of a cell that is none, or of a dash where others have a plus."""
    if tidied(cell) in _DASHES:
        message = f"found {quoted(cell)} in a table with '+', which may say absent or that nobody knows"
        return Misread(row, "a dash", f"{message}, expected 0 or -1: write which it is")
    return Misread(row, "no finding's", f"found {quoted(cell)}, {_EXPECTED}: correct it")


def _state(cell: str) -> int | None:
    """0, 1 or `IGNORED` for a cell; None if it is none of these."""
    word = tidied(cell).casefold()
    word = word.removesuffix(".0") if word.endswith(".0") else word
    if word in _PRESENT:
        return 1
    if word in _ABSENT:
        return 0
    return IGNORED if is_missing(word) or word in _UNKNOWN else None


def unsure(word: str) -> bool:
    """Whether a word says that nobody knows."""
    return tidied(word).casefold() in _UNKNOWN


def of_cells(
    cells: Sequence[str], patients: Sequence[str], place: Callable[[int], str], wanted: Wanted
) -> Findings:
    """Findings that cells name, joined by ``|`` or ``;``, with ``No Finding`` for none.

    Where a word such as ``unknown`` stands alone, nobody knows of any finding whether the image has it.

    Args:
        cells: (N,) as written, at least one.
        patients: (N,) whose image each is.
        place: where the cell of a row stands, in words.
        wanted: the findings to be read, in order; "all" for those there are, in alphabetical order.
    """
    split = {cell: _named(cell) for cell in set(cells)}
    misread = [*_unsaid(cells, split), *_spelt(cells, split, place)]
    there = Counter(name for cell in cells for name in split[cell] if not unsure(name))
    plain = there.keys() - {NONE}
    names = tuple(sorted(plain)) if wanted is None or wanted == "all" else wanted
    wrong = [*_strange(names, there), *_many(names, len(cells))]
    if not names:
        wrong.append("found no finding in any row, expected some, such as Effusion|Mass")
    column = {name: number for number, name in enumerate(names)}
    targets = np.zeros((len(cells), len(names)), dtype=np.uint8)
    for row, cell in enumerate(cells):
        targets[row, [column[name] for name in split[cell] if name in column]] = 1
    nobody = [row for row, cell in enumerate(cells) if all(map(unsure, split[cell]))]
    targets[nobody] = IGNORED
    words = _words(Counter(quoted(tidied(cells[row])) for row in nobody))
    judged = _judged(names, targets, patients, {"label": tuple(misread)}, words, wrong)
    if not (left := sorted(plain - set(names))):
        return judged
    some = ", ".join(f"{name} ({there[name]:,} images)" for name in left[:SHOWN])
    more = f" and {len(left) - SHOWN:,} more" if len(left) > SHOWN else ""
    note = f"findings that the scenario does not name are left out: {some}{more}"
    return Findings(judged.names, judged.targets, (*judged.notes, note), judged.misread, judged.wrong)


def _named(cell: str) -> tuple[str, ...]:
    """The findings that a cell names."""
    parts = (tidied(part) for part in cell.replace(";", "|").split("|"))
    return tuple(dict.fromkeys(NONE if _none(part) else part for part in parts if part))


def _none(name: str) -> bool:
    return name.casefold().replace("_", " ") in ("no finding", "no findings", "nofinding")


def _unsaid(cells: Sequence[str], split: Mapping[str, Sequence[str]]) -> Iterator[Misread]:
    """Cells that say nothing, say two things, or are no list."""
    for row, cell in enumerate(cells):
        nothing = [name for name in split[cell] if name == NONE]
        nobody = [name for name in split[cell] if unsure(name) or is_missing(name)]
        if all(map(is_missing, split[cell])):
            found = quoted(cell) if cell else "nothing"
            message = f"found {found}, expected findings such as Effusion|Mass, or No Finding: fill it in, or remove "
            yield Misread(row, "missing", message + "the row")
        elif len(nobody) not in (0, len(split[cell])):
            advice = "leave it out, or write it alone where nobody knows of any finding"
            message = f"found {quoted(cell)}, in which {quoted(nobody[0])} is no finding: {advice}"
            yield Misread(row, "known and unknown", message)
        elif nothing and len(split[cell]) > 1:
            yield Misread(
                row,
                "two things",
                f"found {quoted(cell)}, which is none and some: correct it, or remove the row",
            )
        elif any("," in name for name in split[cell]):
            message = (
                f"found {quoted(cell)}, expected findings joined by |, such as Effusion|Mass: write it so"
            )
            yield Misread(row, "joined otherwise", message)
        elif len(cell) > _MOST:
            yield Misread(row, "too long", f"found {quoted(cell)}, {len(cell):,} letters, expected findings")


def _spelt(
    cells: Sequence[str], split: Mapping[str, Sequence[str]], place: Callable[[int], str]
) -> Iterator[Misread]:
    """Findings that are written almost as others: the rarer ones."""
    rows = defaultdict[str, list[int]](list)
    for row, cell in enumerate(cells):
        for name in split[cell]:
            if not unsure(name):
                rows[name].append(row)
    for group in twins(rows):
        usual = max(group, key=lambda name: (len(rows[name]), -rows[name][0]))
        for name in group:
            if name != usual:
                first = f"{quoted(usual)} in {place(rows[usual][0])}"
                message = f"found {quoted(name)}, but {first}: write them alike if they are one"
                yield from (Misread(row, f"almost as {quoted(usual)}", message) for row in rows[name])


def _strange(names: Sequence[str], there: Mapping[str, int]) -> Iterator[str]:
    """Findings that a scenario names and no image has, or that are none."""
    for name in names:
        if unsure(name):
            yield f"findings names {name!r}, which says that nobody knows, expected a finding: leave it out"
        elif name not in there:
            by_fold = {alike(one): one for one in there}
            close = difflib.get_close_matches(alike(name), list(by_fold), n=1)
            meant = f", did you mean {by_fold[close[0]]!r}?" if close else ""
            yield f"findings names {name!r}, which no image has{meant}; found {listed(sorted(there), SHOWN)}"


def _taken(names: Iterable[str]) -> list[str]:
    """Findings that are called as ``sites.parquet`` calls what nobody knows."""
    told = "which says that nobody knows, expected another name: rename it"
    return [f"found a finding called {name!r}, {told}" for name in names if name.casefold() == UNKNOWN]


def _many(names: Sequence[str], count: int) -> Iterator[str]:
    if len(names) > max(_FEW, count / 4):
        yield (
            f"found {len(names):,} different findings in {count:,} images, such as {listed(names)}, expected a few: "
            "these look like free text; name those that are meant as findings"
        )


def of_numbers(values: npt.NDArray[Any], names: Sequence[str], patients: Sequence[str]) -> Findings:
    """Findings as numbers, of which `numbers` holds.

    Args:
        values: (N, F) 1 present, 0 absent, -1, 255 or NaN unknown.
        names: of the findings.
        patients: (N,) whose image each is.
    """
    targets = np.full(values.shape, IGNORED, dtype=np.uint8)
    targets[values == 0], targets[values == 1] = 0, 1
    return _judged(tuple(names), targets, patients, {}, " (-1, 255 or NaN)", _taken(names))


def numbers(values: npt.NDArray[Any]) -> bool:
    """Whether numbers are 0, 1, and -1, 255 or NaN for unknown: what findings are."""
    known = np.isin(values, (0, 1, -1, IGNORED))
    return bool((known | np.isnan(values) if values.dtype.kind == "f" else known).all())


def _judged(
    names: tuple[str, ...],
    targets: Bytes,
    patients: Sequence[str],
    misread: Mapping[str, tuple[Misread, ...]],
    words: str,
    wrong: Iterable[str] = (),
) -> Findings:
    """With notes and what is wrong with whole findings, where no cell is misread."""
    told, notes = [*wrong], list[str]()
    if not told and not any(misread.values()):
        told += [
            f"finding {name!r} is known of no image, expected some 0 and some 1: leave it out"
            for name, column in zip(names, targets.T, strict=True)
            if (column == IGNORED).all()
        ]
        if not told and all(len(np.unique(column[column != IGNORED])) < 2 for column in targets.T):
            told.append(
                "found none that some images have and others have not: there is nothing to tell apart"
            )
        notes += [*_unknown(names, targets, words), *_rare(names, targets, patients)]
    return Findings(names, targets, tuple(notes), misread, tuple(told))


def _unknown(names: Sequence[str], targets: Bytes, words: str) -> Iterator[str]:
    counts = (targets == IGNORED).sum(axis=0)
    if total := int(counts.sum()):
        some = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True) if count]
        more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
        yield (
            f"{total:,} of {targets.size:,} answers are unknown{words} and count neither as present nor as absent: "
            f"{', '.join(some[:SHOWN])}{more}"
        )


def _rare(names: Sequence[str], targets: Bytes, patients: Sequence[str]) -> Iterator[str]:
    """Findings that no image has, or all have, or one patient alone."""
    owners = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    never, always, alone = list[str](), list[str](), list[str]()
    for name, column in zip(names, targets.T, strict=True):
        has, known = column == 1, column != IGNORED
        if not has.any():
            never.append(name)
        elif has[known].all():
            always.append(name)
        elif len(np.unique(owners[has])) == 1:
            alone.append(name)
    for some, what in (
        (never, "no image: nothing can be learnt of it"),
        (always, "every image of which it is known: nothing can be learnt of it"),
        (alone, "images of a single patient, who cannot be in training and in test"),
    ):
        if some:
            yield f"found in {what}: {listed(some, SHOWN)}"


def in_words(names: Sequence[str]) -> str:
    """The findings in a sentence."""
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return f"{len(names)} findings: {', '.join(names[:20])}{more}"
