"""How results of jobs are kept in the run folder (`fedunlearn.federation.jobs.Keeping`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from fedunlearn import files, weights as w
from fedunlearn.core import RunError, Weights
from fedunlearn.federation import wire
from fedunlearn.results.signals import signal_table, table_signals


@dataclass(frozen=True)
class ModelFile:
    """A model as ``weights/<name>.safetensors``."""

    name: str

    @property
    def file(self) -> str:
        """See `Keeping`."""
        return f"weights/{self.name}.safetensors"

    def write(self, path: Path, result: Weights) -> None:
        """See `Keeping`."""
        w.save(result, path)

    def read(self, path: Path) -> Weights:
        """See `Keeping`."""
        return w.load(path)


@dataclass(frozen=True)
class SignalsFile:
    """A model's signals as a table, one row per image."""

    file: str

    def write(self, path: Path, result: Mapping[str, Tensor]) -> None:
        """See `Keeping`."""
        with files.replacing(path) as temporary:
            signal_table(result).to_parquet(temporary, index=False)

    def read(self, path: Path) -> Mapping[str, Tensor]:
        """See `Keeping`: each signal has two dimensions then."""
        try:
            return table_signals(pd.read_parquet(path))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}") from error


@dataclass(frozen=True, eq=False)
class CopiesFile:
    """A model's signals for changed copies of some images as a table: ``image``, ``copy``, then the signal's columns.

    Attributes:
        file: its place.
        images: the ids of all images of the run, in the order of ``sites.parquet``.
    """

    file: str
    images: pd.Index[Any]

    def write(self, path: Path, result: Mapping[str, Tensor]) -> None:
        """See `Keeping`."""
        table = signal_table({name: values for name, values in result.items() if name != "copy"})
        table.insert(0, "image", self.images[result["rows"].numpy()])
        table.insert(1, "copy", result["copy"].numpy())
        with files.replacing(path) as temporary:
            table.to_parquet(temporary, index=False)

    def read(self, path: Path) -> Mapping[str, Tensor]:
        """See `Keeping`: each signal has two dimensions then."""
        try:
            table = pd.read_parquet(path)
            rows, copy = self.images.get_indexer(pd.Index(table["image"])), table["copy"].to_numpy(copy=True)
            signals = table_signals(table.drop(columns=["image", "copy"]))
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"cannot read {path}: {error}") from error
        return {"rows": torch.from_numpy(rows), "copy": torch.from_numpy(copy), **signals}


@dataclass(frozen=True)
class ArrayFile:
    """An array as NPY."""

    file: str

    def write(self, path: Path, result: npt.NDArray[Any]) -> None:
        """See `Keeping`."""
        with files.replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, result, allow_pickle=False)

    def read(self, path: Path) -> npt.NDArray[Any]:
        """See `Keeping`."""
        try:
            array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}") from error
        return array


@dataclass(frozen=True)
class ValueFile:
    """Any value that can cross the wire (`fedunlearn.federation.wire`)."""

    file: str

    def write(self, path: Path, result: Any) -> None:
        """See `Keeping`."""
        wire.save(path, result)

    def read(self, path: Path) -> Any:
        """See `Keeping`."""
        return wire.load(path)[0]
