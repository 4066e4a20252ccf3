"""What the data at hand is: a folder, a table, a NumPy file or a name, told by looking at it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from fedunlearn.beginning.layouts import decided, said
from fedunlearn.core import InputError
from sites import SOURCES, chexpert
from sites.collection import Collection, Source
from sites.folder.layout import Layout
from sites.folder.trees import tree_of
from sites.watching import Watch

TABLES = (".csv", ".parquet")
"""Endings of manifests, as they are or in capitals."""
EDGES = {"quick": 32, "normal": 64}
"""To how many pixels images of files are resized, by how much time there is."""
SMALLEST = 28
"""Pixels that the network takes at least."""
PATIENTS = {"quick": 500, "normal": 2000}
"""So many of CheXpert's patients, by how much time there is."""
VOXELS = (32, 32, 32)
"""The grid that volumes with label maps are resampled to."""
_EDGE = 64  # of a NumPy file's images: beyond, they are resized


@dataclass(frozen=True)
class Found:
    """The data, as it was found.

    Attributes:
        settings: the scenario's ``data``.
        root: the data root that paths in it start from; None if it has none.
        collection: the images.
        note: how it was told what this is, in words.
    """

    settings: Mapping[str, Any]
    root: Path | None
    collection: Collection
    note: str

    @property
    def layout(self) -> Layout | None:
        """What folders were read as; None where there are none, or a table lists what is in them."""
        return cast("Layout | None", self.settings.get("layout"))

    @property
    def several(self) -> bool:
        """Whether an image has several findings."""
        return self.collection.targets.ndim == 2 and self.collection.labels is None


def find(data: str, time: str, root: Path, watch: Watch, layout: Layout | None = None) -> Found:
    """Look at the data.

    Args:
        data: a path, or the name of a data source or of a set of medmnist's.
        time: a key of `EDGES`.
        root: where files of named sets are.
        watch: is shown how far reading is.
        layout: what the folders are, if it is known.

    Raises:
        Undecided: it is not told what the folders are.
        InputError: it is nothing that can be read, with what to do.
    """
    path, problem = Path(data), InputError(f"found nothing to read in {data}")
    if layout is not None and not path.is_dir():
        raise InputError(
            f"--layout {layout}: {data} is no folder, expected one of images: leave --layout out"
        )
    if not path.exists():
        return _named(data, root, watch)
    if path.name in (
        "",
        "..",
    ):  # such as ".": a scenario names a folder beside the root, so it needs its name
        path = path.resolve()
    for settings, note in _readings(path, time, layout):
        try:
            collection = _load(settings, path.parent, watch)
            if (smaller := _no_larger(settings, collection)) != settings:
                settings, collection = smaller, _load(smaller, path.parent, watch)
            return _several(Found(settings, path.parent, collection, note), watch)
        except InputError as error:
            problem = error
    raise problem


def _load(settings: Mapping[str, Any], root: Path, watch: Watch) -> Collection:
    own = {key: value for key, value in settings.items() if key != "name"}
    source: Source = cast(Any, SOURCES[settings["name"]])(**own)
    return source.load(root, watch)


def _several(found: Found, watch: Watch) -> Found:
    """The data with several findings for each image, where labels such as Effusion|Mass name them."""
    if not any("|" in name for name in found.collection.names):
        return found
    settings = {**found.settings, "findings": "all"}
    with suppress(InputError):  # then each combination is a class
        collection = _load(settings, found.root or Path(), watch)
        return replace(found, settings=settings, collection=collection, note=f"{found.note} and its findings")
    return found


def _no_larger(settings: dict[str, Any], collection: Collection) -> dict[str, Any]:
    """Settings under which images are not made larger than they are, unless they are too small for a network."""
    fixed = getattr(SOURCES[settings["name"]], "size", None) is not None  # it has no size of their own
    if "size" not in settings or fixed or collection.seen is None:
        return settings
    sizes = set(collection.seen["size"].astype(str))
    edges = [int(edge) for size in sizes for edge in re.findall(r"\d+", size)]
    if not edges or max(edges) >= settings["size"]:
        return settings
    if len(sizes) == 1 and min(edges) >= SMALLEST:
        return {key: value for key, value in settings.items() if key != "size"}
    return {**settings, "size": max(SMALLEST, *edges)}


