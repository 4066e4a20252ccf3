"""Files whose headers were changed: each is read as it now says, by another library's account, or refused.

``python -m tests.sites.formats.fuzzing FOLDER`` makes and reads all of them, and prints the peak of memory in bytes.
"""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from fedunlearn.core import InputError
from sites.formats import sizes
from sites.formats.images import claimed, read
from sites.formats.unreadable import Unreadable
from sites.npz import Npz
from tests.sites.formats.making import dataset, palette, save
from tests.sites.formats.oracles import by_nibabel, by_pillow, by_pydicom

Array = np.ndarray[Any, Any]
Random = np.random.Generator

EACH = 50
"""Files of each of the four formats."""

GREY = np.random.default_rng(7).integers(0, 256, (20, 28)).astype(np.uint8)
DEEP = np.random.default_rng(8).integers(0, 4096, (20, 28)).astype(np.uint16)
VOXELS = np.random.default_rng(9).integers(-500, 2000, (6, 9, 7)).astype(np.int16)


def flipped(content: bytes, random: Random, start: int, end: int) -> bytes:
    """``content`` with one to four bytes between two places changed."""
    changed = bytearray(content)
    for place in random.integers(start, min(end, len(changed)), random.integers(1, 5)):
        changed[place] = random.integers(256)
    return bytes(changed)


# --------------------------------------------------------------------------------------------------- NIfTI


def nifti(file: Path, random: Random, number: int) -> None:
    """A volume with another affine, slope, type or shape; or with any bytes of its header changed."""
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    image = nibabel.Nifti1Image(VOXELS, affine)
    kind = number % 6
    if kind == 0:  # axes in another order and direction, in sform, qform or both
        turn = np.zeros((4, 4))
        for axis, to in enumerate(random.permutation(3)):
            turn[to, axis] = random.choice([-1, 1])
        turn[3, 3] = 1
        which = random.integers(3)
        if which != 1:
            image.set_sform(turn @ affine, 2 if which == 0 else 1)
        if which != 0:
            image.set_qform(turn @ affine, 1)
        if which == 1:
            image.set_sform(None, 0)
    content = bytearray(image.to_bytes())
    header = np.frombuffer(content, image.header.structarr.dtype, count=1)
    header = header.copy()
    if kind == 1:
        header["scl_slope"], header["scl_inter"] = random.choice([0.5, -2, 3e-3]), random.integers(-9, 9)
    if kind == 2:
        header["datatype"], header["bitpix"] = [(2, 8), (512, 16), (256, 8), (16, 32), (128, 24)][
            random.integers(5)
        ]
    if kind == 3:
        header["dim"][0, 1:4] = random.permutation([6, 9, 7]) * (1, 1, random.choice([1, 2]))
    if kind == 4:
        header["sform_code"], header["qform_code"] = random.integers(0, 2, 2)
        header["srow_x"] *= -1
    content[: header.nbytes] = header.tobytes()
    file.write_bytes(flipped(bytes(content), random, 0, 352) if kind == 5 else bytes(content))


# --------------------------------------------------------------------------------------------------- DICOM


