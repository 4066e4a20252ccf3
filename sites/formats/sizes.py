"""How much memory files ask for, by their headers alone: what asks for too much is refused before it is expanded.

A few megabytes can claim terabytes, or expand to gigabytes. So nothing here reads more than the start of a file or of
an archive's member, and whoever reads on expands no more than was claimed.
"""

from __future__ import annotations

import gzip
import io
import math
import tokenize
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil

from sites.formats.content import packed
from sites.formats.unreadable import Unreadable

SHARE = 0.5
"""The share of the memory available now that images may take."""
WORK = 8
"""Bytes that an image's voxels take beyond their own while it is worked on: once more, as float64."""

_BEFORE = 2**26  # bytes of a NIfTI file before its voxels: a header, and extensions that nobody here asks for
_ROW = 600  # bytes that a row of a manifest takes: places, and references to cells
_SEALED = 0x61  # flags of an archive's member that is encrypted, strongly too, or a patch
_HEAD = 2**14  # bytes; NumPy refuses headers of more than 10,000
DEFLATE = 1032  # times that deflate can make anything smaller, at most (zlib's technical details)
PICTURES = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""Formats that Pillow is asked to read; it has readers that start other programs, which these do not."""


@dataclass(frozen=True)
class Claim:
    """An array as a header tells of it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        if any(edge < 0 for edge in self.shape):
            raise Unreadable("damaged", f"has a header that claims the shape {self.shape}: get it again")

    @property
    def count(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What the values take."""
        return self.count * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}"


def available() -> int:
    """How many bytes images may take: `SHARE` of the memory that is free now."""
    return int(psutil.virtual_memory().available * SHARE)


def too_large(needed: float) -> str | None:
    """Why so many bytes are too many, and what to do; None if they are not."""
    if needed <= (most := available()):
        return None
    return (
        f"needs {_mb(needed)}, expected at most {_mb(most)} ({SHARE:.0%} of the memory available now): "
        "get it again if it cannot be that large; else give fewer or smaller images, or use a larger machine"
    )


def excess(claims: Mapping[str, Claim], work: int = 0) -> str | None:
    """Why arrays, by name, are too large together; None if they are not.

    Args:
        claims: at least one.
        work: bytes that each value takes beyond its own.
    """
    message = too_large(sum(claim.bytes + work * claim.count for claim in claims.values()))
    if message is None:
        return None
    name, largest = max(claims.items(), key=lambda item: item[1].bytes)
    return f"{_claims(name, largest)}; {'while it is worked on it ' if work else ''}{message}"


def npz(file: Path) -> dict[str, Claim]:
    """Every array of an archive by name, from the archive's list and the first bytes of each member.

    Raises:
        ValueError: a member is no array, is there twice, or claims more than it holds.
        OSError, EOFError, zipfile.BadZipFile, zlib.error: it is no archive, or is damaged.
    """
    found = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if member.flag_bits & _SEALED or member.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise ValueError(f"{name} is encrypted, or packed otherwise than numpy.savez does it")
            if name in found:
                raise ValueError(f"{name} is in it more than once")
            with archive.open(member) as opened:
                claim, start = _npy(opened)
            # Python objects are pickled, in any length; who asked for the header refuses them.
            if not claim.dtype.hasobject and claim.bytes > member.file_size - start:
                raise ValueError(f"{_claims(name, claim)}, but holds {_mb(member.file_size)}")
            found[name] = claim
    return found


def npy(file: Path) -> Claim:
    """The array of a `.npy` file.

    Raises:
        Unreadable: it has Python objects, or claims more than the file holds.
        ValueError, OSError: it is no array, or cannot be read.
    """
    with file.open("rb") as opened:
        claim, start = _npy(opened)
    if claim.dtype.hasobject:
        raise Unreadable(
            "Python objects", "has Python objects, which would have to be unpickled: save numbers"
        )
    return _held(claim, start, file)


def picture(file: Path) -> Claim:
    """The size of a picture in one of a few formats, whatever its name.

    Raises:
        Unreadable: it has more pixels than Pillow takes for safe.
        OSError: it is no picture, or cannot be read.
    """
    from PIL import Image, ImageMode

    limit = Image.MAX_IMAGE_PIXELS or 2**31
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused here, with its shape
            with Image.open(file, formats=PICTURES) as opened:
                (width, height), mode = opened.size, "RGB" if opened.mode == "P" else opened.mode
    except Image.DecompressionBombError as error:
        raise Unreadable("too large", f"claims too many pixels ({error}): save it smaller") from error
    if width * height > limit:
        message = f"claims {width} × {height} pixels, expected at most {limit:,} in all: save it smaller"
        raise Unreadable("too large", message)
    kind = ImageMode.getmode(mode)
    bands = (len(kind.bands),) if len(kind.bands) > 1 else ()
    return Claim((height, width, *bands), np.dtype(kind.typestr))


def nifti(file: Path) -> Claim:
    """The voxels of a NIfTI file; those of a compressed one from the first bytes that it expands to.

    Raises:
        Unreadable: it is no NIfTI volume, or claims more than the file holds.
        OSError, EOFError, zlib.error: it cannot be read.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    compressed = packed(file)
    with gzip.open(file) if compressed else file.open("rb") as opened:
        head = opened.read(Nifti2Header.sizeof_hdr)
    versions: tuple[Any, ...] = (Nifti1Header, Nifti2Header)  # nibabel has no types here
    kind = next((kind for kind in versions if kind.may_contain_header(head)), None)
    if kind is None:
        raise Unreadable("damaged", "does not start with a NIfTI header: get it again")
    header = kind(head[: kind.sizeof_hdr], check=False)
    start = float(header["vox_offset"])
    try:
        claim = Claim(tuple(map(int, header.get_data_shape())), header.get_data_dtype())
    except KeyError as error:
        message = f"has a header that names an unknown type of voxels, {error}: convert it again"
        raise Unreadable("damaged", message) from error
    if not 0 <= start <= _BEFORE:  # whoever opens it reads all that comes before them
        message = (
            f"has a header that says that voxels start at byte {start:,.0f}, expected at most {_BEFORE:,}"
        )
        raise Unreadable("damaged", f"{message}: convert it again")
    return _held(claim, int(start), file, DEFLATE if compressed else 1)


def rows(file: Path) -> tuple[int, list[str]]:
    """How many bytes a Parquet table may take, by its footer, and which columns have texts.

    That is if columns of texts are read as dictionaries: a text that a million rows have is then there once.

    Raises:
        OSError, ValueError: it is no Parquet file, or is damaged.
    """
    from pyarrow.parquet import read_metadata

    about = read_metadata(file)
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    columns = [about.schema.column(number) for number in range(about.num_columns)]
    texts = [one.path for one in columns if one.physical_type == "BYTE_ARRAY" and "." not in one.path]
    return sum(one.total_byte_size for one in groups) + about.num_rows * _ROW, texts


def _npy(opened: IO[bytes]) -> tuple[Claim, int]:
    """What an array's header claims, and where its values start."""
    head = io.BytesIO(opened.read(_HEAD))  # no more, whatever length the header says it has
    try:
        version = np.lib.format.read_magic(head)
        first = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(head)
    # NumPy hands the text to Python's parser, which raises these for nonsense.
    except (SyntaxError, tokenize.TokenError, TypeError, RecursionError, MemoryError) as error:
        message = f"has a header that is none of an array ({type(error).__name__}): get it again"
        raise Unreadable("damaged", message) from error
    return Claim(shape, dtype), head.tell()


def _held(claim: Claim, start: int, file: Path, expands: int = 1) -> Claim:
    """``claim``, if a file that expands to at most so many times its size can hold it.

    Raises:
        Unreadable: it cannot.
    """
    if start + claim.bytes > (size := file.stat().st_size) * expands:
        message = (
            f"claims {claim}, {_mb(claim.bytes)}, but the file has {_mb(size)}: it is cut off; get it again"
        )
        raise Unreadable("cut off", message)
    return claim


def _claims(name: str, claim: Claim) -> str:
    return f"{name} claims {claim}, {_mb(claim.bytes)}"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
