"""Folders without a manifest: rows as a manifest of the same tree would have them, and a manifest to be checked."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fedunlearn.__main__ import app
from fedunlearn.core import InputError
from sites.folder import Folder
from sites.folder.layout import Layout, rows_of, write
from tests.sites.formats.making import dataset, save
from tests.sites.problems import problems_of

PATIENTS = {"sick": "pq", "well": "prs"}
TREE = [f"{label}/{patient}/{n}.png" for label, some in PATIENTS.items() for patient in some for n in "12"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five folders of four patients, p in both classes, and what lies about in folders."""
    for number, name in enumerate(TREE):
        picture(tmp_path / "set" / name, number)
    for name in (".DS_Store", "sick/Thumbs.db", "sick/p/._1.png", "sick/p/notes.txt", ".git/x.png"):
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_text("nothing")
    return tmp_path


def picture(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    pixels[0, 0] = number  # tells which picture it is
    Image.fromarray(pixels).save(file, format="PNG")


def refused(source: Folder, root: Path) -> str:
    with pytest.raises(InputError) as caught:
        source.load(root)
    return str(caught.value)


def test_classes_and_patients_are_the_folders(root: Path):
    source = Folder(path="set", layout="class/patient")
    assert problems_of(source, root) == []
    found = source.load(root)
    assert found.table["image"].tolist() == TREE  # sorted
    assert found.table["patient"].tolist() == [name.split("/")[1] for name in TREE]
    assert found.targets.tolist() == [0] * 4 + [1] * 6
    assert found.pixels[:, 0, 0, 0].tolist() == [*range(10)]
    assert "Labels: 0 sick, 1 well." in found.note
    left, several = found.notes
    assert left == "left out as no images: 1 .db, 1 .txt, 2 hidden files"
    assert several.startswith("'p' has a folder at several classes, and each is taken for one person")


def test_the_same_tree_and_its_manifest_are_one_collection(root: Path):
    result = CliRunner().invoke(app, ["manifest", str(root / "set"), "--layout", "class/patient"])
    assert result.exit_code == 0
    assert "set/manifest.csv: 10 images of 4 patients; read it, and correct what is wrong" in result.stdout
    assert "data: {name: folder, manifest: manifest.csv}" in result.stdout
    assert (root / "set" / "manifest.csv").read_text().splitlines()[:2] == [
        "file,label,patient,site",
        "sick/p/1.png,sick,p,",
    ]
    text = (root / "set" / "manifest.csv").read_text()
    (root / "set" / "manifest.csv").write_text(
        text.replace("site\n", "x\n", 1)
    )  # which a person would fill in
    written = Folder(manifest="set/manifest.csv").load(root)
    made = Folder(path="set", layout="class/patient").load(root)
    assert written.table.drop(columns="x").equals(made.table)
    assert np.array_equal(written.targets, made.targets) and np.array_equal(written.pixels, made.pixels)


def test_a_manifest_is_never_overwritten(root: Path):
    there = root / "m.csv"
    there.write_text("mine")
    result = CliRunner().invoke(app, ["manifest", str(root / "set"), "--to", str(there)])
    assert result.exit_code == 2 and "is there already" in result.stderr
    assert there.read_text() == "mine"


def test_without_a_layout_labels_are_left_to_the_person(root: Path):
    result = CliRunner().invoke(app, ["manifest", str(root / "set"), "--to", str(root / "new.csv")])
    assert result.exit_code == 0
    assert "fill in label" in result.stdout and "patients are the folders that images lie in" in result.stdout
    assert (root / "new.csv").read_text().splitlines()[1] == "set/sick/p/1.png,,p,"
    assert "label: found nothing" in refused(Folder(manifest="new.csv"), root)


def test_sites_without_labels_become_a_manifest_to_be_filled_in(root: Path):
    where = ["manifest", str(root / "set"), "--layout", "site/patient", "--to", str(root / "new.csv")]
    result = CliRunner().invoke(app, where)
    assert (
        result.exit_code == 0 and "fill in label\n" in result.stdout and "fill in site" not in result.stdout
    )
    assert "'p' has a folder at several sites" in result.stdout
    text = (root / "new.csv").read_text()
    assert text.splitlines()[1] == "set/sick/p/1.png,,p,sick"
    filled = "\n".join(line.replace(",,", f",{n % 2},") for n, line in enumerate(text.splitlines()))
    (root / "new.csv").write_text(filled)
    found = Folder(manifest="new.csv").load(root)
    assert found.table["site"].tolist() == [name.split("/")[0] for name in TREE]


def test_a_manifest_beside_the_folder_says_that_files_lie_outside(root: Path):
    (root / "else").mkdir()
    result = CliRunner().invoke(app, ["manifest", str(root / "set"), "--to", str(root / "else" / "m.csv")])
    assert "outside: true" in result.stdout
    assert (root / "else" / "m.csv").read_text().splitlines()[1].startswith("../set/sick/p/1.png")


def test_sites_classes_and_patients(tmp_path: Path):
    for number, name in enumerate(
        ("n/sick/p/a.png", "n/well/q/a.png", "s/sick/p/b.png", "s/well/r/deep/a.png")
    ):
        picture(tmp_path / name, number)
    found = Folder(path=".", layout="site/class/patient").load(tmp_path)
    assert found.table["site"].tolist() == ["n", "n", "s", "s"]
    assert found.table["patient"].tolist() == ["p", "q", "p", "r"]
    assert found.targets.tolist() == [0, 1, 0, 1]
    assert not any(
        "several classes" in note for note in found.notes
    )  # several sites are noted when these are dealt


def test_masks_beside_images_are_no_images(tmp_path: Path):
    for number, name in enumerate(
        ("sick/p/1.png", "sick/p/1_mask.png", "sick/p/1_mask_1.png", "well/q/a.png")
    ):
        picture(tmp_path / name, number)
    found = rows_of(tmp_path, "class/patient")
    assert [row.cells["file"] for row in found.rows] == ["sick/p/1.png", "well/q/a.png"]
    assert "2 files called like label maps, such as 'sick/p/1_mask.png', are left out" in found.notes


def volume(file: Path, voxels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)


def test_label_maps_are_told_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ramp = np.arange(240, dtype=np.float32).reshape(6, 8, 5)
    for name, label_map in (
        ("n/p/t1.nii.gz", "n/p/t1_seg.nii.gz"),
        ("n/q/one.nii", "n/q/one-label.nii"),
        ("s/r/image.nii.gz", "s/r/segm.nii.gz"),
    ):
        volume(tmp_path / "set" / name, ramp)
        volume(tmp_path / "set" / label_map, (ramp > 99).astype(np.uint8))
    found = Folder(path="set", layout="site/patient").load(tmp_path)
    assert (found.kind, found.classes) == ("segmentation", 2)
    assert found.table["site"].tolist() == ["n", "n", "s"] and found.table["patient"].tolist() == [
        "p",
        "q",
        "r",
    ]
    volume(tmp_path / "set" / "s" / "r" / "other.nii", ramp)
    message = refused(Folder(path="set", layout="site/patient"), tmp_path)
    assert "s/r/segm.nii.gz: is called like a label map, but it is not clear of which image" in message
    assert "s/r/other.nii: found no label map beside it, such as other_seg.nii" in message


def test_folders_of_dicom_slices_are_volumes_and_other_dicom_files_images(tmp_path: Path):
    slices = np.random.default_rng(0).integers(0, 255, (6, 9, 8), np.uint8)
    for label, patient in (("sick", "p"), ("well", "q")):
        (tmp_path / label / patient / "ct").mkdir(parents=True)
        for n, pixels in enumerate(slices):
            lies = {"ImagePositionPatient": [0, 0, n], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
            tags = {"SeriesInstanceUID": f"1.2.{len(label)}", "PixelSpacing": [1, 1], **lies}
            save(tmp_path / label / patient / "ct" / f"IM{9 - n}", dataset(pixels, tags))
    table = rows_of(tmp_path, "class/patient")
    assert [row.cells["file"] for row in table.rows] == ["sick/p/ct", "well/q/ct"]
    assert table.notes == ("2 folders of DICOM slices, such as 'sick/p/ct', are read as one volume each",)
    found = Folder(path=".", layout="class/patient").load(tmp_path)
    assert found.pixels.shape[:2] == (2, 1) and sorted(found.pixels.shape[2:]) == [6, 8, 9]
    (tmp_path / "sick" / "p" / "two").mkdir()
    for n in range(2):
        save(
            tmp_path / "sick" / "p" / "two" / f"{n}.dcm", dataset(slices[n], {"SeriesInstanceUID": f"1.{n}"})
        )
    assert [row.cells["file"] for row in rows_of(tmp_path, "class/patient").rows][1:3] == [
        "sick/p/two/0.dcm",
        "sick/p/two/1.dcm",
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Folder(path="set", layout="site/patient"), "nothing tells the labels of these images"),
        (
            Folder(path="set", layout="site/class/patient"),
            "found 2 folders above it, expected site/class/patient",
        ),
        (Folder(path="set", layout="site/class/patient"), "so in 5 more rows, 10 in all"),
        (Folder(path="none", layout="class/patient"), "--data-root tells where data files are"),
        (Folder(path=".", manifest="m.csv"), "found manifest and path, expected manifest: FILE.csv, or path"),
        (Folder(path="set"), "found path, expected"),
        (Folder(), "found nothing, expected"),
    ],
)
def test_what_cannot_be_read_is_told(root: Path, source: Folder, words: str):
    assert words in refused(source, root)


