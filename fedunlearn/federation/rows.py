"""Models of one kind in one file, a row for each hospital: written as they come, read memory-mapped.

A thousand hospitals' updates of a round are one file to force to the disk, not a thousand. Every row has the sha256 of
what the file says of its rows, of its own number and of its bytes, and is not believed without. Numbers with a fraction
may be kept in 16 bits (`fedunlearn.core.Kept`): as bfloat16, or as float16 beside a power of two for each tensor,
chosen so that its largest number has all bits that float16 has.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedunlearn import files
from fedunlearn.core import Kept, RunError, Weights

_ALIGNED = 64  # bytes; a tensor starts at a multiple of it
_DIGEST = hashlib.sha256().digest_size
_SCALE = struct.Struct("<d")
_TOP = 15  # the largest number of a tensor is kept below 2 ** 15; float16 ends at 2 ** 16


@dataclass(frozen=True)
class _Part:
    """A tensor's place in a row: ``kept`` is the dtype that is written, ``start`` counts from the row's beginning."""

    name: str
    dtype: torch.dtype
    kept: torch.dtype
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Form:
    """What all rows of a file look like.

    Attributes:
        names: what rows are called, in their order.
        parts: the tensors of a row, in their order.
        head: what the file begins with; it tells names and parts.
        stride: bytes of a row.
    """

    names: tuple[str, ...]
    parts: tuple[_Part, ...]
    head: bytes
    stride: int

    @staticmethod
    def of(names: Sequence[str], like: Weights, precision: Kept = "float32") -> Form:
        """Rows called ``names``, of models like ``like``."""
        tensors = [[name, str(x.dtype).removeprefix("torch."), list(x.shape)] for name, x in like.items()]
        return Form.told({"rows": list(names), "tensors": tensors, "precision": precision})

    @staticmethod
    def told(about: Mapping[str, Any]) -> Form:
        """The form that a file's first line tells of."""
        parts, place = list[_Part](), _DIGEST + _SCALE.size * len(about["tensors"])
        for name, told, shape in about["tensors"]:
            dtype = getattr(torch, told)
            short = dtype.is_floating_point and about["precision"] != "float32"
            kept = getattr(torch, about["precision"]) if short else dtype
            place = _up(place)
            parts.append(_Part(name, dtype, kept, tuple(shape), place))
            place += math.prod(shape) * kept.itemsize
        text = json.dumps(about, separators=(",", ":")).encode()
        head = text.ljust(_up(len(text) + 1) - 1) + b"\n"
        return Form(tuple(about["rows"]), tuple(parts), head, _up(place))

    def start(self, number: int) -> int:
        """Where row ``number`` begins in the file."""
        return len(self.head) + number * self.stride

    def packed(self, number: int, row: Weights) -> bytearray:
        """Row ``number`` as bytes."""
        content = bytearray(self.stride)
        for i, part in enumerate(self.parts):
            x = row[part.name]
            scale = _scale(x) if part.kept == torch.float16 and part.dtype != torch.float16 else 1.0
            x = (x / scale if scale != 1.0 else x).to(part.kept).contiguous()
            raw = x.reshape(-1).view(torch.uint8).numpy()
            content[part.start : part.start + raw.nbytes] = raw.data
            _SCALE.pack_into(content, _DIGEST + _SCALE.size * i, scale)
        content[:_DIGEST] = self._digest(number, memoryview(content))
        return content

    def unpacked(self, number: int, content: mmap.mmap, start: int) -> dict[str, Tensor]:
        """Row ``number``, which begins at ``start`` of ``content``; what is kept as it was is read where it lies.

        Raises:
            ValueError: it is not what was written.
        """
        row = dict[str, Tensor]()
        with memoryview(content) as whole, whole[start : start + self.stride] as own:
            if len(own) < self.stride or own[:_DIGEST] != self._digest(number, own):
                raise ValueError("it is not what was written there")
            scales = [_SCALE.unpack_from(own, _DIGEST + _SCALE.size * i)[0] for i in range(len(self.parts))]
        for part, scale in zip(self.parts, scales, strict=True):
            x, count = torch.empty(part.shape, dtype=part.kept), math.prod(part.shape)
            if count:
                x = torch.frombuffer(content, dtype=part.kept, count=count, offset=start + part.start)
            x = x.reshape(part.shape)
            row[part.name] = x if part.kept == part.dtype else x.to(part.dtype).mul_(scale)
        return row

    def _digest(self, number: int, content: memoryview) -> bytes:
        sha = hashlib.sha256(self.head)
        sha.update(number.to_bytes(8, "little"))
        sha.update(content[_DIGEST:])
        return sha.digest()


class Rows(Mapping[str, Weights]):
    """A file of rows; each is mapped into memory while it is in use. Do not change what is read.

    Args:
        path: a file that `writing` made.

    Raises:
        RunError: it is missing, or is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self._form = Form.told(json.loads(file.readline()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"cannot read weights from {path}: {error}") from error
        self._numbers = {name: number for number, name in enumerate(self._form.names)}

    def __getitem__(self, name: str) -> Weights:
        """The row of that name.

        Raises:
            KeyError: there is none.
            RunError: it is damaged.
        """
        number = self._numbers[name]
        place, page = self._form.start(number), mmap.ALLOCATIONGRANULARITY
        first = place // page * page
        try:
            with self._path.open("rb") as file:
                # A private copy of what is changed, not read-only: torch warns of read-only memory.
                size = place - first + self._form.stride
                content = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY, offset=first)
            return self._form.unpacked(number, content, place - first)
        except (OSError, ValueError) as error:
            raise RunError(f"weights of {name} in {self._path} are damaged: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._form.names)

    def __len__(self) -> int:
        return len(self._form.names)


@contextmanager
def writing(path: Path, form: Form) -> Iterator[Callable[[str, Weights], None]]:
    """Lend what writes a row, given its name and the row, in any order; the file is there once all are written.

    Raises:
        RunError: it cannot be written (`fedunlearn.files.replacing`), or rows are missing.
    """
    left, numbers = set(form.names), {name: number for number, name in enumerate(form.names)}
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        file.write(form.head)

        def write(name: str, row: Weights) -> None:
            file.seek(form.start(numbers[name]))
            file.write(form.packed(numbers[name], row))
            left.discard(name)

        yield write
        if left:
            raise RunError(f"{path} was given no row for {', '.join(sorted(left)[:5])}")


def _scale(x: Tensor) -> float:
    """The power of two that brings the largest number of ``x`` just below 2 ** `_TOP`.

    Of the tiniest numbers it is the smallest by which ``x`` can be divided: a smaller one would round to zero.
    """
    largest = float(x.abs().max()) if x.numel() else 0.0
    return max(2.0 ** (math.frexp(largest)[1] - _TOP), torch.finfo(x.dtype).tiny) if largest else 1.0


def _up(place: int) -> int:
    """The next multiple of `_ALIGNED`."""
    return -(-place // _ALIGNED) * _ALIGNED
