"""What a file is, is told by its content; what is no image is named for what it is, with what to do."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import MediaStorageDirectoryStorage, RTStructureSetStorage

from fedunlearn.core import RunError
from sites.folder import Folder
from sites.formats import images
from sites.formats.content import told
from sites.formats.images import claimed, read
from sites.formats.unreadable import Unreadable
from tests.sites.formats.making import dataset, save
from tests.sites.problems import problems_of

GREY = np.random.default_rng(1).integers(0, 256, (20, 24)).astype(np.uint8)


def saved(kind: str) -> bytes:
    made = io.BytesIO()
    Image.fromarray(GREY).save(made, kind)
    return made.getvalue()


def packed(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return made.getvalue()


def bare(made: Dataset, implicit: bool, little: bool = True) -> bytes:
    """DICOM as old exports have it: no preamble and no file meta information."""
    del made.file_meta
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = little, implicit
    write_dataset(written, made)
    return written.getvalue()


def npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


FORMATS = {
    "PNG": saved("PNG"),
    "JPEG": saved("JPEG"),
    "TIFF": saved("TIFF"),
    "BMP": saved("BMP"),
    "WebP": saved("WEBP"),
    "NPY": npy(GREY),
    "NIfTI": nibabel.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4)).to_bytes(),
}


@pytest.mark.parametrize("ending", ["", ".dcm", ".png", ".nii.gz", ".IMA"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_is_told_whatever_the_name(tmp_path: Path, kind: str, ending: str):
    file = tmp_path / f"IM0001{ending}"
    file.write_bytes(FORMATS[kind])
    assert told(file) == read(file).format == kind


@pytest.mark.parametrize("ending", ["", ".IMA", ".dicom", ".DCM", ".png"])
def test_dicom_is_told_by_its_mark(tmp_path: Path, ending: str):
    file = tmp_path / f"IM0001{ending}"
    save(file, dataset(GREY))
    assert np.array_equal(read(file).pixels, GREY[None])


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_dicom_without_a_preamble_is_told_by_its_first_element(tmp_path: Path, implicit: bool, little: bool):
    made = dataset(GREY.astype(np.uint16), {"BitsStored": 8})
    if not little:
        made.PixelData = GREY.astype(">u2").tobytes()
    (tmp_path / "a").write_bytes(bare(made, implicit, little))
    assert np.array_equal(read(tmp_path / "a").pixels, GREY[None])


def test_dicom_with_its_meta_information_but_no_preamble_is_read(tmp_path: Path):
    save(tmp_path / "whole", dataset(GREY))
    (tmp_path / "a").write_bytes((tmp_path / "whole").read_bytes()[132:])
    assert np.array_equal(read(tmp_path / "a").pixels, GREY[None])


def test_dicom_with_a_tiffs_header_as_its_preamble_is_dicom(tmp_path: Path):
    """Slides may be both; DICOM says more of them."""
    save(tmp_path / "a", dataset(GREY))
    content = bytearray((tmp_path / "a").read_bytes())
    content[:4] = b"II*\0"
    (tmp_path / "a").write_bytes(content)
    assert told(tmp_path / "a") == "DICOM"


FOREIGN = {
    b"": "is empty (0 bytes): get it again",
    b"%PDF-1.7\n": "is a PDF, expected PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI or NPY: export the image in it",
    b"GIF89a": "is a GIF",
    b"NRRD0004\ntype: short\n": "is an NRRD volume, expected PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI or NPY: "
    "convert it to NIfTI (for instance with 3D Slicer or SimpleITK)",
    b"ObjectType = Image\nNDims = 3\n": "is a MetaImage (.mha, .mhd)",
    b"NDims = 3\n": "is a MetaImage (.mha, .mhd)",
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file",
    b"MATLAB 5.0 MAT-file": "is a MATLAB file",
    b"<!DOCTYPE html><html>": "is a web page (HTML), perhaps that of an error or a login",
    b"\xef\xbb\xbf\n <html>": "is a web page (HTML)",
    b"<?xml version='1.0'?>": "is an XML file",
    b"version https://git-lfs.github.com/spec/v1\noid": "is a Git LFS pointer, not the file itself, expected PNG",
    b"\0\0\0\x18ftypheic": "is a HEIC or AVIF picture",
    b"file,label,patient\n1.png,0,p": "is text that starts with 'file,label,patient'",
    bytes(600): "has nothing but zeros at its start",
    b"\xde\xad\xbe\xef\1\2\3\4": "starts with the bytes de ad be ef 01 02 03 04, expected PNG",
    packed("xl/workbook.xml"): "is an Excel table (XLSX)",
    packed(
        "a.npy"
    ): "is an NPZ archive, expected PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI or NPY: read it as data",
    packed("a.dcm"): "is a ZIP archive, expected PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI or NPY: unpack it",
    packed("a.dcm")[:-9]: "is a damaged ZIP archive",
    gzip.compress(b"text" * 99): "is compressed by gzip, but there is no NIfTI volume in it: unpack it",
    gzip.compress(b"text" * 99)[:20]: "is a file compressed by gzip that is damaged, cut off",
    FORMATS["NIfTI"][:344] + b"ni1\0" + bytes(99): "is the header of a volume in two files (.hdr and .img)",
    FORMATS["NIfTI"][:344] + bytes(99): "is the header of a volume in two files (.hdr and .img)",
}


@pytest.mark.parametrize("content", FOREIGN, ids=FOREIGN.values())  # contents hold the time they were made at
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes):
    file = tmp_path / "a.png"
    file.write_bytes(content)
    for ask in (told, claimed, read):
        with pytest.raises(Unreadable) as caught:
            ask(file)
        assert str(caught.value).startswith(FOREIGN[content])


def test_dicom_objects_without_pixels_are_named(tmp_path: Path):
    for kind, expected in (
        (
            RTStructureSetStorage,
            "is a DICOM file without an image (RT Structure Set Storage): list images only",
        ),
        (MediaStorageDirectoryStorage, "is a DICOMDIR, the table of contents of a disc: list the images"),
    ):
        made = dataset(GREY)
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = kind
        for name in ("Rows", "Columns", "PixelData"):
            delattr(made, name)
        save(tmp_path / "a", made)
        for ask in (claimed, read):
            with pytest.raises(Unreadable) as caught:
                ask(tmp_path / "a")
            assert str(caught.value).startswith(expected)


# ------------------------------------------------------------------ what is nobody's fault, or the installation's


def the_error(file: Path) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        read(file)
    assert isinstance(caught.value, Unreadable)
    return caught.value


def test_a_file_that_may_not_be_opened_is_no_damaged_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.png").write_bytes(FORMATS["PNG"])

    def refused(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)  # a superuser, as in containers, may open everything
    error = the_error(tmp_path / "a.png")
    assert str(error).startswith("cannot be opened (Permission denied): let the user who runs this read it")
    assert error.kind == "cannot be opened"


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.png")
    assert str(the_error(tmp_path / "a.png")).startswith("is no plain file (a pipe or a device)")


def test_a_label_map_that_may_not_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("a.nii", "m.nii"):
        (tmp_path / name).write_bytes(FORMATS["NIfTI"])
    (tmp_path / "m.csv").write_text("file,label_map,patient\na.nii,m.nii,p\n", encoding="utf-8")
    opening = Path.open

    def refused(file: Path, *how: Any, **more: Any) -> Any:
        if file.name == "m.nii":
            raise PermissionError(13, "Permission denied")
        return opening(file, *how, **more)

    monkeypatch.setattr(Path, "open", refused)
    (problem,) = problems_of(Folder(manifest="m.csv"), tmp_path)
    assert ":2:7: label_map: " in str(problem) and "cannot be opened (Permission denied)" in str(problem)


def test_a_file_that_is_not_there_says_so(tmp_path: Path):
    assert str(the_error(tmp_path / "gone.png")).startswith("cannot be opened (No such file or directory)")


def test_a_package_that_cannot_be_imported_is_no_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.png").write_bytes(FORMATS["PNG"])

    def broken(file: Path) -> Any:
        raise ImportError("libtiff.so.6: cannot open shared object file")

    monkeypatch.setitem(images._FORMATS, "PNG", images._Format(broken, broken))
    with pytest.raises(RunError, match=r"cannot read PNG files.*libtiff\.so\.6.*install fedunlearn"):
        read(tmp_path / "a.png")


def test_a_user_without_a_name_reads_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Containers run as a number; whoever asks for its name gets a `KeyError`."""

    def nameless(*_: Any) -> Any:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("pwd.getpwuid", nameless)
    monkeypatch.setattr("getpass.getuser", nameless)
    for kind, content in FORMATS.items():
        (tmp_path / kind).write_bytes(content)
        assert read(tmp_path / kind).format == kind


@pytest.mark.gate
def test_reading_images_imports_neither_torch_nor_monai(tmp_path: Path):
    """They take seconds, and ask for the user's name, which a container may not have."""
    for kind, content in FORMATS.items():
        (tmp_path / kind).write_bytes(content)
    save(tmp_path / "DICOM", dataset(GREY))
    code = (
        "import sys, pathlib; from sites.formats.images import read;"
        f"[read(file) for file in pathlib.Path({str(tmp_path)!r}).iterdir()];"
        "print({'torch', 'monai'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout == "set()\n"


def test_the_folder_names_file_place_and_remedy(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"NRRD0004\n")
    (tmp_path / "m.csv").write_text("file,label,patient\na.png,0,p\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"m\.csv:2:1: file: a\.png is an NRRD volume.*convert it to NIfTI"):
        Folder(manifest="m.csv").load(tmp_path)
