"""A folder whose DICOM files are the slices of one volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sites.formats import dicom, dicom_pixels, places, sizes
from sites.formats.content import told
from sites.formats.dicom_values import Values, together
from sites.formats.picture import THIN, Picture
from sites.formats.unreadable import Unreadable, blaming, named
from sites.identity import listed

_BESIDE = ("dicomdir", "thumbs.db", "desktop.ini", "lockfile", "version")
"""Files that lie beside images in exports; so do those whose names start with a dot."""

_NO_SLICE = ("another format", "no pixels", "empty", "no file", "a folder in a series", "a segmentation")

_ENOUGH = 10


@dataclass(frozen=True)
class _Slice:
    """A file of a series: of whom it is, and against what its place is measured, by the header."""

    file: Path
    series: str
    of: str
    frame: str
    claim: sizes.Claim
    place: places.Place | None


def claim(folder: Path) -> sizes.Claim:
    """How large a series is, by the headers of its files.

    Raises:
        Unreadable: it is no series, or one of its files is damaged.
    """
    found = _slices(folder)
    first = found[0].claim
    return first if len(found) == 1 else sizes.Claim((len(found), *first.shape), first.dtype)


def read(folder: Path) -> Picture:
    """A series as a volume, ordered by where its slices lie and turned to the nearest of RAS; or its only image.

    Raises:
        Unreadable: it is no series, has gaps or several directions, or a file of it is damaged; that is named.
    """
    found = _slices(folder)
    if len(found) == 1:
        return dicom.read(found[0].file)
    where = [one.place for one in found if one.place is not None]
    if len(where) < len(found):
        message = "does not tell where its slices lie (no ImagePositionPatient): convert it to NIfTI, say by dcm2niix"
        raise Unreadable("no place", message)
    places.stacked(where)  # refused before anything is expanded
    made = dicom.volume(together(_read([one.file for one in found]), len(found)), where)
    return replace(made, person=found[0].of)


def volume_in(files: Sequence[Path]) -> Literal["whole", "mixed"] | None:
    """What files of one folder are, by their headers: all the slices of one DICOM volume; slices among others; neither.

    Of a folder in which nothing is a slice, a few files are looked at.
    """
    found, others = Counter[str](), 0
    for file in files:
        try:
            part = _slice(file)
        except Unreadable:
            others += 1
        else:
            others += part.place is None
            found[part.series] += part.place is not None
        if others >= _ENOUGH and not found.total():
            return None
    if max(found.values(), default=0) < 2:
        return None
    return "whole" if len(found) == 1 and not others else "mixed"


def _slices(folder: Path) -> list[_Slice]:
    """The slices of a folder, in no order.

    Raises:
        Unreadable: they are not those of one series.
    """
    with blaming("a folder"):
        listed = sorted(
            one for one in folder.iterdir() if one.name[0] != "." and one.name.lower() not in _BESIDE
        )
    if not listed:
        raise Unreadable("empty", "is an empty folder, expected the DICOM files of one series in it")
    found = [_slice(file) for file in listed]
    several = Counter(one.series for one in found)
    if len(several) > 1:
        counts = ", ".join(f"{count} files" for count in several.values())
        message = (
            f"has {len(several)} series in it ({counts[:80]}), expected one: give each a folder of its own"
        )
        raise Unreadable("several series", message)
    _of_one_body(found)
    shapes = Counter(one.claim.shape for one in found)
    if len(shapes) > 1 or (len(next(iter(shapes))) != 2 and len(found) > 1):
        sizes_found = ", ".join(" × ".join(map(str, shape)) for shape in list(shapes)[:5])
        message = (
            f"has images of the sizes {sizes_found}, expected grey slices of one size: one series a folder"
        )
        raise Unreadable("unlike slices", message)
    if 1 < len(found) < THIN:
        message = (
            f"has {len(found)} slices, expected one image, or at least {THIN} of a volume: are some missing?"
        )
        raise Unreadable("too few slices", message)
    return found


def _of_one_body(found: Sequence[_Slice]) -> None:
    """Refuse slices that are not of one patient, lying still.

    Raises:
        Unreadable: they are of several, or their places are told in several frames of reference.
    """
    if len(people := sorted({one.of for one in found})) > 1:
        message = (
            f"has slices of several patients ({listed(people)} as PatientID): give each a folder of their own"
        )
        raise Unreadable("several patients", message)
    if (frames := len({one.frame for one in found})) > 1:
        message = f"tells the places of its slices in {frames} frames of reference: keep one a folder"
        raise Unreadable("several frames of reference", message)


def _slice(file: Path) -> _Slice:
    """What is known of a file before its pixels are read.

    Raises:
        Unreadable: it is no DICOM image; it is named.
    """
    with named(file.name), _advised():
        if file.is_dir():
            raise Unreadable("a folder in a series", "is a folder, expected the DICOM files of one series")
        if (kind := told(file)) != "DICOM":
            raise Unreadable("another format", f"is a {kind} file, expected DICOM files only")
        claimed = dicom.claim(file)
        with dicom.guarded():
            header = dicom.heading(file)
            series, frame = (
                str(header.get(f"{one}UID") or "") for one in ("SeriesInstance", "FrameOfReference")
            )
            return _Slice(file, series, dicom.person(header), frame, claimed, places.of(header))


@contextmanager
def _advised() -> Iterator[None]:
    """Say of what is no slice that it may be taken away."""
    try:
        yield
    except Unreadable as error:
        if error.kind not in _NO_SLICE:
            raise
        raise Unreadable(error.kind, f"{error}; or take it out of the folder of the series") from error


def _read(files: Sequence[Path]) -> Iterator[Values]:
    """The values of all slices, in the order of their files.

    Raises:
        Unreadable: one of them cannot be read, or is no grey slice; it is named.
    """
    for file in files:
        with named(file.name), dicom.guarded():
            header = dicom.whole(file)
            stored, colours = dicom_pixels.decoded(header)
            if colours is not None or stored.ndim != 2:
                raise Unreadable("unlike slices", "is no grey slice, expected one series a folder")
            values = dicom.frame(stored, header, 0)
        yield values
