"""Not again: data and earlier runs are compared with tombstones before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn import files
from fedunlearn.core import InputError
from fedunlearn.erasure.tombstones import Tombstone, read, subject

Array = npt.NDArray[Any]


def refuse(paths: Collection[Path], table: pd.DataFrame, pixels: Array) -> None:
    """Make sure that nothing forgotten is in the data.

    Args:
        paths: of tombstones.
        table: a row for every image: ``image``, ``patient``, ``site``.
        pixels: (N, C, *spatial).

    Raises:
        InputError: something is, or a tombstone cannot be read; tells all.
    """
    problems = list[str]()
    for path in paths:
        stone = read(path)
        if told := ", ".join(_matches(stone, table, pixels)):
            problems.append(
                f"the data has what was forgotten: {told} of {', '.join(stone.requests)} ({path}); expected none: "
                "take them out of the data, its files or its table, and try again"
            )
    if problems:
        raise InputError("\n".join(problems))


def refuse_reuse(paths: Collection[Path], folders: Collection[Path]) -> None:
    """Make sure that no earlier run is taken from whose models saw what was forgotten.

    Raises:
        InputError: one is, or a tombstone cannot be read; tells all.
    """
    problems = list[str]()
    for path in paths:
        stone = read(path)
        problems += [
            f"cannot reuse {folder}: {why} ({', '.join(stone.requests)}, {path}); expected a run without: purge that "
            f"one too (`fedunlearn purge {folder} --request ID`), or leave it out"
            for folder in folders
            if (why := _holds(folder, stone))
        ]
    if problems:
        raise InputError("\n".join(problems))


def _matches(stone: Tombstone, table: pd.DataFrame, pixels: Array) -> Iterator[str]:
    """What of it is there again, counted, in words."""
    for column, noun in (("patient", "patient"), ("image", "image")):
        if number := len(_known(stone, table, column)):
            yield f"{number} {noun} by id" if number == 1 else f"{number} {noun}s by id"
    if stone.images and tuple(pixels.shape[1:]) == stone.shape:
        number = sum(stone.has_image(np.asarray(one)) for one in pixels)
        if number:
            yield f"{number} image by its pixels" if number == 1 else f"{number} images by their pixels"


def _known(stone: Tombstone, table: pd.DataFrame, column: str) -> set[tuple[str, str]]:
    """Hospital and id of those that a tombstone knows."""
    if not stone.secret:
        return set()
    pairs = set(zip(table["site"].astype(str), table[column].astype(str), strict=True))
    return {pair for pair in pairs if stone.named(subject(column, *pair)) in stone.subjects}


def _holds(folder: Path, stone: Tombstone) -> str:
    """What a run folder has of what was forgotten, in words; empty if nothing."""
    weights = sorted((folder / "weights").glob("*.safetensors"))
    if any(files.sha256(file) in stone.removed for file in weights):
        return "it holds models that were removed elsewhere, since they saw what was to be forgotten"
    if weights and (folder / "sites.parquet").is_file():
        table = pd.read_parquet(folder / "sites.parquet")
        if any(_known(stone, table, column) for column in ("patient", "image")):
            return (
                "its data has patients or images that are to be forgotten, so its models may have seen them"
            )
    return ""
