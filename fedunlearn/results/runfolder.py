"""The run folder: every file a run leaves behind, each written whole or not at all.

Layout (a contract)::

    scenario.yaml   resolved and complete        ledger.parquet    cost per procedure and round
    manifest.json   versions, seeds, checksums   scores.parquet    long table of every measure
    sites.parquet   one row per image            verdicts.parquet  one row per request and strategy
    weights/        safetensors                  audit.jsonl       hash-chained record of requests
    signals/        per image and model          DONE              written last
    copies/         per model, of changed copies of images to forget and of held-out ones: columns image, copy (0
                    shifted, 1 mirrored, 2 noisy), then the signal's, or a volume's loss (unless turned off)
    strategies/     the users' files that strategies come from (only where a scenario names some)
    origins/        per file of weights, signals and copies, all that determined its bits (`fedunlearn.results.store`)
    difficulty/, difficulty.parquet  how long each image took the original models to learn
    shadows/        signals of shadow models, and who was in each (only where a scenario asks for them)
    probes/         per image and model after more training, and how that went (only where a scenario asks for it)
    slices/         per moment, some volumes as all models segment them: a PNG, and an NPZ of what it was drawn from
                    (only where targets are label maps; the only pixels that a run folder holds)

Beside them, what `score` adds: ``requests.parquet``, whether a request's models can tell anything;
``patients.parquet``, what is left of each patient; ``statistics.parquet``, the differences from retraining and the
memory left that verdicts rest on; and ``bias.parquet``, groups that are treated unequally.

While a run is not finished, ``work/`` holds what a resumed run goes on from: history, and answers of procedures under
way. The hospitals' images are there only while a process works on them. Whoever writes to a run folder holds its lock,
which ends with the process that took it.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fedunlearn import files, interrupts, weights as w
from fedunlearn.core import InputError, RunError, Weights
from fedunlearn.results import audit

LOCK = ".lock"
ABOUT = "work/about.json"
"""What is run: written first, and there for as long as there is anything to go on with."""
_NEXT = ".next"  # the ending of new contents that wait for the manifest to speak of them
_PARTS = ("weights", "signals", "work")
_UNLISTED = ("manifest.json", "DONE", LOCK)
"""Files without a checksum in the manifest, which has a seal of its own; `DONE` and the lock are empty."""


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
            if path.exists() and (not path.is_dir() or in_use(path)):
                raise InputError(_refused(path))
            for part in _PARTS:
                (path / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to output folder {path}: {error.strerror}") from error
        return cls(path)

    @classmethod
    def unfinished(cls, path: Path) -> RunFolder:
        """A folder of a run that was interrupted; what was being written then is removed.

        Raises:
            InputError: there is no run, or it is finished.
        """
        done = (path / "DONE").is_file()
        if done or not (path / ABOUT).is_file():
            found = "a finished run" if done else "no run"
            raise InputError(
                f"{path} holds {found}, expected an unfinished one: there is nothing to go on with"
            )
        for rest in (*path.rglob(f"*{files.PART}"), path / "manifest.json"):
            rest.unlink(missing_ok=True)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A folder that a finished run was written to.

        Raises:
            InputError: there is none, or it is not finished.
        """
        if (path / "work").is_dir() and not (path / "DONE").is_file():
            raise InputError(
                f"{path} holds an unfinished run: go on with `simulate SCENARIO --out {path} --resume`, or remove it "
                f"with `discard {path}`"
            )
        if not (path / "manifest.json").is_file():
            raise InputError(f"{path} is not a run folder: expected a manifest.json in it")
        if not (path / "DONE").is_file():
            raise InputError(f"{path} holds a run that did not finish: expected a file DONE in it")
        run = cls(path)
        run._settle()
        return run

    @property
    def scratch(self) -> Path:
        """Files that live only while the run does."""
        return self.path / "work"

    @property
    def has_results(self) -> bool:
        """Whether any model is trained."""
        return any((self.path / "weights").iterdir())

    def write_weights(self, name: str, weights: Weights) -> None:
        """``weights/<name>.safetensors``."""
        w.save(weights, self.path / "weights" / f"{name}.safetensors")

    def read_weights(self, name: str) -> Weights:
        """Read ``weights/<name>.safetensors``."""
        return w.load(self.path / "weights" / f"{name}.safetensors")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """A Parquet file."""
        with files.replacing(self.path / name) as temporary:
            table.to_parquet(temporary, index=False)

    def read_table(self, name: str) -> pd.DataFrame:
        """Read a Parquet file, after its checksum where the run has a manifest.

        Raises:
            RunError: it is missing or damaged.
        """
        file = self.path / name
        try:
            if (self.path / "manifest.json").is_file():
                return pd.read_parquet(
                    io.BytesIO(files.checked(file, self.read_manifest()["sha256"].get(name)))
                )
            return pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {file}: {error}") from error

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """An NPZ file; the same arrays give the same bytes."""
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **dict(arrays))
        self.write_bytes(name, file.getvalue())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Any file."""
        files.write(self.path / name, content)

    def write_text(self, name: str, text: str) -> None:
        """A text file."""
        self.write_bytes(name, text.encode("utf-8"))

    def read_manifest(self) -> dict[str, Any]:
        """The manifest.

        Raises:
            RunError: it is missing or damaged.
        """
        return files.unsealed(self.path / "manifest.json")

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """The manifest, with the sha256 of every other file that is there now, and how far the audit log goes."""
        sums = {name: files.sha256(self.path / name) for name in self.listed()}
        anchor = audit.anchor(self.path / audit.FILE)
        files.write(self.path / "manifest.json", files.sealed({**manifest, "sha256": sums, "audit": anchor}))

    def renew(self, contents: Mapping[str, bytes], entries: Mapping[str, Any] | None = None) -> None:
        """Replace files of a finished run, all of them or none, whatever stops it; the others' checksums stay.

        New contents wait beside the old ones until the manifest speaks of them; `open` puts them in their places.

        Args:
            contents: by file.
            entries: of the manifest, those that change with them.

        Raises:
            RunError: one cannot be written; all are as they were.
        """
        manifest = self.read_manifest()
        for name, content in contents.items():
            files.write(self.path / f"{name}{_NEXT}", content)
        new = {name: files.sha256(self.path / f"{name}{_NEXT}") for name in contents}
        sums = dict(sorted({**manifest["sha256"], **new}.items()))
        log = contents.get(audit.FILE)
        anchor = manifest["audit"] if log is None else audit.anchor(self.path / audit.FILE, log)
        files.write(
            self.path / "manifest.json",
            files.sealed(
                {**manifest, **(entries or {}), "sha256": sums, "audit": anchor, "next": sorted(contents)}
            ),
        )
        self._settle()

    def _settle(self) -> None:
        """Put new contents that the manifest speaks of into their places.

        Raises:
            RunError: one cannot be put there; the next `open` tries again.
        """
        manifest = self.read_manifest()
        for name in manifest.get("next", ()):
            waiting = self.path / f"{name}{_NEXT}"
            if not waiting.is_file():
                continue
            try:
                if files.sha256(waiting) == manifest["sha256"][name]:
                    os.replace(waiting, self.path / name)
                else:  # of another renewal, which was stopped before the manifest spoke of it
                    waiting.unlink()
            except OSError as error:
                raise RunError(files.unwritten(self.path / name, error)) from error

    def listed(self) -> list[str]:
        """The files that have a checksum in the manifest, by relative path."""
        found = (file for file in sorted(self.path.rglob("*")) if file.is_file())
        names = [file.relative_to(self.path).as_posix() for file in found if self.scratch not in file.parents]
        return [name for name in names if name not in _UNLISTED and not name.endswith((files.PART, _NEXT))]

    def check(self, names: Collection[str]) -> None:
        """Make sure that files are what the manifest says.

        Raises:
            RunError: one is missing or damaged; names it.
        """
        known = self.read_manifest()["sha256"]
        for name in names:
            files.checked(self.path / name, known.get(name))

    def discard(self) -> None:
        """Remove the whole folder."""
        with interrupts.deferred():
            shutil.rmtree(self.path, ignore_errors=True)

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        with interrupts.deferred():
            shutil.rmtree(self.scratch, ignore_errors=True)

    def finish(self) -> None:
        """Write ``DONE``; nothing is left then to resume."""
        self.write_text("DONE", "")
        self.clean()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one that writes to ``folder``, which is made if it is not there; the lock of a dead process is none.

    Raises:
        InputError: another process writes to it, or it cannot be made.
    """
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise InputError(
            f"output folder {folder} is in use: another process is writing to it; wait for that to end, or name "
            "another with --out"
        ) from error
    except OSError as error:
        raise InputError(f"cannot write to output folder {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
        _remove_if_empty(folder)


@contextmanager
def placed(out: Path | None, default: Path, resume: bool = False) -> Iterator[Path]:
    """The folder to write to: the one asked for, else a new one called as ``default`` or after it (`claimed`).

    A new one in which nothing was written is removed at the end.

    Raises:
        InputError: the folder to resume is not named; or none can be made.
    """
    if out is None and resume:
        raise InputError("--resume needs --out RUN, the folder of the run to go on with")
    if out is not None:
        yield out
        return
    around = default.parent.exists()
    new = claimed(default)
    try:
        yield new
    finally:
        with suppress(OSError):  # it is there no more, or it is in use
            new.rmdir()
            if not around:
                new.parent.rmdir()


def discard(folder: Path) -> None:
    """Remove the folder of an unfinished run.

    Raises:
        InputError: it is finished, is no run's, or a process is writing to it.
    """
    if (folder / "DONE").is_file() or not (folder / "work").is_dir():
        found = "a finished run" if (folder / "DONE").is_file() else "no run"
        raise InputError(
            f"{folder} holds {found}, expected an unfinished one; remove it by hand if you mean it"
        )
    with locked(folder):
        RunFolder(folder).discard()


def claimed(folder: Path) -> Path:
    """``folder``, or the first of folder-2, folder-3, … that was not there yet: made now, so that nobody else gets it.

    Raises:
        InputError: it cannot be made.
    """
    for number in itertools.count(1):
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"cannot make output folder {path}: {error.strerror}") from error
        return path
    raise AssertionError("unreachable")


def parquet(table: pd.DataFrame) -> bytes:
    """A table as the content of a Parquet file."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


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


def in_use(folder: Path) -> bool:
    """Whether there is anything in a folder but its lock and what a run had made before it began."""
    return any(entry.name != LOCK and not _blank(entry) for entry in folder.iterdir())


def _blank(entry: Path) -> bool:
    """Whether it is one of a run folder's parts, and nothing in it was finished."""
    if entry.name not in _PARTS or not entry.is_dir():
        return False
    return all(path.is_dir() or path.name.endswith(files.PART) for path in entry.rglob("*"))


def _refused(folder: Path) -> str:
    if (folder / "work").is_dir() and not (folder / "DONE").is_file():
        return (
            f"output folder {folder} holds an unfinished run: go on with it with --resume, remove it with "
            f"`discard {folder}`, or name another with --out"
        )
    return f"output folder {folder} is in use: name another with --out, or remove it"


def _remove_if_empty(folder: Path) -> None:
    """Leave nothing behind where nothing was written."""
    with suppress(OSError):
        if [entry.name for entry in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
