"""What a file is, told by its first bytes and never by its name."""

from __future__ import annotations

import gzip
import stat
import zipfile
import zlib
from pathlib import Path

from sites.formats.unreadable import Unreadable, blaming

_HEAD = 1024  # bytes that are looked at
_PREAMBLE = 128  # bytes before DICOM's own mark

_KNOWN = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"\x93NUMPY", "NPY"),
)

_TO_NIFTI = "convert it to NIfTI (for instance with 3D Slicer or SimpleITK)"
_TO_PNG = "save it as PNG"
_FOREIGN = (
    (b"%PDF-", "a PDF", "export the image in it as PNG or DICOM"),
    (b"%!PS", "PostScript", _TO_PNG),
    (b"GIF8", "a GIF", _TO_PNG),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 outside of DICOM", _TO_PNG),
    (b"NRRD0", "an NRRD volume", _TO_NIFTI),
    (b"ObjectType", "a MetaImage (.mha, .mhd)", _TO_NIFTI),
    (b"NDims", "a MetaImage (.mha, .mhd)", _TO_NIFTI),
    (b"\x89HDF", "an HDF5 file", "save its images as NPY or PNG"),
    (b"MATLAB", "a MATLAB file", "save its images as NPY or PNG"),
    (b"Rar!", "a RAR archive", "unpack it, and list the files in it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it, and list the files in it"),
    (b"BZh", "a bzip2 archive", "unpack it, and list the file in it"),
    (b"\xfd7zXZ", "an XZ archive", "unpack it, and list the file in it"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run git lfs pull"),
    (b"<?xml", "an XML file", "list the images themselves"),
    (b"<svg", "an SVG drawing", _TO_PNG),
    (b"{\\rtf", "a text document", "list the images themselves"),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "list the images themselves"),
)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<!--")

_REPRESENTATIONS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OW PN SH SL SQ SS ST TM UI UL UN US UT".split()
)

EXPECTED = "PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI or NPY"
"""The formats that are read, in words."""


def told(file: Path) -> str:
    """The format of a file: PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI or NPY.

    Raises:
        Unreadable: it is none of these, or cannot be opened.
    """
    with blaming("a file"):
        about = file.stat()
        if not stat.S_ISREG(about.st_mode):
            raise Unreadable("no file", "is no plain file (a pipe or a device): put the image itself there")
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    if not head:
        raise Unreadable("empty", "is empty (0 bytes): get it again")
    if head.startswith(b"\x1f\x8b"):
        return _packed(file)
    found = next((name for mark, name in _KNOWN if head.startswith(mark)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        found = "WebP"
    # A preamble may hold a TIFF's header, for viewers that know no DICOM; it is DICOM all the same.
    if head[_PREAMBLE:].startswith(b"DICM") or (found is None and _bare_dicom(head, about.st_size)):
        return "DICOM"
    if found is None and _nifti(head):
        return "NIfTI"
    return found or _refused(file, head)


def packed(file: Path) -> bool:
    """Whether a file is compressed by gzip.

    Raises:
        OSError: it cannot be opened.
    """
    with file.open("rb") as opened:
        return opened.read(2) == b"\x1f\x8b"


def preamble(file: Path) -> bool:
    """Whether a DICOM file has its mark at byte 128; old exports have none.

    Raises:
        OSError: it cannot be opened.
    """
    with file.open("rb") as opened:
        return opened.read(_PREAMBLE + 4).endswith(b"DICM")


def _packed(file: Path) -> str:
    with blaming("a file compressed by gzip", zlib.error), gzip.open(file) as opened:
        head = opened.read(_HEAD)
    if _nifti(head):
        return "NIfTI"
    message = "is compressed by gzip, but there is no NIfTI volume in it: unpack it, and list the files in it"
    raise Unreadable("another format", message)


def _nifti(head: bytes) -> bool:
    """Whether these are the first bytes of a NIfTI file.

    Raises:
        Unreadable: of a header whose voxels are in another file.
    """
    size = {head[:4], head[:4][::-1]}
    if (540).to_bytes(4, "little") in size and head[4:7] == b"n+2":
        return True
    if (348).to_bytes(4, "little") not in size or len(head) < 348:
        return False
    if head[344:348] == b"n+1\0":
        return True
    message = "is the header of a volume in two files (.hdr and .img): convert it to one .nii"
    raise Unreadable("another format", message)


def _bare_dicom(head: bytes, size: int) -> bool:
    """Whether a file without DICOM's mark starts with an element as DICOM files do."""
    if len(head) < 8:
        return False
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))
        if group not in (2, 8) or element > 0x70:
            continue
        if head[4:6] in _REPRESENTATIONS:
            return True
        if order == "little" and int.from_bytes(head[4:8], "little") < min(size, 1024):
            return True
    return False


def _refused(file: Path, head: bytes) -> str:
    """Say what a file is that is no image of ours.

    Raises:
        Unreadable: always.
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for mark, name, advice in _FOREIGN:
        if text.startswith(mark):
            raise Unreadable("another format", f"is {name}, expected {EXPECTED}: {advice}")
    if text[:16].lower().startswith(_HTML):
        message = "is a web page (HTML), perhaps that of an error or a login: get the file itself again"
        raise Unreadable("another format", message)
    if text[:1] == b"P" and text[1:2].isdigit() and text[2:3].isspace():
        raise Unreadable("another format", f"is a PBM, PGM or PPM picture, expected {EXPECTED}: {_TO_PNG}")
    if head[4:8] == b"ftyp":
        message = f"is a HEIC or AVIF picture, or a video, expected {EXPECTED}: {_TO_PNG}"
        raise Unreadable("another format", message)
    if head.startswith(b"PK"):
        name, advice = _archive(file)
        raise Unreadable("another format", f"is {name}, expected {EXPECTED}: {advice}")
    start = head[:32].decode("ascii", "replace").split("\n")[0].strip()
    if start.isprintable() and start.isascii() and start:
        message = f"is text that starts with {start!r}, expected {EXPECTED}: list the images themselves"
    elif not any(head):
        message = f"has nothing but zeros at its start, expected {EXPECTED}: get it again"
    else:
        message = (
            f"starts with the bytes {head[:8].hex(' ')}, expected {EXPECTED}: get it again, or convert it"
        )
    raise Unreadable("another format", message)


def _archive(file: Path) -> tuple[str, str]:
    """What a ZIP archive is, and what to do with it."""
    try:
        with zipfile.ZipFile(file) as opened:
            names = opened.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return "a damaged ZIP archive", "get it again, and unpack it"
    if any(name.startswith("xl/") for name in names):
        return "an Excel table (XLSX)", "list the images themselves"
    if any(name.startswith(("word/", "ppt/")) for name in names):
        return "an Office document", "list the images themselves"
    if names and all(name.endswith(".npy") for name in names):
        return "an NPZ archive", "read it as data: {name: npz, path: …}, or save one NPY file per image"
    return "a ZIP archive", "unpack it, and list the files in it"
