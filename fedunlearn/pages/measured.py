"""A run's tables with the place of every row, so that a page can say where each of its numbers is from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from fedunlearn.pages.tables import Number
from fedunlearn.results.tables import MEDIANS

Format = Callable[[float], str]


def percent(share: float) -> str:
    """A share in percent, without the sign of it."""
    if not math.isfinite(share):
        return "–" if math.isnan(share) else ("∞" if share > 0 else "−∞")
    return f"{round(100 * share) + 0}".replace("-", "−")


def signed(value: float) -> str:
    """A difference of two shares, to two decimals."""
    if not math.isfinite(value):
        return "–"
    text = f"{abs(value):.2f}"
    text = text[1:] if text.startswith("0.") else text
    return f"{'−' if round(value, 2) < 0 else '+'}{text}"


def share(value: float) -> str:
    """A share, to two decimals and without its leading zero."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1).replace("-", "−") if abs(value) < 1 else text.replace("-", "−")


def amount(value: float) -> str:
    """A quantity, to three digits or as a whole number."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if value == 0 or abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}".replace(",", " ").replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}".replace("-", "−")


@dataclass(frozen=True, eq=False)
class Measured:
    """The rows of one request in the tables of a run; an index is a row's place in its file.

    Attributes:
        scores, statistics, patients: as in the files of these names.
    """

    scores: pd.DataFrame
    statistics: pd.DataFrame
    patients: pd.DataFrame

    @cached_property
    def _middles(self) -> Mapping[tuple[str, str], tuple[float, list[int]]]:
        whole = self.scores[self.scores["group"] == "all"]
        found: dict[tuple[str, str], tuple[list[float], list[int]]] = {}
        columns = (whole[name].tolist() for name in ("strategy", "measure", "value"))
        for place, strategy, measure, value in zip(whole.index.tolist(), *columns, strict=True):
            values, places = found.setdefault((str(strategy), str(measure)), ([], []))
            values.append(float(value))
            places.append(int(place))
        return {
            key: (float(np.median(values)) if key[1] in MEDIANS else sum(values) / len(values), places)
            for key, (values, places) in found.items()
        }

    @cached_property
    def _statistics(self) -> Mapping[tuple[str, str, str], tuple[int, Mapping[str, float]]]:
        rows = zip(self.statistics.index, self.statistics.to_dict("records"), strict=True)
        return {
            (str(one["strategy"]), str(one["measure"]), str(one["group"])): (
                int(place),
                {str(key): value for key, value in one.items()},
            )
            for place, one in rows
        }

    def middle(self, strategy: str, measure: str, shown: Format, times: float = 1.0) -> Number | None:
        """A measure of all images in the mean over seeds, `MEDIANS` in the median; None where it was not measured."""
        found = self._middles.get((strategy, measure))
        if found is None:
            return None
        value, places = found
        how = "median" if measure in MEDIANS else "mean"
        return Number(shown(value), value, f"scores {','.join(map(str, places))} value {how}", times)

    def statistic(
        self,
        strategy: str,
        measure: str,
        column: str,
        shown: Format,
        group: str = "all",
        times: float = 1.0,
    ) -> Number | None:
        """One column of a row of `statistics.parquet`; None where there is no such row."""
        found = self._statistics.get((strategy, measure, group))
        if found is None:
            return None
        place, row = found
        value = float(row[column])
        return Number(shown(value), value, f"statistics {place} {column} value", times)

    def flagged(self, strategy: str, flag: str) -> Number:
        """How many patients are flagged so, on exact images or on changed copies."""
        of = self.patients
        rows = of[(of["strategy"] == strategy) & (of["flagged"] == flag)].drop_duplicates("patient")
        places = ",".join(str(place) for place in rows.index) or "-"
        return Number(str(len(rows)), float(len(rows)), f"patients {places} patient count")

    def margin(self, measure: str, group: str = "all") -> Number | None:
        """A declared margin, as it stands beside the differences."""
        for (strategy, name, of), _ in self._statistics.items():
            if name == measure and of == group:
                return self.statistic(strategy, measure, "margin", share, group)
        return None
