"""Files that claim or expand to more than memory holds are refused by their headers, and nothing is expanded."""

from __future__ import annotations

import gzip
import io
import re
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import psutil
import pydicom
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from fedunlearn.core import InputError
from sites.folder import Folder
from sites.folder.manifest import read_manifest
from sites.formats import sizes
from sites.formats.images import claimed, read
from sites.formats.nifti import Handling, preparing
from sites.formats.unreadable import Unreadable
from sites.npz import Npz
from tests.sites.problems import problems_of

MB = 2**20
ROWS = "file,label,patient\n"


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is imported on the way is there before memory is measured."""
    folder = tmp_path_factory.mktemp("imports")
    Image.new("L", (8, 8)).save(folder / "a.png")
    np.save(folder / "a.npy", np.zeros((8, 8), np.uint8))
    (folder / "a.nii").write_bytes(nifti((8, 8, 8), bytes(512)))
    for file in ("a.png", "a.npy", "a.nii"):
        one(folder, file).load(folder)
    preparing(Handling())
    parquet(folder, "a.png", 2, dictionary=True)
    read_manifest(folder / "m.parquet")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 2 MB available, of which images may take one."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * MB))


@contextmanager
def frugal(most: int = 2 * MB) -> Iterator[None]:
    """Fails if more memory is taken at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def the_problem(source: Npz | Folder, root: Path) -> str:
    with pytest.raises(InputError) as caught:
        source.load(root)
    (problem,) = caught.value.problems
    return str(problem)


def one(root: Path, file: str) -> Folder:
    (root / "m.csv").write_text(f"{ROWS}{file},0,p\n", encoding="utf-8")
    return Folder(manifest="m.csv")


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    made = io.BytesIO()
    about = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(made, about)
    return made.getvalue()


def archive(root: Path, **members: bytes) -> Npz:
    with zipfile.ZipFile(root / "x.npz", "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(f"{name}.npy", content)
    return Npz(path="x.npz")


# ------------------------------------------------------------------------------------------------------ npz


def test_npz_that_claims_more_than_it_holds_is_refused(tmp_path: Path):
    shape = (2**21, 1024, 1024)  # 2 TiB
    source = archive(tmp_path, train_images=header(shape) + bytes(99), train_labels=header((2**21,)))
    message = the_problem(source, tmp_path)
    assert str(tmp_path / "x.npz") in message
    assert f"train_images claims {shape} uint8, 2,199,023.3 MB, but holds 0.0 MB" in message
    assert [str(problem) for problem in problems_of(source, tmp_path)] == [message]


@pytest.mark.usefixtures("small")
def test_npz_that_expands_beyond_memory_is_refused(tmp_path: Path):
    shape = (64, 1024, 1024)
    source = archive(
        tmp_path, train_images=header(shape) + bytes(64 * MB), train_labels=header((64,)) + bytes(64)
    )
    assert (tmp_path / "x.npz").stat().st_size < MB / 8
    with frugal():
        message = the_problem(source, tmp_path)
    # 64 · 2^20 bytes and 64 labels; half of 2 · 2^20 bytes
    assert (
        f"train_images claims {shape} uint8, 67.1 MB; needs 67.1 MB, expected at most 1.0 MB (50%" in message
    )
    assert "use a larger machine" in message


@pytest.mark.usefixtures("small")
def test_npz_arrays_are_too_large_together(tmp_path: Path):
    one_of_two = header((3, 512, 512)) + bytes(3 * MB // 4)
    labels = header((3,)) + bytes(3)
    made = {
        f"{s}_{name}": c for s in ("train", "val") for name, c in (("images", one_of_two), ("labels", labels))
    }
    assert "needs 1.6 MB, expected at most 1.0 MB" in the_problem(archive(tmp_path, **made), tmp_path)


def test_npz_header_that_expands_without_end_is_not_read(tmp_path: Path):
    endless = b"\x93NUMPY\x02\x00" + (64 * MB).to_bytes(4, "little") + b" " * (64 * MB)
    source = archive(tmp_path, train_images=endless, train_labels=header((1,)))
    with frugal():
        assert "is an .npz file that is damaged" in the_problem(source, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 9000,
        "-" * 9000,
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 8, 8)}",
        "'",
        "\n  x\n y",
    ],
)
def test_npz_header_of_nonsense_is_damage(tmp_path: Path, text: str):
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    told = the_problem(archive(tmp_path, train_images=content), tmp_path)
    assert re.search(r"x\.npz (has a header that|is an \.npz file that is damaged).*: get it again", told)


