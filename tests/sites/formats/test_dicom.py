"""DICOM as scanners and archives export it: what is odd is read with a note, or refused with what to do."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    MPEG2MPML,
    UID,
    HTJ2KLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from sites.formats.images import claimed
from tests.sites.formats.making import dataset, palette, read_back, refusal, table

Array = np.ndarray[Any, Any]

GREY = np.random.default_rng(1).integers(0, 256, (20, 24)).astype(np.uint8)
SMOOTH = np.add.outer(np.arange(20) * 5, np.arange(24) * 4).astype(np.uint8)


def test_one_picture_in_four_kinds_of_colour_is_one_picture(tmp_path: Path):
    colour = np.stack([SMOOTH, SMOOTH // 2, 255 - SMOOTH], axis=-1)
    jpeg = io.BytesIO()
    Image.fromarray(colour).save(jpeg, "JPEG", quality=98, subsampling=0)
    ramp = np.arange(256)
    colours = np.stack([ramp, ramp // 2, 255 - ramp], axis=-1) * 257
    files = {
        "RGB": (dataset(colour), 0),
        "YBR_FULL": (
            dataset(
                convert_color_space(colour, "RGB", "YBR_FULL"), {"PhotometricInterpretation": "YBR_FULL"}
            ),
            2,  # greys: rounded there and back
        ),
        "YBR_FULL_422": (
            dataset(
                colour,
                {"PhotometricInterpretation": "YBR_FULL_422"},
                syntax=JPEGBaseline8Bit,
                raw=[jpeg.getvalue()],
            ),
            6,  # greys, of JPEG at quality 98 on a ramp
        ),
        "PALETTE COLOR": (dataset(SMOOTH, palette(colours, 16)), 0),
    }
    for name, (made, most) in files.items():
        found = read_back(tmp_path, made).pixels
        assert np.abs(found - np.moveaxis(colour, -1, 0).astype(int)).max() <= most, name


# ------------------------------------------------------------------------------------------ greys and ranges


def test_white_as_0_is_inverted_about_the_stored_range(tmp_path: Path):
    """Not about an image's own brightest value: two images of one scanner stay comparable."""
    dark = np.full((20, 24), 40, np.uint8)
    found = read_back(tmp_path, dataset(dark, {"PhotometricInterpretation": "MONOCHROME1"}))
    assert (found.pixels == 255 - 40).all()
    assert found.notes == ("white is 0 (MONOCHROME1): inverted", "shows nothing: all pixels have one value")
    window = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": "100", "WindowWidth": "201"}
    found = read_back(tmp_path, dataset(dark, window))
    # (40 - 99.5) / 200 + 0.5 = 0.2025 of 255 is 51.6, so 52
    assert (found.pixels == 255 - 52).all()


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_an_inverse_presentation_is_white_at_the_smallest_and_no_inversion_of_an_inversion(
    tmp_path: Path, kind: str
):
    shape = {"PhotometricInterpretation": kind, "PresentationLUTShape": "INVERSE"}
    found = read_back(tmp_path, dataset(GREY, shape))
    assert np.array_equal(found.pixels[0], 255 - GREY) and len(found.notes) == 1
    as_it_is = read_back(tmp_path, dataset(GREY, {"PresentationLUTShape": "IDENTITY"}))
    assert np.array_equal(as_it_is.pixels[0], GREY) and not as_it_is.notes


