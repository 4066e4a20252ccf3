"""What a tombstone knows again, and what the scan makes of files of any kind."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedunlearn import files
from fedunlearn.core import InputError
from fedunlearn.erasure import residue, returning, tombstones
from fedunlearn.erasure.residue import Hit, words
from fedunlearn.erasure.tombstones import Tombstone, salted, with_images, with_names
from fedunlearn.erasure.unpacking import pieces

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 3, 4, 5), np.uint8)


def stone(*names: str) -> Tombstone:
    return with_names(salted(["some"]), {"patient": [("north", name) for name in names]})


def hits(folder: Path, *stones: Tombstone) -> list[Hit]:
    return residue.scan(folder, stones, {})


def test_an_image_is_known_in_every_usual_layout_and_scale() -> None:
    known = with_images(salted(["some"]), IMAGES)
    for one in IMAGES:
        last = np.moveaxis(one, 0, -1)
        for picture in (
            one,
            last,
            one / 255,
            last.astype(np.float32) / 127.5 - 1,
            one.astype(np.int32),
            one.ravel(),
        ):
            assert known.has_image(picture)
        other = one.copy()
        other.flat[7] ^= 1
        assert not known.has_image(other)


def test_an_image_of_one_colour_is_any() -> None:
    known = with_images(salted(["some"]), np.stack([IMAGES[0], np.zeros_like(IMAGES[0])]))
    assert len(known.images) == 1 and not known.has_image(np.zeros_like(IMAGES[0]))


def test_images_of_floats_are_known_by_their_bits() -> None:
    images = RNG.normal(size=(2, 1, 4, 4, 4)).astype(np.float32)
    known = with_images(salted(["some"]), images)
    assert known.has_image(images[0].astype(np.float64)) and not known.has_image(images[0] + np.float32(1e-3))


def test_hashes_are_worth_nothing_without_their_key() -> None:
    one, other = stone("p-0007"), stone("p-0007")
    assert not one.names & other.names and not one.subjects & other.subjects
    assert one.public().names == frozenset() and one.secret not in repr(one)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    whole = with_images(stone("p-0007", "12"), IMAGES)
    (tmp_path / "a.json").write_bytes(tombstones.content(whole))
    assert tombstones.read(tmp_path / "a.json") == whole
    content, rng = tombstones.content(whole), random.Random(0)
    for _ in range(200):
        at = rng.randrange(len(content))
        flipped = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        (tmp_path / "b.json").write_bytes(flipped)
        with pytest.raises(InputError, match="expected a tombstone"):
            tombstones.read(tmp_path / "b.json")


def test_what_is_kept_grows_and_keeps_its_key(tmp_path: Path) -> None:
    place = tmp_path / "tombstones" / "a.json"
    first = salted(["some"], "00" * 32)
    tombstones.keep(place, first, {"patient": [("north", "p-0001")]})
    tombstones.keep(place, salted(["some"], "00" * 32), {"patient": [("north", "p-0002")]})
    found = tombstones.read(place)
    assert found.secret == first.secret and len(found.names) == 2


def test_other_hospitals_may_use_the_same_ids(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(tombstones.content(stone("p-0007")))
    table = pd.DataFrame({"image": ["x"], "patient": ["p-0007"], "site": ["south"]})
    returning.refuse([tmp_path / "a.json"], table, IMAGES[:1])
    with pytest.raises(InputError, match=r"1 patient by id of some"):
        returning.refuse([tmp_path / "a.json"], table.assign(site="north"), IMAGES[:1])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("read p-0007, then p-0008", True),
        ("north/p-0007.png", True),
        ("patient=p-0007;", True),
        ('{"a": "p-0007"}', True),
        ("p-00071 and xp-0007", False),
        ("p-0007-1", False),
    ],
)
def test_ids_are_words(tmp_path: Path, text: str, found: bool) -> None:
    (tmp_path / "log.txt").write_text(text)
    assert bool(hits(tmp_path, stone("p-0007"))) == found


def test_ids_that_could_be_numbers_are_whole_values(tmp_path: Path) -> None:
    known = stone("12")
    (tmp_path / "log.txt").write_text("12 images of 12 patients")
    assert hits(tmp_path, known) == []
    pd.DataFrame({"patient": ["11", "12"]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"patient": [11, 12]}).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.json").write_text(json.dumps({"patients": ["12"]}))
    assert {hit.file for hit in hits(tmp_path, known)} == {"a.parquet", "b.parquet", "c.json"}


def test_words_are_apart_in_every_usual_way() -> None:
    assert {"id.with.points", "under_score", "a-b-c"} <= words("x: id.with.points, under_score (a-b-c)")


ODD: dict[str, bytes | np.ndarray[Any, Any]] = {
    "empty": b"",
    "zero.npy": np.array(1.0),
    "none.npy": np.zeros((0, 3), np.float32),
    "complex.npy": np.zeros((2, 2), np.complex64),
    "times.npy": np.array(["2026-01-01"], "datetime64[D]"),
    "cut.npz": b"PK\x03\x04 and no more",
    "cut.parquet": b"PAR1",
    "cut.png": b"\x89PNG\r\n",
    "gone.safetensors": b"\x08\0\0\0\0\0\0\0{}......",
    "liar.safetensors": b"\xff\xff\xff\xff\0\0\0\0{",
    "nothing.gz": b"\x1f\x8b",
    "deep.json": b"[" * 5_000,
    "inf.npy": np.full((3, 60), np.inf, np.float32),
    "half.npy": np.full((3, 60), 7, np.float16),
    "objects.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
}


@pytest.mark.parametrize("name", ODD)
def test_no_file_stops_the_scan(tmp_path: Path, name: str) -> None:
    odd = ODD[name]
    buffer = io.BytesIO()
    if not isinstance(odd, bytes):
        np.save(buffer, odd, allow_pickle=False)
    content = odd if isinstance(odd, bytes) else buffer.getvalue()
    (tmp_path / name).write_bytes(content)
    list(pieces(content))
    known = with_images(stone("p-0007"), IMAGES)
    rows = Tombstone(**{**known.__dict__, "rows": frozenset({"0"}), "tensors": frozenset({"0"})})
    assert hits(tmp_path, rows) == []


def test_a_file_that_went_is_known_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"model")
    gone = Tombstone(("some",), "00", removed=frozenset({files.sha256(tmp_path / "x")}))
    assert hits(tmp_path, gone) == [Hit("x", "a file that was removed or changed for some")]
