"""A model's signals as a table, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor


def signal_table(signals: Mapping[str, Tensor]) -> pd.DataFrame:
    """A model's signals as a table: one row per image in the order of ``sites.parquet``; columns ``<signal>_<i>``."""
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for key, values in signals.items():
        if key != "rows":
            array = values.numpy().reshape(len(values), -1)
            columns |= {f"{key}_{i}": array[:, i] for i in range(array.shape[1])}
    return pd.DataFrame(columns)


def blank(signals: pd.DataFrame) -> pd.DataFrame:
    """The same table without its numbers, as of a model that answers nothing finite; which copies it is of stays."""
    kept = [name for name in ("image", "copy") if name in signals.columns]
    numbers = [name for name in signals.columns if name not in kept]
    nothing = pd.DataFrame(math.nan, signals.index, numbers, dtype="float32")
    return pd.concat([signals[kept], nothing], axis=1)


def table_signals(table: pd.DataFrame) -> dict[str, Tensor]:
    """Signals whose `signal_table` is ``table``; each has two dimensions."""
    columns: dict[str, list[str]] = {}
    for column in table.columns:
        columns.setdefault(column.rpartition("_")[0], []).append(column)
    return {key: torch.from_numpy(table[names].to_numpy().copy()) for key, names in columns.items()}
