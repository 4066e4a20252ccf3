"""What files hold, worked out by functions of pydicom, nibabel and Pillow that our readers do not use.

Each gives (C, *spatial) in 0…255, not rounded yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian

Array = np.ndarray[Any, Any]


def percentiles(values: Array, shown: Array | None = None) -> Array:
    low, high = np.percentile(values if shown is None else values[shown], (0.5, 99.5))
    return np.clip((values - low) / (high - low), 0, 1) * 255


def by_pydicom(file: Path) -> Array:
    """(C, *spatial) in 0…255, by pydicom's functions."""
    read = dcmread(file)
    for name, value in (("SamplesPerPixel", 1), ("BitsStored", read.BitsAllocated)):  # what pydicom must have
        if name not in read:
            setattr(read, name, value)
    if not read.file_meta.get("TransferSyntaxUID"):
        read.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kind = str(read.PhotometricInterpretation)
    stored = pixel_array(read)  # YBR_FULL and YBR_FULL_422 as RGB
    if kind == "PALETTE COLOR":
        made = apply_color_lut(stored, read)
        return np.moveaxis(made / np.iinfo(made.dtype).max * 255, -1, 0)
    if not kind.startswith("MONOCHROME"):
        return np.moveaxis(stored, -1, 0)
    where = read
    if "SharedFunctionalGroupsSequence" in read:
        for name in ("WindowCenter", "WindowWidth"):
            item = read.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
            setattr(where, name, item[name].value)
    physical = apply_modality_lut(stored, read)
    shown = np.ones(stored.shape, bool)
    if "PixelPaddingValue" in read:
        limit = int(read.get("PixelPaddingRangeLimit", read.PixelPaddingValue))
        low, high = sorted((int(read.PixelPaddingValue), limit))
        shown = (stored < low) | (stored > high)
    if "VOILUTSequence" in where:
        made = apply_voi_lut(physical, where) / (2.0 ** where.VOILUTSequence[0].LUTDescriptor[2] - 1) * 255
    elif "WindowWidth" in where:
        made = apply_voi_lut(physical, where).astype(np.float64)
        ends = windowed_ends(read)
        made = (made - ends[0]) / (ends[1] - ends[0]) * 255
    elif read.BitsStored == 8:
        made = physical
    else:
        made = percentiles(physical.astype(np.float64), shown)
    return np.where(shown, 255 - made if kind == "MONOCHROME1" else made, 0)[None]


def windowed_ends(read: Dataset) -> tuple[float, float]:
    """Between what pydicom's windowing gives values: the smallest and largest that could be stored, rescaled."""
    if "ModalityLUTSequence" in read:
        return 0.0, 2.0 ** read.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    low, high = 0, 2**read.BitsStored - 1
    if read.PixelRepresentation:
        low, high = -(2 ** (read.BitsStored - 1)), 2 ** (read.BitsStored - 1) - 1
    slope, intercept = float(read.get("RescaleSlope", 1)), float(read.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


def by_nibabel(file: Path) -> Array:
    """The voxels of an uncompressed NIfTI-1 file in the nearest orientation to RAS; as stored if it tells none."""
    image = nibabel.Nifti1Image.from_bytes(file.read_bytes())
    told = int(image.header["sform_code"]) or int(image.header["qform_code"])
    values = np.asarray((nibabel.as_closest_canonical(image) if told else image).dataobj)
    return (values if values.dtype == np.uint8 else percentiles(values.astype(np.float64)))[None]


def by_pillow(file: Path) -> Array:
    """The pixels of a picture that is not turned, without transparency."""
    with Image.open(file) as opened:
        opened.load()
        mode = {"1": "L", "LA": "L", "RGBA": "RGB", "P": "RGB", "CMYK": "RGB"}.get(opened.mode, opened.mode)
        values = np.asarray(opened.convert(mode))
    made = values if values.dtype == np.uint8 else percentiles(values.astype(np.float64))
    return made[None] if made.ndim == 2 else np.moveaxis(made, -1, 0)
