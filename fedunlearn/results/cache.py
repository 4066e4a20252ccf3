"""Tables that took long to compute, kept for other runs under what they were computed from.

An entry is a folder named by the sha256 of its *origin*: everything that its content depends on, in plain text. It
holds ``origin.json`` and ``table.parquet``, and in the former the checksum of the latter. Entries appear whole or not
at all, so that several runs may share a cache; what was damaged later is told and never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fedunlearn.core import InputError, RunError

Origin = Mapping[str, object]
"""What a table was computed from: values that JSON can write."""


class Damaged(Exception):
    """An entry is there but is not what was once stored; it has been removed."""


@dataclass(frozen=True)
class Cache:
    """The entries under ``folder``, which is made when it is needed."""

    folder: Path

    def entry(self, origin: Origin) -> Path:
        """Where a table is kept, if it is."""
        return self.folder / hashlib.sha256(_text(origin).encode()).hexdigest()

    def fetch(self, origin: Origin) -> pd.DataFrame | None:
        """The table computed from ``origin``; None if it is not there.

        Raises:
            Damaged: something else is in its place.
        """
        entry = self.entry(origin)
        if not entry.exists():
            return None
        try:
            about = json.loads((entry / "origin.json").read_text(encoding="utf-8"))
            known = _text(about["origin"]) == _text(origin)
            if known and _digest(entry / "table.parquet") == about["sha256"]:
                return pd.read_parquet(entry / "table.parquet")
            reason = "its checksum is wrong" if known else "it was computed from something else"
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
        self._remove(entry)
        raise Damaged(f"{entry}: {reason}")

    def check(self) -> None:
        """Find out whether entries can be stored, before anything is computed.

        Raises:
            InputError: they cannot.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix="."):
                pass
        except OSError as error:
            raise InputError(f"cannot write to the cache {self.folder}: {error.strerror}") from error

    def store(self, origin: Origin, table: pd.DataFrame) -> None:
        """Keep a table. Whoever else stores it at the same time has the same one: the first counts.

        Raises:
            RunError: it cannot be written.
        """
        entry = self.entry(origin)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".", ignore_cleanup_errors=True) as name:
                whole = Path(name) / entry.name
                whole.mkdir()
                table.to_parquet(whole / "table.parquet", index=False)
                about = {"origin": origin, "sha256": _digest(whole / "table.parquet")}
                (whole / "origin.json").write_text(f"{json.dumps(about, indent=1)}\n", encoding="utf-8")
                with suppress(OSError):  # it is there already
                    os.rename(whole, entry)
            if not entry.exists():
                raise RunError(f"cannot keep {entry}: another file is in the way, or the folder is gone")
        except OSError as error:
            raise RunError(f"cannot write to the cache {self.folder}: {error}") from error

    def _remove(self, entry: Path) -> None:
        """Out of the way first, in one step: another run may be about to put a good entry there."""
        with suppress(OSError):
            aside = Path(tempfile.mkdtemp(dir=self.folder, prefix="."))
            os.rename(entry, aside / entry.name)
            shutil.rmtree(aside, ignore_errors=True)


def _text(origin: object) -> str:
    """The same text for equal values, whatever the order of their keys."""
    return json.dumps(origin, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
