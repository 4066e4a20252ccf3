"""Columns of the data that have names of ours: kept, under names of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedunlearn.core.held import columns
from sites.dealing.patients import Strings

OURS = ("site", "split", *columns(), "forgotten_by", "canary")
"""Columns of ``sites.parquet`` that the data does not decide on. ``difficulty`` is the data's."""

_AGAIN = "splits are made anew by patient; `split: {from: split}` would use the data's own"


def column_of(table: pd.DataFrame, name: str) -> str | None:
    """The column called so, or the first whose name differs in capitals only; None if there is none."""
    if name in table.columns:
        return name
    return next((str(one) for one in table.columns if str(one).casefold() == name.casefold()), None)


def apart(table: pd.DataFrame, site: Strings, used: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The data's table without columns of our names, and notes of what became of them.

    Args:
        table: one row per image.
        site: (N,) the hospital of each image; a column ``site`` that says the same is left out.
        used: the column that the parts were taken from; if it is ``split``, it says the same as ours.
    """
    names, notes = dict[str, str](), list[str]()
    for column in OURS:
        if column not in table.columns or column == column_of(table, used or ""):
            continue
        if column == "site" and (np.asarray(table["site"].astype(str), dtype=str) == site).all():
            continue
        names[column] = _free(f"data_{column}", table)
        why = f"; {_AGAIN}" if column == "split" else ""
        notes.append(
            f"the data's column {column} is kept as {names[column]}, since {column} is made here{why}"
        )
    kept = table.drop(columns=[column for column in OURS if column in table.columns and column not in names])
    return kept.rename(columns=names), notes


def at_several(table: pd.DataFrame, site: Strings) -> tuple[str, ...]:
    """A note of patients who have images at several hospitals: each is taken for one person.

    Args:
        table: one row per image, with ``patient``.
        site: (N,) the hospital of each image.
    """
    found = pd.Series(site).groupby(table["patient"].astype(str).to_numpy()).unique()
    several = found[found.map(len) > 1]
    if several.empty:
        return ()
    first = "; ".join(
        f"{patient!r} at {' and '.join(sorted(map(str, at))[:3])}" for patient, at in several.iloc[:3].items()
    )
    what = "patient has" if len(several) == 1 else "patients have"
    return (
        f"{len(several):,} {what} images at several hospitals ({first}{'; …' if len(several) > 3 else ''}), and each "
        "is taken for one person: a request for patients is about all their images, one for a hospital leaves those "
        "elsewhere; give them different ids if they are different people",
    )


def _free(name: str, table: pd.DataFrame) -> str:
    while name in table.columns:
        name = f"data_{name}"
    return name
