"""What a file holds, whatever it is: its arrays and its texts, also those inside of others.

Known are Parquet, NPY, NPZ and other ZIP files, safetensors, stored history (`fedunlearn.federation.rows`), gzip,
pictures that Pillow reads (all pages, in colours and in gray), JSON, tables and texts with numbers or base64 in them
(`fedunlearn.erasure.texts`). Of any other file the bytes are an array, and what of them is text is a text. Nothing is
ever executed, and what cannot be read is taken for bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedunlearn.erasure import texts

Array = npt.NDArray[Any]

DEEPEST = 4
"""Files in files that are looked into."""
LARGEST = 2**31
"""Bytes of what is unpacked: what says that it is larger is taken for bytes."""


@dataclass(frozen=True)
class Piece:
    """Something that a file holds.

    Attributes:
        where: in the file, in words; empty for the file itself.
        array: numbers, if they are that.
        text: otherwise.
        cell: whether the text is a whole value, and not words among others.
        table: whether an array is the numbers of a table, a row for each of its rows.
        model: whether an array belongs to others, as a model's tensors do.
        lines: whether an array is lines of a text that happen to have as many numbers: they may be of anything.
    """

    where: str
    array: Array | None = None
    text: str = ""
    cell: bool = False
    table: bool = False
    model: bool = False
    lines: bool = False


def pieces(content: bytes, where: str = "", depth: int = 0) -> Iterator[Piece]:
    """All that some bytes hold."""
    for begins, reader in _READERS:
        if content.startswith(begins) and depth <= DEEPEST:
            found, whole = _read(reader(content, where, depth))
            yield from found
            if whole:
                return
    if depth <= DEEPEST and (tensors := _tensors(content, where)):
        yield from tensors
        return
    yield from _plain(content, where, depth)


def _read(reading: Iterator[Piece]) -> tuple[list[Piece], bool]:
    """What a reader finds, and whether it came to the end: what it did not come to is bytes then."""
    found = list[Piece]()
    try:
        for piece in reading:
            found.append(piece)
    except Exception:  # whatever a damaged or hostile file leads a reader to
        return found, False
    return found, True


def _parquet(content: bytes, where: str, depth: int) -> Iterator[Piece]:
    table = pd.read_parquet(io.BytesIO(content))
    yield Piece(where, text=" ".join(map(str, table.columns)))
    for kinds in ("f", "iuf"):
        own = table[[name for name in table.columns if table[name].dtype.kind in kinds]]
        if own.shape[1]:
            yield Piece(where, own.to_numpy(), table=True)
    for name in table.columns:
        inside = f"{where}column {name}"
        values = table[name].dropna()
        if values.dtype.kind in "iufb":
            yield Piece(inside, values.to_numpy())
            if values.dtype.kind == "i":
                yield from (Piece(inside, text=str(value), cell=True) for value in values.unique())
            continue
        for value in values if values.dtype == object else values.unique():
            yield from _value(value, inside, depth)


def _value(value: object, where: str, depth: int) -> Iterator[Piece]:
    """A cell of a table."""
    if isinstance(value, bytes):
        yield from pieces(value, f"{where}, ", depth + 1)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "iufb":
        yield Piece(where, value)
    elif isinstance(value, np.ndarray | list | tuple):
        if (numbers := _numbers(value)) is not None:
            yield Piece(where, numbers)
        else:
            for one in value:
                yield from _value(one, where, depth)
    else:
        yield from _cell(str(value), where, f"{where}, ", depth)


def _cell(text: str, where: str, before: str, depth: int) -> Iterator[Piece]:
    """A text that is a whole value, and what is written in a long one; ``before`` is what stands before its name."""
    yield Piece(where, text=text, cell=True)
    if len(text) >= texts.SHORTEST:
        yield from _written(text, before, depth)


def _written(text: str, where: str, depth: int) -> Iterator[Piece]:
    """Numbers and base64 in a text."""
    for array in texts.numbers(text):
        yield Piece(f"{where}numbers", array, lines=array.ndim > 1)
    for inner in texts.blobs(text) if depth <= DEEPEST else ():
        yield from pieces(inner, f"{where}base64: ", depth + 1)


def _numpy(content: bytes, where: str, depth: int) -> Iterator[Piece]:
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.kind in "US":
        for one in np.unique(array).tolist():
            yield from _cell(_decoded(one), where, where, depth)
    elif array.dtype.names:
        yield from (Piece(where, array[name]) for name in array.dtype.names)
    else:
        yield Piece(where, array, model=where != "")


def _decoded(text: str | bytes) -> str:
    return text.decode("utf-8", "ignore") if isinstance(text, bytes) else text


def _zip(content: bytes, where: str, depth: int) -> Iterator[Piece]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [one for one in archive.infolist() if not one.is_dir()]
        if sum(one.file_size for one in members) > LARGEST:
            raise ValueError("too large")
        for one in members:
            yield Piece(where, text=one.filename)
            yield from pieces(archive.read(one), f"{where}{one.filename}: ", depth + 1)


def _gzip(content: bytes, where: str, depth: int) -> Iterator[Piece]:
    with gzip.open(io.BytesIO(content)) as file:
        inner = file.read(LARGEST)
    yield from pieces(inner, f"{where}unpacked: ", depth + 1)


def _picture(content: bytes, where: str, depth: int) -> Iterator[Piece]:
    from PIL import Image, ImageSequence

    with Image.open(io.BytesIO(content)) as picture:
        yield from (Piece(where, text=f"{key} {value}") for key, value in picture.info.items())
        if getattr(picture, "n_frames", 1) * picture.width * picture.height * _PER_PIXEL > LARGEST:
            raise ValueError("too large")
        for number, page in enumerate(ImageSequence.Iterator(picture), 1):
            inside = f"{where}picture" if number == 1 else f"{where}picture, page {number}"
            yield Piece(inside, np.asarray(page))
            if page.mode[0] not in "IF":  # larger numbers, which the others would cut off
                others = [mode for mode in ("RGB", "L") if mode != page.mode]
                yield from (Piece(inside, np.asarray(page.convert(mode))) for mode in others)


_PER_PIXEL = 8
"""Bytes: as it is stored, in colours and in gray, which is exact where all colours are the same."""


_KINDS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "U8": "u1",
    "BOOL": "u1",
}


def _tensors(content: bytes, where: str) -> list[Piece]:
    """What a safetensors file or one of stored history holds; empty if it is none."""
    try:
        length = struct.unpack("<Q", content[:8])[0]
        if 2 <= length <= len(content) - 8 and content[8:9] == b"{":
            return list(_safetensors(content, int(length), where))
        if content.startswith(b"{") and (about := json.loads(content[: content.index(b"\n")])).keys() >= {
            "rows",
            "tensors",
        }:
            return list(_history(about, where))
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, IndexError, RecursionError):
        pass
    return []


def _safetensors(content: bytes, length: int, where: str) -> Iterator[Piece]:
    head, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    yield Piece(where, text=json.dumps(head.pop("__metadata__", {})))
    for name, about in head.items():
        begin, end = about["data_offsets"]
        kind = np.dtype(_KINDS.get(about["dtype"], "u1"))
        array = np.frombuffer(data[begin:end], kind)
        known = about["dtype"] in _KINDS
        yield Piece(f"{where}tensor {name}", array.reshape(about["shape"]) if known else array, model=True)


def _history(about: dict[str, Any], where: str) -> Iterator[Piece]:
    """Stored updates: what they are of is told by their shapes; numbers of 16 bits are not unpacked."""
    yield Piece(where, text=json.dumps(about["rows"]))
    for _, _, shape in about["tensors"]:
        yield Piece(f"{where}stored updates", np.full(shape, np.nan, np.float32), model=True)


def _plain(content: bytes, where: str, depth: int) -> Iterator[Piece]:
    """Bytes, and what of them is text."""
    text = content.decode("utf-8", "ignore")
    yield Piece(where, text=text)
    if depth > 0 or not _is_text(content):
        for kind in ("u1", "<f4", "<f8"):
            if len(content) % np.dtype(kind).itemsize == 0:
                yield Piece(where, np.frombuffer(content, kind))
    if _is_text(content):
        yield from _from_json(text, where, depth)
        yield from _written(text, where, depth)


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def _from_json(text: str, where: str, depth: int) -> Iterator[Piece]:
    """Values of JSON, of a file that is all of it or has a line for each."""
    try:
        found = [json.loads(text)]
    except (ValueError, RecursionError):
        try:
            found = [json.loads(line) for line in text.splitlines() if line]
        except (ValueError, RecursionError):
            return
    waiting = found
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from (Piece(where, text=key, cell=True) for key in one)
            row = [value for value in one.values() if isinstance(value, int | float)]
            if len(row) >= texts.LEAST and (numbers := _numbers(row)) is not None:
                yield Piece(f"{where}numbers", numbers)
            waiting.extend(one.values())
        elif isinstance(one, list):
            if (numbers := _numbers(one)) is not None and numbers.ndim > 1:
                yield Piece(f"{where}numbers", numbers)
            else:
                waiting.extend(one)
        elif isinstance(one, str | int):
            yield from _cell(str(one), where, where, depth)


def _numbers(values: object) -> Array | None:
    """Lists of numbers as an array; None if they are none."""
    try:
        found = np.array(values)
        if found.dtype == object:
            found = np.array([np.asarray(one, np.float64) for one in found])
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.dtype.kind in "iuf" and found.size else None


_Reader = Callable[[bytes, str, int], Iterator[Piece]]
_READERS: tuple[tuple[bytes, _Reader], ...] = (
    (b"PAR1", _parquet),
    (b"\x93NUMPY", _numpy),
    (b"PK\x03\x04", _zip),
    (b"\x1f\x8b", _gzip),
    (b"\x89PNG", _picture),
    (b"\xff\xd8\xff", _picture),
    (b"GIF8", _picture),
    (b"BM", _picture),
    (b"II*\0", _picture),
    (b"MM\0*", _picture),
    (b"RIFF", _picture),
)
"""By what a file begins with, who reads it."""