def test_npz_with_two_arrays_of_one_name_is_refused(tmp_path: Path):
    """NumPy takes ``x`` and ``x.npy`` for the same one."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as made:
        for member in ("train_images", "train_images.npy"):
            made.writestr(member, header((1, 8, 8)) + bytes(64))
    assert "train_images is in it more than once" in the_problem(Npz(path="x.npz"), tmp_path)


def test_npz_members_that_numpy_does_not_write_are_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as made:
        made.writestr("train_images.npy", header((1, 8, 8)) + bytes(64))
    assert "packed otherwise" in the_problem(Npz(path="x.npz"), tmp_path)


# ---------------------------------------------------------------------------------------------- image files


def test_npy_that_claims_more_than_the_file_has_is_refused(tmp_path: Path):
    (tmp_path / "a.npy").write_bytes(header((2**20, 2**20)) + bytes(64))
    message = the_problem(one(tmp_path, "a.npy"), tmp_path)
    assert message.startswith(f"{tmp_path / 'm.csv'}:2:1: file: ")
    assert "claims (1048576, 1048576) uint8, 1,099,511.6 MB, but the file has 0.0 MB" in message


def test_npy_with_python_objects_is_never_unpickled(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "Python objects" in the_problem(one(tmp_path, "a.npy"), tmp_path)


@pytest.mark.gate
def test_png_of_more_pixels_than_is_safe_is_refused(tmp_path: Path):
    Image.new("1", (12000, 12000)).save(tmp_path / "a.png")
    Image.new("1", (20000, 20000)).save(tmp_path / "b.png")
    with frugal():
        message = the_problem(one(tmp_path, "a.png"), tmp_path)
        further = the_problem(one(tmp_path, "b.png"), tmp_path)
    assert "claims 12000 × 12000 pixels, expected at most 89,478,485 in all: save it smaller" in message
    assert "too many pixels" in further and "400000000" in further


@pytest.mark.usefixtures("small")
def test_png_that_memory_cannot_hold_is_refused(tmp_path: Path):
    Image.new("RGB", (1000, 1000)).save(tmp_path / "a.png")
    message = the_problem(one(tmp_path, "a.png"), tmp_path)
    # a million pixels of three colours, each 1 byte and 8 more while it is worked on
    assert (
        "claims (1000, 1000, 3) uint8, 3.0 MB; while it is worked on it needs 27.0 MB, expected at most 1.0 MB"
        in message
    )


def test_what_is_no_picture_is_never_given_to_another_of_pillows_readers(tmp_path: Path):
    """PostScript would be run."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    assert "is PostScript, expected PNG, JPEG" in the_problem(one(tmp_path, "a.png"), tmp_path)


def nifti(shape: tuple[int, ...], content: bytes) -> bytes:
    made = nibabel.Nifti1Header()
    made.set_data_dtype(np.uint8)
    made["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
    made["vox_offset"] = 352
    made["magic"] = b"n+1"
    return bytes(made.binaryblock) + bytes(4) + content


@pytest.mark.usefixtures("small")
def test_nifti_that_expands_beyond_memory_is_refused(tmp_path: Path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti((512, 512, 256), bytes(64 * MB))))
    with frugal():
        message = the_problem(one(tmp_path, "a.nii.gz"), tmp_path)
    # 2^26 voxels of 1 byte and 8 more
    assert (
        "claims (512, 512, 256) uint8, 67.1 MB; while it is worked on it needs 604.0 MB, expected at most 1.0 MB"
        in message
    )