def dicom(file: Path, random: Random, number: int) -> None:
    """An image with other elements; or with any bytes before its pixels changed."""
    colours = np.stack([np.arange(256), np.arange(256) // 2, 255 - np.arange(256)], axis=-1)
    choices: list[dict[str, Any]] = [
        {
            "PhotometricInterpretation": str(
                random.choice(["MONOCHROME1", "RGB", "YBR_FULL", "PALETTE COLOR", "XYZ"])
            )
        },
        {"WindowCenter": str(random.integers(0, 4096)), "WindowWidth": str(random.integers(1, 4096))},
        {
            "RescaleSlope": str(random.choice([0.5, -1, 2])),
            "RescaleIntercept": str(random.integers(-999, 999)),
        },
        {"Rows": int(random.choice([28, 10, 21, 0])), "Columns": int(random.choice([20, 28, 56]))},
        {"BitsStored": int(random.choice([12, 10, 16])), "PixelRepresentation": int(random.integers(2))},
        {"PatientID": f"p{number}", "ImageOrientationPatient": [0, 1, 0, 1, 0, 0]},
        {
            "PixelPaddingValue": int(random.integers(4096)),
            "PixelPaddingRangeLimit": int(random.integers(4096)),
        },
        {"NumberOfFrames": int(random.choice([2, 3])), "SamplesPerPixel": int(random.choice([1, 3]))},
    ]
    kind = number % (len(choices) + 2)
    made = dataset(DEEP, choices[kind] if kind < len(choices) else {})
    if kind == len(choices):
        made = dataset(GREY, palette(colours, 8))
    save(file, made)
    if kind >= len(choices):
        content = file.read_bytes()
        file.write_bytes(flipped(content, random, 132, len(content) - DEEP.nbytes))


# --------------------------------------------------------------------------------------------- PNG and NPZ


def png(file: Path, random: Random, number: int) -> None:
    """A picture with another header whose checksum is right; or with any bytes changed."""
    made = io.BytesIO()
    Image.fromarray(GREY if number % 2 else np.stack([GREY] * 3, axis=-1)).save(made, "PNG")
    content = bytearray(made.getvalue())
    if number % 5 == 4:
        file.write_bytes(flipped(bytes(content), random, 0, len(content)))
        return
    place, choices = [(19, [20, 28, 7]), (23, [20, 28, 40]), (24, [1, 2, 4, 16]), (25, [0, 2, 3, 4, 6])][
        number % 5
    ]
    content[place] = random.choice(choices)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    file.write_bytes(content)


def npz(file: Path, random: Random, number: int) -> None:
    """Images and labels whose headers claim something else; or with any bytes of the archive changed."""
    images, labels = np.stack([GREY, GREY[::-1], 255 - GREY]), np.array([0, 1, 0])
    members = {}
    for name, array in (("train_images", images), ("train_labels", labels)):
        made = io.BytesIO()
        np.save(made, array)
        members[name] = made.getvalue()
    kind, head = number % 5, members["train_images"]
    if kind == 0:
        head = head.replace(b"(3, 20, 28)", b"(3, 28, 20)")
    if kind == 1:
        head = head.replace(b"'fortran_order': False", b"'fortran_order': True ")
    if kind == 2:
        head = head.replace(b"'|u1'", random.choice([b"'|i1'", b"'|b1'", b"'|S1'", b"'<f4'", b"'|O1'"]))
    if kind == 3:
        head = head.replace(
            b"(3, 20, 28)", random.choice([b"(6, 10, 28)", b"(3, 20, 99)", b"(1, 60, 28)", b"(3, 560)   "])
        )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**members, "train_images": head}.items():
            archive.writestr(f"{name}.npy", content)
    if kind == 4:
        content = file.read_bytes()
        file.write_bytes(flipped(content, random, 0, len(content)))


# ----------------------------------------------------------------------------------------------- all of them

MAKERS: dict[str, Callable[[Path, Random, int], None]] = {"nii": nifti, "dcm": dicom, "png": png, "npz": npz}
ORACLES: dict[str, Callable[[Path], Array]] = {"nii": by_nibabel, "dcm": by_pydicom, "png": by_pillow}


def outcome(file: Path, kind: str) -> str:
    """``read`` or ``refused``.

    Raises:
        AssertionError: it was read otherwise than it says.
        Exception: another one than those for users.
    """
    if kind == "npz":
        try:
            found = Npz(path=file.name).load(file.parent).pixels
        except InputError:
            return "refused"
        assert np.array_equal(found[:, 0], np.load(file)["train_images"]), file
        return "read"
    try:
        if sizes.excess({"it": claimed(file)}, sizes.WORK):
            return "refused"
        found = read(file).pixels
    except Unreadable:
        return "refused"
    expected = ORACLES[kind](file)
    assert found.shape == expected.shape, (file, found.shape, expected.shape)
    assert np.abs(found - expected.astype(np.float64)).max() <= 1, file  # of a grey, where both round
    return "read"


def run(folder: Path, kind: str) -> Counter[str]:
    """How many files of one kind were read and how many refused."""
    counts = Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(EACH):
            file = folder / f"{number}.{kind}"
            MAKERS[kind](file, np.random.default_rng([number, len(kind), ord(kind[0])]), number)
            counts[outcome(file, kind)] += 1
    return counts


if __name__ == "__main__":
    for each in MAKERS:
        run(Path(sys.argv[1]), each)
    # Of this program alone: what `getrusage` tells begins with the size of whoever started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")))
