"""`npz` reads what is good and refuses what is not, with everything that is wrong at once."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedunlearn.core import InputError
from sites.npz import Npz
from tests.sites.problems import problems_of

Arrays = dict[str, np.ndarray[Any, Any]]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def the_problem(source: Npz, root: Path) -> str:
    """The one problem of a source."""
    (problem,) = problems_of(source, root)
    return str(problem)


def arrays() -> Arrays:
    made: Arrays = {}
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        made[f"{split}_images"] = rng().integers(0, 255, (count, 8, 8), np.uint8)
        made[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
        made[f"{split}_patient_id"] = np.arange(count, dtype=np.int32) // 2 + 10 * len(split)
        made[f"{split}_names"] = np.array([f"{split}{i}.png" for i in range(count)])
        made[f"{split}_age"] = np.arange(count, dtype=np.int16)
    return made


def save(root: Path, made: Arrays) -> Npz:
    np.savez_compressed(root / "x.npz", **made)  # type: ignore[arg-type]
    return Npz(path="x.npz")


def test_npz_reads_pixels_labels_and_columns(tmp_path: Path):
    source = save(tmp_path, arrays())
    assert problems_of(source, tmp_path) == []
    found = source.load(tmp_path)
    assert found.pixels.shape == (11, 1, 8, 8)
    assert (found.classes, found.synthetic_patients, found.kind) == (2, False, "classification")
    assert list(found.table.columns[:2]) == ["image", "patient"]
    assert found.table["patient"].tolist()[:3] == ["50", "50", "51"]
    assert found.table["image"].tolist()[-1] == "test2.png"
    assert found.table["age"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 0, 1, 2]


def test_npz_without_patients_makes_each_image_one(tmp_path: Path):
    made = {k: v for k, v in arrays().items() if k.split("_", 1)[1] in ("images", "labels")}
    found = save(tmp_path, made).load(tmp_path)
    assert found.synthetic_patients
    assert found.table["patient"].is_unique
    assert "no patients" in found.note


def test_npz_resizes(tmp_path: Path):
    save(tmp_path, arrays())
    assert Npz(path="x.npz", size=4).load(tmp_path).pixels.shape == (11, 1, 4, 4)


def test_npz_label_maps_are_a_segmentation(tmp_path: Path):
    images = rng().integers(0, 255, (4, 6, 8, 6), np.uint8)
    source = save(tmp_path, {"train_images": images, "train_labels": (images > 99).astype(np.uint8)})
    found = source.load(tmp_path)
    assert (found.kind, found.pixels.shape, found.targets.shape) == (
        "segmentation",
        (4, 1, 6, 8, 6),
        (4, 6, 8, 6),
    )
    assert found.targets.dtype == np.uint8  # not eight bytes a voxel
    assert "cannot be resized" in the_problem(Npz(path="x.npz", size=4), tmp_path)


def test_npz_names_the_volume_with_a_bad_label_map_or_voxel(tmp_path: Path):
    images = np.zeros((3, 6, 8, 6), np.float32)
    labels = np.tile(np.arange(3, dtype=np.int16), (3, 6, 8, 2))
    ids = np.array(["left-7", "right-7", "left-8"])
    labels[1, 0, 0, 0], images[2, 1, 1, 1] = 9, np.nan
    source = save(tmp_path, {"train_images": images, "train_labels": labels, "train_ids": ids})
    with pytest.raises(InputError) as caught:
        source.load(tmp_path)
    first, second = (str(problem) for problem in caught.value.problems)
    assert "1 images have values that are not finite (NaN or infinite), first 'left-8'" in first
    assert "found the labels [0, 1, 2, 9], the last of them first in 'right-7'" in second
    labels[1, 0, 0, 0], images[2, 1, 1, 1] = -1, 0
    with pytest.raises(InputError, match=r"found the labels \[-1, 0, 1, 2\]"):
        save(tmp_path, {"train_images": images, "train_labels": labels}).load(tmp_path)


def test_npz_takes_each_id_for_a_subject(tmp_path: Path):
    images = np.zeros((2, 6, 8, 6), np.uint8)
    made = {
        "train_images": images,
        "train_labels": images.copy(),
        "train_ids": np.array(["left-7", "right-7"]),
    }
    made["train_labels"][0, 0] = 1
    found = save(tmp_path, made).load(tmp_path)
    assert found.table["patient"].tolist() == ["left-7", "right-7"]
    assert "2 volumes" in found.note and "no patients" in found.note


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train_labels": None}, "no array train_labels"),
        ({"val_age": None}, "no array val_age"),
        ({"val_names": np.array(["x"])}, "found 1 entries in val_names, expected 2"),
        ({"val_labels": np.zeros((5, 1), np.uint8)}, "val_labels has shape (5, 1), expected (2, 1)"),
        (
            {"val_images": np.zeros((2, 9, 8), np.uint8)},
            "val_images (2, 9, 8) uint8, test_images (3",
        ),
        ({"val_age": np.array(["old", "young"])}, "val_age (2,) <U5"),
        ({"train_names": np.array([None] * 6)}, "Python objects"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_npz_reports_arrays_that_do_not_fit(tmp_path: Path, change: dict[str, Any], expected: str):
    made = {k: v for k, v in (arrays() | change).items() if v is not None}
    assert expected in the_problem(save(tmp_path, made), tmp_path)


@pytest.mark.parametrize(
    ("labels", "images", "expected"),
    [
        (
            np.zeros((6, 1), complex),
            np.zeros((6, 8, 8), np.uint8),
            "dtype complex128, expected whole numbers or names",
        ),
        (
            np.zeros((6, 14), np.uint8),
            np.zeros((6, 8, 8), np.uint8),
            "findings: found none that some images have",
        ),
        (np.zeros(6, np.uint8), np.zeros((6, 8, 8), np.int64), "dtype int64, expected uint8"),
        (np.zeros(6, np.uint8), np.zeros((6, 8, 8, 8, 8), np.uint8), "expected (N, H, W)"),
        (np.zeros((6, 8, 8), np.uint8), np.zeros((6, 8, 8, 8), np.uint8), "label maps of shape (6, 8, 8, 8)"),
        (np.zeros((6, 8, 8, 3), np.uint8), np.zeros((6, 8, 8, 3), np.uint8), "label maps of shape (6, 8, 8)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_npz_reports_arrays_of_a_wrong_kind(tmp_path: Path, labels, images, expected: str):
    assert expected in the_problem(save(tmp_path, {"train_images": images, "train_labels": labels}), tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train_labels": np.full((6, 1), -1)}, "a negative number often stands for no label"),
        ({"train_names": np.array(["a", "a", "b", "c", "d", "e"])}, "id 'a' more than once"),
        (
            {f"{s}_patient_id": np.arange(n) / 2 for s, n in (("train", 6), ("val", 2), ("test", 3))},
            "decimal numbers",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_npz_reports_values_that_cannot_be(tmp_path: Path, change: dict[str, Any], expected: str):
    with pytest.raises(InputError) as caught:
        save(tmp_path, arrays() | change).load(tmp_path)
    assert expected in str(caught.value)


def test_npz_label_255_is_no_class_of_a_map(tmp_path: Path):
    images = rng().integers(0, 255, (4, 6, 8, 6), np.uint8)
    labels = np.where(images > 200, 255, images > 99)
    found = save(tmp_path, {"train_images": images, "train_labels": labels}).load(tmp_path)
    assert found.classes == 2 and found.targets.dtype == np.uint8
    assert np.array_equal(found.targets, labels)
    only = save(tmp_path, {"train_images": images, "train_labels": np.where(images > 99, 255, 0)})
    with pytest.raises(
        InputError, match=r"found the labels \[0, 255\], expected 0 for background and at least 1"
    ):
        only.load(tmp_path)


def test_npz_reports_missing_and_damaged_files(tmp_path: Path):
    assert "no file" in the_problem(Npz(path="y.npz"), tmp_path)
    source = save(tmp_path, arrays())
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in the_problem(source, tmp_path)
    (tmp_path / "x.npz").write_text("these are no arrays")
    assert "is damaged" in the_problem(source, tmp_path)
    (tmp_path / "x.npz").write_bytes(whole[:200] + bytes(b ^ 255 for b in whole[200:300]) + whole[300:])
    with pytest.raises(InputError, match="is damaged"):  # the pixels themselves, which only `load` reads
        source.load(tmp_path)
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    assert "found the arrays other, expected train_images" in the_problem(source, tmp_path)


def test_a_file_that_may_not_be_opened_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "d.npz").write_bytes(b"")

    def denied(file: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("sites.npz.sizes.npz", denied)
    told = the_problem(Npz(path="d.npz"), tmp_path)
    assert "cannot be opened (Permission denied): let the user who runs this read it" in told
