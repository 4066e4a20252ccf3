"""Images are found in whatever usual way they are written: in gray or colours, on any page, in rows with labels."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fedunlearn.erasure import residue, texts, tombstones
from fedunlearn.erasure.unpacking import pieces

Array = np.ndarray[Any, Any]

RNG = np.random.default_rng(3)
GRAY = RNG.integers(0, 256, (3, 1, 12, 12), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (3, 3, 6, 8), dtype=np.uint8)
"""As many numbers an image, 144, so that what is written of the one is no image of the other by its size alone."""
OTHER = RNG.integers(0, 256, (12, 12), dtype=np.uint8)
STONES = {
    name: tombstones.with_images(tombstones.salted([name]), images)
    for name, images in (("gray", GRAY), ("colour", COLOUR))
}


def saved(*pages: Array, kind: str = "PNG", mode: str = "L", **options: Any) -> bytes:
    """Gray pages as a picture."""
    first, *rest = (Image.fromarray(page).convert(mode) for page in pages)
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": rest} if rest else {}
    first.save(buffer, kind, **more, **options)
    return buffer.getvalue()


def table(images: Array, **front: Any) -> pd.DataFrame:
    """A row for each image."""
    flat = images.reshape(len(images), -1)
    own = pd.DataFrame(flat, columns=[f"pixel{i}" for i in range(flat.shape[1])])
    return pd.concat([pd.DataFrame(front), own], axis=1) if front else own


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def npz(**arrays: Array) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def labelled(images: Array) -> Array:
    return np.hstack([np.arange(len(images), dtype=np.uint8)[:, None], images.reshape(len(images), -1)])


def mime(content: bytes) -> bytes:
    """Base64 in lines of 76, ended as e-mail ends them."""
    return base64.encodebytes(content).replace(b"\n", b"\r\n")


G, ONE = GRAY[:, 0], saved(GRAY[0, 0])
PICTURES: dict[str, bytes] = {
    "PNG in colours": saved(G[0], mode="RGB"),
    "PNG in colours with alpha": saved(G[0], mode="RGBA"),
    "PNG in gray with alpha": saved(G[0], mode="LA"),
    "GIF": saved(G[0], kind="GIF"),
    "WebP without loss": saved(G[0], kind="WEBP", lossless=True),
    "second page of TIFF": saved(OTHER, G[0], kind="TIFF"),
    "second page of GIF": saved(OTHER, G[0], kind="GIF"),
    "first page before a damaged one": saved(G[0], OTHER, kind="TIFF")[:-40],
    "PGM": saved(G[0], kind="PPM"),
}
ROWS: dict[str, Callable[[Array], bytes]] = {
    "CSV, label in front": lambda x: table(x, label=[3, 1, 2]).to_csv(index=False).encode(),
    "CSV, label behind": lambda x: table(x).assign(label=[3, 1, 2]).to_csv(index=False).encode(),
    "CSV as pandas writes it": lambda x: table(x).to_csv().encode(),
    "CSV, numbers for names": lambda x: pd.DataFrame(x.reshape(3, -1)).to_csv().encode(),
    "CSV, all in quotes": lambda x: table(x, label=[3, 1, 2]).to_csv(quoting=1).encode(),
    "CSV, id in front": lambda x: table(x, id=["a", "b", "c"]).to_csv(sep=";", index=False).encode(),
    "Parquet, label in front": lambda x: parquet(table(x, label=[3, 1, 2])),
    "Parquet, label and share in front": lambda x: parquet(table(x, label=[3, 1, 2], share=[0.5, 1.0, 0.0])),
    "NPZ, label in front": lambda x: npz(data=labelled(x)),
    "JSON, label in front": lambda x: json.dumps(labelled(x).tolist()).encode(),
    "JSON of records": lambda x: table(x, label=["a", "b", "c"]).to_json(orient="records").encode(),
    "label before each, raw": lambda x: labelled(x).tobytes(),
    "a header before all, raw": lambda x: b"\0\0\x08\x03" + bytes(12) + x.tobytes(),
    "raw float64": lambda x: (x / 255).tobytes(),
}
BASE64: dict[str, bytes] = {
    "in MIME lines": mime(ONE),
    "in lines after a word": b"picture\r\n" + mime(ONE),
    "in lines before a word": b"-- \n" + mime(ONE) + b"end\n",
    "in one line after a word": b"picture\n" + base64.b64encode(ONE),
    "in lines of YAML": b"x: |\n"
    + b"".join(b"    " + line for line in base64.encodebytes(ONE).splitlines(True)),
    "in lines in JSON": json.dumps({"x": base64.encodebytes(ONE).decode()}).encode(),
    "in Parquet": parquet(pd.DataFrame({"x": [base64.b64encode(ONE).decode()]})),
    "in NPZ": npz(x=np.array([base64.b64encode(ONE).decode()])),
    "a line each": b"\n".join(base64.b64encode(saved(page)) for page in (OTHER, G[0])),
}


def found(folder: Path, content: bytes, stone: tombstones.Tombstone) -> list[str]:
    (folder / "planted").write_bytes(content)
    return [hit.what for hit in residue.scan(folder, [stone], {})]


@pytest.mark.parametrize("kind", PICTURES)
def test_a_gray_image_is_found_in_a_picture(tmp_path: Path, kind: str) -> None:
    assert found(tmp_path, PICTURES[kind], STONES["gray"])
    assert not found(tmp_path, PICTURES[kind], STONES["colour"])


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(("name", "images"), [("gray", GRAY), ("colour", COLOUR)])
def test_an_image_is_found_in_a_row(tmp_path: Path, kind: str, name: str, images: Array) -> None:
    """The last of three as well as the first: each alone is known."""
    for one in images:
        stone = tombstones.with_images(tombstones.salted([name]), one[None])
        assert found(tmp_path, ROWS[kind](images), stone)
    assert not found(tmp_path, ROWS[kind](images), STONES["colour" if name == "gray" else "gray"])


@pytest.mark.parametrize("kind", BASE64)
def test_an_image_is_found_in_base64(tmp_path: Path, kind: str) -> None:
    assert found(tmp_path, BASE64[kind], STONES["gray"])


def test_one_image_is_found_as_lines_with_numbers_in_front(tmp_path: Path) -> None:
    for content in (pd.DataFrame(G[0]).to_csv(), pd.DataFrame(G[0]).to_csv(index=False)):
        assert found(tmp_path, content.encode(), STONES["gray"])


def test_a_gray_picture_is_found_where_images_have_three_equal_colours(tmp_path: Path) -> None:
    stone = tombstones.with_images(tombstones.salted(["some"]), np.repeat(GRAY, 3, axis=1))
    assert found(tmp_path, ONE, stone)


def test_as_many_rows_as_an_image_has_numbers_hide_none(tmp_path: Path) -> None:
    """144 rows of 145 numbers are 145 times 144 numbers too."""
    rows = RNG.integers(0, 256, (144, 145), dtype=np.uint8)
    rows[7, 1:] = G[0].ravel()
    assert found(tmp_path, npz(data=rows), STONES["gray"])


def test_lines_of_a_text_are_no_model_and_no_answers(tmp_path: Path) -> None:
    """A page may have as many numbers as a model, or two that some model once answered."""
    (array,) = (piece.array for piece in pieces(b"move 0.5,1\n" * 16) if piece.lines)
    assert array is not None and array.shape == (16, 2)
    stone = tombstones.salted(["some"])
    answered = stone.keyed(np.array([0.5, 1], np.float32).tobytes())
    rows = tombstones.Tombstone(("some",), stone.salt, rows=frozenset({answered}))
    assert not found(tmp_path, b"move 0.5,1\n" * 16, rows)


@pytest.mark.parametrize("text", ["", "1 2 3", "no numbers, 12 of them", "\r\n" * 9, "A" * 63])
def test_short_texts_hold_nothing(text: str) -> None:
    assert not [*texts.numbers(text)] and not [*texts.blobs(text)]


def test_numbers_too_large_for_any_array_do_not_stop_the_scan(tmp_path: Path) -> None:
    assert not found(tmp_path, b"[[1" + b"0" * 400 + b", 2], [3, 4]]", STONES["gray"])
