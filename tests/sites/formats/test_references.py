"""What our readers make of files equals what pydicom, nibabel and Pillow make of them by functions of their own.

Readers use those libraries to unpack bytes; what the values mean they work out themselves. Here it is worked out by
`apply_modality_lut`, `apply_voi_lut`, `apply_color_lut`, `convert_color_space`, `as_closest_canonical` and Pillow's
`convert`, and scaled to 0…255. Where both round, they may differ by one grey.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from sites.formats.images import claimed, read
from tests.sites.formats.making import dataset, items, palette, save, table
from tests.sites.formats.oracles import by_pydicom, percentiles

Array = np.ndarray[Any, Any]
SHAPE = (20, 28)


def drawn(dtype: Any = np.uint8, low: int = 0, high: int = 256, shape: tuple[int, ...] = SHAPE) -> Array:
    return np.random.default_rng(5).integers(low, high, shape).astype(dtype)


GREY, DEEP, CT = drawn(), drawn(np.uint16, 0, 4096), drawn(np.int16, -1024, 3000)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)
SMOOTH = np.add.outer(np.arange(20) * 5, np.arange(28) * 4).astype(np.uint8)
SMOOTH_COLOUR = np.stack([SMOOTH, SMOOTH // 2, 255 - SMOOTH], axis=-1)


# -------------------------------------------------------------------------------------------------- DICOM


def in_jpeg(pixels: Array, subsampling: int = 0) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "JPEG", quality=95, subsampling=subsampling)
    return made.getvalue()


def in_jpeg2000(pixels: Array) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "JPEG2000", irreversible=False, no_jp2=True, mct=0)
    return made.getvalue()


def in_rle(made: Dataset) -> Dataset:
    made.compress(RLELossless)
    return made


RAMP = np.arange(256, dtype=np.uint16)
SIGMOID = np.round(65535 / (1 + np.exp(-(np.arange(4096) - 2000) / 300))).astype(np.uint16)
YBR = convert_color_space(COLOUR, "RGB", "YBR_FULL")
BRIGHTEST = {"WindowCenter": "1200", "WindowWidth": "800"}
HOT = np.stack([RAMP, RAMP // 2, 255 - RAMP], axis=-1)
WITH_PAD = np.where(np.add.outer(np.arange(20), np.arange(28)) < 15, -2000, CT).astype(np.int16)


def from_40() -> dict[str, Any]:
    """A palette whose first entry stands for 40, and for all below."""
    tags = palette(HOT, 8)
    return {name: [256, 40, 8] if name.endswith("Descriptor") else value for name, value in tags.items()}


def segmented() -> dict[str, Any]:
    """Palettes of 256 entries in two segments: one value, then 255 on a line to another (PS3.3 C.7.9.2)."""
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, end in (("Red", 65535), ("Green", 30000), ("Blue", 100)):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        data = np.array([0, 1, 7, 1, 255, end], "<u2").tobytes()
        tags[f"Segmented{name}PaletteColorLookupTableData"] = data
    return tags


def subsampled(pixels: Array) -> Array:
    """Two brightnesses, then the colour of the first of them, for every two pixels of a row (PS3.3 C.7.6.3.1.2)."""
    brightness, blue, red = np.moveaxis(pixels, -1, 0)
    return np.stack([brightness[:, ::2], brightness[:, 1::2], blue[:, ::2], red[:, ::2]], axis=-1)


DICOM: dict[str, Callable[[], Dataset]] = {
    "8 bits": lambda: dataset(GREY),
    "8 bits inverted": lambda: dataset(GREY, {"PhotometricInterpretation": "MONOCHROME1"}),
    "8 of 16 bits": lambda: dataset(GREY.astype(np.uint16), {"BitsStored": 8}),
    "12 bits": lambda: dataset(DEEP, {"BitsStored": 12}),
    "12 bits inverted": lambda: dataset(DEEP, {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1"}),
    "signed": lambda: dataset(CT),
    "signed 12 of 16 bits": lambda: dataset((CT // 2).astype(np.int16), {"BitsStored": 12}),
    "implicit": lambda: dataset(DEEP, syntax=ImplicitVRLittleEndian),
    "big-endian": lambda: dataset(DEEP, syntax=ExplicitVRBigEndian),
    "deflated": lambda: dataset(DEEP, syntax=DeflatedExplicitVRLittleEndian),
    "32 bits": lambda: dataset(DEEP.astype(np.uint32) * 1000),
    "rescaled": lambda: dataset(DEEP, {"RescaleSlope": "2", "RescaleIntercept": "-1024"}),
    "rescaled to fractions": lambda: dataset(DEEP, {"RescaleSlope": "0.0002", "RescaleIntercept": "0"}),
    "rescaled downwards": lambda: dataset(DEEP, {"RescaleSlope": "-1", "RescaleIntercept": "4095"}),
    "window": lambda: dataset(DEEP, BRIGHTEST),
    "window of rescaled": lambda: dataset(
        DEEP, {"RescaleSlope": "1", "RescaleIntercept": "-1024", "WindowCenter": "40", "WindowWidth": "400"}
    ),
    "window of fractions": lambda: dataset(
        DEEP, {"RescaleSlope": "0.01", "RescaleIntercept": "0", "WindowCenter": "20.5", "WindowWidth": "11.5"}
    ),
    "window inverted": lambda: dataset(DEEP, {**BRIGHTEST, "PhotometricInterpretation": "MONOCHROME1"}),
    "two windows": lambda: dataset(DEEP, {"WindowCenter": ["1200", "40"], "WindowWidth": ["800", "400"]}),
    "window exact": lambda: dataset(DEEP, {**BRIGHTEST, "VOILUTFunction": "LINEAR_EXACT"}),
    "window sigmoid": lambda: dataset(DEEP, {**BRIGHTEST, "VOILUTFunction": "SIGMOID"}),
    "window of 1": lambda: dataset(DEEP, {"WindowCenter": "1200", "WindowWidth": "1"}),
    "window of 8 bits": lambda: dataset(GREY, {"WindowCenter": "100", "WindowWidth": "80"}),
    "window of signed": lambda: dataset(CT, {"WindowCenter": "-600", "WindowWidth": "1500"}),
    "modality table": lambda: dataset(DEEP, {"ModalityLUTSequence": table(SIGMOID)}),
    "modality table and window": lambda: dataset(
        DEEP, {"ModalityLUTSequence": table(SIGMOID), "WindowCenter": "30000", "WindowWidth": "20000"}
    ),
    "VOI table": lambda: dataset(DEEP, {"VOILUTSequence": table(SIGMOID)}),
    "VOI table from 1000": lambda: dataset(DEEP, {"VOILUTSequence": table(SIGMOID[:2000], first=1000)}),
    "VOI table of 12 bits": lambda: dataset(DEEP, {"VOILUTSequence": table(SIGMOID // 16, bits=12)}),
    "VOI table before window": lambda: dataset(DEEP, {"VOILUTSequence": table(SIGMOID), **BRIGHTEST}),
    "VOI table inverted": lambda: dataset(
        DEEP, {"VOILUTSequence": table(SIGMOID), "PhotometricInterpretation": "MONOCHROME1"}
    ),
    "padding": lambda: dataset(WITH_PAD, {"PixelPaddingValue": -2000}),
    "padding inverted": lambda: dataset(
        WITH_PAD, {"PixelPaddingValue": -2000, "PhotometricInterpretation": "MONOCHROME1"}
    ),
    "padding and window": lambda: dataset(
        WITH_PAD, {"PixelPaddingValue": -2000, "WindowCenter": "-1000", "WindowWidth": "4000"}
    ),
    "padding up to": lambda: dataset(WITH_PAD, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -500}),
    "RGB": lambda: dataset(COLOUR),
    "RGB by planes": lambda: dataset(
        COLOUR, {"PlanarConfiguration": 1, "PixelData": np.moveaxis(COLOUR, -1, 0).tobytes()}
    ),
    "YBR_FULL": lambda: dataset(YBR, {"PhotometricInterpretation": "YBR_FULL"}),
    "palette of 8 bits": lambda: dataset(GREY, palette(HOT, 8)),
    "palette of 16 bits": lambda: dataset(GREY, palette(HOT * 257, 16)),
    "palette of 16 bits, dark": lambda: dataset(GREY, palette(HOT * 200 + 31, 16)),
    "palette from 40 on": lambda: dataset(GREY, from_40()),
    "palette in segments": lambda: dataset(GREY, segmented()),
    "palette of 16 bits for 12": lambda: dataset(DEEP, {**palette(HOT * 257, 16), "BitsStored": 12}),
    "YBR_FULL_422": lambda: dataset(
        COLOUR, {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": subsampled(YBR).tobytes()}
    ),
    "RLE": lambda: in_rle(dataset(GREY)),
    "RLE 16 bits": lambda: in_rle(dataset(DEEP, BRIGHTEST)),
    "RLE RGB": lambda: in_rle(dataset(COLOUR)),
    "JPEG": lambda: dataset(GREY, syntax=JPEGBaseline8Bit, raw=[in_jpeg(GREY)]),
    "JPEG colour": lambda: dataset(
        SMOOTH_COLOUR,
        {"PhotometricInterpretation": "YBR_FULL_422"},
        syntax=JPEGBaseline8Bit,
        raw=[in_jpeg(SMOOTH_COLOUR, 1)],
    ),
    "JPEG 2000": lambda: dataset(GREY, syntax=JPEG2000Lossless, raw=[in_jpeg2000(GREY)]),
    "JPEG 2000 16 bits": lambda: dataset(DEEP, BRIGHTEST, syntax=JPEG2000Lossless, raw=[in_jpeg2000(DEEP)]),
    "JPEG 2000 colour": lambda: dataset(COLOUR, syntax=JPEG2000Lossless, raw=[in_jpeg2000(COLOUR)]),
    "frames": lambda: dataset(drawn(np.uint16, 0, 4096, (6, 10, 12)), BRIGHTEST, frames=6),
    "frames with a window for all": lambda: dataset(
        drawn(np.uint16, 0, 4096, (6, 10, 12)),
        {"SharedFunctionalGroupsSequence": items(FrameVOILUTSequence=items(**BRIGHTEST))},
        frames=6,
    ),
}


@pytest.mark.filterwarnings("ignore:Applying a VOI LUT")
@pytest.mark.parametrize("name", DICOM)
def test_dicom_equals_pydicom(tmp_path: Path, name: str):
    file = tmp_path / "IM0001"
    save(file, DICOM[name]())
    found, expected = read(file), by_pydicom(file)
    assert found.pixels.dtype == np.uint8 and found.pixels.shape == expected.shape
    assert np.abs(found.pixels - expected.astype(np.float64)).max() <= 0.51  # rounding, or that of float32
    assert found.pixels.std() > 10
    assert found.format == "DICOM" and claimed(file).count == found.pixels.size // (
        3 if name.startswith("palette") else 1
    )


# --------------------------------------------------------------------------------------------------- NIfTI

VOXELS = np.random.default_rng(6).normal(100, 30, (7, 9, 8)).astype(np.float32)
PLACE = np.array([[1.0, 0, 0, -16], [0, 1.5, 0, -18], [0, 0, 2, -5], [0, 0, 0, 1]])


def turned(codes: str) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(VOXELS, PLACE)
    return image.as_reoriented(ornt_transform(io_orientation(PLACE), axcodes2ornt(tuple(codes))))


def oblique() -> nibabel.Nifti1Image:
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, -1]])
    affine = PLACE.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    return nibabel.Nifti1Image(VOXELS, affine)


def by_qform_alone() -> nibabel.Nifti1Image:
    image = turned("LPS")
    image.set_sform(None, 0)
    image.set_qform(image.affine, 1)
    return image


def by_sform_alone() -> nibabel.Nifti1Image:
    image = turned("PIR")
    image.set_qform(None, 0)
    return image


def scaled() -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(VOXELS, np.diag([-1.0, 1, 1, 1]))
    image.header.set_data_dtype(np.int16)
    return image


NIFTI: dict[str, Callable[[], nibabel.Nifti1Image]] = {
    **{codes: partial(turned, codes) for codes in ("RAS", "LPS", "LAS", "SPL", "PIR", "IAR")},
    "oblique": oblique,
    "qform alone": by_qform_alone,
    "sform alone": by_sform_alone,
    "scaled": scaled,
    "uint8": lambda: nibabel.Nifti1Image(drawn(shape=(7, 9, 8)), np.diag([-1.0, -1, 1, 1])),
    "int16": lambda: nibabel.Nifti1Image(drawn(np.int16, -1000, 2000, (7, 9, 8)), np.diag([1, -1.0, 1, 1])),
    "float64": lambda: nibabel.Nifti1Image(VOXELS.astype(np.float64), np.eye(4)),
    "slice (H, W, 1)": lambda: nibabel.Nifti1Image(VOXELS[:, :, :1], np.diag([-1.0, -1, 1, 1])),
    "slice (H, 1, W)": lambda: nibabel.Nifti1Image(VOXELS[:, :1], np.diag([-1.0, 1, 1, 1])),
    "slice (1, H, W)": lambda: nibabel.Nifti1Image(VOXELS[:1], np.eye(4)[[1, 0, 2, 3]]),
    "trailing 1": lambda: nibabel.Nifti1Image(VOXELS[..., None], np.diag([-1.0, -1, 1, 1])),
    "NIfTI-2": lambda: nibabel.Nifti2Image(VOXELS, np.diag([-1.0, -1, 1, 1])),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".img"])
@pytest.mark.parametrize("name", NIFTI)
def test_nifti_equals_nibabels_canonical(tmp_path: Path, name: str, ending: str):
    image, file = NIFTI[name](), tmp_path / f"a{ending}"
    content = image.to_bytes()
    file.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    kind: Any = nibabel.Nifti2Image if name == "NIfTI-2" else nibabel.Nifti1Image
    canonical = nibabel.as_closest_canonical(kind.from_bytes(content))
    values = np.squeeze(np.asarray(canonical.dataobj))
    found = read(file)
    expected = values if values.dtype == np.uint8 else percentiles(values.astype(np.float64))
    assert found.pixels.shape == (1, *values.shape)
    assert np.abs(found.pixels[0] - expected.astype(np.float64)).max() <= 0.51  # rounding
    codes = "".join(nibabel.aff2axcodes(image.affine))
    assert found.orientation == ("" if name.startswith("slice") else codes)
    assert (found.low, found.high) == (values.min(), values.max())


# ------------------------------------------------------------------------------------------------ pictures

ALPHA = np.concatenate([COLOUR, GREY[..., None]], axis=-1)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x112] = orientation
    return made


PICTURES: dict[str, tuple[Callable[[], Image.Image], str, dict[str, Any]]] = {
    "PNG": (lambda: Image.fromarray(GREY), "PNG", {}),
    "PNG colour": (lambda: Image.fromarray(COLOUR), "PNG", {}),
    "PNG alpha": (lambda: Image.fromarray(ALPHA), "PNG", {}),
    "PNG grey and alpha": (lambda: Image.fromarray(ALPHA[..., 2:]), "PNG", {}),
    "PNG palette": (lambda: Image.fromarray(SMOOTH_COLOUR).quantize(32), "PNG", {}),
    "PNG palette with transparency": (lambda: Image.fromarray(GREY).convert("P"), "PNG", {"transparency": 3}),
    "PNG 1 bit": (lambda: Image.fromarray(GREY > 99), "PNG", {}),
    "PNG 16 bits": (lambda: Image.fromarray(DEEP), "PNG", {}),
    "JPEG": (lambda: Image.fromarray(SMOOTH), "JPEG", {}),
    "JPEG colour": (lambda: Image.fromarray(SMOOTH_COLOUR), "JPEG", {}),
    "JPEG CMYK": (lambda: Image.fromarray(SMOOTH_COLOUR).convert("CMYK"), "JPEG", {}),
    **{f"JPEG turned {n}": (lambda: Image.fromarray(SMOOTH), "JPEG", {"exif": exif(n)}) for n in range(1, 9)},
    "TIFF": (lambda: Image.fromarray(GREY), "TIFF", {}),
    "TIFF packed": (lambda: Image.fromarray(GREY), "TIFF", {"compression": "tiff_lzw"}),
    "TIFF deflated": (lambda: Image.fromarray(COLOUR), "TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF 16 bits": (lambda: Image.fromarray(DEEP), "TIFF", {}),
    "TIFF 16 bits, white is 0": (lambda: Image.fromarray(DEEP), "TIFF", {"tiffinfo": {262: 0}}),
    "TIFF white is 0": (lambda: Image.fromarray(GREY), "TIFF", {"tiffinfo": {262: 0}}),
    "TIFF floats": (lambda: Image.fromarray(DEEP.astype(np.float32) / 7), "TIFF", {}),
    "TIFF 32 bits": (lambda: Image.fromarray(CT.astype(np.int32)), "TIFF", {}),
    "TIFF CMYK": (lambda: Image.fromarray(COLOUR).convert("CMYK"), "TIFF", {}),
    "TIFF 1 bit": (lambda: Image.fromarray(GREY > 99), "TIFF", {"compression": "group4"}),
    "TIFF palette": (lambda: Image.fromarray(SMOOTH_COLOUR).quantize(32), "TIFF", {}),
    "TIFF turned": (lambda: Image.fromarray(GREY), "TIFF", {"tiffinfo": {274: 6}}),
    "BMP": (lambda: Image.fromarray(GREY), "BMP", {}),
    "BMP colour": (lambda: Image.fromarray(COLOUR), "BMP", {}),
    "BMP palette": (lambda: Image.fromarray(SMOOTH_COLOUR).quantize(32), "BMP", {}),
    "WebP": (lambda: Image.fromarray(SMOOTH_COLOUR), "WEBP", {}),
    "WebP lossless": (lambda: Image.fromarray(COLOUR), "WEBP", {"lossless": True}),
    "WebP alpha": (lambda: Image.fromarray(ALPHA), "WEBP", {"lossless": True}),
}

TURNS: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a),
}
"""What EXIF's orientations ask for (JEITA CP-3451, 4.6.4 A): where row 0 and column 0 of the file are."""


