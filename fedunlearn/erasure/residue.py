"""What is left of purged requests in a folder: looked for in every file, whatever it is called and whatever holds."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.erasure.tombstones import FILE, Tombstone, is_weak
from fedunlearn.erasure.unpacking import Piece, pieces
from fedunlearn.results.places import LOCK

Array = npt.NDArray[Any]

WIDEST = 1_024
"""Numbers in a row of answers, at the most."""
LEAST = 16
"""Numbers in a tensor that models are told apart by."""


@dataclass(frozen=True, order=True)
class Hit:
    """Something that should be gone.

    Attributes:
        file: where, by its path from the folder.
        what: it is, in words.
    """

    file: str
    what: str


def scan(folder: Path, stones: Collection[Tombstone], known: Mapping[str, str]) -> list[Hit]:
    """Look through all files of a folder.

    Args:
        folder: of a run.
        stones: what was purged.
        known: by path, the sha256 of files that belong there; models may be only among these.
    """
    shapes = _shapes(folder, known)
    found = set[Hit]()
    with np.errstate(over="ignore", invalid="ignore"):  # bytes that are no floats
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            if name not in (FILE, LOCK):
                wrong = _file(name, path.read_bytes(), stones, known.get(name), shapes)
                found |= {Hit(name, what) for what in wrong}
    return sorted(found)


def _file(
    name: str, content: bytes, stones: Collection[Tombstone], known: str | None, shapes: list[tuple[int, ...]]
) -> Iterator[str]:
    """What is wrong with a file, in words."""
    digest = hashlib.sha256(content).hexdigest()
    ours = digest == known
    removed = [stone for stone in stones if digest in stone.removed]
    yield from (f"a file that was removed or changed for {_of(stone)}" for stone in removed)
    own = [Piece("its name", text=name), *pieces(content)]
    for stone in stones:
        yield from (f"{what} ({_of(stone)})" for what in _found(own, stone))
    if shapes and not (ours and name.startswith("weights/")) and _is_model(own, shapes):
        yield "a model, or an update of one, that the run does not know"


def _of(stone: Tombstone) -> str:
    return ", ".join(stone.requests)


def _found(own: Iterable[Piece], stone: Tombstone) -> Iterator[str]:
    for piece in own:
        where = piece.where.rstrip(":, ")
        at = f", {where}" if where else ""
        if piece.array is None:
            if stone.secret and _names(piece, stone):
                yield f"the id of a patient or an image{at}"
            continue
        array = piece.array
        if array.dtype.kind not in "iufb" or not array.size:
            continue
        if stone.pixels and any(stone.has_image(one) for one in _images(array, stone.pixels)):
            yield f"a forgotten image{at}"
        if piece.lines:
            continue
        if stone.rows and any(stone.keyed(row.tobytes()) in stone.rows for row in _rows(array)):
            yield f"what a model answered about a forgotten image{at}"
        if not piece.table and _is_tensor(array, stone):
            yield f"a tensor of a model that was removed{at}"


def _is_tensor(array: Array, stone: Tombstone) -> bool:
    if not stone.tensors or array.dtype.kind != "f" or array.size < LEAST:
        return False
    return stone.keyed(np.ascontiguousarray(array, np.float32).tobytes()) in stone.tensors


def _names(piece: Piece, stone: Tombstone) -> bool:
    """Whether a text has an id in it."""
    if piece.cell and stone.named(piece.text) in (stone.weak if is_weak(piece.text) else stone.names):
        return True
    return any(stone.named(word) in stone.names for word in words(piece.text))


_APART = (re.compile(r"[^\w-]+"), re.compile(r"[^\w.-]+"), re.compile(r"[^\w]+"), re.compile(r"\s+"))


def words(text: str) -> set[str]:
    """The words of a text, apart in every usual way: ids have points, strokes or neither in them."""
    found = {word for apart in _APART for word in apart.split(text)}
    return {word.strip(".,;:-") for word in found if not is_weak(word)} | {w for w in found if not is_weak(w)}


def _images(array: Array, pixels: int) -> Iterator[Array]:
    """What of an array can be an image, by its size; in front of it, or behind, may be a header, or one of each row.

    Args:
        array: of any shape.
        pixels: numbers of an image.
    """
    flat, rest = array.reshape(-1), array.size % pixels
    if rest == 0:
        yield from flat.reshape(-1, pixels)
    elif array.ndim <= 2 and array.size > pixels:
        yield from flat[rest:].reshape(-1, pixels)
        yield from flat[:-rest].reshape(-1, pixels)
    if array.ndim == 2 and array.shape[1] > pixels:
        yield from array[:, :pixels]
        yield from array[:, -pixels:]
    if array.ndim == 1 and array.size % (pixels + 1) == 0:  # a label with each image
        yield from _images(array.reshape(-1, pixels + 1), pixels)
    if array.ndim == 2 and array.shape[1] <= pixels and array.shape[0] * (array.shape[1] - 1) % pixels == 0:
        for part in (array[:, 1:], array[:, :-1]):
            yield from part.reshape(-1, pixels)


def _rows(array: Array) -> Iterator[Array]:
    """What of an array can be a row of answers."""
    if array.dtype.kind != "f" or array.ndim not in (1, 2) or array.shape[-1] > WIDEST:
        return
    yield from np.ascontiguousarray(np.atleast_2d(array), np.float32)


def _shapes(folder: Path, known: Mapping[str, str]) -> list[tuple[int, ...]]:
    """The shapes of a model's tensors, in order; empty if there is none."""
    name = next(
        (name for name in sorted(known) if name.startswith("weights/") and (folder / name).is_file()), None
    )
    return [] if name is None else model_shapes(pieces((folder / name).read_bytes()))


def model_shapes(own: Iterable[Piece]) -> list[tuple[int, ...]]:
    """The shapes of the tensors of a file, in order."""
    return sorted(tuple(one.array.shape) for one in own if one.array is not None and one.model)


def _is_model(own: Iterable[Piece], shapes: list[tuple[int, ...]]) -> bool:
    """Whether a file has the tensors of a model, or all its numbers in a row."""
    pieces, size = list(own), sum(math.prod(shape) for shape in shapes)
    numbers = [one.array for one in pieces if one.array is not None and not one.lines]
    floats = [array for array in numbers if array.dtype.kind == "f"]
    large = [shape for shape in shapes if math.prod(shape) >= LEAST]
    there = model_shapes(pieces)
    if large and all(shape in there for shape in large):
        return True
    return any(array.size and array.size % size == 0 for array in floats if array.ndim <= 2)
