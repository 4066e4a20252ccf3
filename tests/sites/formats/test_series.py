"""Slices of DICOM become the volume that they were cut from, whatever their files' names and order; or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset

from sites.folder import Folder
from sites.formats import sizes
from sites.formats.images import claimed, read
from sites.formats.unreadable import Unreadable
from tests.sites.formats.making import dataset, items, save
from tests.sites.problems import problems_of

Array = np.ndarray[Any, Any]

TRUTH = np.random.default_rng(3).integers(0, 4096, (6, 8, 7)).astype(np.uint16)
"""A body: its first axis runs to the right, the second to the front, the third up."""

WINDOW = {"WindowCenter": "2048", "WindowWidth": "4096"}
EDGES = (1.5, 1.0, 2.5)  # mm of its voxels

# How scanners cut: axes of (slices, rows, columns) in the body, and whether each runs backwards there. Radiologists'
# rows run to the left and columns to the back (axial), or down.
CUTS = {
    "axial, upwards": ((2, 1, 0), (False, True, True)),
    "axial, downwards": ((2, 1, 0), (True, True, True)),
    "coronal": ((1, 2, 0), (False, True, True)),
    "sagittal": ((0, 2, 1), (True, True, True)),
    "mirrored": ((2, 1, 0), (False, False, True)),
}


def cut(how: str) -> list[tuple[Array, dict[str, Any]]]:
    """The slices of `TRUTH`, in the order of its own cut, and the elements that tell where each lies."""
    axes, backwards = CUTS[how]
    stack = TRUTH.transpose(axes)
    stack = np.flip(stack, tuple(axis for axis, back in enumerate(backwards) if back))
    ways = []
    for axis, back in zip(axes, backwards, strict=True):
        way = np.zeros(3)
        way[axis] = (-1 if back else 1) * EDGES[axis]
        ways.append(way)
    corner = np.zeros(3)
    for axis, back in zip(axes, backwards, strict=True):
        corner[axis] = (TRUTH.shape[axis] - 1) * EDGES[axis] if back else 0.0
    to_dicom = np.array([-1.0, -1, 1])  # to the left, to the back, up
    found = []
    for number, pixels in enumerate(stack):
        position = (corner + number * ways[0]) * to_dicom
        row, column = (ways[axis] * to_dicom for axis in (2, 1))  # along a row the columns change
        turn = [*(row / np.linalg.norm(row)), *(column / np.linalg.norm(column))]
        tags = {
            "ImagePositionPatient": [f"{one:.6g}" for one in position],
            "ImageOrientationPatient": [f"{one:.6g}" for one in turn],
            "PixelSpacing": [f"{np.linalg.norm(ways[1]):g}", f"{np.linalg.norm(ways[2]):g}"],
        }
        found.append((pixels, tags))
    return found


def series(
    root: Path, how: str = "axial, upwards", spoil: Callable[[int, Dataset], Any] | None = None
) -> Path:
    """A folder of files whose names, numbers and order on the disk are all shuffled."""
    folder = root / "series"
    folder.mkdir()
    slices = cut(how)
    for number, name in enumerate(np.random.default_rng(0).permutation(len(slices))):
        pixels, tags = slices[number]
        made = dataset(
            pixels, {**WINDOW, **tags, "SeriesInstanceUID": "1.2.3", "InstanceNumber": int(name) + 1}
        )
        if spoil is None or spoil(number, made) is not False:
            save(folder / f"IM{name:04}", made)
    return folder


def greys(values: Array) -> Array:
    """Those of the window, by the standard's formula: ((x - (c - 0.5)) / (w - 1) + 0.5) · 255."""
    return np.clip((values.astype(float) - 2047.5) / 4095 + 0.5, 0, 1) * 255


@pytest.mark.parametrize("how", CUTS)
def test_a_series_is_the_volume_it_was_cut_from(tmp_path: Path, how: str):
    folder = series(tmp_path, how)
    found = read(folder)
    assert found.pixels.shape == (1, *TRUTH.shape)
    assert np.abs(found.pixels[0] - greys(TRUTH)).max() <= 0.51
    assert (found.format, found.low, found.high) == ("DICOM", TRUTH.min(), TRUTH.max())
    axes, backwards = CUTS[how]
    ends = ("RL", "AP", "SI")
    row, column = (ends[axes[axis]][backwards[axis]] for axis in (2, 1))  # files have no order of slices
    assert found.orientation[:2] == row + column and found.orientation[2] in ends[axes[0]]
    assert claimed(folder).shape == tuple(TRUTH.shape[axis] for axis in axes)


@pytest.mark.parametrize("how", CUTS)
def test_a_series_equals_the_same_volume_as_nifti(tmp_path: Path, how: str):
    image = nibabel.Nifti1Image(TRUTH, np.diag([*EDGES, 1.0]))
    nibabel.save(image, tmp_path / "a.nii")
    from_series, from_nifti = (read(file) for file in (series(tmp_path, how), tmp_path / "a.nii"))
    # one has a window, the other percentiles: the same order of values
    order = np.corrcoef(from_series.pixels.ravel(), from_nifti.pixels.ravel())[0, 1]
    assert from_series.pixels.shape == from_nifti.pixels.shape and order > 0.999


