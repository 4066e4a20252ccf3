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
    origins/        per file of weights, signals, copies, curves and other work that is kept, all that determined its
                    bits (`fedunlearn.results.store`)
    difficulty/, difficulty.parquet  how long each image took the original models to learn
    shadows/        signals of shadow models, and who was in each (only where a scenario asks for them)
    probes/         per image and model after more training, and how that went (only where a scenario asks for it)
    curves.parquet  how models do round by round (unless turned off): see `CURVES`
    curves/         what that is made of, per procedure: an NPY of rounds, then of loss and quality on each part
    slices/         per moment, some volumes as all models segment them: a PNG, and an NPZ of what it was drawn from
                    (only where targets are label maps)
    pictures/       per moment, a few images to forget and what all models say of them: a PNG, and an NPZ of what it was
                    drawn from; answers.parquet (only where a scenario asks for it). These are pixels of patients who
                    asked to be forgotten; beside slices/, the only ones that a run folder holds

Beside them, what `score` adds: ``requests.parquet``, whether a request's models can tell anything;
``patients.parquet``, what is left of each patient; ``statistics.parquet``, the differences from retraining and the
memory left that verdicts rest on; ``bias.parquet``, groups that are treated unequally; and ``roc.parquet``, how an
attack goes at all its thresholds (`ROC`). Where requests came in over a year, also ``calendar.parquet``,
``memory.parquet``, ``years.parquet`` and ``policies.parquet`` (`fedunlearn.scoring.years`).
``report.html`` shows all of it to people, in one page that needs no network (`fedunlearn.pages`). `record` adds
``records/``, an erasure record for every request (`fedunlearn.erasure`). `purge` removes what a request left, and adds
``tombstones.json``.

While a run is not finished, ``work/`` holds what a resumed run goes on from: history, and answers of procedures under
way. The hospitals' images are there only while a process works on them. Whoever writes to a run folder holds its lock
(`fedunlearn.results.places`).
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedunlearn import files, interrupts
from fedunlearn.core import InputError, RunError, Weights
from fedunlearn.results import audit
from fedunlearn.results.places import LOCK, PARTS, in_use, locked

