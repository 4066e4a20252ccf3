"""Pictures and arrays: what was done to one is said, and what can be read in two ways is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedunlearn.core import InputError
from sites.folder import Folder
from sites.formats import sizes
from sites.formats.images import claimed, read
from sites.formats.picture import counted
from sites.formats.unreadable import Unreadable

Array = np.ndarray[Any, Any]

GREY = np.random.default_rng(2).integers(0, 256, (20, 28)).astype(np.uint8)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)


def refusal(file: Path) -> str:
    with pytest.raises(Unreadable) as caught:
        read(file)
    return str(caught.value)


def turned() -> Image.Exif:
    made = Image.Exif()
    made[0x112] = 6
    return made


NOTES: dict[str, tuple[Image.Image, str, dict[str, Any], str]] = {
    "palette": (Image.fromarray(GREY).convert("P"), "PNG", {}, "the palette was applied"),
    "alpha": (Image.fromarray(np.dstack([COLOUR, GREY])), "PNG", {}, "transparency was left out"),
    "CMYK": (Image.fromarray(COLOUR).convert("CMYK"), "JPEG", {}, "CMYK colours were made RGB"),
    "EXIF": (Image.fromarray(GREY), "JPEG", {"exif": turned()}, "turned as the EXIF orientation says"),
    "TIFF": (
        Image.fromarray(GREY.astype(np.uint16)),
        "TIFF",
        {"tiffinfo": {262: 0}},
        "white is 0 (TIFF): inverted",
    ),
    "plain": (Image.fromarray(GREY), "PNG", {}, ""),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_was_done_is_said(tmp_path: Path, name: str):
    image, kind, options, note = NOTES[name]
    image.save(tmp_path / "a", kind, **options)
    assert read(tmp_path / "a").notes == ((note,) if note else ())


def deep_colour(pixels: Array) -> bytes:
    """A PNG of 16 bits per colour, which Pillow does not write (PNG specification, sections 5 and 11)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_of_16_bits_per_colour_the_upper_8_are_read_with_a_note(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(deep_colour(COLOUR.astype(np.uint16) * 257))
    found = read(tmp_path / "a.png")
    assert np.array_equal(found.pixels, np.moveaxis(COLOUR, -1, 0))
    assert found.notes == ("of 16 bits per colour the upper 8 were read",)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_a_copy_that_was_broken_off_and_filled_up_is_refused(tmp_path: Path, kind: str):
    """What asks for a file's room before it fills it leaves one of the right length that ends in zeros."""
    file, noise = tmp_path / "a", np.random.default_rng(3).integers(0, 256, (90, 80, 3)).astype(np.uint8)
    Image.fromarray(noise).save(file, kind)
    content = file.read_bytes()
    file.write_bytes(content[:-900] + bytes(900))
    text = refusal(file)
    assert (
        "damaged" in text if kind == "PNG" else text.startswith("ends in 900 zeros, before its picture does")
    )


def test_zeros_after_a_picture_are_no_part_of_it(tmp_path: Path):
    Image.fromarray(COLOUR).save(tmp_path / "a", "JPEG")
    expected = read(tmp_path / "a").pixels
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes() + bytes(900))
    assert np.array_equal(read(tmp_path / "a").pixels, expected)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_several_pages_are_refused(tmp_path: Path, kind: str):
    pages = [Image.fromarray(COLOUR[::step]) for step in (1, -1, 1)]
    pages[0].save(tmp_path / "a", kind, save_all=True, append_images=pages[1:])
    assert refusal(tmp_path / "a").startswith(
        "has 3 pages, expected one image: save each as a file of its own"
    )


def test_of_several_pictures_of_a_camera_the_first_is_read_with_a_note(tmp_path: Path):
    """The others are previews, or tell how far things are."""
    pictures = [Image.fromarray(one) for one in (COLOUR, 255 - COLOUR)]
    pictures[0].save(tmp_path / "a", "MPO", save_all=True, append_images=pictures[1:])
    pictures[0].save(tmp_path / "b", "JPEG")
    found = read(tmp_path / "a")
    assert np.array_equal(found.pixels, read(tmp_path / "b").pixels)
    assert found.notes == ("of several pictures in the file (MPO) the first was read",)


