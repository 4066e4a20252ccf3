"""Reading one image file of any format, after its header was asked how large it will be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fedunlearn.core import RunError
from sites.formats import dicom, nifti_file, npy, pictures, series, sizes
from sites.formats.content import told
from sites.formats.picture import Picture
from sites.formats.unreadable import Unreadable

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


def unreadable() -> tuple[type[Exception], ...]:
    """What readers raise for a file that is damaged, none of their formats or not to be opened, and nothing else."""
    return (Unreadable,)


def claimed(file: Path) -> sizes.Claim:
    """What a file's header says of its size; of a folder, what those of its DICOM series say.

    Raises:
        Unreadable: it is damaged, none of the formats, or cannot be opened.
        RunError: the package that reads its format cannot be imported.
    """
    return _asked(file, lambda one: one.claim(file))


def reading() -> Callable[[Path], Picture]:
    """A function that reads a file, or a folder of one DICOM series.

    It raises one of `unreadable` for whatever is wrong with a file, and `RunError` for what is wrong with the
    installation.
    """
    return lambda file: _asked(file, lambda one: one.read(file))


def _asked(file: Path, ask: Callable[[_Format], _T]) -> _T:
    name = "DICOM" if file.is_dir() else told(file)
    try:
        return ask(_SERIES if file.is_dir() else _FORMATS[name])
    except ImportError as error:
        message = f"cannot read {name} files, since a package is missing or broken ({error})"
        raise RunError(f"{message}: install fedunlearn with its dependencies again") from error
