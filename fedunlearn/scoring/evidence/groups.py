"""Which groups of images every measure is computed for besides "all" and the hospitals.

From the columns of `sites.parquet`, where it has them: ``class=3``, ``sex=F``, ``age=40-59``, ``scanner=2``,
``difficulty=hard``, with the data's own values; and from `difficulty.parquet`, ``learnt=early`` and ``learnt=late`` for
the images trained on. These two are chosen by what the original models themselves answered: that the original, and what
comes of it, is right about the early ones is no finding; what retrained models make of them is. Images
that nobody trained on are in neither, as the choice alone would set original and retrained models apart there.

Of images with several findings ``view=PA`` too. Volumes have no class, but their voxels do: measures of overlap know
``class=1`` there as well; and so do measures of findings (`fedunlearn.kinds`).

An image whose value is missing, or a word for that in whatever case (`fedunlearn.core.blanks`), belongs to no group of
that attribute. An attribute with one value only divides nothing and forms no groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.core.blanks import MISSING, NOBODY
from fedunlearn.scoring.evidence import Attribute, Bools, Ints

BANDS = ("<20", "20-39", "40-59", "60-79", "80+")
"""Of ages in years, both ends included."""

LEARNT = ("early", "late")
"""Up to the median of the training images, and later."""


def attributes(
    table: pd.DataFrame,
    labels: Ints,
    learnt: pd.DataFrame | None,
    further: Sequence[str] = ("scanner", "difficulty"),
) -> Mapping[str, Attribute]:
    """The attributes of a run's images, each with at least two values.

    Args:
        table: `sites.parquet`.
        labels: (N,) classes; -1 where there is none.
        learnt: `difficulty.parquet`; None where the run has none.
        further: columns that divide images by their values (`fedunlearn.scoring.kinds.Scored.divided`).
    """
    found = {"class": Attribute(labels, tuple(str(c) for c in range(int(labels.max(initial=-1)) + 1)))}
    if "sex" in table.columns:
        found["sex"] = _words(table["sex"], "sex")
    if "age" in table.columns:
        found["age"] = _ages(table["age"])
    found |= {name: _words(table[name], name) for name in further if name in table.columns}
    if learnt is not None:
        found["learnt"] = _learnt(table, learnt)
    return {name: one for name, one in found.items() if len(np.unique(one.codes[one.codes >= 0])) > 1}


def _words(column: pd.Series[Any], name: str) -> Attribute:
    """By value, in sorted order; what merely repeats the attribute's name ("scanner-2") is shortened."""
    values: npt.NDArray[Any] = np.array([str(value).strip() for value in column])
    known = np.array([word.casefold() not in MISSING | NOBODY for word in values.tolist()], dtype=bool)
    names, codes = np.unique(values[known], return_inverse=True)
    every = np.full(len(values), -1)
    every[known] = codes
    return Attribute(every, tuple(str(word).removeprefix(f"{name}-") for word in names))


def _ages(column: pd.Series[Any]) -> Attribute:
    years = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    codes = np.where(np.isnan(years), -1, np.digitize(years, [20, 40, 60, 80]))
    return Attribute(codes.astype(np.int64), BANDS)


def _learnt(table: pd.DataFrame, learnt: pd.DataFrame) -> Attribute:
    """Early or late by the mean over seeds, against the median of the images trained on."""
    rounds = learnt.groupby("image")["learnt_after"].mean().reindex(table["image"]).to_numpy(np.float64)
    train: Bools = (table["split"] == "train").to_numpy(bool) & np.isfinite(rounds)
    if not train.any():
        return Attribute(np.full(len(rounds), -1), LEARNT)
    late = (rounds > np.median(rounds[train])).astype(np.int64)
    return Attribute(np.where(train, late, -1), LEARNT)
