"""Images that are equal to the pixel and have different labels are told, in every source of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedunlearn.core import IGNORED
from sites.copies import contradicting
from sites.folder import Folder
from sites.npz import Npz

Array = np.ndarray[Any, Any]

PIXELS = np.random.default_rng(2).integers(0, 256, (6, 1, 12, 12)).astype(np.uint8)
IMAGES = list("abcdef")


def doubled(*pairs: tuple[int, int]) -> Array:
    made = PIXELS.copy()
    for one, other in pairs:
        made[other] = made[one]
    return made


@pytest.mark.parametrize(
    ("pixels", "targets", "expected"),
    [
        (PIXELS, [0, 1, 0, 1, 0, 1], None),
        (doubled((0, 2)), [0, 1, 0, 1, 0, 1], None),
        (
            doubled((0, 1)),
            [0, 1, 0, 1, 0, 1],
            "images are equal to the pixel, but have different labels, first 'a' and 'b'",
        ),
        (doubled((0, 3), (2, 5)), [0, 1, 0, 1, 0, 1], "2 groups of images are equal to the pixel"),
        (np.zeros_like(PIXELS), [0, 1, 0, 1, 0, 1], None),  # blank ones show nothing
        (doubled((0, 1)), [[0, 1], [0, IGNORED], [0, 0], [0, 0], [0, 0], [0, 0]], None),
        (doubled((0, 1)), [[0, 1], [1, IGNORED], [0, 0], [0, 0], [0, 0], [0, 0]], "images are equal"),
    ],
    ids=["none", "one label", "two labels", "two groups", "blank", "unknown to one", "findings"],
)
def test_equal_images_of_different_labels(pixels: Array, targets: list[Any], expected: str | None) -> None:
    notes = contradicting(pixels, np.array(targets), IMAGES)
    assert len(notes) == (expected is not None) and all(note.startswith(str(expected)) for note in notes)


def test_both_sources_tell_it(tmp_path: Path) -> None:
    pixels, labels, people = doubled((0, 1)), [0, 1, 0, 1, 0, 1], list("ppqqrr")  # of one patient
    rows = ["file,label,patient"]
    for name, image, label, patient in zip(IMAGES, pixels, labels, people, strict=True):
        Image.fromarray(image[0]).save(tmp_path / f"{name}.png")
        rows.append(f"{name}.png,{label},{patient}")
    (tmp_path / "m.csv").write_text("\n".join(rows), encoding="utf-8")
    ids = {"train_image_id": np.array(IMAGES), "train_patient_id": np.array(people)}
    np.savez(tmp_path / "d.npz", train_images=pixels[:, 0], train_labels=np.array(labels), **ids)  # type: ignore[arg-type]
    for source in (Folder(manifest="m.csv"), Npz(path="d.npz")):
        assert [
            note for note in source.load(tmp_path).notes if "equal to the pixel, but have different" in note
        ]
