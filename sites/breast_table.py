"""`breast_table`: 569 real patients in numbers alone, which come with scikit-learn: tables to try without a download.

Ten measures of cell nuclei in a needle biopsy of the breast (radius, texture, perimeter, area, smoothness, compactness,
concavity, concave points, symmetry, fractal dimension), of each the mean, the standard error and the worst three: 30
columns. Every row is a patient. The numbers are as published; hospitals put them on one scale before they train
(`fedunlearn.campaign.tables`), by rows that nobody asks to forget.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from annotated_types import Ge, Le

from fedunlearn.core import derive
from sites.collection import Collection
from sites.watching import Watch, unwatched


@dataclass(frozen=True)
class BreastTable:
    """Breast Cancer Wisconsin (Diagnostic): 569 patients, 30 numbers each, malignant or benign; no download.

    The classes are so well told by the numbers that next to nothing is learnt by heart, and there is nothing to forget.

    Attributes:
        mislabelled: share of rows of each class that are given the other one, as wrong records would: these a network
            can only know by heart. The column ``difficulty`` says which.
        seed: of which rows these are.

    Reference:
        Street, Wolberg and Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", 1993; UCI machine
        learning repository, doi 10.24432/C5DW2B, CC BY 4.0.
    """

    name: Literal["breast_table"] = "breast_table"
    mislabelled: Annotated[float, Ge(0), Le(0.5)] = 0.0
    seed: Annotated[int, Ge(0)] = 0

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Read the table that scikit-learn brings."""
        from sklearn.datasets import load_breast_cancer

        found = load_breast_cancer()
        patients = [f"w-{row:03d}" for row in range(len(found.target))]
        wrong = self._wrong(found.target)
        count = f"; {wrong.sum()} rows are given the wrong class on purpose" if wrong.any() else ""
        return Collection(
            pixels=found.data.astype(np.float32),
            targets=np.where(wrong, 1 - found.target, found.target).astype(np.int64),
            table=pd.DataFrame(
                {"image": patients, "patient": patients, "difficulty": np.where(wrong, "hard", "easy")}
            ),
            classes=len(found.target_names),
            names=tuple(map(str, found.target_names)),
            synthetic_patients=False,
            note="Breast Cancer Wisconsin (Diagnostic), Street, Wolberg and Mangasarian 1993: 30 numbers of each "
            f"patient{count}.",
        )

    def _wrong(self, target: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(N,) which rows are given the other class."""
        rng, wrong = np.random.default_rng(derive(self.seed, "breast_table")), np.zeros(len(target), bool)
        for own in (np.flatnonzero(target == label) for label in (0, 1)):
            wrong[rng.permutation(own)[: round(self.mislabelled * len(own))]] = True
        return wrong