@pytest.mark.usefixtures("small")
def test_label_maps_that_expand_beyond_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bomb = gzip.compress(nifti((512, 512, 256), bytes(64 * MB)))
    (tmp_path / "a.nii.gz").write_bytes(bomb)
    (tmp_path / "m.nii.gz").write_bytes(bomb)
    (tmp_path / "m.csv").write_text("file,label_map,patient\na.nii.gz,m.nii.gz,p\n", encoding="utf-8")
    with frugal(16 * MB):  # MONAI's transforms
        problems = problems_of(Folder(manifest="m.csv"), tmp_path)
    assert ["m.csv:2:1: file: " in str(problems[0]), "m.csv:2:10: label_map: " in str(problems[1])] == [
        True,
        True,
    ]
    assert all("needs 604.0 MB" in str(problem) for problem in problems)


def test_no_more_of_a_stream_is_expanded_than_its_header_claims(tmp_path: Path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti((8, 8, 8), bytes(64 * MB))))
    one(tmp_path, "a.nii.gz").load(tmp_path)  # imports
    with frugal():
        assert one(tmp_path, "a.nii.gz").load(tmp_path).pixels.shape == (1, 1, 8, 8, 8)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_with_an_extension_that_expands_without_end_is_not_read(tmp_path: Path, name: str):
    """nibabel reads all that comes before the voxels."""
    made, size = nibabel.Nifti1Header.from_fileobj(io.BytesIO(nifti((8, 8, 8), b""))), 70 * MB
    made["vox_offset"] = 352 + size
    extension = b"\1\0\0\0" + np.array([size, 6], "<i4").tobytes() + bytes(size - 8)
    content = bytes(made.binaryblock) + extension + bytes(512)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with frugal():
        message = the_problem(one(tmp_path, name), tmp_path)
    assert f"voxels start at byte {352 + size:,}, expected at most 67,108,864" in message


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_that_claims_more_than_its_file_can_hold_is_refused(tmp_path: Path, name: str):
    content = nifti((30000, 30000, 30000), bytes(99))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert "claims (30000, 30000, 30000) uint8, 27,000,000.0 MB, but the file has" in the_problem(
        one(tmp_path, name), tmp_path
    )


def test_voxels_that_claim_to_be_kilometres_are_not_cut_into_millimetres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    voxels = np.arange(512, dtype=np.uint8).reshape(8, 8, 8)
    for name in ("a", "m"):
        nibabel.save(
            nibabel.Nifti1Image(voxels % 2 if name == "m" else voxels, np.diag([1e6, 1e6, 1e6, 1])),
            tmp_path / f"{name}.nii",
        )
    (tmp_path / "m.csv").write_text("file,label_map,patient\na.nii,m.nii,p\n", encoding="utf-8")
    message = the_problem(Folder(manifest="m.csv", spacing=(1.0, 1.0, 1.0)), tmp_path)
    assert "claims voxels of 1e+06 × 1e+06 × 1e+06 mm, and at a spacing of (1.0, 1.0, 1.0) needs" in message


def dicom(
    file: Path, frames: int, syntax: pydicom.uid.UID = ExplicitVRLittleEndian, pixels: bytes = bytes(96)
) -> None:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    image = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.Rows = image.Columns = 65535 if frames > 1 else 7
    image.NumberOfFrames, image.SamplesPerPixel, image.BitsAllocated = frames, 1, 16
    image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 15, 0
    image.PhotometricInterpretation, image.PixelData = "MONOCHROME2", pixels
    image.save_as(file)


def test_dicom_of_absurd_size_is_refused(tmp_path: Path):
    dicom(tmp_path / "a.dcm", frames=10**6)
    message = the_problem(one(tmp_path, "a.dcm"), tmp_path)
    assert "claims (1000000, 65535, 65535) uint16" in message and "8,589,672,450.0 MB" in message  # · 2 bytes


@pytest.mark.usefixtures("small")
def test_dicom_that_is_deflated_is_not_expanded_to_learn_its_size(tmp_path: Path):
    dicom(tmp_path / "a.dcm", 1, DeflatedExplicitVRLittleEndian, bytes(64 * MB))
    assert (tmp_path / "a.dcm").stat().st_size < MB / 8
    with frugal():
        assert "may take all the memory before its size is known" in the_problem(
            one(tmp_path, "a.dcm"), tmp_path
        )


