"""Train, validation, test and proxy images: by patient, across all hospitals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.core import InputError, Problem
from sites.dealing.columns import column_of
from sites.dealing.patients import Ints, Patients, Strings, deal, most_common, patients_of, places
from sites.identity import listed, tidied
from sites.parts import PART_OF

PARTS = ("train", "val", "test")
"""The parts that every hospital has; the images of a fourth, "proxy", it gave to the server without labels."""


def split(
    table: pd.DataFrame,
    targets: npt.NDArray[Any],
    site: Strings,
    fractions: tuple[float, float, float] = (0.6, 0.1, 0.3),
    rng: np.random.Generator | None = None,
    proxy: float = 0.0,
) -> Strings:
    """Give every image a part: "train", "val", "test" or, if it has a share, "proxy".

    A patient is in one part, at whichever hospitals it has images. Patients are dealt at the hospital that holds
    most of their images, evenly by majority label and difficulty. The order of the images does not matter. Test and
    proxy are dealt from one lot: a proxy share taken from the test share leaves train and val as they were, unless a
    hospital has hardly more patients than parts.

    Args:
        table: one row per image, with ``patient`` and perhaps ``difficulty``.
        targets: (N,) classes and the like (`sites.collection.Collection.strata`), or label maps (N, …).
        site: (N,) the hospital of each image.
        fractions: of the images of a hospital in train, val and test; positive, with ``proxy`` together 1.
        rng: decides who goes where; a generator seeded with 0 if left out.
        proxy: the fraction that the hospital gave to the server.

    Returns:
        (N,) the part of each image.

    Raises:
        InputError: the fractions are no fractions, or a hospital has too few patients for all parts.
    """
    if min(fractions) <= 0 or proxy < 0 or abs(sum(fractions) + proxy - 1) > 1e-6:
        raise InputError(
            f"split: found {[*fractions, proxy]}, expected three positive fractions and perhaps a fourth that sum to 1 "
            "(train, val, test, proxy): for example [0.6, 0.1, 0.3, 0.0]"
        )
    parts = (*PARTS, "proxy") if proxy else PARTS
    patients = patients_of(table, targets)
    home = most_common(patients.member, len(patients), site) if len(site) else site
    order = patients.order(rng or np.random.default_rng(0))
    part = np.zeros(len(patients), dtype=np.int64)
    for found in places(home[order]).values():
        here = order[found]
        part[here] = _dealt(here, patients.images, fractions, proxy)
    result = np.array(parts)[part[patients.member]]
    if problems := _missing(result, parts, site, patients):
        raise InputError(problems)
    return result


def official(table: pd.DataFrame, column: str, site: Strings) -> Strings:
    """The part of every image as a column of the data tells it.

    Args:
        table: one row per image, with ``image`` and ``patient``.
        column: of the table; train or training, val, valid, validation or dev, test or testing.
        site: (N,) the hospital of each image.

    Returns:
        (N,) the part of each image.

    Raises:
        InputError: there is no such column, it has other values, a patient is in two parts, or a hospital lacks one;
            all problems together.
    """
    found = column_of(table, column)
    if found is None:
        there = ", ".join(map(str, table.columns[:20]))
        raise InputError(
            f"split: the data has no column {column!r}, it has {there}: name one of them (where patients are made up, "
            "official parts are not kept), or give shares: {train: 0.6, val: 0.1, test: 0.3}"
        )
    column = found
    written = table[column].map(lambda value: tidied(str(value)).casefold()).to_numpy()
    result: Strings = np.array([PART_OF.get(word, "") for word in written], dtype=str)
    problems = [*_other_words(table, column, result), *_torn(table, column, result)]
    problems = problems or _lacking(column, result, site)
    if problems:
        raise InputError(problems)
    return result


def _other_words(table: pd.DataFrame, column: str, result: Strings) -> list[Problem]:
    odd = table.loc[result == "", [column, "image"]]
    if odd.empty:
        return []
    found = listed(sorted(set(map(str, odd[column]))))
    return [
        Problem(
            f"split: column {column!r} has {found} in {len(odd):,} images, first {str(odd['image'].iloc[0])!r}; "
            "expected train, val or test (or training, valid, validation, dev, testing): correct them, or give shares"
        )
    ]


def _torn(table: pd.DataFrame, column: str, result: Strings) -> list[Problem]:
    """Patients in two parts."""
    parts = (
        pd.Series(result)
        .groupby(table["patient"].astype(str).to_numpy())
        .agg(lambda one: sorted(set(one) - {""}))
    )
    torn = parts[parts.map(len) > 1]
    if torn.empty:
        return []
    some = ", ".join(f"{patient!r} ({' and '.join(found)})" for patient, found in torn.iloc[:3].items())
    more = f" and {len(torn) - 3:,} more" if len(torn) > 3 else ""
    return [
        Problem(
            f"split: by column {column!r} {len(torn):,} of {len(parts):,} patients are in two parts, {some}{more}: a "
            "patient tested on must not be trained on; put each in one part, or give shares: "
            "{train: 0.6, val: 0.1, test: 0.3}"
        )
    ]


def _lacking(column: str, result: Strings, site: Strings) -> list[Problem]:
    """Hospitals without one of the parts."""
    problems = []
    for name, here in places(site).items():
        counts = {part: int((result[here] == part).sum()) for part in PARTS}
        if not all(counts.values()):
            found = ", ".join(f"{count:,} {part}" for part, count in counts.items())
            problems.append(
                Problem(
                    f"split: by column {column!r} hospital {name!r} has {found} images, expected some of each: "
                    "name some patients in the parts that are empty, or give shares: {train: 0.6, val: 0.1, test: 0.3}"
                )
            )
    return problems


def _dealt(here: Ints, images: Ints, fractions: tuple[float, float, float], proxy: float) -> Ints:
    """The part of each of one hospital's patients ``here``."""
    train, val, test = fractions
    if not proxy:
        return _all_parts(deal(here, images, np.array(fractions)), 3)
    held_out = round(test + proxy, 12)  # 0.2 + 0.1 is 0.3, as it would be without a proxy share
    part = _all_parts(deal(here, images, np.array([train, val, held_out])), 3)
    last = np.flatnonzero(part == 2)
    part[last] += deal(here[last], images, np.array([test, proxy]) / (test + proxy))
    return _all_parts(part, 4)


def _all_parts(part: Ints, parts: int) -> Ints:
    """Move single patients, the last ones dealt, from the largest part into parts that got none."""
    for empty in range(parts):
        counts = np.bincount(part, minlength=parts)
        if counts[empty] == 0 and counts.max() > 1:
            part[np.flatnonzero(part == counts.argmax())[-1]] = empty
    return part


def _missing(result: Strings, parts: tuple[str, ...], site: Strings, patients: Patients) -> list[Problem]:
    problems = []
    for name, here in places(site).items():
        if missing := [part for part in parts if part not in result[here]]:
            count = len(np.unique(patients.member[here]))
            problems.append(
                Problem(
                    f"hospital {name!r} has {count} patients and none for {' and '.join(missing)}: every "
                    f"hospital needs at least {len(parts)} patients of its own ({', '.join(parts)}); use more images "
                    "or fewer hospitals"
                )
            )
    return problems
