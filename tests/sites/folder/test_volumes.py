"""Volumes with label maps (`folder`, `mrbrains`): made alike, kept once, and every bad file named, all together."""

from __future__ import annotations

import errno
import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from fedunlearn.__main__ import app
from fedunlearn.core import IGNORED, RunError
from sites import prepared
from sites.arrays import write_header
from sites.collection import Collection
from sites.folder import Folder
from sites.formats import volumes
from sites.mrbrains import MRBrainS
from tests.runs import TINY, write
from tests.sites.problems import problems_of

Array = np.ndarray[Any, Any]

SHAPE = (6, 8, 5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fedunlearn" / prepared.FOLDER / "volumes"


def save(file: Path, voxels: Array, affine: Array | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), file)


def ramp(shape: tuple[int, ...] = SHAPE) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def labels(shape: tuple[int, ...] = SHAPE) -> Array:
    """1 in one octant, 2 in one plane, else 0."""
    made = np.zeros(shape, np.uint8)
    made[1:3, 1:4, 1:3] = 1
    made[4, 2:6, 1:4] = 2
    return made


def volume(root: Path, name: str, affine: Array | None = None, shape: tuple[int, ...] = SHAPE) -> str:
    """A good image with its label map; its row in the manifest."""
    save(root / f"{name}.nii.gz", ramp(shape), affine)
    save(root / f"{name}-map.nii.gz", labels(shape), affine)
    return f"{name}.nii.gz,{name}-map.nii.gz,{name[0]}"


