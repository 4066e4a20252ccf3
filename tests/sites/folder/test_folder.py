"""`folder` reads every format with its ids as text, and names every bad row with its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from fedunlearn.core import InputError
from sites.folder import Folder
from sites.folder.manifest import read_manifest
from tests.sites.formats.making import dataset, save
from tests.sites.problems import problems_of


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def manifest(root: Path, rows: list[str], header: str = "file,label,patient") -> Folder:
    (root / "m.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return Folder(manifest="m.csv")


def png(root: Path, name: str, shape: tuple[int, ...] = (6, 8)) -> np.ndarray[Any, Any]:
    pixels = rng().integers(0, 255, shape, np.uint8)
    Image.fromarray(pixels).save(root / name)
    return pixels


def test_folder_reads_png_with_ids_as_text(tmp_path: Path):
    first, second = png(tmp_path, "a.png"), png(tmp_path, "b.png", (6, 8))
    source = manifest(
        tmp_path, ["a.png,sick,012,1,33", '"b.png",healthy,"012",NO,40'], "file,label,patient,site,age"
    )
    assert problems_of(source, tmp_path) == []
    found = source.load(tmp_path)
    assert found.table["patient"].tolist() == ["012", "012"]
    assert found.table["site"].tolist() == ["1", "NO"]
    assert found.table["age"].tolist() == [33, 40]
    assert found.targets.tolist() == [1, 0]  # healthy, sick: alphabetical
    assert "0 healthy, 1 sick" in found.note
    assert not found.synthetic_patients
    assert np.array_equal(found.pixels, np.stack([first, second])[:, None])  # height first, nothing rescaled


def test_folder_reads_colour_and_makes_channels_equal(tmp_path: Path):
    colour = png(tmp_path, "a.png", (6, 8, 3))
    png(tmp_path, "b.png", (6, 8))
    png(tmp_path, "c.png", (6, 8, 4))
    source = manifest(tmp_path, ["a.png,0,p1", "b.png,1,p2", "c.png,0,p3"])
    with pytest.raises(InputError, match=r"m\.csv:3:1: file: has shape \(1, 6, 8\)"):
        source.load(tmp_path)
    found = Folder(manifest="m.csv", channels=3).load(tmp_path)
    assert found.pixels.shape == (3, 3, 6, 8)
    assert np.array_equal(found.pixels[0], np.moveaxis(colour, -1, 0))
    grey = Folder(manifest="m.csv", channels=1).load(tmp_path)
    assert np.abs(grey.pixels[0, 0] - np.asarray(Image.fromarray(colour).convert("L"), np.int64)).max() <= 1


def test_folder_reads_palettes_and_transparency(tmp_path: Path):
    colours = np.array([[[255, 0, 0], [0, 0, 255], [255, 0, 0]]], np.uint8)
    Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    Image.fromarray(np.array([[[9, 255], [8, 0], [7, 255]]], np.uint8)).save(
        tmp_path / "b.png"
    )  # grey and alpha
    found = Folder(manifest="m.csv", channels=3)
    manifest(tmp_path, ["a.png,0,p1", "b.png,1,p2"])
    pixels = found.load(tmp_path).pixels
    assert (
        np.abs(pixels[0].astype(int) - np.moveaxis(colours, -1, 0)).max() <= 4
    )  # the palette is approximate
    assert pixels[1].tolist() == [[[9, 8, 7]]] * 3


def test_folder_reads_volumes_of_different_shapes_once_a_size_is_given(tmp_path: Path):
    for name, shape in (("a.nii.gz", (8, 6, 4)), ("b.nii", (4, 6, 8))):
        nibabel.save(
            nibabel.Nifti1Image(rng().normal(0, 1000, shape).astype(np.float32), np.eye(4)), tmp_path / name
        )
    np.save(tmp_path / "c.npy", rng().normal(0, 1, (5, 6, 8)))
    source = manifest(tmp_path, ["a.nii.gz,0,p1", "b.nii,1,p2", "c.npy,1,p3"])
    with pytest.raises(InputError, match=r"m\.csv:3:1: file: has shape \(1, 4, 6, 8\).*set size"):
        source.load(tmp_path)
    found = Folder(manifest="m.csv", size=4).load(tmp_path)
    assert found.pixels.shape == (3, 1, 4, 4, 4)
    assert found.pixels.dtype == np.uint8


def test_folder_reads_dicom(tmp_path: Path):
    pixels = rng().integers(0, 4095, (6, 8), np.uint16)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    image = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.Rows, image.Columns, image.SamplesPerPixel = 6, 8, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PixelData = pixels.tobytes()
    image.save_as(tmp_path / "a.dcm")
    found = manifest(tmp_path, ["a.dcm,0,p1"]).load(tmp_path)
    assert found.pixels.shape == (1, 1, 6, 8)
    order = np.corrcoef(found.pixels.ravel().astype(float), pixels.ravel().astype(float))
    assert order[0, 1] > 0.999  # stretched, and neither transposed nor inverted


@pytest.mark.parametrize(
    ("ways", "note"),
    [
        ("LF LF LF", None),
        ("LF RF LF", "run in 2 ways, such as LI (2), RI (1), and are not turned: are some mirrored"),
        ("LF", None),
    ],
)
def test_single_images_that_run_in_several_directions_are_noted(tmp_path: Path, ways: str, note: str | None):
    """As of a hospital whose images are mirrored; nothing is said of those that do not tell."""
    for number, way in enumerate(ways.split()):
        save(
            tmp_path / f"{number}.dcm",
            dataset(np.full((6, 8), number, np.uint8), {"PatientOrientation": list(way)}),
        )
    save(tmp_path / "x.dcm", dataset(np.full((6, 8), 9, np.uint8)))
    rows = [f"{number}.dcm,{number % 2},p{number}" for number in range(len(ways.split()))]
    found = manifest(tmp_path, [*rows, "x.dcm,1,q"]).load(tmp_path).notes
    told = [one for one in found if "rows and columns of single images" in one]
    assert len(told) == (note is not None) and all(str(note) in one for one in told)


def test_folder_reports_every_bad_row_with_its_place(tmp_path: Path):
    png(tmp_path, "a.png")
    png(tmp_path, "b.png")
    rows = ["a.png,0,p1", "gone.png,1,p2", "b.png,0,", "a.png,x,p4", "notes.txt,0,p5"]
    found = [str(p) for p in problems_of(manifest(tmp_path, rows), tmp_path)]
    place = str(tmp_path / "m.csv")
    assert [f.removeprefix(place) for f in found] == [
        f":3:1: file: found no file {tmp_path / 'gone.png'}; paths start at the manifest's folder",
        ":4:9: patient: found nothing, expected the patient of this image: fill it in, or remove the row",
        ":5:1: file: found 'a.png' again (first in line 2), expected one row for each image: remove one of them, or "
        "if it has several labels, choose one, or name all findings in one cell (A|B) and say findings: all",
        ":5:7: label: found 'x', expected a class number as in most rows (0, 1, …): correct it, or write all of "
        "them as names, such as 'grade 1'",
        f":6:1: file: found no file {tmp_path / 'notes.txt'}; paths start at the manifest's folder",
    ]
    with pytest.raises(InputError) as caught:
        manifest(tmp_path, rows).load(tmp_path)
    assert len(caught.value.problems) == 5


def test_folder_reports_every_unreadable_file(tmp_path: Path):
    png(tmp_path, "a.png")
    for name in ("b.png", "c.npy", "d.dcm", "e.nii"):
        (tmp_path / name).write_text("no image")
    source = manifest(tmp_path, ["a.png,0,p1", "b.png,0,p1", "c.npy,1,p2", "d.dcm,1,p2", "e.nii,1,p2"])
    assert [problem.line for problem in problems_of(source, tmp_path)] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"file,label\na.png,0\n", "m.csv:1: found the columns file, label, expected also patient"),
        (b"file,label,patient,patient\n", "patient more than once"),
        (b"file,label,patient\na.png,0\nb.png\n", "m.csv:2: found 2 cells, expected 3"),
        (b"file,label,patient\n", "no rows"),
        (b"", "found the columns none"),
        (b"\xff\xfe\x00", "no CSV file in UTF-8"),
        (b'file,label,patient\n"a.png,0,p\n', "no CSV file"),
    ],
)
def test_folder_reports_bad_manifests(tmp_path: Path, content: bytes, expected: str):
    (tmp_path / "m.csv").write_bytes(content)
    assert expected in "\n".join(map(str, problems_of(Folder(manifest="m.csv"), tmp_path)))


def test_folder_reports_a_missing_manifest(tmp_path: Path):
    problems = problems_of(Folder(manifest="m.csv"), tmp_path)
    assert ["no manifest" in str(problem) for problem in problems] == [True]


def test_manifests_keep_lines_and_columns(tmp_path: Path):
    (tmp_path / "m.csv").write_text(
        '\ufefffile,label,patient\n"a,b.png",0, 007 \n\n"x\ny",1,p\nc,1,p\n', encoding="utf-8"
    )
    rows = read_manifest(tmp_path / "m.csv").rows
    assert [row.line for row in rows] == [2, 4, 6]
    assert dict(rows[0].cells) == {"file": "a,b.png", "label": "0", "patient": "007 "}
    assert rows[0].columns == {"file": 1, "label": 11, "patient": 13}


def test_parquet_manifests_are_read_and_their_rows_named(tmp_path: Path):
    png(tmp_path, "a.png")
    table = pd.DataFrame({"file": ["a.png", "b.png"], "label": [0, 1], "patient": ["012", None]})
    table.to_parquet(tmp_path / "m.parquet")
    rows = read_manifest(tmp_path / "m.parquet").rows
    assert [row.cells["patient"] for row in rows] == ["012", ""]
    found = [str(p) for p in problems_of(Folder(manifest="m.parquet"), tmp_path)]
    assert ["row 2, column file" in f or "row 2, column patient" in f for f in found] == [True, True]
    table.assign(patient=[1.5, 2]).to_parquet(tmp_path / "m.parquet")
    assert "decimal" in str(problems_of(Folder(manifest="m.parquet"), tmp_path)[0])
    (tmp_path / "m.parquet").write_text("no table")
    assert "no Parquet file" in str(problems_of(Folder(manifest="m.parquet"), tmp_path)[0])


# ------------------------------------------------------------------------------- manifests of somebody else


def linked(root: Path) -> dict[str, str]:
    """A folder with a manifest beside one with an image; ways that lead from the one to the other."""
    (root / "in").mkdir()
    (root / "out").mkdir()
    png(root / "out", "x.png")
    (root / "in" / "link.png").symlink_to(root / "out" / "x.png")
    (root / "in" / "folder").symlink_to(root / "out")
    (root / "in" / "chain.png").symlink_to(root / "in" / "link.png")
    return {
        "up": "../out/x.png",
        "absolute": str(root / "out" / "x.png"),
        "link": "link.png",
        "folder": "folder/x.png",
        "chain": "chain.png",
    }


@pytest.mark.parametrize("way", ["up", "absolute", "link", "folder", "chain"])
def test_a_file_outside_of_the_manifests_folder_is_refused_unless_allowed(tmp_path: Path, way: str):
    file = linked(tmp_path)[way]
    source = manifest(tmp_path / "in", [f"{file},0,p1"])
    (problem,) = problems_of(source, tmp_path / "in")
    assert str(problem) == (
        f"{tmp_path / 'in' / 'm.csv'}:2:1: file: found {file!r}, which leads out of the manifest's folder, to "
        f"{tmp_path / 'out' / 'x.png'}: put the file there, or set outside: true if you trust who wrote the manifest"
    )
    with pytest.raises(InputError, match="leads out"):
        source.load(tmp_path / "in")
    allowed = replace(source, outside=True)
    assert problems_of(allowed, tmp_path / "in") == []
    assert allowed.load(tmp_path / "in").pixels.shape == (1, 1, 6, 8)


def test_a_label_map_outside_of_the_manifests_folder_is_refused(tmp_path: Path):
    (tmp_path / "in").mkdir()
    source = manifest(tmp_path / "in", ["../a.nii,../../b.nii,p1"], "file,label_map,patient")
    assert [problem.column for problem in problems_of(source, tmp_path / "in")] == [1, 10]


def test_files_whose_way_stays_in_the_folder_are_read(tmp_path: Path):
    """By a manifest that is met through a link itself, by ``..`` within, and by a link to a neighbour."""
    (tmp_path / "real" / "deep").mkdir(parents=True)
    png(tmp_path / "real", "a.png")
    (tmp_path / "real" / "b.png").symlink_to("a.png")
    (tmp_path / "in").symlink_to(tmp_path / "real")
    absolute = tmp_path / "in" / "deep" / ".." / "a.png"
    source = manifest(tmp_path / "in", ["deep/../a.png,0,p1", "b.png,1,p2", f"{absolute},1,p3"])
    assert problems_of(source, tmp_path / "in") == []


@pytest.mark.parametrize("file", ["x\0.png", "x" * 5000 + ".png", "loop.png"])
def test_names_that_no_file_can_have_are_told_like_others(tmp_path: Path, file: str):
    (tmp_path / "loop.png").symlink_to("loop.png")
    (problem,) = problems_of(manifest(tmp_path, [f"{file},0,p1"]), tmp_path)
    assert (problem.line, problem.column) == (2, 1)


def test_problems_of_one_kind_are_told_five_times_and_then_counted(tmp_path: Path):
    rows = [f"{n}.png,{n % 2},{'' if n % 1000 == 7 else 'p'}" for n in range(5000)]
    source = manifest(tmp_path, rows)
    found = [str(problem) for problem in problems_of(source, tmp_path)]
    lines = [int(text.removeprefix(f"{tmp_path / 'm.csv'}:").split(":")[0]) for text in found[:-1]]
    # no file in the first five lines; every thousandth row without a patient, five in all
    assert lines == [2, 3, 4, 5, 6, 9, 1009, 2009, 3009, 4009]
    assert found[-1] == f"{tmp_path / 'm.csv'}: file: no file: so in 4,995 more rows, 5,000 in all"
    with pytest.raises(InputError) as caught:
        source.load(tmp_path)
    assert [str(problem) for problem in caught.value.problems] == found


def test_rows_with_too_few_cells_and_files_that_cannot_be_read_are_grouped_too(tmp_path: Path):
    for n in range(9):
        (tmp_path / f"{n}.png").write_text("no image")
    with pytest.raises(InputError) as caught:
        manifest(tmp_path, [f"{n}.png,0,p" for n in range(9)]).load(tmp_path)
    assert len(caught.value.problems) == 6
    assert "another format: so in 4 more rows, 9 in all" in str(caught.value.problems[-1])
    (*first, last) = problems_of(manifest(tmp_path, ["a.png,0"] * 20), tmp_path)
    assert [problem.line for problem in first] == [2, 3, 4, 5, 6]
    assert "another number of cells: so in 15 more rows, 20 in all" in str(last)
