"""The run folder: every file a run leaves behind, each written whole or not at all.

Layout (a contract)::

    scenario.yaml   resolved and complete        ledger.parquet    cost per procedure and round
    manifest.json   versions, seeds, checksums   scores.parquet    long table of every measure
    sites.parquet   one row per image            verdicts.parquet  one row per request and strategy
    weights/        safetensors                  audit.jsonl       hash-chained record of requests
    signals/        per image and model          DONE              written last
    difficulty.parquet  how long each image took the original models to learn
    shadows/        signals of shadow models, and who was in each (only where a scenario asks for them)
    probes/         per image and model after more training, and how that went (only where a scenario asks for it)
    slices/         per moment, some volumes as all models segment them: a PNG, and an NPZ of what it was drawn from
                    (only where targets are label maps; the only pixels that a run folder holds)

Beside them, what `score` adds: ``statistics.parquet``, the differences from retraining that verdicts rest on, and
``bias.parquet``, groups that are treated unequally.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from fedunlearn import weights as w
from fedunlearn.core import InputError, RunError, Weights


@dataclass(frozen=True)
class RunFolder:
    """A run's files by name."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make the folder, with its subfolders.

        Raises:
            InputError: it is in use, or cannot be made.
        """
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise InputError(f"output folder {path} is in use: name another with --out, or remove it")
            for part in ("weights", "signals", "work"):
                (path / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to output folder {path}: {error.strerror}") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A folder that a run was written to.

        Raises:
            InputError: there is no finished or scorable run.
        """
        if not (path / "manifest.json").is_file():
            raise InputError(f"{path} is not a run folder: expected a manifest.json in it")
        return cls(path)

    @property
    def scratch(self) -> Path:
        """Files that live only while the run does."""
        return self.path / "work"

    def write_weights(self, name: str, weights: Weights) -> None:
        """``weights/<name>.safetensors``."""
        w.save(weights, self.path / "weights" / f"{name}.safetensors")

    def read_weights(self, name: str) -> Weights:
        """Read ``weights/<name>.safetensors``."""
        return w.load(self.path / "weights" / f"{name}.safetensors")

    def write_signals(self, name: str, signals: Mapping[str, Tensor]) -> None:
        """``signals/<name>.parquet`` (`signal_table`)."""
        self.write_table(f"signals/{name}.parquet", signal_table(signals))

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """A Parquet file."""
        temporary = self.path / f"{name}.part"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(temporary, index=False)
        os.replace(temporary, self.path / name)

    def read_table(self, name: str) -> pd.DataFrame:
        """Read a Parquet file.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            return pd.read_parquet(self.path / name)
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {self.path / name}: {error}") from error

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """An NPZ file; the same arrays give the same bytes."""
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **dict(arrays))
        self.write_bytes(name, file.getvalue())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Any file."""
        temporary = self.path / f"{name}.part"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, self.path / name)

    def write_text(self, name: str, text: str) -> None:
        """A text file."""
        self.write_bytes(name, text.encode("utf-8"))

    def read_manifest(self) -> dict[str, Any]:
        """The manifest.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {self.path / 'manifest.json'}: {error}") from error
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """The manifest, with the sha256 of every other file that is there now."""
        self.write_text(
            "manifest.json", json.dumps({**manifest, "sha256": self.checksums()}, indent=1) + "\n"
        )

    def checksums(self) -> dict[str, str]:
        """sha256 of every file but the manifest and scratch files, by relative path."""
        files = (p for p in sorted(self.path.rglob("*")) if p.is_file() and self.scratch not in p.parents)
        return {
            str(p.relative_to(self.path)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in files
            if p.name not in ("manifest.json", "DONE")
        }

    def discard(self) -> None:
        """Remove the whole folder: nothing came of the run."""
        shutil.rmtree(self.path, ignore_errors=True)

    def clean(self) -> None:
        """Remove scratch files: they hold the hospitals' images and every update."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def finish(self) -> None:
        """Write ``DONE``."""
        self.write_text("DONE", "")


def signal_table(signals: Mapping[str, Tensor]) -> pd.DataFrame:
    """A model's signals as a table: one row per image in the order of ``sites.parquet``; columns ``<signal>_<i>``."""
    columns: dict[str, np.ndarray[Any, Any]] = {}
    for key, values in signals.items():
        if key != "rows":
            array = values.numpy().reshape(len(values), -1)
            columns |= {f"{key}_{i}": array[:, i] for i in range(array.shape[1])}
    return pd.DataFrame(columns)
