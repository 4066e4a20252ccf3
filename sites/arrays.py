"""Writing arrays that memory should not hold at once: `.npy` files, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fedunlearn import files

Array = npt.NDArray[Any]

_CHUNK = 32 * 2**20  # bytes of rows copied at once
_ALIGNED = 64  # bytes; of several arrays in a file, each starts at a multiple of it


def write_header(opened: IO[bytes], shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    """Start a `.npy` file; the array's bytes follow.

    Plain writing, not a mapped file: where a disk is full this is an OSError, and not the end of the process.
    """
    about = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(opened, about)


def write_columns(
    file: Path, columns: Sequence[tuple[Array, npt.DTypeLike]], rows: npt.NDArray[np.int64]
) -> None:
    """Write ``rows`` of several arrays, each as a dtype, one after the other, as a `.npy` file of bytes.

    Where they begin tells `starting`. A few rows at a time: a mapped array is not copied whole.

    Raises:
        RunError: it cannot be written; names the file and the free space, and leaves none.
    """
    sizes = [len(rows) * array[:1].size * np.dtype(dtype).itemsize for array, dtype in columns]
    starts, end = starting(sizes)
    with files.replacing(file, durable=False) as temporary, temporary.open("wb") as opened:
        write_header(opened, (end,), np.uint8)
        header = opened.tell()
        for (array, dtype), start in zip(columns, starts, strict=True):
            opened.write(bytes(header + start - opened.tell()))
            for part in _parts(array, rows):
                opened.write(np.ascontiguousarray(part, dtype=dtype).data)


def starting(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where arrays of so many bytes begin in what `write_columns` writes, after its header, and where all ends."""
    starts, end = list[int](), 0
    for size in sizes:
        starts.append(-(-end // _ALIGNED) * _ALIGNED)
        end = starts[-1] + size
    return starts, end


def _parts(array: Array, rows: npt.NDArray[np.int64]) -> Iterator[Array]:
    step = max(1, _CHUNK // max(1, array[:1].nbytes))
    for start in range(0, len(rows), step):
        yield array[rows[start : start + step]]
