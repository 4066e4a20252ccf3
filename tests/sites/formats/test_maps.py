"""Label maps: what their numbers mean, and maps in another order, resolution or place than their image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from fedunlearn import scenario as scenarios
from fedunlearn.core import IGNORED, InputError
from sites.collection import Collection
from sites.folder import Folder
from sites.formats.maps import meanings, merged, only_ignored
from sites.formats.unreadable import Unreadable
from tests.runs import TINY, write

Array = np.ndarray[Any, Any]

SHAPE = (8, 12, 10)
PLACE = np.array([[1.0, 0, 0, -16], [0, 1, 0, -18], [0, 0, 1, -5], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def image() -> Array:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def labels() -> Array:
    made = np.zeros(SHAPE, np.uint8)
    made[2:6, 2:6, 2:6], made[2:6, 8:12, 4:8] = 1, 2
    return made


def read(root: Path, voxels: Any, made: Any, source: Folder | None = None) -> Collection:
    """The collection of one image and its label map; both arrays at `PLACE`, or images of nibabel's."""
    for name, one in (("a.nii", voxels), ("m.nii", made)):
        nibabel.save(one if hasattr(one, "affine") else nibabel.Nifti1Image(one, PLACE), root / name)
    (root / "m.csv").write_text("file,label_map,patient\na.nii,m.nii,p\n", encoding="utf-8")
    return (source or Folder(manifest="m.csv")).load(root)


def message(root: Path, voxels: Any, made: Any, source: Folder | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read(root, voxels, made, source)
    (problem,) = caught.value.problems
    return str(problem)


def turned(array: Array, codes: str) -> nibabel.Nifti1Image:
    made = nibabel.Nifti1Image(array, PLACE)
    return made.as_reoriented(ornt_transform(io_orientation(PLACE), axcodes2ornt(tuple(codes))))


# ----------------------------------------------------------------------------------------- what numbers mean


@pytest.mark.parametrize(
    ("found", "expected"),
    [([0, 255], True), ([255], True), ([0], False), ([0, 1, 255], False), ([], False), ([0, 1], False)],
)
def test_a_map_of_nothing_but_255_is_told(found: list[float], expected: bool):
    assert only_ignored(found) is expected


def test_meanings_of_brats_labels():
    table = meanings([0, 1, 2, 4], [(4, 3)], None)
    assert table[[0, 1, 2, 4]].tolist() == [0, 1, 2, 3]
    assert meanings([0, 4, 7, 255], [(4, 3), (7, IGNORED)], None)[[0, 4, 7, 255]].tolist() == [0, 3, 255, 255]
    assert meanings([0, 255], [(255, 1)], None)[[0, 255]].tolist() == [0, 1]
    with pytest.raises(
        Unreadable, match=r"unknown labels 3, expected whole numbers in 0…2, .*or one that labels names: 4"
    ):
        meanings([0, 3, 4], [(4, 2)], (0, 1, 2))


def test_masks_of_0_and_255_are_read_if_it_is_said_what_255_is(tmp_path: Path):
    mask = (labels() > 0).astype(np.uint8) * 255
    assert "m.csv:2:7: label_map" in message(tmp_path, image(), mask)
    said = Folder(manifest="m.csv", labels={255: 1})
    assert np.array_equal(read(tmp_path, image(), mask, said).targets[0], labels() > 0)
    # A hospital whose masks are 0 and 1 beside it.
    assert np.array_equal(
        read(tmp_path, image(), (labels() > 0).astype(np.uint8), said).targets[0], labels() > 0
    )


def test_masks_of_0_and_255_may_mean_to_ignore(tmp_path: Path):
    mask = (labels() > 0).astype(np.uint8) * 255
    said = Folder(manifest="m.csv", labels={255: "ignored"}, classes=2)
    assert np.array_equal(read(tmp_path, image(), mask, said).targets[0], mask)


def test_labels_may_be_given_in_a_scenario(tmp_path: Path):
    data = "{name: folder, manifest: m.csv, labels: {4: 3, 9: ignored}}"
    scenario = scenarios.read(write(tmp_path, TINY.replace("{name: phantom_cells, images: 240}", data)))
    assert scenario.data == Folder(manifest="m.csv", labels={4: 3, 9: "ignored"})
    (tmp_path / "again.yaml").write_text(scenarios.to_yaml(scenario), encoding="utf-8")
    assert scenarios.read(tmp_path / "again.yaml").data == scenario.data


def test_labels_beyond_classes_are_refused(tmp_path: Path):
    text = message(tmp_path, image(), labels(), Folder(manifest="m.csv", labels={4: 3}, classes=3))
    assert "labels names the class 3, expected those below 3" in text


# ------------------------------------------------------------------------------------------- where maps lie


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "PIR"])
@pytest.mark.parametrize("of", ["RAS", "LAS", "ASR"])
def test_a_map_in_another_order_on_the_same_place_is_turned(tmp_path: Path, codes: str, of: str):
    found = read(tmp_path, turned(image(), of), turned(labels(), codes))
    assert np.array_equal(found.targets[0], labels())
    assert found.pixels[0, 0, 0, 0, 0] == 0 and found.pixels[0, 0, -1, -1, -1] == 255  # a ramp from 0
    assert found.notes == ()
    assert found.seen is not None and found.seen["orientation"].tolist() == [of]


