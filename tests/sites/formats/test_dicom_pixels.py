"""Stored values of DICOM in odd places, of odd kinds or numbers: read as meant, or refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from sites.formats.codestreams import edges
from sites.formats.picture import spread
from tests.sites.formats.making import dataset, palette, read_back, refusal

Array = np.ndarray[Any, Any]

RAMP = np.add.outer(np.arange(16) * 8, np.arange(20) * 5)  # 0…215
TWELVE = (RAMP * 16 + 1).astype(np.uint16)  # 1…3441: of 12 bits
SIGNED = (RAMP * 10 - 1000).astype(np.int16)  # -1000…1150: likewise


def upper(values: Array, *, packed: bool = False) -> Dataset:
    """12 bits that lie, says the header, in the upper bits of 16."""
    made = dataset(values, {"BitsStored": 12})
    made.HighBit = 15
    if packed:
        made.compress(RLELossless)
    return made


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("values", [TWELVE, SIGNED], ids=["unsigned", "signed"])
def test_values_in_upper_bits_are_read_there(tmp_path: Path, values: Array, packed: bool):
    found = read_back(tmp_path, upper(values << 4, packed=packed))
    assert (found.low, found.high) == (values.min(), values.max())
    assert np.array_equal(found.pixels[0], spread(values))


def test_values_in_lower_bits_are_read_there_whatever_the_header_says(tmp_path: Path):
    assert np.array_equal(read_back(tmp_path, upper(TWELVE)).pixels[0], spread(TWELVE))


def test_values_in_all_bits_are_refused(tmp_path: Path):
    text = refusal(tmp_path, upper(TWELVE | 0xF000))
    assert (
        text == "says that 12 bits are stored, the highest of them bit 15, but uses all 16: export it again"
    )


DRAWN = np.where(RAMP % 3, 0, 0x4000)
"""An overlay in bit 14 of a word."""


def overlaid(made: Dataset) -> Dataset:
    """``made``, with elements that tell of an overlay in bit 14 of its words."""
    for element, value in ((0x0010, RAMP.shape[0]), (0x0011, RAMP.shape[1]), (0x0100, 16), (0x0102, 14)):
        made.add_new((0x6000, element), "US", value)
    return made


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("values", [TWELVE, SIGNED, SIGNED & 0xFFF], ids=["plain", "signed", "signs cut off"])
def test_an_overlay_in_unused_bits_is_left_out(tmp_path: Path, values: Array, packed: bool):
    """Whether or not a sign is written on into the bits around it."""
    made = overlaid(dataset(values ^ DRAWN.astype(values.dtype), {"BitsStored": 12}))
    if packed:
        made.compress(RLELossless)
    truth = TWELVE if values is TWELVE else SIGNED
    found = read_back(tmp_path, made)
    assert (found.low, found.high) == (truth.min(), truth.max())
    assert np.array_equal(found.pixels[0], spread(truth))


@pytest.mark.parametrize(
    "values",
    [
        TWELVE * 16,  # of 16 bits: cut to 12, white would become black
        SIGNED * 3,  # beyond -2048
        TWELVE ^ DRAWN.astype(np.uint16),
        np.where(RAMP % 2, SIGNED, SIGNED & 0xFFF).astype(np.int16),  # is 0xFFF -1, or 4095?
    ],
    ids=["deeper", "deeper with signs", "an overlay that nothing tells of", "signs cut off here and there"],
)
def test_values_beyond_the_bits_that_are_said_to_be_stored_are_refused(tmp_path: Path, values: Array):
    text = refusal(tmp_path, dataset(values, {"BitsStored": 12}))
    assert text.startswith("says that 12 bits of 16 are stored, but uses others, and tells of no overlay")


def test_padding_in_bits_beyond_those_stored_is_padding(tmp_path: Path):
    """Cut to 12 bits, 63536 (-2000 as 16 bits) would be 2096, a grey like any other."""
    values = np.where(RAMP < 20, 63536, TWELVE).astype(np.uint16)
    found = read_back(tmp_path, dataset(values, {"BitsStored": 12, "PixelPaddingValue": 63536}))
    assert np.array_equal(found.pixels[0], np.where(RAMP < 20, 0, spread(TWELVE, TWELVE[RAMP >= 20])))
    assert found.notes == ("padding was left out, and is black",)


def test_floats_need_no_signs_and_have_padding_of_their_own(tmp_path: Path):
    values = np.where(RAMP < 20, -9999, RAMP / 7).astype(np.float32)
    made = dataset(
        values.view(np.uint32), {"FloatPixelData": values.tobytes(), "FloatPixelPaddingValue": -9999.0}
    )
    for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(made, name)
    found = read_back(tmp_path, made)
    shown = values[RAMP >= 20]
    assert (found.low, found.high) == (shown.min(), shown.max())
    assert np.array_equal(found.pixels[0], np.where(RAMP < 20, 0, spread(values, shown)))


def test_palettes_of_8_bits_in_words_of_16_are_not_black(tmp_path: Path):
    ramp = np.arange(256)
    colours = np.stack([ramp, ramp[::-1], ramp // 2], axis=-1)
    found = read_back(tmp_path, dataset(RAMP.astype(np.uint8), palette(colours, 16)))
    assert np.array_equal(found.pixels, np.moveaxis(colours[RAMP], -1, 0))


def test_other_frames_than_said_are_refused(tmp_path: Path):
    """pydicom would make frames of whatever follows."""
    text = refusal(tmp_path, dataset(np.stack([TWELVE] * 6), {"NumberOfFrames": 1}, frames=6))
    assert text == "has the pixels of 6 frames, but says 1 (NumberOfFrames): export it again"


def test_fewer_compressed_frames_than_said_are_refused(tmp_path: Path):
    jpeg = io.BytesIO()
    Image.fromarray(RAMP.astype(np.uint8)).save(jpeg, "JPEG")
    frames = np.stack([RAMP.astype(np.uint8)] * 5)
    made = dataset(
        frames, {"NumberOfFrames": 8}, syntax=JPEGBaseline8Bit, frames=5, raw=[jpeg.getvalue()] * 5
    )
    text = refusal(tmp_path, made)
    assert text == "is a DICOM file that is cut off: it has fewer frames than it says: get it again"


def compressed(kind: str, pixels: Array) -> bytes:
    made = io.BytesIO()
    options: dict[str, Any] = {"no_jp2": True} if kind == "JPEG2000" else {"progressive": "later" in kind}
    Image.fromarray(pixels).save(made, kind.split()[0], **options)
    return made.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "JPEG later", "JPEG2000"])
def test_compressed_pixels_of_another_size_than_said_are_refused(tmp_path: Path, kind: str):
    """16 × 20 are as many as 20 × 16, so that rows would be cut at wrong places."""
    syntax = JPEG2000Lossless if kind == "JPEG2000" else JPEGBaseline8Bit
    stream = compressed(kind, RAMP.astype(np.uint8))
    assert read_back(tmp_path, dataset(RAMP.astype(np.uint8), syntax=syntax, raw=[stream])).notes == ()
    turned = dataset(RAMP.astype(np.uint8), {"Rows": 20, "Columns": 16}, syntax=syntax, raw=[stream])
    text = refusal(tmp_path, turned)
    assert text == "has compressed pixels of 16 × 20, but says 20 × 16 (Rows, Columns): export it again"


def test_streams_tell_their_edges():
    """By the places of the standards: T.81 B.2.2, T.87 C.2.2, 15444-1 A.5.1; anything else tells none."""
    frame = b"\x00\x0b\x08\x00\x10\x00\x14\x01\x01\x11\x00"
    for marker in (0xC0, 0xC1, 0xC3, 0xF7):
        assert edges(b"\xff\xd8\xff\xfe\x00\x03!\xff\xff" + bytes([marker]) + frame) == (16, 20)
    assert edges(b"\xff\xd8\xff\xc4" + frame) is None  # tables, and no frame
    places = b"".join(one.to_bytes(4, "big") for one in (24, 17, 4, 1))
    assert edges(b"\xff\x4f\xff\x51\x00\x29\x00\x00" + places) == (16, 20)
    assert edges(b"") is None and edges(b"RIFF") is None
