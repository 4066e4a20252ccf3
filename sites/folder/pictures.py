"""Image files with one label each, all made alike: read once and then kept (`sites.prepared`)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.core import InputError
from sites.collection import SEEN
from sites.folder.people import Numbers
from sites.formats import sizes
from sites.formats.images import claimed, read
from sites.formats.picture import Picture, counted
from sites.formats.unreadable import Unreadable
from sites.pixels import one_thread, resized
from sites.prepared import Growing, Prepared, prepared, stamp
from sites.rows import Fault, Row, grouped
from sites.watching import Watch, unwatched

Array = npt.NDArray[Any]

_ARRAYS = ("pixels", "seen", "people")
_FORMAT = 5  # of what is kept; to be raised whenever the same files and settings give other arrays
_LIBRARIES = ("nibabel", "numpy", "pillow", "pydicom", "torch")  # they decide the last bits
_GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601, as Pillow has it
_SINGLE = 2  # letters that tell where an image's rows and columns run
_SHOWN = 4
_WORDS = ("format", "size", "orientation")


@dataclass(frozen=True)
class Alike:
    """How images are made alike.

    Attributes:
        size: edge of the images after resizing, in pixels; None if all have one shape already.
        channels: make 2D images grey (1) or colour (3); None for as they are.
    """

    size: int | None = None
    channels: int | None = None


@dataclass(frozen=True)
class Pictures:
    """Images and what their files were found to be.

    Attributes:
        pixels: (N, C, *spatial) uint8, memory-mapped.
        seen: as in `sites.collection.Collection`.
        notes: sentences: how many files were read in a way that their owner should know of.
        people: (N,) a number for whom each file names, as `sites.folder.people.Numbers` gives them.
    """

    pixels: Array
    seen: pd.DataFrame
    notes: tuple[str, ...]
    people: npt.NDArray[np.int64]


def read_pictures(rows: Sequence[Row], folder: Path, how: Alike, watch: Watch = unwatched) -> Pictures:
    """The images of a manifest's rows, kept from an earlier call or made now; one at a time is in memory.

    Args:
        rows: whose files are there.
        folder: where their paths start.
        how: what is done to them.
        watch: is shown how far it is.

    Raises:
        InputError: files that cannot be read or are too large, or shapes that differ.
        RunError: the cache cannot be written.
    """
    start = os.path.abspath(folder)
    stamps = [stamp(os.path.join(start, row.cells["file"])) for row in rows]
    libraries = {name: version(name) for name in _LIBRARIES}
    key = {"format": _FORMAT, "how": asdict(how), "libraries": libraries, "files": stamps}
    found = prepared(
        "images", key, _ARRAYS, len(rows), lambda growing: _make(rows, folder, how, watch, growing)
    )
    arrays, seen = found.arrays, _seen(found)
    return Pictures(arrays["pixels"], seen, (*found.about["notes"], *_directions(seen)), arrays["people"])


def _make(rows: Sequence[Row], folder: Path, how: Alike, watch: Watch, growing: Growing) -> dict[str, Any]:
    faults, shapes = list[Fault](), list[tuple[int, ...]]()
    words: dict[str, dict[str, int]] = {name: {} for name in _WORDS}
    notes, people = list[tuple[str, tuple[str, ...]]](), Numbers()
    for row in watch(rows, "reading images"):
        file = folder / row.cells["file"]
        try:
            if message := sizes.excess({"it": claimed(file)}, sizes.WORK):
                faults.append(row.fault("too large", "file", message))
                continue
            picture = read(file)
        except Unreadable as error:
            faults.append(row.fault(error.kind, "file", f"{row.cells['file']} {error}"))
            continue
        pixels = _alike(picture.pixels, how)
        shapes.append(pixels.shape)
        if not faults and pixels.shape == shapes[0]:  # else nothing will be kept
            growing.append("pixels", pixels)
            growing.append("seen", _numbers(picture, words))
            growing.append("people", np.array(people.of(picture.person)))
        notes.append((row.cells["file"], picture.notes))
    if not faults and len(set(shapes)) > 1:
        faults = _of_other_shapes(rows, shapes)
    if faults:
        raise InputError(grouped(faults))
    return {"notes": counted(notes), "words": {name: list(known) for name, known in words.items()}}


def _alike(pixels: Array, how: Alike) -> Array:
    """(C, *spatial) uint8."""
    if pixels.ndim == 3 and how.channels == 1 and len(pixels) == 3:
        pixels = np.tensordot(_GREY, pixels, axes=(0, 0))[None].round().astype(pixels.dtype)
    if pixels.ndim == 3 and how.channels == 3 and len(pixels) == 1:
        pixels = np.repeat(pixels, 3, axis=0)
    if how.size is None:
        return pixels
    with one_thread():
        final: Array = resized(pixels[None], how.size)[0]
    return final


def _of_other_shapes(rows: Sequence[Row], shapes: Sequence[tuple[int, ...]]) -> list[Fault]:
    usual = Counter(shapes).most_common(1)[0][0]
    return [
        row.fault(
            "another shape",
            "file",
            f"has shape {shape} (channels, edges), most have {usual}: {_remedy(shape, usual)}",
        )
        for row, shape in zip(rows, shapes, strict=True)
        if shape != usual
    ]


def _remedy(shape: tuple[int, ...], usual: tuple[int, ...]) -> str:
    """The settings that make one shape the other."""
    if len(shape) != len(usual):
        return "give images and volumes manifests of their own"
    colours = ["channels: 1 (grey) or 3 (colour)"] * (shape[0] != usual[0])
    edges = ["size: an edge, such as 128"] * (shape[1:] != usual[1:])
    return f"set {' and '.join([*colours, *edges])}"


def _numbers(picture: Picture, words: dict[str, dict[str, int]]) -> npt.NDArray[np.float64]:
    """What is seen of a file as numbers, words by their place in lists that grow."""
    values = [getattr(picture, name) for name in SEEN]
    return np.array(
        [
            words[name].setdefault(value, len(words[name])) if name in words else value
            for name, value in zip(SEEN, values, strict=True)
        ],
        dtype=np.float64,
    )


def _directions(seen: pd.DataFrame) -> tuple[str, ...]:
    """A note if single images, which are not turned as volumes are, run in several directions."""
    ways = Counter(way for way in seen["orientation"].astype(str) if len(way) == _SINGLE)
    if len(ways) < 2:
        return ()
    shown = ", ".join(f"{way} ({count:,})" for way, count in ways.most_common(_SHOWN))
    return (
        f"rows and columns of single images run in {len(ways)} ways, such as {shown}, and are not turned: are some "
        "mirrored, or of another view?",
    )


def _seen(found: Prepared) -> pd.DataFrame:
    numbers, words = found.arrays["seen"], found.about["words"]
    columns: dict[str, Iterable[Any]] = {
        name: np.array(words[name], dtype=object)[numbers[:, i].astype(int)]
        if name in words
        else numbers[:, i]
        for i, name in enumerate(SEEN)
    }
    return pd.DataFrame(columns)