def test_a_bad_file_is_named_by_its_path(root: Path):
    (root / "set" / "sick" / "p" / "1.png").write_text("no image")
    with pytest.raises(InputError, match=r"set: sick/p/1\.png: file: "):
        Folder(path="set", layout="class/patient").load(root)


@pytest.mark.parametrize("layout", ["class/patient", "site/patient"])
def test_the_parts_of_a_split_are_neither_classes_nor_sites(tmp_path: Path, layout: Layout):
    for number, name in enumerate(
        ("Train/sick/1.png", "Train/well/2.png", "test/sick/3.png", "test/well/4.png")
    ):
        picture(tmp_path / name, number)
    with pytest.raises(InputError, match="'Train', 'test' are the parts of an official split"):
        rows_of(tmp_path, layout)


def test_names_that_are_no_text_are_refused_by_name(tmp_path: Path):
    picture(tmp_path / "sick" / "p" / os.fsdecode("ü.png".encode("latin-1")), 1)
    for read in (lambda: rows_of(tmp_path, "class/patient"), lambda: write(tmp_path, None)):
        with pytest.raises(InputError, match=r"1 names in .* not in UTF-8, such as 'sick/p/\ufffd.png'"):
            read()
    assert not (tmp_path / "manifest.csv").exists()


def test_a_flat_folder_has_no_patients_and_a_file_is_no_folder(tmp_path: Path):
    picture(tmp_path / "1.png", 1)
    assert write(tmp_path, None)[0].endswith("manifest.csv: 1 images; read it, and correct what is wrong")
    with pytest.raises(InputError, match=r"1\.png, which is a file: expected a folder"):
        write(tmp_path / "1.png", None)


