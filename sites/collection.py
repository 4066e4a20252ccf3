"""What a data source delivers: images with targets and owners, before anybody knows of hospitals.

A source (`sites/<name>.py`) is a frozen dataclass whose fields are its YAML. It reads files, nothing else; who
holds which image is the partition's business, what is trained on is the split's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.core import IGNORED, Form
from fedunlearn.core.held import held
from sites.forms import form
from sites.watching import Watch, unwatched

SEEN = ("format", "size", "low", "high", "orientation")
"""The columns of `Collection.seen`."""


@dataclass(frozen=True)
class Collection:
    """Images, what they show and whose they are.

    Attributes:
        pixels: (N, C, *spatial) uint8, or float32 scaled to [-1, 1]; may be a memory-mapped file, and so may targets.
        targets: (N,) int64 classes 0…classes-1; (N, *spatial) label maps of any integers, uint8 at best: int64 would
            take eight times the memory; or (N, places) uint8, a class for each finding, or for the image and each
            companion, where `fedunlearn.core.IGNORED` stands for one that nobody knows.
        table: one row per image, in order: ``image`` (unique id) and ``patient``, both strings; ``site`` where the
            data knows it; any attributes (sex, age, view, difficulty, …).
        classes: number of classes; two where an image has several findings: absent, present.
        synthetic_patients: the patients are made up; the report must say so.
        kind: the kind of task (`fedunlearn.core.kinds`).
        note: what the data is, in words, for the report.
        names: of the classes, in order, or of the findings; empty where they have none but their numbers.
        notes: what was read in a way that its owner should know of (ids taken as one, numbers renumbered, images
            turned), a sentence each; `check` shows them and the run folder keeps them.
        seen: one row per image, in order, of what its file was found to be: ``format``, ``size`` (such as 512 × 512),
            ``low`` and ``high`` (the range of its values, before they were scaled) and ``orientation`` (empty where a
            format has none); None where images are made up.
        companions: what comes with every image, by name: (N, …) int64 words of a text as numbers, or float32 numbers of
            a table.

    Raises:
        ValueError: the parts do not belong together (a defect of the source, not of its input).
    """

    pixels: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    table: pd.DataFrame
    classes: int
    synthetic_patients: bool
    kind: str = "classification"
    note: str = ""
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seen: pd.DataFrame | None = None
    companions: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def labels(self) -> npt.NDArray[Any] | None:
        """(N,) the class of each image, where every image has one of its own."""
        return held(self.kind).labels(self.targets)

    @property
    def strata(self) -> npt.NDArray[Any]:
        """What images are dealt by, evenly or not: (N,) numbers, such as their classes; label maps as they are."""
        found = held(self.kind).strata(self.targets, self.names)
        return self.targets if found is None else found[0]

    def __post_init__(self) -> None:
        counts = {len(self.pixels), len(self.targets), len(self.table)}
        if len(counts) > 1 or not {"image", "patient"} <= set(self.table.columns):
            raise ValueError(
                f"pixels, targets and table must agree: {counts} rows, {list(self.table.columns)}"
            )
        if odd := [name for name, array in self.companions.items() if len(array) != len(self.pixels)]:
            raise ValueError(f"companions must have a row per image: {odd}")
        if self.targets.ndim > 2 and self.targets.shape[1:] != self.pixels.shape[2:]:
            raise ValueError(
                f"label maps {self.targets.shape} must be shaped like images {self.pixels.shape}"
            )
        if self.seen is not None and (len(self.seen) != len(self.table) or tuple(self.seen.columns) != SEEN):
            raise ValueError(f"seen must have a row per image and the columns {SEEN}")
        if not self.table["image"].is_unique:
            raise ValueError("image ids must be unique")

    @property
    def form(self) -> Form:
        """What a network for these images is built for."""
        return form(self.pixels, self.targets, self.classes, self.companions)

    def at(self, rows: npt.NDArray[Any]) -> Collection:
        """Some of the images, by number."""
        return replace(
            self,
            pixels=self.pixels[rows],
            targets=self.targets[rows],
            table=self.table.iloc[rows].reset_index(drop=True),
            seen=None if self.seen is None else self.seen.iloc[rows].reset_index(drop=True),
            companions={name: array[rows] for name, array in self.companions.items()},
        )


class Source(Protocol):
    """Where images come from: a frozen dataclass, found by its name in a scenario's ``data``."""

    @property
    def name(self) -> str:
        """The name it has in a scenario."""
        ...

    def load(self, root: Path, watch: Watch = unwatched) -> Collection:
        """Read the images; the same files give the same collection.

        Args:
            root: where relative paths start.
            watch: is shown how far it is, where that takes long.

        Raises:
            InputError: files are missing or cannot be used; all problems together.
        """
        ...


def loaded(source: Source, root: Path, watch: Watch = unwatched) -> Collection:
    """What a source has, without images of which nothing is known: they teach nothing, and no answer to them is wrong.

    Args as of `Source.load`.

    Raises:
        InputError: see there.
    """
    collection = source.load(root, watch)
    if not held(collection.kind).unknown:
        return collection
    known = (collection.targets != IGNORED).reshape(len(collection.targets), -1).any(axis=1)
    if known.all():
        return collection
    count = len(known) - int(known.sum())
    note = f"left out: {count:,} of {len(known):,} images, of which no finding is known"
    return replace(collection.at(np.flatnonzero(known)), notes=(*collection.notes, note))


def digest(collection: Collection) -> str:
    """The sha256 of pixels, targets, image and patient ids and companions: equal digests mean equal experiments."""
    sha = hashlib.sha256()
    companions = sorted(collection.companions.items())
    for name, array in [("", collection.pixels), ("", collection.targets), *companions]:
        sha.update(f"{name}{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    for column in ("image", "patient"):
        sha.update("\x1f".join(map(str, collection.table[column])).encode())
        sha.update(b"\x1e")
    return sha.hexdigest()