@pytest.mark.parametrize("how", CUTS)
def test_frames_that_tell_where_they_lie_are_that_volume(tmp_path: Path, how: str):
    """An enhanced file: its frames in any order, each with its place, all with one direction."""
    slices = cut(how)
    order = np.random.default_rng(1).permutation(len(slices))
    frames = []
    for number in order:
        (item,) = items(
            PlanePositionSequence=items(ImagePositionPatient=slices[number][1]["ImagePositionPatient"])
        )
        frames.append(item)
    shared = items(
        PlaneOrientationSequence=items(ImageOrientationPatient=slices[0][1]["ImageOrientationPatient"]),
        PixelMeasuresSequence=items(PixelSpacing=slices[0][1]["PixelSpacing"]),
        FrameVOILUTSequence=items(**WINDOW),
    )
    tags = {"PerFrameFunctionalGroupsSequence": frames, "SharedFunctionalGroupsSequence": shared}
    save(tmp_path / "a", dataset(np.stack([slices[n][0] for n in order]), tags, frames=len(order)))
    found = read(tmp_path / "a")
    assert found.pixels.shape == (1, *TRUTH.shape)
    assert np.abs(found.pixels[0] - greys(TRUTH)).max() <= 0.51
    assert found.notes == ("scaled by the window",)


def test_frames_rescaled_one_by_one_are_made_physical_one_by_one(tmp_path: Path):
    """As in PET: each frame uses all its bits, and has a slope of its own."""
    physical = TRUTH.transpose(2, 1, 0).astype(float) * np.arange(1, 8)[:, None, None]
    frames = []
    for slope in range(1, 8):
        (item,) = items(
            PixelValueTransformationSequence=items(
                RescaleSlope=str(slope), RescaleIntercept="0", RescaleType="US"
            )
        )
        frames.append(item)
    tags = {"PerFrameFunctionalGroupsSequence": frames}
    save(tmp_path / "a", dataset(np.ascontiguousarray(TRUTH.transpose(2, 1, 0)), tags, frames=7))
    found = read(tmp_path / "a")
    low, high = np.percentile(physical, (0.5, 99.5))
    assert np.abs(found.pixels[0] - np.clip((physical - low) / (high - low), 0, 1) * 255).max() <= 0.51
    assert found.notes == ("not told where the frames lie: read in the order stored",)
    assert (found.low, found.high) == (physical.min(), physical.max())


def test_slices_with_windows_of_their_own_are_not_windowed(tmp_path: Path):
    """Else a lesion would be as bright as what lies beside it in another slice."""

    def own(number: int, made: Dataset) -> None:
        made.WindowCenter, made.BurnedInAnnotation = str(100 * number + 500), "YES"

    found = read(series(tmp_path, spoil=own))
    low, high = np.percentile(TRUTH, (0.5, 99.5))
    assert np.abs(found.pixels[0] - np.clip((TRUTH - low) / (high - low), 0, 1) * 255).max() <= 0.51
    burnt, unlike = found.notes
    assert "are burnt into the pixels" in burnt
    assert unlike == "slices have windows of their own: spread between the percentiles of all"


def test_a_tilted_gantry_is_read_with_a_note(tmp_path: Path):
    def tilt(number: int, made: Dataset) -> None:
        x, y, z = map(float, made.ImagePositionPatient)
        made.ImagePositionPatient = [x, y + number, z]

    found = read(series(tmp_path, spoil=tilt))
    assert np.abs(found.pixels[0] - greys(TRUTH)).max() <= 0.51
    assert "slices lie askew in their stack" in found.notes[-1]


def test_what_lies_beside_a_series_is_not_looked_at(tmp_path: Path):
    folder = series(tmp_path)
    for name in (".DS_Store", "DICOMDIR", "Thumbs.db"):
        (folder / name).write_text("x")
    assert read(folder).pixels.shape == (1, *TRUTH.shape)


def test_a_folder_of_one_image_is_that_image(tmp_path: Path):
    (tmp_path / "one").mkdir()
    save(tmp_path / "one" / "a", dataset(TRUTH[0], WINDOW))
    assert np.abs(read(tmp_path / "one").pixels - greys(TRUTH[:1])).max() <= 0.51
    assert claimed(tmp_path / "one").shape == TRUTH.shape[1:]


def missing(number: int, _: Dataset) -> bool:
    return number != 3


def twice(number: int, made: Dataset) -> None:
    if number == 3:
        made.ImagePositionPatient = [
            *made.ImagePositionPatient[:2],
            float(made.ImagePositionPatient[2]) - EDGES[2],
        ]


def scout(number: int, made: Dataset) -> None:
    if number == 0:
        made.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def of_two(number: int, made: Dataset) -> None:
    made.SeriesInstanceUID = f"1.2.{number % 2}"


def nowhere(number: int, made: Dataset) -> None:
    if number == 2:
        del made.ImagePositionPatient


def smaller(number: int, made: Dataset) -> None:
    if number == 2:
        made.Rows, made.PixelData = 4, made.PixelData[: 4 * made.Columns * 2]