@pytest.mark.filterwarnings("ignore")  # Pillow's, of palettes with transparency
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_equal_pillows(tmp_path: Path, name: str):
    make, kind, options = PICTURES[name]
    file = tmp_path / "a.dat"
    make().save(file, kind, **options)
    with Image.open(file) as opened:
        opened.load()
        mode = {"1": "L", "LA": "L", "RGBA": "RGB", "P": "RGB", "CMYK": "RGB"}.get(opened.mode, opened.mode)
        values = np.asarray(opened.convert(mode))
    if name.startswith("JPEG turned"):
        values = TURNS[int(name[-1])](values)
    if name == "TIFF turned":  # Pillow forgets it of files that it maps
        values = np.rot90(GREY, -1)
    if name == "TIFF 16 bits, white is 0":  # Pillow knows it of 8 bits only
        values = 65535 - values
    expected = values if values.dtype == np.uint8 else percentiles(values.astype(np.float64))
    expected = expected[None] if expected.ndim == 2 else np.moveaxis(expected, -1, 0)
    found = read(file)
    assert found.format == name.split()[0]
    assert found.pixels.shape == expected.shape
    assert np.abs(found.pixels - expected.astype(np.float64)).max() <= 0.51  # rounding
    assert (found.low, found.high) == (values.min(), values.max())