ABOUT = "work/about.json"
"""What is run: written first, and there for as long as there is anything to go on with."""
CURVES = "curves.parquet"
"""One row per model that a procedure had in hand after a round, per part and measure.

- ``phase``: original, retrained, unlearn or continue (training that goes on after unlearning); ``request``,
  ``strategy``, ``seed``: whose model it is. Those of the original are there once for every request.
- ``after``: rounds of training before the phase began; ``round``: rounds done since. Round 0 is the start.
- ``step``: the order of a procedure's rows, from 0. What the server makes of the start before it asks anybody is a step
  of its own, still of round 0.
- ``part``: forget (images to forget) or validation; ``images``: how many were shown, the same ones to all models.
- ``measure``: loss (mean cross-entropy in nats), and accuracy or, of volumes, dice (its mean); ``value``: its value.
"""
ROC = "roc.parquet"
"""How the attack by loss goes at all rates, by request, strategy, thresholds and false positive rate (aggregates only).

- ``strategy``: original, retrained (of all seeds, those of further references too: what no memory looks like), or a
  strategy's label. A strategy all of whose models diverged has no rows.
- ``thresholds``: one for all hospitals and labels, whose ``tpr`` at 1 % is `mia_loss_tpr_at_1`; or each its own, under
  whose curve the area is `mia_loss_auc` (`fedunlearn.scoring.attacks.roc`).
- ``fpr``: the share of held-out images accused, evenly spaced by logarithm from 0.001, or what so many images allow,
  to 1; ``tpr``: the share of images to forget found, in the mean over models; ``low``, ``high``: the range over models.
- ``models``, ``n_members``, ``n_nonmembers``: how many models, images to forget and held-out images.
"""
_NEXT = ".next"  # the ending of new contents that wait for the manifest to speak of them
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
            for part in PARTS:
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
        from fedunlearn import weights as w  # here, since torch takes a second, and tables need none of it

        w.save(weights, self.path / "weights" / f"{name}.safetensors")

    def read_weights(self, name: str) -> Weights:
        """Read ``weights/<name>.safetensors``."""
        from fedunlearn import weights as w

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

    def read_text(self, name: str) -> str:
        """Read a text file."""
        return (self.path / name).read_text(encoding="utf-8")

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

    def renew(
        self,
        contents: Mapping[str, bytes],
        entries: Mapping[str, Any] | None = None,
        removed: Collection[str] = (),
    ) -> None:
        """Replace and remove files of a finished run, all or none, whatever stops it; the others' checksums stay.

        New contents wait beside the old ones until the manifest speaks of them; `open` puts them in their places, and
        removes what the manifest says is gone. They wait under a name that no other renewal gives: readers hold no
        lock, and whoever has read an older manifest must not touch them.

        Args:
            contents: by file; none that an earlier renewal removed.
            entries: of the manifest, those that change with them.
            removed: files that go.

        Raises:
            RunError: one cannot be written; all are as they were.
        """
        self._settle()
        self._sweep()
        entries = self._renewed(contents, entries, removed)
        waiting = {"next": sorted(contents), "gone": sorted(removed), "renewal": secrets.token_hex(8)}
        files.write_all({self._waiting(name, waiting): content for name, content in contents.items()})
        files.write(self.path / "manifest.json", files.sealed({**entries, **waiting}))
        self._settle()

    def foretold(
        self,
        contents: Mapping[str, bytes],
        entries: Mapping[str, Any] | None = None,
        removed: Collection[str] = (),
    ) -> Foretold:
        """What the folder would hold after `renew`, for whoever makes another of its files of that."""
        return Foretold(self, contents, self._renewed(contents, entries, removed))

    def _renewed(
        self,
        contents: Mapping[str, bytes],
        entries: Mapping[str, Any] | None = None,
        removed: Collection[str] = (),
    ) -> dict[str, Any]:
        """The manifest after `renew`."""
        manifest = self.read_manifest()
        new = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        known = {name: digest for name, digest in manifest["sha256"].items() if name not in removed}
        sums = dict(sorted({**known, **new}.items()))
        log = contents.get(audit.FILE)
        anchor = manifest["audit"] if log is None else audit.anchor(self.path / audit.FILE, log)
        return {**manifest, **(entries or {}), "sha256": sums, "audit": anchor}

    def _sweep(self) -> None:
        """Remove what is left of renewals that were stopped; only whoever holds the lock may.

        Raises:
            RunError: it cannot be removed.
        """
        for rest in (*self.path.rglob(f"*{_NEXT}"), *self.path.rglob(f"*{files.PART}")):
            try:
                rest.unlink()
            except OSError as error:
                raise RunError(f"cannot remove {rest}: {error.strerror or error}") from error

    def _waiting(self, name: str, manifest: Mapping[str, Any]) -> Path:
        """Where the new content of a file waits for its place."""
        return self.path / f"{name}.{manifest.get('renewal', '')}{_NEXT}"

    def _settle(self) -> None:
        """Put new contents that the manifest speaks of into their places, and remove what it says is gone.

        Others may do the same meanwhile: what they have done is done.

        Raises:
            RunError: one cannot be put there, or removed; the next `open` tries again.
        """
        manifest, touched = self.read_manifest(), set[Path]()
        try:  # only what is there is touched, since the folder may be read-only
            for file in (self.path / name for name in manifest.get("gone", ())):
                if file.exists():
                    file.unlink(missing_ok=True)
                    touched.add(file.parent)
            for name in manifest.get("next", ()):
                if (waiting := self._waiting(name, manifest)).exists():
                    with suppress(FileNotFoundError):
                        os.replace(waiting, self.path / name)
                    touched.add(waiting.parent)
            files.flush(touched)  # the next manifest speaks of them no more
        except OSError as error:
            raise RunError(f"cannot finish what was begun in {self.path}: {error}") from error

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


@dataclass(frozen=True)
class Foretold:
    """A run folder as it would be with some files renewed, to be read from.

    Attributes:
        run: the folder as it is.
        contents: by file, what it would hold.
        manifest: what it would say.
    """

    run: RunFolder
    contents: Mapping[str, bytes]
    manifest: dict[str, Any]

    @property
    def path(self) -> Path:
        """Of the folder."""
        return self.run.path

    def read_table(self, name: str) -> pd.DataFrame:
        """See `RunFolder.read_table`."""
        if name in self.contents:
            return pd.read_parquet(io.BytesIO(self.contents[name]))
        return self.run.read_table(name)

    def read_text(self, name: str) -> str:
        """See `RunFolder.read_text`."""
        return self.contents[name].decode("utf-8") if name in self.contents else self.run.read_text(name)

    def read_manifest(self) -> dict[str, Any]:
        """See `RunFolder.read_manifest`."""
        return self.manifest

    def check(self, names: Collection[str]) -> None:
        """See `RunFolder.check`."""
        self.run.check(names)


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


def parquet(table: pd.DataFrame) -> bytes:
    """A table as the content of a Parquet file."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _refused(folder: Path) -> str:
    if (folder / "work").is_dir() and not (folder / "DONE").is_file():
        return (
            f"output folder {folder} holds an unfinished run: go on with it with --resume, remove it with "
            f"`discard {folder}`, or name another with --out"
        )
    return f"output folder {folder} is in use: name another with --out, or remove it"