def senseless(number: int, made: Dataset) -> None:
    made.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]


def inverted(number: int, made: Dataset) -> None:
    if number == 2:
        made.PhotometricInterpretation = "MONOCHROME1"


def cut_off(number: int, made: Dataset) -> None:
    if number == 2:
        made.PixelData = made.PixelData[:-20]


def moved(*which: int) -> Callable[[int, Dataset], None]:
    """Some slices 30 mm to the left."""

    def move(number: int, made: Dataset) -> None:
        x, *others = map(float, made.ImagePositionPatient)
        made.ImagePositionPatient = [x + 30 * (number in which), *others]

    return move


def of_two_people(number: int, made: Dataset) -> None:
    made.PatientID = "ab"[number % 2]


def sat_up(number: int, made: Dataset) -> None:
    made.FrameOfReferenceUID = f"1.2.{number % 2}"


BAD: dict[str, tuple[Callable[[int, Dataset], Any], str]] = {
    "a gap": (missing, "has slices 2.5 mm apart, but 5 mm between 5 and 10 mm: are some missing?"),
    "a place twice": (twice, "has 1 slices at a place where another one lies: keep one series"),
    "a scout": (scout, "has slices in several directions, perhaps a scout"),
    "two series": (of_two, "has 2 series in it (3 files, 4 files), expected one"),
    "slices beside": (moved(2, 3), "has 2 slices up to 30.0 mm beside the line of the others"),
    # The line is that from the first of 7 to the last: 5, 10, 15, 10, 5 mm from it are those between
    "a stack beside": (moved(3, 4, 5, 6), "has 5 slices up to 15.0 mm beside the line of the others"),
    "two people": (of_two_people, "has slices of several patients ('a', 'b' as PatientID)"),
    "two frames": (sat_up, "tells the places of its slices in 2 frames of reference"),
    "no place": (
        nowhere,
        "does not tell where its slices lie (no ImagePositionPatient): convert it to NIfTI",
    ),
    "a smaller slice": (smaller, "has images of the sizes"),
    "senseless": (senseless, "has an ImageOrientationPatient or PixelSpacing that makes no sense"),
    "an inverted slice": (inverted, "has slices of several sizes or kinds"),
    "a slice cut off": (cut_off, "is a DICOM file that is cut off: it has"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_series_is_refused(tmp_path: Path, name: str):
    spoil, expected = BAD[name]
    with pytest.raises(Unreadable) as caught:
        read(series(tmp_path, spoil=spoil))
    assert expected in str(caught.value)


def test_other_files_in_a_series_are_named(tmp_path: Path):
    folder = series(tmp_path)
    (folder / "notes.txt").write_text("seen by me")
    with pytest.raises(Unreadable, match=r"^notes\.txt is text that starts with 'seen by me'"):
        claimed(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(Unreadable, match="is an empty folder"):
        claimed(empty)


def test_a_manifest_may_name_folders(tmp_path: Path):
    series(tmp_path)
    (tmp_path / "m.csv").write_text("file,label,patient\nseries,0,p\n", encoding="utf-8")
    found = Folder(manifest="m.csv").load(tmp_path)
    assert np.abs(found.pixels[0, 0] - greys(TRUTH)).max() <= 0.51
    assert "series: scaled by the window" in found.notes
    assert found.seen is not None and found.seen["orientation"].tolist() == ["LPS"]


def test_a_series_whose_files_are_links_out_of_the_folder_is_refused(tmp_path: Path):
    """As single files are: else a manifest of somebody else could name any image."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = series(elsewhere)
    linked = tmp_path / "in" / "series"
    linked.mkdir(parents=True)
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    (tmp_path / "in" / "m.csv").write_text("file,label,patient\nseries,0,p\n", encoding="utf-8")
    (problem,) = problems_of(Folder(manifest="m.csv"), tmp_path / "in")
    assert "leads out of the manifest's folder" in str(problem)
    assert Folder(manifest="m.csv", outside=True).load(tmp_path / "in").pixels.shape == (1, 1, *TRUTH.shape)


def test_a_series_too_large_for_memory_is_refused_by_its_headers(tmp_path: Path):
    claim = claimed(series(tmp_path))
    assert claim.bytes == TRUTH.nbytes and sizes.excess({"it": claim}, sizes.WORK) is None


@pytest.mark.parametrize(("name", "content"), [("info.txt", b"hello"), ("a.json", b"{}"), ("empty", b"")])
def test_what_is_no_slice_may_be_taken_away(tmp_path: Path, name: str, content: bytes):
    folder = series(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(Unreadable) as caught:
        read(folder)
    text = str(caught.value)
    assert text.startswith(f"{name} is ") and text.endswith("; or take it out of the folder of the series")


def test_pixel_spacings_rounded_otherwise_are_one(tmp_path: Path):
    def rounded(number: int, made: Dataset) -> None:
        made.PixelSpacing = [f"{float(one) * (1.0001 if number % 2 else 1):.5g}" for one in made.PixelSpacing]

    found = read(series(tmp_path, spoil=rounded))
    assert np.abs(found.pixels[0] - greys(TRUTH)).max() <= 0.51