def test_a_map_of_another_resolution_on_the_same_place_is_resampled(tmp_path: Path):
    """Voxels of 2 mm whose ends are those of the image's: each is eight of the image's."""
    coarse = labels()[::2, ::2, ::2]
    place = PLACE @ np.diag([2.0, 2, 2, 1])
    place[:3, 3] += 0.5  # its first voxel's middle lies between two of the image's
    found = read(tmp_path, image(), nibabel.Nifti1Image(coarse, place))
    assert np.array_equal(found.targets[0], labels())
    assert found.notes == (
        "a.nii: label map of another resolution than its image: resampled onto its grid (nearest neighbour)",
    )
    again = Folder(manifest="m.csv").load(tmp_path)  # from the cache
    assert again.notes == found.notes and found.seen is not None and again.seen is not None
    assert found.seen.equals(again.seen)


def test_a_finer_map_is_resampled_unless_a_structure_is_lost(tmp_path: Path):
    fine = labels().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    place = PLACE @ np.diag([0.5, 0.5, 0.5, 1])
    place[:3, 3] -= 0.25
    found = read(tmp_path, image(), nibabel.Nifti1Image(fine, place))
    assert np.array_equal(found.targets[0], labels())
    fine[0, 0, 0] = 3  # the image's voxel reads its last eighth
    assert "has the label 3 in structures too small" in message(
        tmp_path, image(), nibabel.Nifti1Image(fine, place)
    )


def test_a_map_elsewhere_is_refused(tmp_path: Path):
    moved = PLACE.copy()
    moved[0, 3] += 5
    assert "lies up to 5.0 mm away from a.nii" in message(
        tmp_path, image(), nibabel.Nifti1Image(labels(), moved)
    )
    coarse = nibabel.Nifti1Image(labels()[::2, ::2, ::2], moved @ np.diag([2.0, 2, 2, 1]))
    assert "has the shape (4, 6, 5), expected (8, 12, 10)" in message(tmp_path, image(), coarse)


@pytest.mark.parametrize(("unit", "millimetres"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0)])
def test_places_in_other_units_are_made_millimetres(tmp_path: Path, unit: str, millimetres: float):
    """A map that tells them in millimetres lies on the image's grid; at a spacing of 2 voxels there is half of each."""

    def told(array: Array, times: float, unit: str) -> nibabel.Nifti1Image:
        made = nibabel.Nifti1Image(array, np.diag([times, times, times, 1.0]))
        made.header.set_xyzt_units(unit)
        return made

    source = Folder(manifest="m.csv", spacing=(2 * millimetres,) * 3)
    found = read(tmp_path, told(image(), 1.0, unit), told(labels(), millimetres, "mm"), source)
    plain = read(
        tmp_path,
        told(image(), 1.0, "mm"),
        told(labels(), 1.0, "mm"),
        Folder(manifest="m.csv", spacing=(2,) * 3),
    )
    assert np.array_equal(found.targets, plain.targets) and np.array_equal(found.pixels, plain.pixels)
    assert any("made millimetres" in note for note in found.notes) is (unit != "mm")


