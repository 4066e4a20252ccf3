"""A tombstone of what goes: of images, of what models answered about them, and of models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.erasure import lineage, rewriting, tombstones
from fedunlearn.erasure.leftovers import Leftovers
from fedunlearn.erasure.residue import LEAST
from fedunlearn.erasure.tombstones import Tombstone
from fedunlearn.erasure.unpacking import pieces
from fedunlearn.exports.kept import Model

Array = npt.NDArray[Any]


def hashed(left: Leftovers, stone: Tombstone, pixels: Array | None) -> Tombstone:
    """All of it; what also stays, since a model or an image that stays has the same, is left out.

    Args:
        left: what goes.
        stone: has its keys.
        pixels: the images that go; None if they are not at hand.
    """
    own = left.images[left.gone]
    names = {
        column: {(str(s), str(n)) for s, n in zip(own["site"], own[column], strict=True)}
        for column in ("image",)
    }
    names["patient"] = {
        (str(s), str(n))
        for s, n in zip(own["site"], own["patient"], strict=True)
        if str(n) in left.names.labels
    }
    stone = tombstones.with_names(stone, names)
    if pixels is not None and len(pixels):
        stone = tombstones.with_images(stone, pixels)
    gone, kept = _rows(left, stone)
    went = {one for model in left.going for one in _tensors(left, model, stone)}
    stays = {one for model in left.models if model not in left.going for one in _tensors(left, model, stone)}
    removed = {digest for digest in left.going.values() if digest}
    removed -= {digest for model, digest in left.models.items() if model not in left.going and digest}
    return replace(
        stone, rows=frozenset(gone - kept), tensors=frozenset(went - stays), removed=frozenset(removed)
    )


def _rows(left: Leftovers, stone: Tombstone) -> tuple[set[str], set[str]]:
    """What models answered: about images that go, and about others in files that stay."""
    gone, kept = set[str](), set[str]()
    for name in left.manifest["sha256"]:
        if not name.endswith(".parquet") or not name.startswith((*rewriting.BY_ROW, "copies/")):
            continue
        table = left.run.read_table(name)
        if "image" in table.columns:
            mask = table["image"].astype(str).isin(left.names.images).to_numpy()
        elif len(table) == len(left.gone):
            mask = left.gone
        else:
            continue
        floats = [name for name in table.columns if table[name].dtype.kind == "f"]
        numbers = table[floats].to_numpy(np.float32)
        gone |= set(_keyed(numbers[mask], stone))
        if name not in left.removed:
            kept |= set(_keyed(numbers[~mask], stone))
    return gone, kept


def _keyed(rows: Array, stone: Tombstone) -> Iterator[str]:
    """Hashes of rows that could be of one image only."""
    for row in np.ascontiguousarray(rows):
        if np.isfinite(row).all() and len(row) > 1 and row.min() != row.max():
            yield stone.keyed(row.tobytes())


def _tensors(left: Leftovers, model: Model, stone: Tombstone) -> Iterator[str]:
    file: Path = left.run.path / lineage.place(model)
    if not file.is_file():
        return
    for piece in pieces(file.read_bytes()):
        array = piece.array
        if (
            array is not None
            and array.dtype.kind == "f"
            and array.size >= LEAST
            and array.min() != array.max()
        ):
            yield stone.keyed(np.ascontiguousarray(array, np.float32).tobytes())
