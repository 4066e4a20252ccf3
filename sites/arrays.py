"""Writing arrays that memory should not hold at once: `.npy` files, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fedunlearn import files

Array = npt.NDArray[Any]

_CHUNK = 32 * 2**20  # bytes of rows copied at once


def write_header(opened: IO[bytes], shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """Start a `.npy` file; the array's bytes follow.

    Plain writing, not a mapped file: where a disk is full this is an OSError, and not the end of the process.
    """
    about = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(opened, about)


def write_rows(file: Path, array: Array, rows: npt.NDArray[np.int64], dtype: npt.DTypeLike) -> None:
    """Write ``array[rows]`` as a `.npy` file of ``dtype``, a few rows at a time: a mapped array is not copied whole.

    Raises:
        RunError: it cannot be written; names the file and the free space, and leaves none.
    """
    with files.replacing(file, durable=False) as temporary, temporary.open("wb") as opened:
        write_header(opened, (len(rows), *array.shape[1:]), dtype)
        for part in _parts(array, rows):
            opened.write(np.ascontiguousarray(part, dtype=dtype).data)


def _parts(array: Array, rows: npt.NDArray[np.int64]) -> Iterator[Array]:
    step = max(1, _CHUNK // max(1, array[:1].nbytes))
    for start in range(0, len(rows), step):
        yield array[rows[start : start + step]]