def test_a_map_elsewhere_by_small_voxels_is_refused(tmp_path: Path):
    """0.09 mm are nine voxels of a micro-CT, though rounding where voxels are of a millimetre."""
    small = np.diag([0.01, 0.01, 0.01, 1])
    moved = small.copy()
    moved[0, 3] = 0.09
    assert "lies up to 0.09 mm away" in message(
        tmp_path, nibabel.Nifti1Image(image(), small), nibabel.Nifti1Image(labels(), moved)
    )


def test_a_map_whose_place_is_rounded_otherwise_has_its_images_voxels(tmp_path: Path):
    """8 voxels of 1 mm are 4 of 2 mm; of a little more, 5 are begun."""
    more = nibabel.Nifti1Image(labels(), PLACE @ np.diag([1.001, 1, 1, 1]))
    source = Folder(manifest="m.csv", spacing=(2.0, 2.0, 2.0))
    found, plain = read(tmp_path, image(), more, source), read(tmp_path, image(), labels(), source)
    assert np.array_equal(found.targets, plain.targets)


def test_a_map_cut_by_a_slice_is_refused(tmp_path: Path):
    assert "has the shape (8, 12, 9)" in message(tmp_path, image(), labels()[..., 1:])


def unplaced(array: Array) -> nibabel.Nifti1Image:
    made = nibabel.Nifti1Image(array, np.eye(4))
    made.set_sform(None, 0)
    made.set_qform(None, 0)
    return made


def forms(array: Array, qform: Array) -> nibabel.Nifti1Image:
    made = nibabel.Nifti1Image(array, PLACE)
    made.set_sform(PLACE, 1)
    made.set_qform(qform, 1)
    return made


