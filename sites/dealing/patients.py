"""Patients as partitions and splits see them (images, usual label, how many hard ones), and dealing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Strings = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Patients:
    """The patients of some images, sorted by id: nothing that follows depends on the order of images.

    Attributes:
        ids: (P,) sorted.
        member: (N,) which patient each image belongs to.
        images: (P,) how many images each has.
        label: (P,) the label most of its images have, the lowest of several; 0 for label maps.
        hard: (P,) share of its images whose ``difficulty`` is not the usual one; 0 without that column.
    """

    ids: Strings
    member: Ints
    images: Ints
    label: Ints
    hard: Floats

    def __len__(self) -> int:
        return len(self.ids)

    def order(self, rng: np.random.Generator) -> Ints:
        """The patients in random order within each label and difficulty, ready to be dealt."""
        return np.lexsort((rng.random(len(self)), self.hard, self.label)).astype(np.int64)


def patients_of(table: pd.DataFrame, targets: npt.NDArray[Any]) -> Patients:
    """Sum images up by patient.

    Args:
        table: one row per image, with ``patient`` and perhaps ``difficulty``.
        targets: (N,) classes, or label maps (N, …).
    """
    ids, member = np.unique(np.asarray(table["patient"], dtype=str), return_inverse=True)
    images = np.bincount(member, minlength=len(ids))
    label = np.zeros(len(ids), dtype=np.int64)
    if targets.ndim == 1 and len(targets):
        label = _counts(member, len(ids), targets).argmax(axis=1)
    return Patients(ids, member.astype(np.int64), images, label, _hard(table, member, images))


def most_common(member: Ints, patients: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(P,) the value most images of each patient have, the first in sorted order of several."""
    distinct, code = np.unique(values, return_inverse=True)
    # Of pairs that there are: a table of all patients and thousands of hospitals would not fit into memory.
    pairs, counts = np.unique(member * len(distinct) + code, return_counts=True)
    who, value = np.divmod(pairs, len(distinct))
    best = np.lexsort((value, -counts, who))
    owners, first = np.unique(who[best], return_index=True)
    found = np.zeros(patients, dtype=np.int64)
    found[owners] = value[best][first]
    majority: npt.NDArray[Any] = distinct[found]
    return majority


def places(names: npt.NDArray[Any]) -> dict[str, Ints]:
    """Where each of ``names`` (N,) stands, ascending, by name in sorted order: found by sorting once, however many."""
    distinct, code = np.unique(names, return_inverse=True)
    ends = np.cumsum(np.bincount(code, minlength=len(distinct)))
    parts = np.split(np.argsort(code, kind="stable"), ends)[
        : len(distinct)
    ]  # the last is what is left: nothing
    return {str(name): part for name, part in zip(distinct, parts, strict=True)}


def deal(order: Ints, weight: Ints, shares: Floats) -> Ints:
    """Deal patients to parts, each to the part that lacks most images of its share so far.

    Any run of consecutive patients is dealt about in proportion, so patients sorted by label give every part the
    same mix of labels.

    Args:
        order: the patients to deal, in the order to deal them.
        weight: (P,) images of each patient, of all of them.
        shares: (S,) what each part should get; sums to 1.

    Returns:
        The part of each patient of ``order``.
    """
    given, total = np.zeros(len(shares)), 0
    part = np.empty(len(order), dtype=np.int64)
    for i, patient in enumerate(order):
        total += weight[patient]
        part[i] = np.argmax(shares * total - given)
        given[part[i]] += weight[patient]
    return part


def _counts(member: Ints, patients: int, code: npt.NDArray[Any]) -> Ints:
    """(P, values) how many images of each patient have each value."""
    values = int(code.max()) + 1
    return np.bincount(member * values + code, minlength=patients * values).reshape(patients, values)


def _hard(table: pd.DataFrame, member: npt.NDArray[Any], images: Ints) -> Floats:
    if "difficulty" not in table.columns or not len(table):
        return np.zeros(len(images))
    values, counts = np.unique(np.asarray(table["difficulty"], dtype=str), return_counts=True)
    unusual = np.asarray(table["difficulty"], dtype=str) != values[counts.argmax()]
    return np.bincount(member, weights=unusual, minlength=len(images)) / images
