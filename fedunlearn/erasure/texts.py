"""What is written in a text beside words: numbers, and bytes in base64."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEAST = 16
"""Numbers that are looked at."""
SHORTEST = 64
"""Characters of base64 that are looked at."""
MIME = 76
"""Characters in a line of base64 at the most, where it is broken into lines (RFC 2045)."""

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_RUN = re.compile(rf"{_NUMBER}(?:[\s,;]+{_NUMBER}){{{LEAST - 1},}}")
_ROW = re.compile(rf"{_NUMBER}(?:[ \t,;|\"]+{_NUMBER})+")
_APART = re.compile(r"[\s,;|\"]+")
_BREAK = re.compile(r"[ \t]*(?:\r\n?|\n)[ \t]*")
_BLOB = re.compile(rf"[A-Za-z0-9+/\n]{{{SHORTEST},}}={{0,2}}")


def numbers(text: str) -> Iterator[Array]:
    """Numbers one after the other, (N,) over any lines; and lines that have equally many, (lines, numbers).

    Words in front of a line or behind do not matter.
    """
    yield from (_read(found[0]) for found in _RUN.finditer(text))
    for count, same in groupby((_APART.split(found[0]) for found in _ROW.finditer(text)), key=len):
        rows = [*same]
        if count * len(rows) >= LEAST:
            yield np.array(rows, np.float64)


def _read(text: str) -> Array:
    return np.array(_APART.split(text), np.float64)


def blobs(text: str) -> Iterator[bytes]:
    """What is written in base64: in one line, or broken into lines of any indent, words between them or not."""
    for found in _BLOB.finditer(_BREAK.sub("\n", text)):
        for one in dict.fromkeys(_joined(found[0].split("\n"))):
            try:
                yield base64.b64decode(one, validate=True)
            except (binascii.Error, ValueError):
                continue


def _joined(lines: Sequence[str]) -> Iterator[str]:
    """What of some lines can belong together: all, one too long to be broken, those of one length and what is left."""
    yield "".join(lines)
    begin = 0
    for width, same in groupby(lines, key=len):
        end = begin + len([*same])
        if width > MIME:
            yield from lines[begin:end]
        elif width:
            yield "".join(lines[begin:end])
            yield "".join(lines[begin : end + 1])
        begin = end
