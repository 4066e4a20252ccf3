"""TIFF as microscopes and programs for them write it: signs, white as 0, planes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sites.formats.images import read
from sites.formats.picture import spread
from sites.formats.unreadable import Unreadable

Array = np.ndarray[Any, Any]

RAMP = np.add.outer(np.arange(16) * 8, np.arange(20) * 5)  # 0…215
_CODES = {"u": 1, "i": 2, "f": 3}


def written(file: Path, rows: Array, tags: dict[int, list[int]]) -> Path:
    """A TIFF of one strip, by the format's own rules (TIFF 6.0, sections 2 and 8), for what Pillow does not write."""
    samples = 1 if rows.ndim == 2 else 3
    height, width = rows.shape[-2:]
    content = rows.astype(rows.dtype.newbyteorder("<")).tobytes()
    plane = len(content) // samples
    told: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [rows.dtype.itemsize * 8] * samples,
        259: [1],
        262: [1 if samples == 1 else 2],
        273: [8 + plane * number for number in range(samples)],
        277: [samples],
        278: [height],
        279: [plane] * samples,
        339: [_CODES[rows.dtype.kind]] * samples,
        **tags,
    }
    end = 8 + len(content) + len(content) % 2
    entries, beyond = b"", b""
    for tag, values in sorted(told.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            place = end + 2 + 12 * len(told) + 4 + len(beyond)
            beyond, packed = beyond + packed, struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    head = b"II*\0" + struct.pack("<I", end) + content + bytes(len(content) % 2)
    file.write_bytes(head + struct.pack("<H", len(told)) + entries + bytes(4) + beyond)
    return file


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.uint32) * 16_843_009,  # beyond 2³¹
        RAMP.astype(np.int32) * 8_000_000 - 1000,
        RAMP.astype(np.int16) * 200 - 20_000,
        (RAMP - 100).astype(np.int8),
        RAMP.astype(np.float32) / 7,
    ],
    ids=lambda values: str(values.dtype),
)
def test_numbers_keep_their_signs(tmp_path: Path, values: Array):
    found = read(written(tmp_path / "a.tif", values, {}))
    assert np.array_equal(found.pixels[0], spread(values))
    assert (found.low, found.high) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_as_0_is_inverted_whatever_the_depth(tmp_path: Path, dtype: type[np.generic]):
    values = (RAMP * 300).astype(dtype)
    plain = read(written(tmp_path / "a.tif", values, {}))
    found = read(written(tmp_path / "b.tif", values, {262: [0]}))
    # Rounding of one half.
    assert np.abs(found.pixels.astype(int) + plain.pixels - 255).max() <= 1
    assert found.notes == ("white is 0 (TIFF): inverted",)


def test_of_8_bits_it_is_turned_over_once(tmp_path: Path):
    found = read(written(tmp_path / "a.tif", RAMP.astype(np.uint8), {262: [0]}))
    assert np.array_equal(found.pixels[0], 255 - RAMP)


def test_planes_are_read_of_8_bits_and_refused_of_16(tmp_path: Path):
    """Pillow takes planes of 16 bits for planes of 8, and every second pixel is another's."""
    colour = np.stack([RAMP, RAMP // 2, 255 - RAMP]).astype(np.uint8)
    found = read(written(tmp_path / "a.tif", colour, {284: [2]}))
    assert np.array_equal(found.pixels, colour)
    with pytest.raises(
        Unreadable, match=r"has colours of 16 bits in separate planes: save it with its colours"
    ):
        read(written(tmp_path / "b.tif", colour.astype(np.uint16) * 257, {284: [2]}))


@pytest.mark.parametrize(
    "about",
    ["ImageJ=1.54f\nimages=5\nslices=5\nloop=false\n", '{"shape": [5, 16, 20], "axes": "ZYX"}', 5],
    ids=["ImageJ", "tifffile", "depth"],
)
def test_a_stack_on_one_page_is_refused(tmp_path: Path, about: str | int):
    """Pillow sees the first of its slices."""
    file = tmp_path / "a.tif"
    values = np.concatenate([RAMP] * 5).astype(np.uint8)
    if isinstance(about, int):
        written(file, values, {257: [16], 278: [16], 279: [320], 32997: [about]})
    else:
        Image.fromarray(values[:16]).save(file, description=about)
        assert np.array_equal(read(file).pixels[0], RAMP)  # one slice that was cut out of a stack
        file.write_bytes(file.read_bytes() + values[16:].tobytes())
    with pytest.raises(
        Unreadable, match="has 5 slices on one page, expected one image: save it as NIfTI or NPY"
    ):
        read(file)


@pytest.mark.parametrize(
    "about", ["ImageJ=1.54f\nimages=1\n", '{"shape": [16, 20]}', '{"shape": []}', "images=9"]
)
def test_an_image_that_is_told_of_is_read(tmp_path: Path, about: str):
    Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / "a.tif", description=about)
    assert np.array_equal(read(tmp_path / "a.tif").pixels[0], RAMP)


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_that_are_no_colours_are_left_out_with_a_note(tmp_path: Path, channels: int):
    values = np.stack([RAMP.astype(np.uint8)] * 3 + [RAMP.astype(np.uint8) // 2] * 2, axis=-1)[
        ..., -channels:
    ]
    colours = 3 if channels == 5 else 1
    tags = {256: [20], 257: [16], 258: [8] * channels, 262: [2 if colours == 3 else 1], 277: [channels]}
    several = {273: [8], 278: [16], 279: [values.size], 338: [0] * (channels - colours), 339: [1] * channels}
    found = read(written(tmp_path / "a.tif", values.reshape(16, -1), {**tags, **several}))
    assert np.array_equal(found.pixels, np.moveaxis(values, -1, 0)[:colours])
    assert found.notes == ("channels beyond its colours were left out",)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_portable_pictures_are_named(tmp_path: Path, mode: str):
    Image.fromarray(RAMP.astype(np.uint8)).convert(mode).save(tmp_path / "a", "PPM")
    with pytest.raises(Unreadable, match=r"is a PBM, PGM or PPM picture, expected PNG.*: save it as PNG"):
        read(tmp_path / "a")


def test_rare_kinds_are_told_what_to_be_saved_as_and_that_is_read(tmp_path: Path):
    values = RAMP.astype(np.float64) / 7
    with pytest.raises(
        Unreadable, match=r"of a rare kind \(such as floats of 64 bits.*or its numbers as NPY"
    ):
        read(written(tmp_path / "a.tif", values, {}))
    np.save(tmp_path / "a.npy", values)
    assert np.array_equal(read(tmp_path / "a.npy").pixels[0], spread(values))
