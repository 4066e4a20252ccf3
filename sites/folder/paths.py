"""The files that a manifest names: where they may lie, and how they are called on the disk."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from sites.identity import is_missing, tidied
from sites.labels import missing
from sites.rows import Fault, Row

FILES = ("file", "label_map")
"""Columns that name files."""


@dataclass(frozen=True)
class Inside:
    """Where the files of a manifest may lie.

    Attributes:
        folder: the manifest's, where their paths start.
        outside: they may lie anywhere else, too.
    """

    folder: Path
    outside: bool = False

    @cached_property
    def real(self) -> str:
        """The folder without links."""
        return os.path.realpath(self.folder)

    def path(self, file: str) -> str:
        """Where a path of the manifest's leads, links left as they are."""
        return os.path.join(self._start, file)

    def leads_out(self, file: str) -> str | None:
        """Where a path really leads, by ``..``, links or its own start, if that is not in the folder.

        Of a folder of slices, each is asked, too.
        """
        if self.outside:
            return None
        path, inner = self.path(file), list[str]()
        if os.path.isdir(path):
            with contextlib.suppress(OSError):  # it is told when it is read
                inner = [os.path.join(path, name) for name in sorted(os.listdir(path))]
        return next(filter(None, map(self._out, (path, *inner))), None)

    def _out(self, path: str) -> str | None:
        """Where a single path really leads, if out of the folder."""
        place, name = os.path.split(path)
        found = os.path.join(self._real(place), name)
        if name in ("", ".", "..") or os.path.islink(found):
            found = os.path.realpath(found)
        return None if found == self.real or found.startswith(os.path.join(self.real, "")) else found

    def has(self, file: str) -> bool:
        """Whether it is there, as a file or as the folder of a series; false, too, for names that no disk can have."""
        return os.path.exists(self.path(file))

    @cached_property
    def _start(self) -> str:
        return str(self.folder)

    @cached_property
    def _places(self) -> dict[str, str]:
        """Folders without links, by what they are called: most files of a manifest lie in a few."""
        return {}

    def _real(self, place: str) -> str:
        if place not in self._places:
            self._places[place] = os.path.realpath(place)
        return self._places[place]


def on_disk(rows: Sequence[Row], inside: Inside) -> tuple[list[Row], list[str]]:
    """The rows with their files as the disk has them, and notes of those that are written otherwise."""
    found, counts, beside = list[Row](), defaultdict[str, int](int), _Beside()
    for row in rows:
        files = dict[str, str]()
        for column in FILES:
            if column in row.cells:
                files[column], why = _found(row.cells[column], inside, beside)
                counts[why] += bool(why)
        found.append(replace(row, cells={**row.cells, **files}))
    return found, [f"{why} in {count:,} paths" for why, count in counts.items() if why]


class _Beside:
    """What lies in folders, each listed once."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}

    def alike(self, path: Path) -> list[str]:
        """The names in a path's folder that differ from its own in capitals only."""
        folder = path.parent
        if folder not in self._names:
            names = defaultdict[str, list[str]](list)
            with contextlib.suppress(
                OSError, ValueError
            ):  # there is no such folder, or none can be called so
                for name in os.listdir(folder):
                    names[name.casefold()].append(name)
            self._names[folder] = dict(names)
        return self._names[folder].get(path.name.casefold(), [])


def _found(file: str, inside: Inside, beside: _Beside) -> tuple[str, str]:
    """A path as it is found, and how it differs from what is written; as it is where nothing is found."""
    written, file = file, file.strip()
    if not file or inside.has(file):
        return file, ""
    if inside.has(written):  # names may end in a space
        return written, ""
    slashed = file.replace("\\", "/")
    if slashed != file and inside.has(slashed):
        return slashed, "backslashes are read as /"
    seen = tidied(slashed)
    if seen != unicodedata.normalize("NFC", slashed) and inside.has(seen):
        return seen, "characters that nobody sees are left out"
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, slashed)
        if other != file and inside.has(other):
            return other, "letters with accents are written otherwise than on the disk (Unicode form)"
    if len(names := beside.alike(inside.folder / slashed)) == 1:
        return (
            PurePosixPath(slashed).parent / names[0]
        ).as_posix(), "capitals are written otherwise than on the disk"
    return file, ""


def file_faults(row: Row, column: str, inside: Inside) -> Iterator[Fault]:
    """What is wrong with the path in one of a row's cells."""
    file = row.cells[column]
    if is_missing(file) and not inside.has(file or "\0"):
        yield row.fault("missing" if file else "nothing", column, missing(column.replace("_", " "), file))
    elif found := inside.leads_out(file) if "\0" not in file else None:
        message = (
            f"found {file!r}, which leads out of the manifest's folder, to {found}: put the file there, or set "
            "outside: true if you trust who wrote the manifest"
        )
        yield row.fault("leads out of the manifest's folder", column, message)
    elif not inside.has(file):
        yield row.fault("no file", column, f"found no file {inside.path(file)}{_why_not(file)}")


def _why_not(file: str) -> str:
    if "://" in file:
        return ", an address and not a path: get the files, and write where they are"
    if re.match(r"[A-Za-z]:[\\/]|\\\\", file):
        return ", a path of another computer (Windows): write paths relative to the manifest's folder, with /"
    if "\\" in file:
        return ", nor one with / in place of its backslashes; paths start at the manifest's folder"
    return "; paths start at the manifest's folder"
