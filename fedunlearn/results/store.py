"""A run folder as the store of its own work: what each file was made from, and that it is still what was made.

Beside a file of weights, signals or the like stands a *record*, ``origins/<file>.json``: the file's origin in clear,
which is all that determines its bits; what is known of making it (its rows of the ledger, say); and checksums. Work
whose origin is the same comes to the same bits, so it need not be done again: a run that goes on takes it from its own
folder, a new one from earlier folders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedunlearn import files
from fedunlearn.core import InputError, RunError
from fedunlearn.results.runfolder import RunFolder

FOLDER = "origins"
_MAIN = "result"


@dataclass(frozen=True)
class Record:
    """What is known of finished work.

    Attributes:
        origin: all that determines it.
        facts: whatever else its maker wants to know of it, in values that JSON can write.
        files: by what they are (`_MAIN` is the result), place and sha256 of its files; empty if nothing came of it.
    """

    origin: Mapping[str, Any]
    facts: Mapping[str, Any]
    files: Mapping[str, tuple[str, str]]


@dataclass
class Store:
    """Finished work in ``run``, and in earlier runs to take from.

    Attributes:
        run: where work is kept.
        earlier: folders to take work from.
        without: files that are not to be taken from there.
        taken: the files that were.
    """

    run: RunFolder
    earlier: tuple[Path, ...] = ()
    without: Collection[str] = ()
    taken: list[str] = field(default_factory=list)
    _index: dict[str, tuple[Path, Record]] | None = None

    def find(self, file: str, origin: Mapping[str, object], beside: Mapping[str, str]) -> Record | None:
        """Finished work of this origin; taken from an earlier run if it is not here.

        Args:
            file: where its result is, or is to be.
            origin: all that determines it.
            beside: places of further files, by what they are; some may not be known of it.

        Raises:
            RunError: a file of an earlier run is missing or damaged.
        """
        own = self._own(file, origin)
        if own is not None:
            return own
        found = self._earlier().get(digest(origin))
        return None if found is None else self._take(*found, file, beside)

    def keep(
        self, file: str, facts: Mapping[str, Any], origin: Mapping[str, object], beside: Mapping[str, str]
    ) -> None:
        """Note that work is finished; its files are written already.

        Args:
            file: where its result is; nothing is there if nothing came of it.
            facts: what else to know of it, in values that JSON can write.
            origin: all that determines it.
            beside: places of further files, by what they are; those that are not there did not come about.
        """
        places = {
            name: place
            for name, place in {_MAIN: file, **beside}.items()
            if (self.run.path / place).is_file()
        }
        sums = {name: (place, files.sha256(self.run.path / place)) for name, place in places.items()}
        self._write(file, Record(origin, facts, sums))

    def drop(self, results: Collection[str]) -> None:
        """Remove results of this run, with what is known of them; no other record names them any more either."""
        for file in results:
            (self.run.path / file).unlink(missing_ok=True)
            _place(self.run.path, file).unlink(missing_ok=True)
        for path in sorted((self.run.path / FOLDER).rglob("*.json")):
            record = _read(path)
            if record is not None and any(place in results for place, _ in record.files.values()):
                left = {name: one for name, one in record.files.items() if one[0] not in results}
                self._write(_file(self.run.path, path), replace(record, files=left))

    def known(self, file: str, origin: Mapping[str, object]) -> Record | None:
        """What is known of work of this origin, here or in an earlier run; nothing is taken from there."""
        own = self._own(file, origin)
        return own if own is not None else self._earlier().get(digest(origin), (None, None))[1]

    def same(self, file: str, record: Record) -> bool:
        """Whether the result that was written to ``file`` is what a record says of its own."""
        return _MAIN not in record.files or files.sha256(self.run.path / file) == record.files[_MAIN][1]

    def whole(self, record: Record) -> bool:
        """Whether all files of a record of this run are there, and what was written."""
        try:
            return all(files.sha256(self.run.path / place) == known for place, known in record.files.values())
        except OSError:
            return False

    # -------------------------------------------------------------------------------------------- pieces

    def _own(self, file: str, origin: Mapping[str, object]) -> Record | None:
        record = _read(_place(self.run.path, file))
        return record if record is not None and digest(record.origin) == digest(origin) else None

    def _earlier(self) -> Mapping[str, tuple[Path, Record]]:
        if self._index is None:
            self._index = dict(_records(self.earlier, self.without))
        return self._index

    def _take(self, folder: Path, record: Record, file: str, beside: Mapping[str, str]) -> Record:
        """Copy the files of an earlier run's work to their places in this one, those that have one."""
        places = {_MAIN: file, **beside}
        new = {}
        for name, (place, known) in record.files.items():
            if name not in places:
                continue  # nobody asks for it here
            if not (folder / place).exists() and place.startswith("work/"):
                continue  # it was for the time of that run only
            files.write(self.run.path / places[name], files.checked(folder / place, known))
            new[name] = (places[name], known)
        taken = Record(record.origin, record.facts, new)
        self._write(file, taken)
        self.taken.append(file)
        return taken

    def _write(self, file: str, record: Record) -> None:
        content = {"origin": record.origin, "facts": record.facts, "files": record.files}
        files.write(_place(self.run.path, file), files.sealed(content))


def earlier(folders: Iterable[Path]) -> tuple[Path, ...]:
    """Run folders to take work from.

    Raises:
        InputError: one is none.
    """
    found = tuple(folders)
    for folder in found:
        if not (folder / FOLDER).is_dir():
            raise InputError(f"cannot reuse {folder}: expected a run folder, with a folder {FOLDER} in it")
    return found


def recorded(folder: Path) -> dict[str, Record]:
    """All records of a run folder that have a result, by its file.

    Raises:
        RunError: one is damaged.
    """
    paths = sorted((folder / FOLDER).rglob("*.json"))
    found = {_file(folder, path): _record(files.unsealed(path)) for path in paths}
    return {file: record for file, record in found.items() if _MAIN in record.files}


def digest(origin: Mapping[str, object]) -> str:
    """The sha256 of an origin, whatever the order of its keys."""
    text = json.dumps(origin, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _records(folders: Iterable[Path], without: Collection[str]) -> Iterable[tuple[str, tuple[Path, Record]]]:
    """By the digest of their origins, the records of earlier runs; of the same work, the first folder's counts."""
    for folder in reversed(list(folders)):
        for path in sorted((folder / FOLDER).rglob("*.json")):
            record = _record(files.unsealed(path))
            if _file(folder, path) not in without:
                yield digest(record.origin), (folder, record)


def _read(path: Path) -> Record | None:
    """A record of this run; None if it is not there, or damaged: then the work is done again."""
    if not path.is_file():
        return None
    try:
        return _record(files.unsealed(path))
    except RunError:
        return None


def _record(content: Mapping[str, Any]) -> Record:
    placed = {name: (str(place), str(known)) for name, (place, known) in content["files"].items()}
    return Record(content["origin"], content["facts"], placed)


def _file(folder: Path, path: Path) -> str:
    """The file that a record stands for."""
    return path.relative_to(folder / FOLDER).as_posix().removesuffix(".json")


def _place(run: Path, file: str) -> Path:
    return run / FOLDER / f"{file}.json"
