"""Reading one image file of any format, after its header was asked how large it will be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from fedunlearn.core import RunError
from sites.formats import dicom, nifti_file, npy, pictures, series, sizes
from sites.formats.content import told
from sites.formats.picture import Picture

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Format:
    claim: Callable[[Path], sizes.Claim]
    read: Callable[[Path], Picture]


_PICTURE = _Format(pictures.claim, pictures.read)
_FORMATS = {
    **dict.fromkeys(("PNG", "JPEG", "TIFF", "BMP", "WebP"), _PICTURE),
    "DICOM": _Format(dicom.claim, dicom.read),
    "NIfTI": _Format(nifti_file.claim, nifti_file.read),
    "NPY": _Format(npy.claim, npy.read),
}
_SERIES = _Format(series.claim, series.read)


def claimed(file: Path) -> sizes.Claim:
    """What a file's header says of its size; of a folder, what those of its DICOM series say.

    Raises:
        Unreadable: it is damaged, none of the formats, or cannot be opened.
        RunError: the package that reads its format cannot be imported.
    """
    return _asked(file, lambda one: one.claim(file))


def read(file: Path) -> Picture:
    """A file, or a folder of one DICOM series; with a note if nothing is to be seen on it.

    Raises:
        Unreadable: it is damaged, none of the formats, or cannot be opened.
        RunError: the package that reads its format cannot be imported.
    """
    picture = _asked(file, lambda one: one.read(file))
    if picture.pixels.min() < picture.pixels.max():
        return picture
    return replace(picture, notes=(*picture.notes, "shows nothing: all pixels have one value"))


def _asked(file: Path, ask: Callable[[_Format], _T]) -> _T:
    name = "DICOM" if file.is_dir() else told(file)
    try:
        return ask(_SERIES if file.is_dir() else _FORMATS[name])
    except ImportError as error:
        message = f"cannot read {name} files, since a package is missing or broken ({error})"
        raise RunError(f"{message}: install fedunlearn with its dependencies again") from error