@pytest.mark.usefixtures("small")
def test_images_may_be_larger_together_than_memory(tmp_path: Path):
    """300 of 100 × 100 pixels are 3 MB, three times what there is; one at a time is in memory."""
    for number in range(300):
        Image.new("L", (100, 100), number % 256).save(tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,{number % 2},p\n" for number in range(300))
    (tmp_path / "m.csv").write_text(ROWS + rows, encoding="utf-8")
    found = Folder(manifest="m.csv").load(tmp_path)
    assert isinstance(found.pixels, np.memmap) and found.pixels.shape == (300, 1, 100, 100)


# ---------------------------------------------------------------------------------------- whatever else is in them


def good(root: Path, suffix: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 9, 6), np.uint8)
    file = root / f"good{suffix}"
    if suffix == ".png":
        Image.fromarray(pixels[..., 0]).save(file)
    elif suffix == ".npy":
        np.save(file, pixels)
    elif suffix == ".dcm":
        dicom(file, 1, pixels=bytes(98))
    else:
        nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), file)
    return file.read_bytes()


@pytest.mark.gate
@pytest.mark.filterwarnings("ignore")  # the libraries warn of much that they read all the same
@pytest.mark.parametrize("suffix", [".png", ".npy", ".nii", ".nii.gz", ".dcm"])
def test_a_file_with_any_bytes_changed_is_read_or_blamed(tmp_path: Path, suffix: str):
    random, content = np.random.default_rng(1), good(tmp_path, suffix)
    outcomes = {"read": 0, "blamed": 0}
    for _ in range(200):
        changed = bytearray(content)
        for place in random.integers(0, len(changed), random.integers(1, 4)):
            changed[place] = random.integers(256)
        file = tmp_path / f"changed{suffix}"
        file.write_bytes(changed)
        try:
            claim = claimed(file)
            if sizes.excess({"it": claim}) is None:
                read(file)
            outcomes["read"] += 1
        except Unreadable:
            outcomes["blamed"] += 1
    assert outcomes["blamed"] > 0 and sum(outcomes.values()) == 200


@pytest.mark.parametrize("error", [OSError("no such user"), KeyError("getpwuid(): uid not found: 12345")])
def test_what_is_wrong_with_the_installation_is_not_blamed_on_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")

    def broken(file: Path) -> Any:
        raise error

    monkeypatch.setattr("sites.folder.pictures.read", broken)
    with pytest.raises(type(error), match=re.escape(error.args[0])):
        one(tmp_path, "a.png").load(tmp_path)


# ------------------------------------------------------------------------------------------------- manifests


def parquet(root: Path, file: str, count: int, dictionary: bool) -> Folder:
    table = pd.DataFrame({"file": [file] * count, "label": 0, "patient": [f"p{n % 2}" for n in range(count)]})
    table.to_parquet(root / "m.parquet", compression="zstd", use_dictionary=dictionary)
    return Folder(manifest="m.parquet")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("file", "count", "dictionary"), [("a.png", 10_000, True), ("a" * 9999, 1000, False)]
)
def test_a_manifest_that_expands_beyond_memory_is_refused(
    tmp_path: Path, file: str, count: int, dictionary: bool
):
    """10,000 rows of 600 bytes; or 1,000 times 10 kB, which the file has once."""
    source = parquet(tmp_path, file, count, dictionary)
    assert (tmp_path / "m.parquet").stat().st_size < 100_000
    with frugal():
        message = the_problem(source, tmp_path)
    assert "m.parquet: is too large: it needs " in message and "expected at most 1.0 MB" in message


@pytest.mark.gate
def test_a_text_that_all_rows_have_is_there_once(tmp_path: Path):
    """1,000 times 1 MB would be a gigabyte."""
    parquet(tmp_path, "a" * MB, 1000, dictionary=True)
    rows = read_manifest(tmp_path / "m.parquet").rows
    assert len({id(row.cells["file"]) for row in rows}) == 1
    assert [len(rows), len(rows[0].cells["file"]), rows[1].cells["patient"]] == [1000, MB, "p1"]
