"""Who has which images, as the desk looks it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn.core import PatientId, SiteId

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Register:
    """Who has which images.

    Attributes:
        table: one row per image, with ``image``, ``patient``, ``site``, ``split`` and, of images with one class each,
            ``label``, or of several findings ``findings``, joined by ``|``.
    """

    table: pd.DataFrame

    @cached_property
    def patients(self) -> Mapping[PatientId, Array]:
        """The numbers of every patient's images."""
        return self._by("patient")

    @cached_property
    def images(self) -> Mapping[str, Array]:
        """The numbers of the images of this id: one, if ids are unique."""
        return self._by("image")

    @cached_property
    def owned(self) -> Mapping[SiteId, Array]:
        """The numbers of every hospital's images."""
        return self._by("site")

    @cached_property
    def site(self) -> Array:
        """(N,) the hospital of each image."""
        return self.table["site"].to_numpy(dtype=object)

    @cached_property
    def train(self) -> Array:
        """(N,) whether models are trained on the image."""
        return np.asarray(self.table["split"] == "train", dtype=bool)

    def shown(self, rows: Array) -> Counter[str]:
        """How many of ``rows`` are of each class, or have each finding, in words; nothing of label maps."""
        if "label" in self.table:
            return Counter(f"class {c}" for c in self.table["label"].to_numpy()[rows].tolist())
        if "findings" not in self.table:
            return Counter()
        several = (text.split("|") for text in self.table["findings"].to_numpy()[rows].tolist())
        return Counter(f"finding {name}" for names in several for name in names)

    def _by(self, column: str) -> dict[str, Array]:
        found = dict[str, list[int]]()
        for row, value in enumerate(self.table[column].astype(str)):
            found.setdefault(value, []).append(row)
        return {value: np.array(rows) for value, rows in found.items()}
