"""Partitions: who holds which image. Each is a frozen dataclass, found by its name in ``sites: partition``.

All but `by_column` deal whole patients and depend on ids only, never on the order of the images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Gt, Le

from fedunlearn.core import InputError
from sites.dealing.columns import column_of
from sites.dealing.patients import Ints, Patients, Strings, deal, patients_of
from sites.identity import is_missing, tidied, twins

FEWEST = 5
"""The fewest patients a hospital may get: enough for three parts, and to forget one without emptying a part."""

_NO_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))  # in YAML 1.1

Alpha = Annotated[float, Gt(0), Le(1e6)]


class Partition(Protocol):
    """Says which hospital holds which image."""

    @property
    def name(self) -> str:
        """The name it has in a scenario."""
        ...

    def assign(
        self, table: pd.DataFrame, targets: npt.NDArray[Any], names: Sequence[str], rng: np.random.Generator
    ) -> Strings:
        """The hospital of each image.

        Args:
            table: one row per image, with ``patient``.
            targets: (N,) classes and the like (`sites.collection.Collection.strata`), or label maps (N, …).
            names: the hospitals, in scenario order.
            rng: decides everything random.

        Returns:
            (N,) names; every name occurs.

        Raises:
            InputError: the data cannot be dealt like this.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Iid:
    """Hospitals alike: each gets the same number of images, by patient, with the same mix of labels."""

    name: Literal["iid"] = "iid"

    def assign(
        self, table: pd.DataFrame, targets: npt.NDArray[Any], names: Sequence[str], rng: np.random.Generator
    ) -> Strings:
        """See `Partition.assign`."""
        patients = _enough(table, targets, names)
        shares = np.full(len(names), 1 / len(names))
        return _dealt(patients, patients.order(rng), [shares], names)


@dataclass(frozen=True, kw_only=True)
class LabelSkew:
    """Hospitals with different mixes of labels: Dirichlet(alpha) shares of each label's patients.

    A patient counts for the label most of its images have. An image with several findings counts for the one that
    fewest images have.

    Attributes:
        alpha: concentration; small is uneven, 100 is nearly even.
    """

    name: Literal["label_skew"] = "label_skew"
    alpha: Alpha = 0.5

    def assign(
        self, table: pd.DataFrame, targets: npt.NDArray[Any], names: Sequence[str], rng: np.random.Generator
    ) -> Strings:
        """See `Partition.assign`."""
        if targets.ndim != 1:
            raise InputError(
                "label_skew needs one label per image, and these images have label maps: "
                "choose iid, size_skew or by_column"
            )
        patients = _enough(table, targets, names)
        shares = rng.dirichlet(np.full(len(names), self.alpha), size=int(patients.label.max()) + 1)
        return _dealt(patients, patients.order(rng), list(shares), names)


@dataclass(frozen=True, kw_only=True)
class SizeSkew:
    """Hospitals of different sizes: Dirichlet(alpha) shares of the patients, with the same mix of labels.

    Attributes:
        alpha: concentration; small is uneven, 100 is nearly even.
    """

    name: Literal["size_skew"] = "size_skew"
    alpha: Alpha = 1.0

    def assign(
        self, table: pd.DataFrame, targets: npt.NDArray[Any], names: Sequence[str], rng: np.random.Generator
    ) -> Strings:
        """See `Partition.assign`."""
        patients = _enough(table, targets, names)
        shares = rng.dirichlet(np.full(len(names), self.alpha))
        return _dealt(patients, patients.order(rng), [shares], names)


@dataclass(frozen=True, kw_only=True)
class ByColumn:
    """Hospitals as the data has them: the values of a column, image by image; a patient may be at several.

    Attributes:
        column: of the data's table; its values are the hospitals' names.
    """

    name: Literal["by_column"] = "by_column"
    column: str = "site"

    def assign(
        self, table: pd.DataFrame, targets: npt.NDArray[Any], names: Sequence[str], rng: np.random.Generator
    ) -> Strings:
        """See `Partition.assign`."""
        column = column_of(table, self.column)
        if column is None:
            raise InputError(
                f"by_column: the data has no column {self.column!r}; it has {', '.join(map(str, table.columns[:20]))}"
            )
        written = np.asarray(table[column].astype(str), dtype=str)
        site: Strings = np.array([tidied(text) for text in written.tolist()], dtype=str)
        missing = np.asarray(table[column].isna(), dtype=bool) | [is_missing(text) for text in site.tolist()]
        if missing.any():
            first = [repr(str(image)) for image in table["image"][missing][:3]]
            raise InputError(
                f"by_column: {int(missing.sum()):,} images have no value in {self.column!r} (nothing, or a word "
                f"such as NA), first {', '.join(first)}: fill it in, or leave these images out; if it is a "
                "name, write it in another way"
            )
        _told_apart(self.column, site, names)
        by_id = {tidied(name): name for name in names}
        return np.array([by_id[text] for text in site.tolist()], dtype=str)


def _told_apart(column: str, site: Strings, names: Sequence[str]) -> None:
    """Refuse hospitals that are written almost alike, or that the scenario does not name.

    Raises:
        InputError: there are such.
    """
    found = sorted(set(site.tolist()))
    if groups := twins(found):
        counts = {name: int((site == name).sum()) for group in groups for name in group}
        alike = "; ".join(
            " and ".join(f"{n!r} ({counts[n]:,} images)" for n in group) for group in groups[:3]
        )
        raise InputError(f"by_column: column {column!r} has {alike}: write them alike, or more differently")
    if set(found) != {tidied(name) for name in names}:
        raise InputError(
            f"by_column: column {column!r} has the values {_listed(found)}, but sites.names has "
            f"{_listed(names)}: write names: [{', '.join(map(_in_yaml, found[:20]))}]"
        )


def _in_yaml(name: str) -> str:
    """A name as a scenario must write it: one that YAML could take for anything else in quotes."""
    word = re.fullmatch(r"[^\W\d_][\w .-]*", name) and name.casefold() not in _NO_WORDS
    return name if word else json.dumps(name, ensure_ascii=False)


def _enough(table: pd.DataFrame, targets: npt.NDArray[Any], names: Sequence[str]) -> Patients:
    patients, needed = patients_of(table, targets), FEWEST * len(names)
    if len(patients) < needed:
        raise InputError(
            f"found {len(patients)} patients for {len(names)} hospitals, expected at least {needed} "
            f"({FEWEST} each): use more images or fewer hospitals"
        )
    return patients


def _dealt(
    patients: Patients, order: Ints, shares: Sequence[npt.NDArray[Any]], names: Sequence[str]
) -> Strings:
    """Deal patients by ``shares``: one for all of them, or one for each label."""
    site = np.zeros(len(patients), dtype=np.int64)
    for label, share in enumerate(shares):
        some = order if len(shares) == 1 else order[patients.label[order] == label]
        site[some] = deal(some, patients.images, share)
    _fill(site, order, len(names))
    return np.array(names)[site][patients.member]


def _fill(site: Ints, order: Ints, sites: int) -> None:
    """Move patients, the last ones in ``order``, from the largest hospital to one with too few."""
    while (counts := np.bincount(site, minlength=sites)).min() < FEWEST:
        donors = order[site[order] == counts.argmax()]
        site[donors[-1]] = counts.argmin()


def _listed(values: Sequence[str]) -> str:
    """Up to ten values, and how many more there are."""
    more = f" and {len(values) - 10} more" if len(values) > 10 else ""
    return ", ".join(map(repr, values[:10])) + more