def test_colours_of_an_unknown_kind_are_refused(tmp_path: Path):
    Image.fromarray(COLOUR).convert("LAB").save(tmp_path / "a.tif")
    assert refusal(tmp_path / "a.tif").startswith("has colours of the kind LAB, expected grey, RGB")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_picture_cut_off_is_refused(tmp_path: Path, kind: str):
    made = io.BytesIO()
    Image.fromarray(COLOUR).save(made, kind)
    (tmp_path / "a").write_bytes(made.getvalue()[: len(made.getvalue()) // 2])
    assert refusal(tmp_path / "a").startswith("is a picture that is damaged, cut off or of a rare kind (")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_the_size_is_known_before_a_picture_is_expanded(tmp_path: Path, kind: str):
    Image.fromarray(COLOUR).save(tmp_path / "a", kind)
    assert claimed(tmp_path / "a") == sizes.Claim((20, 28, 3), np.dtype("u1"))


def test_tiff_that_claims_more_than_is_safe_is_refused(tmp_path: Path):
    made = io.BytesIO()
    Image.fromarray(GREY).save(made, "TIFF")
    content = bytearray(made.getvalue())
    for tag in (256, 257):  # width and height: tag, LONG or SHORT, one, value
        place = content.index(struct.pack("<H", tag))
        content[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 50_000)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(Unreadable, match=r"claims .*pixels.*: save it smaller"):
        claimed(tmp_path / "a.tif")


def test_notes_are_counted_by_file():
    assert counted([("1.png", ("a", "b")), ("2.png", ("b",)), ("3.png", ())]) == (
        "1.png: a",
        "2 files, first 1.png: b",
    )
    assert counted([]) == ()


def test_a_folder_of_jpegs_says_what_it_did(tmp_path: Path):
    for number in range(3):
        Image.fromarray(GREY).save(tmp_path / f"{number}.jpg", exif=turned() if number else Image.Exif())
    rows = "".join(f"{number}.jpg,{number % 2},p{number}\n" for number in range(3))
    (tmp_path / "m.csv").write_text("file,label,patient\n" + rows, encoding="utf-8")
    found = Folder(manifest="m.csv", size=16).load(tmp_path)
    assert "2 files, first 1.jpg: turned as the EXIF orientation says" in found.notes
    assert found.seen is not None
    assert found.seen["format"].tolist() == ["JPEG"] * 3 and found.seen["size"].tolist() == ["20 × 28"] * 3


# --------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    "shape",
    [
        (4, 20, 28),
        (20, 28, 4),
        (3, 20, 3),
        (3, 4, 28),
        (2, 20, 28),
        (20, 28, 2),
        (5, 20, 28, 3),
        (1, 5, 3),
        (7,),
        (),
    ],
)
def test_arrays_that_can_be_read_in_two_ways_or_none_are_refused(tmp_path: Path, shape: tuple[int, ...]):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
    text = refusal(tmp_path / "a.npy")
    assert str(shape) in text and "save an image as (H, W) or (H, W, 3), a volume as (D, H, W)" in text


def test_channels_in_front_are_an_image_with_a_note(tmp_path: Path):
    """Never a volume of three slices."""
    np.save(tmp_path / "a.npy", np.moveaxis(COLOUR, -1, 0))
    np.save(tmp_path / "b.npy", COLOUR)
    front, back = (read(tmp_path / name) for name in ("a.npy", "b.npy"))
    assert np.array_equal(front.pixels, back.pixels) and front.pixels.shape == (3, 20, 28)
    assert front.notes == ("channels came first, as (C, H, W)",) and back.notes == ()


BAD: dict[str, tuple[Array, str]] = {
    "NaN": (
        np.array([[np.nan, 1], [np.inf, np.nan]]),
        "has 2 that are NaN and 1 that are infinite among its 4 values: mask or repair them",
    ),
    "complex": (np.zeros((5, 5), complex), "has values of the type complex128, expected numbers"),
    "text": (np.array([["a", "b"]]), "has values of the type <U1, expected numbers"),
    "records": (np.zeros((5, 5), [("R", "u1"), ("G", "u1")]), "has values of the type [('R'"),
    "nothing": (np.zeros((0, 5)), "has no pixels (the shape (0, 5))"),
    "dates": (np.zeros((5, 5), "datetime64[s]"), "has values of the type datetime64[s]"),
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_of_no_finite_numbers_are_named(tmp_path: Path, name: str):
    array, expected = BAD[name]
    np.save(tmp_path / "a.npy", array)
    assert refusal(tmp_path / "a.npy").startswith(expected)


def test_other_shapes_name_the_settings_that_make_them_one_and_these_do(tmp_path: Path):
    for number, pixels in enumerate([GREY, COLOUR, GREY[:, :20], COLOUR[:, :20], GREY, GREY]):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,{number % 2},p{number}\n" for number in range(6))
    (tmp_path / "m.csv").write_text("file,label,patient\n" + rows, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Folder(manifest="m.csv").load(tmp_path)
    remedies = [str(problem).split(": set ")[1] for problem in caught.value.problems]
    colours, edges = "channels: 1 (grey) or 3 (colour)", "size: an edge, such as 128"
    assert remedies == [colours, edges, f"{colours} and {edges}"]
    assert Folder(manifest="m.csv", channels=1, size=16).load(tmp_path).pixels.shape == (6, 1, 16, 16)