# -------------------------------------------------------------------------------------------------- arrays

NPY: dict[str, tuple[Array, tuple[int, ...]]] = {
    "uint8": (GREY, (1, *SHAPE)),
    "bool": (GREY > 99, (1, *SHAPE)),
    "float32": (VOXELS[0], (1, 9, 8)),
    "float16": (VOXELS[0].astype(np.float16), (1, 9, 8)),
    "big-endian": (CT.astype(">i2"), (1, *SHAPE)),
    "Fortran order": (np.asfortranarray(VOXELS), (1, 7, 9, 8)),
    "(H, W, 3)": (COLOUR, (3, *SHAPE)),
    "(H, W, 1)": (GREY[..., None], (1, *SHAPE)),
    "(3, H, W)": (np.moveaxis(COLOUR, -1, 0), (3, *SHAPE)),
    "(1, H, W)": (GREY[None], (1, *SHAPE)),
    "(D, H, W)": (VOXELS, (1, 7, 9, 8)),
    "(D, H, W, 1)": (VOXELS[..., None], (1, 7, 9, 8)),
    "(1, D, H, W)": (VOXELS[None], (1, 7, 9, 8)),
    "(1, H, W, 3)": (COLOUR[None], (3, *SHAPE)),
}


@pytest.mark.parametrize("name", NPY)
def test_arrays_are_themselves(tmp_path: Path, name: str):
    array, shape = NPY[name]
    np.save(tmp_path / "a.npy", array)
    found = read(tmp_path / "a.npy")
    assert found.pixels.shape == shape
    last = name in ("(H, W, 3)", "(H, W, 1)", "(1, H, W, 3)")
    values = np.moveaxis(array.reshape(*SHAPE, -1), -1, 0) if last else array.reshape(shape)
    expected = values * 255 if values.dtype == bool else values
    if values.dtype not in (np.uint8, bool):
        expected = percentiles(values.astype(np.float64))
    assert np.abs(found.pixels - expected.astype(np.float64)).max() <= 0.51  # rounding