def test_padding_has_no_part_in_any_range_and_is_black(tmp_path: Path):
    """Around the field of view of a CT; -2000 beside -1000…20 would leave tissue in the upper third."""
    y, x = np.mgrid[:20, :24]
    inside = (y - 10) ** 2 + (x - 12) ** 2 <= 81
    values = np.where(inside, GREY.astype(np.int16) * 4 - 1000, -2000).astype(np.int16)
    found = read_back(
        tmp_path, dataset(values, {"PixelPaddingValue": -2000, "RescaleSlope": "1", "RescaleIntercept": "0"})
    )
    assert (found.low, found.high) == (values[inside].min(), values[inside].max())
    assert (found.pixels[0][~inside] == 0).all()
    shown = found.pixels[0][inside]
    assert np.percentile(shown, 5) < 30 and shown.max() == 255
    assert found.notes == ("padding was left out, and is black",)
    # Written as unsigned, as files with implicit types may have it: 63536 is -2000 in 16 bits.
    made = dataset(values, {"PixelPaddingValue": -2000})
    made["PixelPaddingValue"].VR = "US"
    made["PixelPaddingValue"].value = 63536
    assert np.array_equal(read_back(tmp_path, made).pixels, found.pixels)


def test_padding_is_black_where_white_is_0(tmp_path: Path):
    values = GREY.astype(np.uint16) + 1
    values[:5] = 0
    made = dataset(values, {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"})
    found = read_back(tmp_path, made)
    assert (found.pixels[0, :5] == 0).all() and found.pixels[0, 5:].max() == 255


def test_nothing_but_padding_is_black(tmp_path: Path):
    made = dataset(np.full((20, 24), 7, np.uint16), {"PixelPaddingValue": 7})
    found = read_back(tmp_path, made)
    assert not found.pixels.any() and (found.low, found.high) == (0, 0)


def test_a_window_that_leaves_nothing_to_be_seen_is_told(tmp_path: Path):
    found = read_back(
        tmp_path, dataset(GREY.astype(np.uint16) + 1000, {"WindowCenter": "0", "WindowWidth": "1"})
    )
    assert (found.pixels == 255).all()
    assert found.notes == ("scaled by the window", "shows nothing: all pixels have one value")


def test_of_several_windows_the_first_is_used_with_a_note(tmp_path: Path):
    deep = GREY.astype(np.uint16) * 8
    several = read_back(
        tmp_path, dataset(deep, {"WindowCenter": ["400", "40"], "WindowWidth": ["400", "80"]})
    )
    one = read_back(tmp_path, dataset(deep, {"WindowCenter": "400", "WindowWidth": "400"}))
    assert np.array_equal(several.pixels, one.pixels)
    assert several.notes == ("scaled by the window", "of several windows the first was used")


@pytest.mark.parametrize("width", ["0", "-5", "0.5"])
def test_a_window_without_width_is_left_out_with_a_note(tmp_path: Path, width: str):
    found = read_back(tmp_path, dataset(GREY, {"WindowCenter": "100", "WindowWidth": width}))
    assert np.array_equal(found.pixels[0], GREY)
    assert found.notes == ("a window without width was left out",)


@pytest.mark.parametrize("written", ["SS", "US"])
def test_a_table_of_hounsfield_units_starts_below_0(tmp_path: Path, written: str):
    """Pixels without signs become units by an intercept; files with implicit types may have -1024 written as 64512."""
    made = dataset(GREY.astype(np.uint16) * 16, {"BitsStored": 12, "RescaleSlope": "1"})
    made.RescaleIntercept, made.VOILUTSequence = "-1024", table(np.arange(4096) * 16)
    descriptor = made.VOILUTSequence[0]["LUTDescriptor"]
    descriptor.VR = written
    descriptor.value = [4096, -1024 if written == "SS" else 64512, 16]
    # The entry of a value of x units is 16 (x + 1024), of 65535: of what is stored, 16 · 16 / 257 of the grey
    assert np.abs(read_back(tmp_path, made).pixels[0] - GREY * (256 / 257)).max() <= 0.51


def test_empty_elements_are_none(tmp_path: Path):
    made = dataset(
        GREY, {"WindowCenter": None, "WindowWidth": None, "RescaleSlope": None, "PixelPaddingValue": None}
    )
    found = read_back(tmp_path, made)
    assert np.array_equal(found.pixels[0], GREY) and found.notes == ()


def test_a_slope_without_an_intercept_is_a_slope(tmp_path: Path):
    found = read_back(tmp_path, dataset(GREY, {"RescaleSlope": "2"}))
    assert (found.low, found.high) == (2.0 * GREY.min(), 2.0 * GREY.max())


def test_one_bit_is_black_or_white(tmp_path: Path):
    mask = GREY > 99
    made = dataset(GREY, {"BitsAllocated": 1, "BitsStored": 1})
    made.PixelData = np.packbits(mask, bitorder="little").tobytes()
    assert np.array_equal(read_back(tmp_path, made).pixels[0], mask * 255)


def test_neither_spacing_nor_position_is_needed(tmp_path: Path):
    made = dataset(GREY)
    assert "PixelSpacing" not in made and np.array_equal(read_back(tmp_path, made).pixels[0], GREY)


def test_a_2d_image_is_never_turned(tmp_path: Path):
    """Its rows are rows, whichever way the patient lay."""
    made = dataset(GREY, {"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0], "ImagePositionPatient": [0, 0, 0]})
    assert np.array_equal(read_back(tmp_path, made).pixels[0], GREY)


AXIAL, TURNED, CORONAL = [1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0], [1, 0.1, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ImageOrientationPatient": AXIAL}, "LP"),
        ({"ImageOrientationPatient": TURNED}, "RA"),
        ({"ImageOrientationPatient": CORONAL}, "LI"),
        ({"ImageOrientationPatient": [0] * 6}, ""),
        ({"PatientOrientation": ["L", "F"]}, "LI"),
        ({"PatientOrientation": ["R", "HA"]}, "RS"),
        ({"ImageOrientationPatient": TURNED, "PatientOrientation": ["L", "F"]}, "RA"),
        ({"PatientOrientation": ["L"]}, ""),
        ({"PatientOrientation": ["", "X"]}, ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("colours", [1, 3])
def test_where_rows_and_columns_run_is_told(
    tmp_path: Path, tags: dict[str, Any], expected: str, colours: int
):
    """To the left, the back and up by positive numbers (PS3.3 C.7.6.2.1.1); of two ways, by the one that is numbers."""
    assert (
        read_back(tmp_path, dataset(np.stack([GREY] * 3, -1) if colours == 3 else GREY, tags)).orientation
        == expected
    )


def test_colours_of_8_bits_are_as_they_are_whatever_room_they_have(tmp_path: Path):
    colour = np.stack([SMOOTH, SMOOTH // 2, SMOOTH // 4], axis=-1)
    found = read_back(tmp_path, dataset(colour.astype(np.uint16), {"BitsStored": 8}))
    assert np.array_equal(found.pixels, np.moveaxis(colour, -1, 0))


BURNT = "annotations are burnt into the pixels (Burned In Annotation): see that they name nobody"
MORE = "more bytes of pixels than its size asks for: those at the end were left out"


@pytest.mark.parametrize("colours", [1, 3])
def test_what_is_to_be_known_of_a_file_is_told(tmp_path: Path, colours: int):
    pixels = np.stack([GREY] * 3, -1) if colours == 3 else GREY
    made = dataset(pixels, {"BurnedInAnnotation": "YES"})
    made.PixelData += bytes(2)
    assert read_back(tmp_path, made).notes == (MORE, BURNT)
    assert read_back(tmp_path, dataset(pixels, {"BurnedInAnnotation": "NO"})).notes == ()
    odd = pixels[:19, :23]  # and a byte, since there is an even number of them
    assert read_back(tmp_path, dataset(odd)).notes == ()


# ------------------------------------------------------------------------------------------------- refusals


def changed(**tags: Any) -> Callable[[], Dataset]:
    return lambda: dataset(GREY, tags)


def without(*names: str) -> Callable[[], Dataset]:
    def make() -> Dataset:
        made = dataset(GREY)
        for name in names:
            delattr(made, name)
        return made

    return make


def cut_off() -> Dataset:
    made = dataset(GREY)
    made.PixelData = made.PixelData[:-80]
    return made


def unlike_palettes() -> Dataset:
    made = dataset(GREY, palette(np.arange(768).reshape(256, 3) % 256, 8))
    made.BluePaletteColorLookupTableDescriptor = [256, 5, 8]
    return made


REFUSED: dict[str, tuple[Callable[[], Dataset], str]] = {
    "no pixels": (
        without("PixelData"),
        "is a DICOM file whose pixels are missing (no Pixel Data): export it again",
    ),
    "cut off": (cut_off, "is a DICOM file that is cut off: it has 400 of 480 bytes of pixels: get it again"),
    "black or white": (without("PhotometricInterpretation"), "does not tell whether 0 is black or white"),
    "signs": (without("PixelRepresentation"), "does not tell whether values have signs"),
    "no rows": (without("Rows"), "is a DICOM file that has no number as Rows: export it again"),
    "RGB of one value": (changed(PhotometricInterpretation="RGB"), "has 1 values a pixel and calls them RGB"),
    "unknown colours": (changed(PhotometricInterpretation="HSV"), "has 1 values a pixel and calls them HSV"),
    "no palette": (
        changed(PhotometricInterpretation="PALETTE COLOR"),
        "is a DICOM file that is damaged, cut off",
    ),
    "unlike palettes": (unlike_palettes, "has palettes of red, green and blue that do not belong together"),
    "slope of 0": (changed(RescaleSlope="0", RescaleIntercept="5"), "has a RescaleSlope of 0"),
    "VOI function": (
        changed(WindowCenter="9", WindowWidth="9", VOILUTFunction="CUBIC"),
        "has the VOI LUT function 'CUBIC', expected one of LINEAR, LINEAR_EXACT, SIGMOID",
    ),
    "short table": (
        lambda: dataset(GREY, {"VOILUTSequence": short_table()}),
        "has a table of 150 entries, expected 200",
    ),
    "a segmentation": (changed(Modality="SEG"), "is a DICOM segmentation, expected an image"),
    "3 frames": (
        lambda: dataset(np.stack([GREY] * 3), frames=3),
        "has 3 frames, expected one, or a volume of at",
    ),
    "colour frames": (
        lambda: dataset(np.stack([np.stack([GREY] * 3, -1)] * 5), frames=5),
        "has 5 frames in colour, expected one image",
    ),
}


def short_table() -> Any:
    made = table(np.arange(150))
    made[0].LUTDescriptor = [200, 0, 16]
    return made


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_known_is_refused(tmp_path: Path, name: str):
    make, expected = REFUSED[name]
    assert expected in refusal(tmp_path, make())


COMPRESSED = {
    JPEGLosslessSV1: (
        b"\xff\xd8\xff\xc3" + bytes(40),
        "JPEG Lossless",
        "python-gdcm, or pylibjpeg with pylibjpeg-lib",
    ),
    JPEGLSLossless: (b"\xff\xd8\xff\xf7" + bytes(40), "JPEG-LS Lossless", "pyjpegls, python-gdcm"),
    JPEGExtended12Bit: (b"\xff\xd8\xff\xc1" + bytes(40), "JPEG Extended", "python-gdcm"),
    HTJ2KLossless: (b"\xff\x4f\xff\x51" + bytes(40), "High-Throughput", "pylibjpeg with pylibjpeg-openjpeg"),
    MPEG2MPML: (b"\0\0\1\xb3" + bytes(40), "MPEG2", "export it uncompressed"),
}


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: str(syntax))
def test_a_compression_for_which_a_package_is_missing_is_named_with_it(tmp_path: Path, syntax: UID):
    raw, name, package = COMPRESSED[syntax]
    made = dataset(GREY.astype(np.uint16), {"BitsStored": 12}, syntax=syntax, raw=[raw])
    text = refusal(tmp_path, made)
    assert name in text and package in text and "export it uncompressed" in text
    assert claimed(tmp_path / "a.dcm").shape == GREY.shape  # known without it