COSINE, SINE = np.cos(0.2), np.sin(0.2)


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (np.diag([-1.0, -1, 1, 1]), True),
        (np.diag([0.5, 0.5, 0.5, 1]), True),
        (np.array([[COSINE, -SINE, 0, 0], [SINE, COSINE, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), True),
        (np.array([[1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), True),
        (np.eye(4), False),
    ],
    ids=["turned", "of another size", "askew", "elsewhere", "alike"],
)
def test_two_places_of_one_volume_are_noted(tmp_path: Path, change: Array, noted: bool):
    found = read(tmp_path, forms(image(), change @ PLACE), forms(labels(), change @ PLACE))
    assert np.array_equal(found.targets[0], labels())
    assert ("a.nii: sform and qform lay the voxels differently: the sform was used" in found.notes) is noted


def test_volumes_without_an_orientation_are_read_as_stored(tmp_path: Path):
    found = read(tmp_path, unplaced(image()), unplaced(labels()))
    assert np.array_equal(found.targets[0], labels())
    assert found.pixels[0, 0, 0, 0, 0] == 0 and found.pixels[0, 0, -1, -1, -1] == 255
    assert found.notes == ("a.nii: not told where the axes run (no sform, no qform): read as stored",)
    assert "do not both tell where their axes run: copy the header of one" in message(
        tmp_path, image(), unplaced(labels())
    )


def test_settings_change_what_is_kept(tmp_path: Path):
    mask = (labels() > 0).astype(np.uint8) * 255
    source = Folder(manifest="m.csv", labels={255: 1})
    assert read(tmp_path, image(), mask, source).targets.max() == 1
    assert replace(source, labels={255: "ignored"}, classes=2).load(tmp_path).targets.max() == IGNORED


# -------------------------------------------------------------------------------------------- labels as floats


def test_labels_whole_but_for_rounding_are_whole(tmp_path: Path):
    """As a header's scaling, or a float of 32 bits, leaves them."""
    made = labels() * np.float32(0.99999)
    assert np.array_equal(read(tmp_path, image(), made).targets[0], labels())


def test_labels_between_are_refused_with_their_likely_cause(tmp_path: Path):
    text = message(tmp_path, image(), labels() * np.float32(0.5))
    assert "has the unknown labels 0.5, expected whole numbers in 0…254" in text
    assert text.endswith(": was it resampled linearly? Do so by nearest neighbour")


def test_a_gap_names_the_setting_that_closes_it_and_it_does(tmp_path: Path):
    made = np.where(labels() == 2, 4, labels()).astype(np.uint8)
    text = message(tmp_path, image(), made)
    assert text.endswith(
        "has the label 4, but no map has 2: set labels: {4: 2, …} to renumber, or set classes"
    )
    found = read(tmp_path, image(), made, Folder(manifest="m.csv", labels={4: 2}))
    assert np.array_equal(found.targets[0], labels())


def test_a_map_without_background_is_not_renumbered_by_itself(tmp_path: Path):
    made = (labels() > 0).astype(np.uint8) + 1
    with pytest.raises(InputError) as caught:
        read(tmp_path, image(), made)
    assert all(
        "no map has 0, the background: set classes if there is none" in str(p) for p in caught.value.problems
    )
    found = read(tmp_path, image(), made, Folder(manifest="m.csv", classes=3))
    assert np.array_equal(found.targets[0], made)


def test_one_hot_maps_are_told_to_take_the_argmax(tmp_path: Path):
    made = np.stack([labels() == one for one in range(3)], axis=-1).astype(np.uint8)
    assert "of a label map, one a class (then take the argmax): save one volume" in message(
        tmp_path, image(), made
    )


def test_a_structure_lost_by_the_spacing_is_noted(tmp_path: Path):
    made = (labels() == 1).astype(np.uint8)
    made[5, 9, 7] = 2  # a single voxel, between those that stay
    lost = "a structure too small for the spacing given was lost: give a finer spacing"
    notes = read(tmp_path, image(), made, Folder(manifest="m.csv", spacing=(2, 2, 2))).notes
    assert [note for note in notes if lost in note] == [f"a.nii: {lost}"]
    kept = read(tmp_path, image(), made, Folder(manifest="m.csv", spacing=(1, 1, 1))).notes
    assert not any(lost in note for note in kept)


def test_ignored_voxels_are_noted_unless_it_was_said_so(tmp_path: Path):
    made = np.where(labels() == 2, IGNORED, labels()).astype(np.uint8)
    note = "a.nii: label 255 in the label map: its voxels are ignored; if it is a structure, set labels: {255: …}"
    assert note in read(tmp_path, image(), made).notes
    assert not any("label 255" in one for one in read(tmp_path, image(), labels()).notes)
    said = read(tmp_path, image(), made, Folder(manifest="m.csv", labels={255: "ignored"}))
    assert np.array_equal(said.targets[0], made) and not any("label 255" in one for one in said.notes)
    meant = read(tmp_path, image(), made, Folder(manifest="m.csv", labels={255: 2}))
    assert np.array_equal(meant.targets[0], labels())


def test_labels_that_become_one_are_noted(tmp_path: Path):
    """What 255 stands for at one hospital, it may not at another."""
    made = np.where(labels() == 2, IGNORED, labels()).astype(np.uint8)
    both = read(tmp_path, image(), made, Folder(manifest="m.csv", labels={255: 1}))
    assert np.array_equal(both.targets[0], labels() > 0)
    assert "a.nii: the labels 1, 255 of one map are all read as 1, as labels says" in both.notes
    mask = (labels() > 0).astype(np.uint8) * 255
    one = read(tmp_path, image(), mask, Folder(manifest="m.csv", labels={255: 1}))
    assert not any("read as" in note for note in one.notes)
    assert merged([0, 1, 2, 3], [(2, IGNORED), (3, IGNORED)]) == (
        "the labels 2, 3 of one map are all read as ignored, as labels says",
    )
