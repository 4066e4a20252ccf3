"""What the labels in an `.npz` file are: classes, label maps or several findings, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.core import IGNORED, Problem
from sites import findings
from sites.findings import Wanted
from sites.identity import in_words, tidied
from sites.labels import Misread, read_labels
from sites.npz import values as npz_values
from sites.npz.table import as_text
from sites.rows import Fault, grouped

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Read:
    """Labels as they are used.

    Attributes:
        kind: of task.
        targets: as in `sites.collection.Collection`; mean nothing where there are problems.
        classes: how many there are.
        names: of the classes or findings.
        told: in words, for the note.
        problems: what is wrong.
    """

    kind: str
    targets: Array
    classes: int
    names: tuple[str, ...] = ()
    told: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Labelled:
    """The labels of some images.

    Attributes:
        file: where they are.
        images: (N,) ids.
        patients: (N,) whose they are.
        labels: (N,), (N, 1), (N, F) findings or (N, *spatial) maps.
        notes: what their owner should know of is added.
    """

    file: Path
    images: Sequence[str]
    patients: Sequence[str]
    labels: Array
    notes: list[str]

    def read(self, wanted: Wanted, called: Sequence[str]) -> Read:
        """As they are used.

        Args:
            wanted: the findings that are asked for.
            called: what the file calls the columns of several findings.
        """
        if self.labels.ndim > 2:
            read = self._maps()
            return (
                read
                if wanted is None
                else self._wrong(read, ["label maps are no findings: leave findings out"])
            )
        if self.labels.ndim == 2 and self.labels.shape[1] > 1:
            return self._columns(wanted, called)
        return self._classes() if wanted is None else self._cells(wanted)

    def _wrong(self, read: Read, messages: Sequence[str]) -> Read:
        problems = tuple(Problem(f"npz: {self.file}: {message}") for message in messages)
        return Read(read.kind, read.targets, read.classes, problems=problems)

    def _faults(self, misread: Sequence[Misread]) -> list[Problem]:
        """What is wrong with single images' labels."""
        where = f"npz: {self.file}: label of image"
        return grouped(
            Fault(Problem(f"{where} {self.images[one.row]!r}: {one.message}"), f"npz: labels: {one.kind}")
            for one in misread
        )

    def _classes(self) -> Read:
        labels = self.labels.reshape(-1)
        if labels.dtype.kind == "b":
            labels = labels.astype(np.uint8)
            self.notes.append("labels are false and true: classes 0 and 1")
        if labels.dtype.kind == "f" and (infinite := np.isinf(labels)).any():
            first = self.images[int(infinite.argmax())]
            message = f"{int(infinite.sum()):,} labels are infinite, first that of {first!r}: correct or remove them"
            return self._wrong(Read("classification", labels, 0), [message])
        read = read_labels(as_text(labels), self.patients, self._place)
        self.notes.extend(read.notes)
        whole = [Problem(f"npz: {self.file}: labels: {message}") for message in read.wrong]
        told = f" Labels: {in_words(read.names)}." if labels.dtype.kind in "US" else ""
        problems = (*self._faults(read.misread), *whole)
        return Read("classification", read.targets, len(read.names), read.names, told, problems)

    def _columns(self, wanted: Wanted, called: Sequence[str]) -> Read:
        count = self.labels.shape[1]
        names = wanted if isinstance(wanted, tuple) else tuple(map(tidied, called))
        if names and (len(names) != count or len(set(names)) != count):
            message = f"the array findings has {len(names)} names, expected {count} different ones, one for each column"
            return self._wrong(
                Read("multilabel", self.labels, findings.CLASSES), [f"{message} of the labels"]
            )
        names = names or tuple(f"finding {number}" for number in range(count))
        if wanted is None:
            self.notes.append(
                f"labels of {count} columns are read as {count} findings, of which an image can have several"
            )
        return self._findings(findings.of_numbers(self.labels, names, self.patients))

    def _cells(self, wanted: Wanted) -> Read:
        labels = self.labels.reshape(-1)
        if labels.dtype.kind not in "US":
            message = (
                "labels are one number for each image, and findings asks for several: leave findings out"
            )
            return self._wrong(Read("multilabel", labels, findings.CLASSES), [message])
        return self._findings(findings.of_cells(as_text(labels), self.patients, self._place, wanted))

    def _place(self, row: int) -> str:
        return f"image {self.images[row]!r}"

    def _findings(self, found: findings.Findings) -> Read:
        self.notes.extend(found.notes)
        misread = [one for several in found.misread.values() for one in several]
        whole = [Problem(f"npz: {self.file}: findings: {message}") for message in found.wrong]
        told = f" {findings.in_words(found.names)}."
        problems = (*self._faults(misread), *whole)
        return Read("multilabel", found.targets, findings.CLASSES, found.names, told, problems)

    def _maps(self) -> Read:
        """Label maps in as few bytes as they need."""
        labels, read = self.labels, Read("segmentation", self.labels, 0)
        if not npz_values.whole(labels):
            finite = bool(np.isfinite(labels).all())
            fault = "that are not whole" if finite else "that are not finite (NaN or infinite)"
            advice = "round them" if finite else "correct them, or set 255 where voxels are to be ignored"
            return self._wrong(read, [f"label maps have numbers {fault}, expected 0, 1, …: {advice}"])
        if labels.dtype.kind in "bf":
            self.notes.append(f"label maps of type {labels.dtype} are read as whole numbers")
            labels = labels.astype(np.int64)
        if faults := npz_values.wrong_maps(labels, self.images):
            return self._wrong(read, faults)
        smallest = labels.astype(np.min_scalar_type(labels.max()))  # int64 is 8 times as large
        return Read("segmentation", smallest, int(labels[labels != IGNORED].max()) + 1)