def manifest(root: Path, rows: list[str], header: str = "file,label_map,patient") -> Folder:
    (root / "m.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return Folder(manifest="m.csv")


def messages(source: Folder | MRBrainS, root: Path) -> list[str]:
    return [str(problem) for problem in problems_of(source, root)]


# ------------------------------------------------------------------------------------------- what is good


def test_folder_reads_volumes_with_label_maps(tmp_path: Path):
    rows = [f"{volume(tmp_path, name)},north,{age}" for name, age in (("a1", 30), ("a2", 30), ("b1", 41))]
    source = manifest(tmp_path, rows, "file,label_map,patient,site,age")
    assert problems_of(source, tmp_path) == []
    found = source.load(tmp_path)
    assert (found.kind, found.classes, found.synthetic_patients) == ("segmentation", 3, False)
    assert found.pixels.shape == (3, 1, *SHAPE) and found.targets.shape == (3, *SHAPE)
    assert found.pixels.dtype == found.targets.dtype == np.uint8
    assert np.array_equal(found.targets[0], labels())
    # 240 values 0…239: the 0.5th percentile lies 0.5 % of 239 above the first
    low, high = 1.195, 237.805
    expected = np.clip((ramp() - low) / (high - low), 0, 1) * 255
    assert np.abs(found.pixels[1, 0] - expected).max() <= 0.51  # rounding
    assert found.table["patient"].tolist() == ["a", "a", "b"]
    assert found.table["image"].tolist()[0] == "a1.nii.gz"
    assert set(found.table.columns) == {"image", "patient", "site", "age"}


@pytest.mark.parametrize("classes", [None, 3])
def test_the_label_255_is_no_class(tmp_path: Path, classes: int | None):
    """It stays what it is through padding and cropping, and may be cropped off, unlike a structure."""
    rows = [volume(tmp_path, "a")]
    made = labels()
    made[0], made[1, 1, 1] = IGNORED, IGNORED
    save(tmp_path / "a-map.nii.gz", made)
    source = replace(manifest(tmp_path, rows), classes=classes, shape=(4, 8, 6))
    found = source.load(tmp_path)
    assert found.classes == 3
    assert (found.targets[0, 0, 1, 1], (found.targets == IGNORED).sum()) == (IGNORED, 1)


def test_a_mask_of_0_and_255_is_refused(tmp_path: Path):
    """It was never meant to be ignored."""
    rows = [volume(tmp_path, "a")]
    save(tmp_path / "a-map.nii.gz", (labels() > 0).astype(np.uint8) * 255)
    (message,) = messages(manifest(tmp_path, rows), tmp_path)
    assert "has the labels 0, 255 only, and 255 stands for voxels to be ignored" in message
    assert "set labels: {255: 1} if that is a structure, labels: {255: ignored} if not" in message


def test_axes_are_turned_to_the_right_to_the_front_and_up(tmp_path: Path):
    """The same brain, stored with its axes in another order and two of them backwards."""
    rows = [volume(tmp_path, "a")]
    turned = [np.flip(voxels.transpose(2, 0, 1), (1, 2)) for voxels in (ramp(), labels())]
    affine = np.array([[0, -1, 0, SHAPE[0] - 1], [0, 0, -1, SHAPE[1] - 1], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    save(tmp_path / "b.nii", turned[0], affine)
    save(tmp_path / "b-map.nii", turned[1], affine)
    found = manifest(tmp_path, [*rows, "b.nii,b-map.nii,b"]).load(tmp_path)
    assert np.array_equal(found.pixels[0], found.pixels[1])
    assert np.array_equal(found.targets[0], found.targets[1])


def test_spacing_resamples_labels_by_nearest_neighbour(tmp_path: Path):
    """Voxels of 2 mm, each cut into eight: linear in between, labels never mixed."""
    shape = (6, 6, 6)
    row = volume(tmp_path, "a", np.diag([2.0, 2, 2, 1]), shape)
    manifest(tmp_path, [row])
    found = Folder(manifest="m.csv", spacing=(1.0, 1.0, 1.0), dtype="float32").load(tmp_path)
    assert found.pixels.shape == (1, 1, 11, 11, 11)  # 11 points from the first voxel's centre to the last's
    assert np.array_equal(found.targets[0, ::2, ::2, ::2], labels(shape))
    assert not (
        found.targets[0, 6:] == 1
    ).any()  # from the fourth voxel on there are 0 and 2 only, side by side
    inner = found.pixels[0, 0, 4:7, 4:7, 4:7]  # far from what is clipped
    assert np.allclose(inner[1], (inner[0] + inner[2]) / 2, atol=1e-5)
    assert (found.pixels.min(), found.pixels.max()) == (-1, 1)


def test_shape_pads_and_crops_around_the_centre(tmp_path: Path):
    manifest(tmp_path, [volume(tmp_path, "a"), volume(tmp_path, "b", shape=(7, 10, 5))])
    found = Folder(manifest="m.csv", shape=(8, 8, 7)).load(tmp_path)
    assert found.pixels.shape == (2, 1, 8, 8, 7)
    assert np.array_equal(found.targets[0, 1:7, :, 1:6], labels())
    assert (found.pixels[0, 0, [0, -1]] == 0).all() and (found.targets[0, [0, -1]] == 0).all()
    tight = replace(
        Folder(manifest="m.csv"), shape=(4, 8, 5)
    )  # the plane labelled 2 lies in the fifth of six
    found = tight.load(tmp_path)
    assert np.array_equal(found.targets[0], labels()[1:5])
    (message, _) = messages(replace(tight, shape=(4, 4, 5)), tmp_path)
    # of y = 1…3 and 2…5 the middle four, 2…5, are left: one of three rows of 2 · 2 voxels is lost
    assert "a-map.nii.gz has 4 labelled voxels outside of the shape given, of (6, 8, 5)" in message


def test_classes_may_be_more_than_a_set_shows(tmp_path: Path):
    manifest(tmp_path, [volume(tmp_path, "a")])
    assert Folder(manifest="m.csv", classes=5).load(tmp_path).classes == 5


# ------------------------------------------------------------------------------------------ what is kept


def test_what_is_made_is_mapped_and_made_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    source = manifest(tmp_path, [volume(tmp_path, "a"), volume(tmp_path, "b")])
    first = source.load(tmp_path)
    assert isinstance(first.pixels, np.memmap) and isinstance(first.targets, np.memmap)
    (entry,) = cache.iterdir()
    assert sorted(file.name for file in entry.iterdir()) == ["about.json", "pixels.npy", "targets.npy"]
    monkeypatch.setattr(volumes, "preparing", None)  # reading any file again would fail
    again = source.load(tmp_path)
    assert np.array_equal(first.pixels, again.pixels) and again.classes == 3


def test_other_content_and_other_settings_are_kept_apart(tmp_path: Path, cache: Path):
    source = manifest(tmp_path, [volume(tmp_path, "a")])
    before = source.load(tmp_path)
    save(tmp_path / "a.nii.gz", ramp()[::-1])
    after = source.load(tmp_path)
    assert not np.array_equal(before.pixels, after.pixels)
    assert replace(source, dtype="float32").load(tmp_path).pixels.dtype == np.float32
    assert len(list(cache.iterdir())) == 3


def test_a_full_disk_names_the_file_and_leaves_nothing_in_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    source = manifest(tmp_path, [volume(tmp_path, "a"), volume(tmp_path, "b")])

    def full(*arguments: Any) -> None:
        write_header(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepared, "write_header", full)
    with pytest.raises(RunError, match=r"pixels\.npy: No space left .*MB free.*XDG_CACHE_HOME"):
        source.load(tmp_path)
    monkeypatch.undo()
    assert list(cache.iterdir()) == []


def test_bad_volumes_leave_nothing_in_the_cache(tmp_path: Path, cache: Path):
    source = manifest(tmp_path, [volume(tmp_path, "a"), volume(tmp_path, "b")])
    save(tmp_path / "b-map.nii.gz", labels()[:-1])
    assert len(messages(source, tmp_path)) == 1
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, cache: Path):
    source = manifest(tmp_path, [volume(tmp_path, "a")])
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(RunError, match=rf"cannot keep prepared images: cannot write {cache}.*XDG_CACHE_HOME"):
        source.load(tmp_path)


@pytest.mark.gate
def test_any_flipped_bit_in_the_cache_is_noticed_and_the_arrays_are_right_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    source = manifest(tmp_path, [volume(tmp_path, "a"), volume(tmp_path, "b")])
    first = source.load(tmp_path)
    pixels, targets = np.array(first.pixels), np.array(first.targets)
    (entry,) = cache.iterdir()
    random, discarded = np.random.default_rng(0), list[Path]()
    discard = prepared._discard

    def counted(damaged: Path) -> None:
        discarded.append(damaged)
        discard(damaged)

    monkeypatch.setattr(prepared, "_discard", counted)
    for flips in range(1, 101):
        file = sorted(entry.iterdir())[flips % 3]
        content = bytearray(file.read_bytes())
        content[random.integers(len(content))] ^= 1 << int(random.integers(8))
        file.write_bytes(content)
        again = source.load(tmp_path)
        assert len(discarded) == flips, file.name
        assert np.array_equal(again.pixels, pixels) and np.array_equal(again.targets, targets)
        assert again.classes == 3
    assert list(cache.iterdir()) == [entry]


@pytest.mark.parametrize("name", ["about.json", "pixels.npy", "targets.npy"])
def test_an_entry_without_a_file_or_cut_off_is_made_again(tmp_path: Path, cache: Path, name: str):
    source = manifest(tmp_path, [volume(tmp_path, "a")])
    expected = np.array(source.load(tmp_path).pixels)
    (entry,) = cache.iterdir()
    (entry / name).write_bytes((entry / name).read_bytes()[:-1])
    assert np.array_equal(source.load(tmp_path).pixels, expected)
    (entry / name).unlink()
    assert np.array_equal(source.load(tmp_path).pixels, expected)
    assert list(cache.iterdir()) == [entry]


def test_a_disk_that_never_gives_back_what_was_written_is_an_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    source = manifest(tmp_path, [volume(tmp_path, "a")])
    publish = prepared._publish

    def damaging(new: Path, entry: Path) -> None:
        (new / "targets.npy").write_bytes(b"something else")
        publish(new, entry)

    monkeypatch.setattr(prepared, "_publish", damaging)
    with pytest.raises(RunError, match=r"targets\.npy is damaged"):
        source.load(tmp_path)


# --------------------------------------------------------------------------------------------- what is bad


def truncated(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])


def not_a_number(file: Path) -> None:
    voxels = ramp()
    voxels[1, 2, 3] = np.nan
    save(file, voxels)


def nowhere(file: Path) -> None:
    """An affine of zeros, as some converters write it."""
    image = nibabel.Nifti1Image(ramp(), np.eye(4))
    content = bytearray(image.to_bytes())
    assert content[254:256] == b"\2\0"  # sform_code of the NIfTI-1 header, then 280…328 srow_x, y, z
    content[280:328] = bytes(48)
    file.write_bytes(gzip.compress(bytes(content)))


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing map": ("map", Path.unlink, "found no file"),
    "another shape": ("map", lambda f: save(f, labels()[:, :-1]), "has the shape (6, 7, 5), expected (6, 8, 5)"),
    "unknown label": ("map", lambda f: save(f, labels() * 3), "has the unknown labels 3, 6, expected whole numbers in"),
    "half a label": ("map", lambda f: save(f, labels() / np.float32(2)), "has the unknown labels 0.5"),
    "another place": ("map", lambda f: save(f, labels(), np.diag([1, 1, 2.0, 1])), "lies up to 4.0 mm away from v"),
    "NaN": ("image", not_a_number, "has 1 that are NaN among its 240 values"),
    "truncated": ("image", truncated, "is a NIfTI volume that is damaged, cut off or of a rare kind (EOFError"),
    "no affine": ("image", nowhere, "has no affine that tells where its voxels lie"),
    "no NIfTI": ("image", lambda f: f.write_text("no image"), "is text that starts with 'no image'"),
    "one value": ("image", lambda f: save(f, np.full(SHAPE, 7.0)), "shows nothing: nearly all voxels have the value 7"),
    "four edges": ("image", lambda f: save(f, np.ones((*SHAPE, 2))), "has the shape (6, 8, 5, 2), expected three"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_volume_is_named_with_its_row(tmp_path: Path, name: str):
    which, spoil, expected = BAD[name]
    rows = [volume(tmp_path, "a"), volume(tmp_path, "v")]
    file = tmp_path / ("v.nii.gz" if which == "image" else "v-map.nii.gz")
    spoil(file)
    manifest(tmp_path, rows)
    (message,) = messages(Folder(manifest="m.csv", classes=3), tmp_path)
    place = "3:1: file" if which == "image" else "3:10: label_map"
    assert message.startswith(f"{tmp_path / 'm.csv'}:{place}: ")
    assert expected in message and str(file) in message


def test_check_reports_all_bad_volumes_together_and_exits_2(tmp_path: Path, cache: Path):
    rows = [volume(tmp_path, "good")]
    for number, (which, spoil, _) in enumerate(BAD.values()):
        name = f"v{number}"
        rows.append(volume(tmp_path, name))
        spoil(tmp_path / (f"{name}.nii.gz" if which == "image" else f"{name}-map.nii.gz"))
    manifest(tmp_path, [*rows, "good.nii.gz,good-map.nii.gz,", "good.nii.gz,good.png,g"])
    data = "{name: folder, manifest: m.csv, classes: 3, shape: [8, 8, 8]}"
    scenario = write(tmp_path, TINY.replace("{name: phantom_cells, images: 240}", data))
    result = CliRunner().invoke(app, ["check", str(scenario), "--data-root", str(tmp_path)])
    assert result.exit_code == 2
    for number, (which, _, expected) in enumerate(BAD.values()):
        file = f"v{number}.nii.gz" if which == "image" else f"v{number}-map.nii.gz"
        lines = [line for line in result.stderr.splitlines() if str(tmp_path / file) in line]
        assert len(lines) == 1 and expected.replace("away from v", f"away from v{number}.nii") in lines[0]
    assert "patient: found nothing" in result.stderr
    assert f"found no file {tmp_path / 'good.png'}" in result.stderr
    assert "good.nii.gz' again" in result.stderr
    assert not cache.exists()


def test_labels_with_a_gap_and_labels_of_nothing_are_named(tmp_path: Path):
    rows = [volume(tmp_path, "a"), volume(tmp_path, "b")]
    source = manifest(tmp_path, rows)
    save(tmp_path / "b-map.nii.gz", labels() * 3)
    found = messages(source, tmp_path)
    assert [f"{tmp_path / 'b-map.nii.gz'} has the label {n}, but no map has {m}" in f for f, n, m in
            zip(found, (6,), (4,), strict=False)] == [True]  # fmt: skip
    for name in "ab":
        save(tmp_path / f"{name}-map.nii.gz", labels() * 0)
    (message,) = messages(source, tmp_path)
    assert "has one label only, as all others have" in message


def test_different_shapes_ask_for_a_shape(tmp_path: Path):
    source = manifest(tmp_path, [volume(tmp_path, "a"), volume(tmp_path, "b", shape=(7, 8, 5))])
    (message,) = messages(source, tmp_path)
    assert "b.nii.gz has the shape (7, 8, 5), but volumes before have (6, 8, 5): set shape" in message


def test_settings_that_do_not_fit_the_manifest_are_refused(tmp_path: Path):
    manifest(tmp_path, [volume(tmp_path, "a")])
    (message,) = messages(Folder(manifest="m.csv", size=8, channels=1), tmp_path)
    assert "found size and channels, but the manifest has label_map: give shape or spacing" in message
    manifest(tmp_path, ["a.nii.gz,0,a"], "file,label,patient")
    (message,) = messages(Folder(manifest="m.csv", shape=(8, 8, 8)), tmp_path)
    assert "found shape, but the manifest has label" in message
    (message,) = messages(manifest(tmp_path, [], "file,label,label_map,patient"), tmp_path)
    assert "found the columns label and label_map, expected one of them" in message


# ------------------------------------------------------------------------------------------------ mrbrains


@pytest.fixture
def brains(tmp_path: Path) -> Path:
    """Two subjects of ``training`` and one of ``test``, with all labels 0…10, in MRBrainS18's layout."""
    for part, subject in (("training", "4"), ("training", "14"), ("test", "2")):
        place = tmp_path / "MRBrainS18" / part / subject
        for number, scan in enumerate(("FLAIR", "reg_T1", "reg_IR")):
            save(place / "pre" / f"{scan}.nii.gz", ramp() ** (number + 1))
        made = np.zeros(SHAPE, np.uint8)
        made.reshape(-1)[100:111] = np.arange(11)
        save(place / "segm.nii.gz", made)
    return tmp_path


def mapped(found: Collection) -> list[int]:
    """The classes of labels 0…10."""
    return list(found.targets[0].reshape(-1)[100:111])


def test_mrbrains_reads_its_own_layout(brains: Path):
    found = MRBrainS().load(brains)
    assert (found.kind, found.classes, found.synthetic_patients) == ("segmentation", 9, False)
    assert found.table["patient"].tolist() == ["2", "4", "14"]
    assert found.pixels.shape == (3, 1, *SHAPE)
    assert mapped(found) == [0, 1, 2, 3, 4, 5, 6, 7, 8, IGNORED, IGNORED]
    assert (
        "MRBrainS18 (T1)" in found.note
        and "8 brain stem" in found.note
        and "10 other are ignored" in found.note
    )


def test_mrbrains_points_out_subjects_that_look_alike(brains: Path):
    (brains / "MRBrainS18" / "test" / "2").rename(brains / "MRBrainS18" / "test" / "04")
    found = MRBrainS().load(brains)
    assert found.table["patient"].tolist() == ["4", "04", "14"]
    assert "'04' (1) and '4' (1)" in found.notes[0] and "forgetting one leaves the other" in found.notes[0]


def test_mrbrains_merges_tissues_and_takes_several_scans(brains: Path):
    found = MRBrainS(classes="three", images=("FLAIR", "T1", "IR")).load(brains)
    assert (found.pixels.shape, found.classes) == ((3, 3, *SHAPE), 4)
    assert mapped(found) == [0, 2, 2, 3, 3, 1, 1, 0, 0, IGNORED, IGNORED]
    middle = found.pixels[0, :, 3, 4, 2].astype(int)  # x, x², x³ of a ramp to 1: darker and darker
    assert middle[0] > middle[1] > middle[2]


def test_mrbrains_reports_what_is_missing_and_bad_together(brains: Path):
    (brains / "MRBrainS18/training/4/segm.nii.gz").unlink()
    truncated(brains / "MRBrainS18/training/14/pre/reg_T1.nii.gz")
    (brains / "MRBrainS18/test/2").rename(brains / "MRBrainS18/test/4")
    found = messages(MRBrainS(), brains)
    assert len(found) == 3
    assert "subject 4 is in training and test" in found[0]
    assert found[1].endswith(f"found no file {brains / 'MRBrainS18/training/4/segm.nii.gz'}")
    assert str(brains / "MRBrainS18/training/14/pre/reg_T1.nii.gz") in found[2] and "EOFError" in found[2]


def test_mrbrains_refuses_a_scan_on_another_grid(brains: Path):
    place = brains / "MRBrainS18/training/4/pre"
    (place / "reg_T1.nii.gz").unlink()
    save(place / "T1.nii.gz", ramp((6, 8, 9)))
    (message,) = messages(MRBrainS(), brains)
    assert "segm.nii.gz has the shape (6, 8, 5), expected (6, 8, 9) as T1.nii.gz has" in message


def test_mrbrains_says_where_to_put_it(tmp_path: Path):
    (message,) = messages(MRBrainS(), tmp_path)
    assert str(tmp_path / "MRBrainS18" / "training") in message and "10.34894/E0U32Q" in message
    (message,) = messages(MRBrainS(images=("T1", "T1")), tmp_path)
    assert "each once" in message
