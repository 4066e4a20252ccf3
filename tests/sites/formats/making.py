"""Small made-up DICOM files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from sites.formats.images import read
from sites.formats.picture import Picture
from sites.formats.unreadable import Unreadable

Array = np.ndarray[Any, Any]


def dataset(
    pixels: Array,
    tags: dict[str, Any] | None = None,
    *,
    syntax: UID = ExplicitVRLittleEndian,
    frames: int | None = None,
    raw: list[bytes] | None = None,
) -> Dataset:
    """A DICOM image of ``pixels``: (H, W[, 3]), with frames in front if their number is given.

    ``raw`` are its frames as compressed before; ``tags`` go over all else.
    """
    made, shape = Dataset(), pixels.shape[1:] if frames else pixels.shape
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.PatientID, made.Modality = "made-up", "OT"
    made.Rows, made.Columns, made.SamplesPerPixel = shape[0], shape[1], 3 if len(shape) == 3 else 1
    made.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    if len(shape) == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    if frames:
        made.NumberOfFrames = frames
    for name, value in (tags or {}).items():
        setattr(made, name, value)
    if (tags or {}).get("BitsStored"):
        made.HighBit = made.BitsStored - 1
    if "PixelData" in made:
        made["PixelData"].VR = "OB"
    elif raw is None:
        content = pixels.astype(pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        made.PixelData = content + bytes(len(content) % 2)
        made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    else:
        made.PixelData = encapsulate(raw)
        made["PixelData"].is_undefined_length = True
        made["PixelData"].VR = "OB"
    return made


def save(file: Path, made: Dataset) -> None:
    made.save_as(file, enforce_file_format=True)


def read_back(root: Path, made: Dataset) -> Picture:
    """What our reader makes of it."""
    save(root / "a.dcm", made)
    return read(root / "a.dcm")


def refusal(root: Path, made: Dataset) -> str:
    """Why our reader refuses it."""
    with pytest.raises(Unreadable) as caught:
        read_back(root, made)
    return str(caught.value)


def items(**tags: Any) -> list[Dataset]:
    """A sequence of one item."""
    made = Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return [made]


def table(entries: Array, first: int = 0, bits: int = 16) -> list[Dataset]:
    """A modality or VOI table."""
    made = items(LUTDescriptor=[len(entries) % 65536, first, bits], LUTData=entries.astype("<u2").tobytes())
    made[0]["LUTData"].VR = "OW"
    return made


def palette(colours: Array, bits: int) -> dict[str, Any]:
    """Tables of (N, 3) colours, of 8 or 16 bits each."""
    tags: dict[str, Any] = {}
    for name, values in zip(("Red", "Green", "Blue"), colours.T, strict=True):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [len(values), 0, bits]
        tags[f"{name}PaletteColorLookupTableData"] = values.astype(f"<u{bits // 8}").tobytes()
    return {**tags, "PhotometricInterpretation": "PALETTE COLOR"}
