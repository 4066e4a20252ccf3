"""What twins among images mean for a request: who else is shown by what it names, and what no answer can say then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import pandas as pd

from fedunlearn.core import RunError
from sites.collection import Collection
from sites.prepared import Growing, prepared
from sites.twins import Twins, twins
from sites.watching import Watch, unwatched

Array = np.ndarray[Any, Any]
Kind = Literal["exact", "near"]

MANY = 1_000
"""Images from which on it takes tenths of a second to find twins, so that they are kept for the next command."""
_NAMED = 3
_WORDS: Mapping[Kind, str] = {
    "exact": "an exact twin",
    "near": "a near twin (the same picture re-encoded, resized or the like)",
}
_WAY = 3  # to be raised when twins are found otherwise than before


def found(collection: Collection, digest: str, watch: Watch = unwatched) -> tuple[Twins, ...]:
    """The twins of a collection, exact ones first; those of a large one are kept for the next time.

    Args:
        collection: the images.
        digest: of them.
        watch: is shown how far it is.
    """
    if len(collection.table) < MANY:
        return twins(collection, watch)

    def make(growing: Growing) -> dict[str, Any]:
        groups = twins(collection, watch)
        growing.append("rows", np.array([row for group in groups for row in group.rows], dtype=np.int64))
        growing.append("ends", np.cumsum([len(group.rows) for group in groups], dtype=np.int64))
        return {"exact": sum(group.kind == "exact" for group in groups)}

    with suppress(RunError):  # where nothing can be kept, they are found anew every time
        kept = prepared("twins", {"digest": digest, "way": _WAY}, ("rows", "ends"), 1, make)
        rows, ends = kept.arrays["rows"][0].tolist(), kept.arrays["ends"][0].tolist()
        return tuple(
            Twins("exact" if number < kept.about["exact"] else "near", tuple(rows[start:end]))
            for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
        )
    return twins(collection, watch)


def general(groups: Sequence[Twins], table: pd.DataFrame) -> list[str]:
    """What twins there are in the data, whatever is asked, in sentences.

    Args:
        groups: of images.
        table: the content of ``sites.parquet``.
    """
    said = []
    for kind, words in _WORDS.items():
        pairs = [group.rows for group in groups if group.kind == kind]
        if pairs:
            rows = {row for group in pairs for row in group}
            first = " and ".join(_whose(table, row) for row in _two(table, pairs[0]))
            said.append(f"{_images(len(rows))} have {words} of another patient, such as {first}.")
    held, train = _held(table), (table["split"] == "train").to_numpy()
    leaks = {row for group in groups if train[list(group.rows)].any() for row in group.rows if held[row]}
    if leaks:
        total = _images(int(held.sum()), "held-out ")
        said.append(
            f"{len(leaks)} of {total} {_have(len(leaks))} a twin in training: scores on unseen images are better than "
            "they should be."
        )
    return said


def told(groups: Sequence[Twins], table: pd.DataFrame, asked: Array, gone: Array) -> list[str]:
    """Which images to forget have twins elsewhere, whose those are, and what that means, in sentences.

    Args:
        groups: of images.
        table: the content of ``sites.parquet``.
        asked: (N,) what the request names.
        gone: (N,) what is to be forgotten by then, by earlier requests as well.
    """
    mine = asked & (table["split"] == "train").to_numpy()
    kept = ~gone & table["split"].isin(["train", "proxy"]).to_numpy()
    retained, held = (_matches(groups, mine, where) for where in (kept, _held(table)))
    said = list[str]()
    if retained:
        said += _counted(table, retained, mine, "retained")
        sure = any(kind == "exact" for kind, _ in retained.values())
        said.append(
            f"{'No' if sure else 'Look at them: if they are one picture, no'} "
            "method can forget what the retained data still shows, so answers about "
            f"{_listed(_patients(table, retained))} say nothing: ask for both to be forgotten, or leave one out."
        )
    if held:
        said += _counted(table, held, mine, "held out")
        said.append(
            "What was trained on is not unseen: compared with such held-out images, the memory of "
            f"{_listed(_patients(table, held))} looks smaller than it is."
        )
    return said


def _matches(groups: Sequence[Twins], mine: Array, others: Array) -> dict[int, tuple[Kind, set[int]]]:
    """The images of mine that have twins among others; one with an exact twin counts as exact."""
    matches = dict[int, tuple[Kind, set[int]]]()
    for group in groups:  # exact ones come first
        there = {row for row in group.rows if others[row]}
        for row in group.rows if there else ():
            if mine[row]:
                kind, known = matches.setdefault(row, (group.kind, set()))
                if kind == group.kind:
                    known |= there
    return matches


def _counted(
    table: pd.DataFrame, matches: Mapping[int, tuple[Kind, set[int]]], mine: Array, where: str
) -> Iterator[str]:
    """How many images have twins there, by kind, and whose those are."""
    for kind, words in _WORDS.items():
        of = {row: there for row, (found, there) in matches.items() if found == kind}
        if of:
            whose = _owners(table, sorted(set().union(*of.values())))
            total = _images(int(mine.sum()), "training ")
            yield f"{len(of)} of {total} to forget {_have(len(of))} {words} that is {where}, of {whose}."


def _owners(table: pd.DataFrame, rows: list[int]) -> str:
    """The first few patients with their hospitals, then how many more there are."""
    owners = list(dict.fromkeys(zip(table["patient"].iloc[rows], table["site"].iloc[rows], strict=True)))
    named = [f"{patient} at {site}" for patient, site in owners[:_NAMED]]
    more = owners[_NAMED:]
    if not more:
        return _joined(named)
    hospitals = len({site for _, site in more})
    at = f"{hospitals} hospitals" if hospitals > 1 else str(more[0][1])
    return f"{', '.join(named)} and {len(more)} more at {at}"


def _patients(table: pd.DataFrame, rows: Mapping[int, object]) -> list[str]:
    return list(dict.fromkeys(table["patient"].iloc[sorted(rows)].astype(str)))


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return f"{', '.join(names[:_NAMED])} and {rest} more" if rest > 0 else _joined(names)


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _two(table: pd.DataFrame, rows: Sequence[int]) -> tuple[int, int]:
    """Two images of a group that belong to different patients."""
    patients = table["patient"]
    return rows[0], next(row for row in rows if patients.iloc[row] != patients.iloc[rows[0]])


def _whose(table: pd.DataFrame, row: int) -> str:
    return f"{table['image'].iloc[row]} of {table['patient'].iloc[row]}"


def _held(table: pd.DataFrame) -> Array:
    held: Array = table["split"].isin(["val", "test"]).to_numpy()
    return held


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _images(number: int, what: str = "") -> str:
    return f"{number} {what}image" if number == 1 else f"{number} {what}images"