def _readings(path: Path, time: str, layout: Layout | None = None) -> Iterator[tuple[dict[str, Any], str]]:
    """The ways to read what lies at a path, the likeliest first; the last one's problems are told."""
    if path.suffix.lower() == ".npz":
        yield _npz(path)
        return
    if path.suffix.lower() in TABLES:
        yield from _sized(
            {"name": "folder", "manifest": path.name}, "a table with a row for every image", time
        )
        return
    if not path.is_dir():
        raise InputError(
            f"{path} is no folder, no manifest (.csv, .parquet) and no .npz file: give one of these, or a name such as "
            "phantom_cells or breastmnist"
        )
    if layout is None and any(_of_chexpert(path / name) for name in chexpert.TABLES):
        settings = {"name": "chexpert", "path": path.name, "size": EDGES[time]}
        what = "CheXpert as it is distributed"
        yield {**settings, "patients": PATIENTS[time]}, f"{what}, {PATIENTS[time]:,} of its patients"
        yield settings, what
        return
    tables = sorted(
        file for file in path.iterdir() if file.suffix.lower() in TABLES and not file.name.startswith(".")
    )
    if layout is None and tables:
        names = [file.name for file in tables]
        lists = [name for name in names if name.lower() == "manifest.csv"]
        if len(tables) > 1 and len(lists) != 1:
            raise InputError(
                f"found several tables in {path} ({', '.join(names[:5])}): give the one that lists images"
            )
        (name,) = lists if len(tables) > 1 else names
        settings = {"name": "folder", "manifest": f"{path.name}/{name}"}
        yield from _sized(settings, f"the folder's table {name}, with a row for every image", time)
        return
    tree = tree_of(path)
    read_as, why = decided(tree) if layout is None else said(layout, tree)
    settings = {"name": "folder", "path": path.name, "layout": read_as}
    with_maps = "class" not in read_as.split("/")
    yield from _sized(settings, f"folders read as {read_as}, {why}", time, with_maps)


def _of_chexpert(table: Path) -> bool:
    if not table.is_file():
        return False
    with table.open(encoding="utf-8", errors="replace") as opened:
        return opened.readline().startswith("Path,Sex,Age,Frontal/Lateral,AP/PA,")


def _sized(
    settings: dict[str, Any], note: str, time: str, maps: bool = False
) -> Iterator[tuple[dict[str, Any], str]]:
    """With a size for images, with label maps on a grid, and in one kind of colours where files have several."""
    if not maps:
        sized = {**settings, "size": EDGES[time]}
        yield sized, note
        yield {**sized, "channels": 1}, note + ", made grey since they differ in colours"
    yield {**settings, "shape": VOXELS}, note + ", volumes with label maps"
    if not maps:
        yield {**settings, "size": EDGES[time]}, note  # whose problems are the ones to tell


def _npz(path: Path) -> tuple[dict[str, Any], str]:
    import numpy as np

    settings: dict[str, Any] = {"name": "npz", "path": path.name}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            shapes = {name: arrays[name].shape for name in arrays.files if name == "train_images"}
            maps = "train_labels" in arrays.files and arrays["train_labels"].ndim > 2
    except (OSError, ValueError, EOFError):
        shapes, maps = {}, False  # the source says what is wrong with it
    shape = shapes.get("train_images", ())
    if not maps and len(shape) in (3, 4) and max(shape[1:3]) > _EDGE:
        settings["size"] = _EDGE
    return settings, "a NumPy file with the keys of MedMNIST"


_MADE_UP = "made-up images, which need no files"
_AT_HAND: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "phantom_cells": ({"images": 2000}, _MADE_UP),
    "phantom_brain": ({"volumes": 120, "size": 32}, _MADE_UP),
    "phantom_chest": ({"images": 1500}, "made-up images with made-up reports, which need no files"),
    "breast_table": (
        {"mislabelled": 0.15},
        "a table of real patients, some given the wrong class; it needs no file",
    ),
}
"""Data that is always there: its settings, and what it is."""


def _named(name: str, root: Path, watch: Watch) -> Found:
    if name in _AT_HAND:
        own, note = _AT_HAND[name]
        return Found({"name": name, **own}, None, cast(Any, SOURCES[name])(**own).load(root, watch), note)
    if "mnist" in name:
        found = cast(Any, SOURCES["medmnist"])(set=name).load(root, watch)
        return Found(
            {"name": "medmnist", "set": name}, root, found, "a set of MedMNIST's, with made-up patients"
        )
    raise InputError(
        f"found no file or folder {name!r}, and no data of that name: give a folder of images, a manifest (.csv, "
        ".parquet), an .npz file, or a name such as phantom_cells or breastmnist"
    )