@pytest.mark.parametrize(
    ("image", "label_map"),
    [
        ("p/images/1.png", "p/masks/1.png"),
        ("p/img/1.png", "p/GroundTruth/1_mask.png"),
        ("p/1.png", "p/label/1.png"),
        ("p/imagesTr/1_0000.png", "p/labelsTr/1.png"),
        ("p/1.png", "p/mask_1.png"),
        ("p/1.png", "p/1_manual.png"),
    ],
)
def test_label_maps_are_told_by_their_folder_or_name_and_are_no_images(
    tmp_path: Path, image: str, label_map: str
):
    for number, name in enumerate((f"a/{image}", f"a/{label_map}")):
        picture(tmp_path / name, number)
    (row,) = rows_of(tmp_path, "site/patient").rows
    assert (row.cells["file"], row.cells["label_map"]) == (f"a/{image}", f"a/{label_map}")
    found = rows_of(tmp_path, "class/patient")
    assert [row.cells["file"] for row in found.rows] == [f"a/{image}"]
    assert f"1 files called like label maps, such as 'a/{label_map}', are left out" in found.notes


def test_folders_called_like_maps_without_images_beside_hold_images(tmp_path: Path):
    picture(tmp_path / "a" / "label" / "1.png", 1)
    assert [row.cells["file"] for row in rows_of(tmp_path, "class/patient").rows] == ["a/label/1.png"]


@pytest.mark.parametrize("spoil", ["another series", "a text without an ending", "nothing"])
def test_slices_that_cannot_be_one_volume_are_images_with_a_note(tmp_path: Path, spoil: str):
    folder = tmp_path / "sick" / "p"
    folder.mkdir(parents=True)
    for number in range(12):
        where = {"ImagePositionPatient": [0, 0, number * 2.0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        uid = "1.2.4" if spoil == "another series" and number > 5 else "1.2.3"
        pixels = np.full((8, 8), number, np.uint8)
        save(folder / f"IM{number:02}", dataset(pixels, {**where, "SeriesInstanceUID": uid}))
    if spoil == "a text without an ending":
        (folder / "AREADME").write_text("hello", encoding="utf-8")
    table = rows_of(tmp_path, "class/patient")
    said = [
        note for note in table.notes if note.startswith("1 folders, such as 'sick/p', hold slices of several")
    ]
    assert (len(said), len(table.rows)) == {
        "another series": (1, 12),
        "a text without an ending": (1, 13),
        "nothing": (0, 1),
    }[spoil]


def test_spaces_around_names_survive_the_manifest(tmp_path: Path):
    names = [" a/ p /1.png ", " a/q/2.png", "b/r/ 3.png", "b/s/4 .png"]
    for number, name in enumerate(names):
        picture(tmp_path / name, number)
    write(tmp_path, tmp_path / "m.csv", "class/patient")
    text = (tmp_path / "m.csv").read_text()
    (tmp_path / "m.csv").write_text(
        "\n".join(line.rpartition(",")[0] for line in text.splitlines())
    )  # no site
    found = Folder(manifest="m.csv").load(tmp_path)
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert (found.names, found.table["patient"].tolist()) == (("a", "b"), ["p", "q", "r", "s"])
