"""`.npz` files as people save them: read rightly, or refused with the call that mends them, which is then tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedunlearn.core import InputError
from sites.collection import Collection
from sites.npz import Npz

Arrays = dict[str, np.ndarray[Any, Any]]

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8)).astype(np.uint8)
LABELS = np.arange(12) % 2
IDS = np.array([f"p{n // 2}" for n in range(12)])
FLOATS = (IMAGES / 255).astype(np.float32)


def load(root: Path, arrays: Arrays) -> Collection:
    np.savez(root / "x.npz", **arrays)  # type: ignore[arg-type]
    return Npz(path="x.npz").load(root)


def made(**changed: Any) -> Arrays:
    plain: Arrays = {"train_images": IMAGES, "train_labels": LABELS, "train_patient_id": IDS}
    return plain | changed


def refused(root: Path, arrays: Arrays) -> str:
    with pytest.raises(InputError) as caught:
        load(root, arrays)
    assert len(str(caught.value).splitlines()) <= 40
    return str(caught.value)


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (LABELS, None),
        (LABELS[:, None], None),
        (LABELS.astype(np.float32), "labels such as '0.0' are read as whole numbers"),
        (LABELS.astype(">i4"), None),
        (LABELS.astype(bool), "labels are false and true: classes 0 and 1"),
        (LABELS + 1, "label 1 is class 0, label 2 is class 1"),
        (LABELS * 7, "label 0 is class 0, label 7 is class 1"),
        (np.array(["benign", "malignant"])[LABELS], None),
        (np.array([b"benign", b"malignant"])[LABELS], None),
    ],
)
def test_labels_that_are_read(tmp_path: Path, labels: np.ndarray[Any, Any], note: str | None):
    found = load(tmp_path, made(train_labels=labels))
    assert (found.targets.tolist(), found.classes) == (LABELS.tolist(), 2)
    assert (note in "\n".join(found.notes)) if note else found.notes == ()


@pytest.mark.parametrize(
    "images",
    [FLOATS, FLOATS.astype(">f4"), np.asfortranarray(FLOATS), np.asfortranarray(FLOATS.astype(">f4"))],
)
def test_any_order_of_bytes_and_axes_gives_the_same_pixels(tmp_path: Path, images: np.ndarray[Any, Any]):
    found = load(tmp_path, made(train_images=images)).pixels
    assert found.dtype == np.dtype(np.float32) and found.dtype.isnative
    assert np.array_equal(found, FLOATS[:, None])


def test_channels_in_front_are_told_by_shape(tmp_path: Path):
    colour = np.stack([IMAGES, IMAGES // 2, IMAGES // 3], axis=1)
    found = load(tmp_path, made(train_images=colour))
    assert np.array_equal(found.pixels, colour)
    assert "are read as (channels, height, width)" in found.notes[0]
    last = load(tmp_path, made(train_images=np.moveaxis(colour, 1, -1)))
    assert np.array_equal(last.pixels, colour) and last.notes == ()
    assert "leave transparency out" in refused(tmp_path, made(train_images=np.zeros((12, 8, 8, 4), np.uint8)))


@pytest.mark.parametrize(
    "images",
    [
        FLOATS.astype(np.float64),
        FLOATS.astype(np.float16),
        IMAGES.astype(np.float32),
        IMAGES.astype(np.float64),
        IMAGES.astype(np.int64),
        IMAGES.astype(np.uint16) * 16,
        IMAGES.astype(np.float32) - 1000,
        IMAGES > 99,
    ],
    ids=lambda images: f"{images.dtype}",
)
def test_the_call_that_a_message_tells_mends_the_file(tmp_path: Path, images: np.ndarray[Any, Any]):
    message = refused(tmp_path, made(train_images=images))
    call = (
        message.partition("convert them: ")[2]
        or message.partition("alike: ")[2]
        or message.partition("it: ")[2]
    )
    mended = eval(call, {"np": np, "images": images, "train_images": images})
    found = load(tmp_path, made(train_images=mended)).pixels[:, 0]
    wanted = images.astype(np.float64)
    order = np.corrcoef(wanted.ravel(), found.ravel().astype(np.float64))[0, 1]
    assert order > 0.9999 and len(np.unique(found)) > len(np.unique(wanted)) * 0.9


def test_what_one_hot_labels_are_is_said(tmp_path: Path):
    message = refused(tmp_path, made(train_labels=np.eye(2, dtype=np.uint8)[LABELS]))
    assert "they are one-hot; take the argmax: train_labels.argmax(1)" in message
    assert load(tmp_path, made(train_labels=np.eye(2)[LABELS].argmax(1))).targets.tolist() == LABELS.tolist()
    assert "probabilities" in refused(tmp_path, made(train_labels=np.full((12, 4), 0.25)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train_patient_id": IDS.astype(object)}, "train_patient_id.astype(str)"),
        ({"train_labels": LABELS + 0.5}, "found '0.5', which is no whole number"),
        (
            {"train_labels": np.where(LABELS, np.inf, 0.0)},
            "6 labels are infinite, first that of 'train-000001'",
        ),
        ({"train_labels": LABELS - 1}, "a negative number often stands for no label"),
        ({"train_labels": np.where(LABELS, 1.0, np.nan)}, "found 'nan', which stands for a missing value"),
        ({"train_labels": np.array(["a", "NA"])[LABELS]}, "label of image 'train-000001': found 'NA'"),
        ({"train_labels": np.array(["a", "A"])[LABELS]}, "but 'a' in image 'train-000000': write them alike"),
        ({"train_patient_id": np.arange(12) // 2 * 1.0}, "ids.astype(int).astype(str)"),
        ({"train_patient_id": np.where(LABELS, 1.0, np.nan)}, "6 of them are missing (NaN)"),
        (
            {"train_patient_id": np.where(LABELS, "NULL", IDS)},
            "patient of image 'train-000001' (entry 1): found 'NULL'",
        ),
        ({"train_site": np.where(LABELS, "", IDS)}, "site of image 'train-000001' (entry 1): found nothing"),
        ({"train_patient_id": np.char.encode(np.where(LABELS, "é", IDS), "latin-1")}, "lost letters"),
        (
            {"train_patient": IDS},
            "found train_patient and train_patient_id, expected one array of patient ids",
        ),
        ({"train_ids": np.repeat("x", 12)}, "found the image id 'x' more than once (entries 0 and 1)"),
    ],
)
def test_what_is_refused(tmp_path: Path, changed: Arrays, words: str):
    assert words in refused(tmp_path, made(**changed))


def test_what_the_images_were_is_seen_before_they_are_resized(tmp_path: Path):
    np.savez(tmp_path / "x.npz", **made())  # type: ignore[arg-type]
    seen = Npz(path="x.npz", size=4).load(tmp_path).seen
    assert seen is not None and seen["size"].unique().tolist() == ["8 × 8"]
    assert seen["high"].tolist() == [int(image.max()) for image in IMAGES]
    assert seen["low"].tolist() == [int(image.min()) for image in IMAGES]


def test_nan_is_said_as_nan(tmp_path: Path):
    broken = FLOATS.copy()
    broken[3, 4, 5], broken[7, 0, 0] = np.nan, np.inf
    message = refused(tmp_path, made(train_images=broken))
    assert "2 images have values that are not finite (NaN or infinite), first 'train-000003'" in message


@pytest.mark.parametrize(
    ("names", "renames"),
    [
        (("images", "labels"), "rename images to train_images, labels to train_labels"),
        (("x_train", "y_train"), "rename x_train to train_images, y_train to train_labels"),
        (("X", "y"), "rename X to train_images, y to train_labels"),
        (("valid_images", "valid_labels"), "rename valid_images to val_images, valid_labels to val_labels"),
        (("arr_0", "arr_1"), "rename arr_0 to train_images, arr_1 to train_labels"),
    ],
)
def test_arrays_of_other_names_are_told_how_to_be_called(
    tmp_path: Path, names: tuple[str, str], renames: str
):
    assert renames in refused(tmp_path, {names[0]: IMAGES, names[1]: LABELS})


def test_ids_are_tidied_and_the_parts_are_a_column(tmp_path: Path):
    ids = np.where(LABELS, " mu\u0308ller", "m\u00fcller\u200b")
    found = load(
        tmp_path,
        made(train_patient_id=ids)
        | {
            f"val_{k}": v
            for k, v in (
                ("images", IMAGES[:2]),
                ("labels", LABELS[:2]),
                ("patient_id", np.array(["A 1", "a1"])),
            )
        },
    )
    assert found.table["patient"].tolist() == ["müller"] * 12 + ["A 1", "a1"]
    assert found.table["split"].tolist() == ["train"] * 12 + ["val"] * 2
    assert "written in several ways" in found.notes[0] and "'A 1' (1) and 'a1' (1)" in found.notes[1]


def test_a_column_that_may_tell_patients_is_pointed_out(tmp_path: Path):
    arrays = made(train_subject_id=IDS)
    del arrays["train_patient_id"]
    (note,) = load(tmp_path, arrays).notes
    assert "column 'subject_id' may tell patients" in note


def test_a_map_with_nothing_but_0_and_255_is_refused(tmp_path: Path):
    volumes = np.zeros((3, 6, 8, 6), np.uint8)
    maps = np.zeros_like(volumes)
    maps[0, 0], maps[1, 0] = 1, 255
    message = refused(tmp_path, {"train_images": volumes, "train_labels": maps})
    assert "1 label maps have the labels 0 and 255 only, first that of 'train-000001'" in message
    maps[1, 1] = 1
    assert load(tmp_path, {"train_images": volumes, "train_labels": maps}).classes == 2
    decimal = load(tmp_path, {"train_images": volumes, "train_labels": maps.astype(np.float64)})
    assert decimal.targets.dtype == np.uint8 and np.array_equal(decimal.targets, maps)
    assert "not whole" in refused(tmp_path, {"train_images": volumes, "train_labels": maps / 2})


@pytest.mark.parametrize(
    ("beside", "remedy"),
    [
        ({"valid_images": IMAGES, "valid_labels": LABELS}, "rename valid_images to val_images, valid_labels"),
        ({"TEST_images": IMAGES, "TEST_labels": LABELS}, "rename TEST_images to test_images"),
        ({"external_images": IMAGES}, "leave them out"),
        ({"Site": np.array(["a"] * 12)}, "rename Site to train_site"),
    ],
)
def test_arrays_of_no_part_are_refused_if_they_tell_of_images(tmp_path: Path, beside: Arrays, remedy: str):
    message = refused(tmp_path, made(**beside))
    assert f"found {next(iter(beside))}" in message
    assert remedy in message


@pytest.mark.parametrize("name", ["patient_id", "patients", "PatientID", "subject-id", "case_id"])
def test_one_array_of_patients_for_the_whole_file_is_not_passed_over(tmp_path: Path, name: str):
    arrays = {key: array for key, array in made(**{name: IDS}).items() if key != "train_patient_id"}
    message = refused(tmp_path, arrays)
    assert f"rename {name} to train_patient_id" in message
    arrays["train_patient_id"] = arrays.pop(name)  # as it says
    assert load(tmp_path, arrays).table["patient"].tolist() == IDS.tolist()
    parts = {
        f"{part}_{kind}": made()[f"train_{kind}"]
        for part in ("train", "test")
        for kind in ("images", "labels")
    }
    assert f"give each part its own, such as train_{name} and test_{name}" in refused(
        tmp_path, {**parts, name: IDS}
    )


def test_other_arrays_of_no_part_are_left_out_with_a_note(tmp_path: Path):
    found = load(tmp_path, made(class_names=np.array(["benign", "malignant"])))
    assert found.notes == ("the arrays 'class_names' are left out, since they belong to no part",)
    unnamed = {key: array for key, array in made(train_Patient_ID=IDS).items() if key != "train_patient_id"}
    assert "'Patient_ID' may tell patients" in "".join(load(tmp_path, unnamed).notes)


@pytest.mark.parametrize(
    ("changed", "remedy"),
    [
        (
            {"train_images": np.repeat(IMAGES[:, None, None], 8, 2)},
            "leave the channel out (train_images[:, 0])",
        ),
        ({"train_labels": LABELS[None]}, "try train_labels[0]"),
        ({"train_labels": (IMAGES[..., None] > 99).astype(np.uint8)}, "try train_labels[..., 0]"),
        ({"train_labels": (IMAGES[:, None] > 99).astype(np.uint8)}, "try train_labels[:, 0]"),
        ({"train_labels": np.where(IMAGES > 99, np.nan, 1)}, "not finite (NaN or infinite)"),
        ({"train_labels": (IMAGES > 99) * 0.5}, "not whole, expected 0, 1, …: round them"),
    ],
)
def test_shapes_and_numbers_are_refused_with_what_mends_them(tmp_path: Path, changed: Arrays, remedy: str):
    assert remedy in refused(tmp_path, made(**changed))
