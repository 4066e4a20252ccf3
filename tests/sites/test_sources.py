"""Sources read what is good and refuse what is not, with everything that is wrong at once."""

from __future__ import annotations

import hashlib
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedunlearn.core import InputError
from fedunlearn.kinds.multilabel.held import rarest
from sites import SOURCES, medmnist
from sites.collection import Collection, digest
from sites.medmnist import MedMNIST
from sites.pixels import channels_first, resized
from tests.sites.problems import problems_of

Arrays = dict[str, np.ndarray[Any, Any]]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def the_problem(source: Any, root: Path) -> str:
    """The one problem of a source."""
    (problem,) = problems_of(source, root)
    return str(problem)


def test_every_source_has_its_name():
    assert set(SOURCES) == {
        "phantom_cells",
        "phantom_brain",
        "medmnist",
        "npz",
        "folder",
        "mrbrains",
        "chexpert",
        "phantom_chest",
        "breast_table",
    }
    for name, cls in SOURCES.items():
        assert cls.__dataclass_fields__["name"].default == name  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------- collection


def collection(pixels: np.ndarray[Any, Any], patients: list[str]) -> Collection:
    table = pd.DataFrame({"image": [f"i{i}" for i in range(len(pixels))], "patient": patients})
    return Collection(pixels, np.zeros(len(pixels), np.int64), table, 1, synthetic_patients=True)


def test_companions_count_in_the_digest_only_where_there_are_any():
    pixels = np.zeros((3, 1, 4, 4), np.uint8)
    alone = collection(pixels, ["a", "b", "c"])
    first, second = ({"report": np.full((3, 5), word, np.int64)} for word in (1, 2))
    assert digest(replace(alone, companions={})) == digest(alone)
    digests = {digest(alone), *(digest(replace(alone, companions=one)) for one in (first, second))}
    digests.add(digest(replace(alone, companions={"table": first["report"]})))
    assert len(digests) == 4
    with pytest.raises(ValueError, match=r"a row per image: \['report'\]"):
        replace(alone, companions={"report": np.zeros((2, 5), np.int64)})


def test_several_findings_need_not_be_shaped_like_the_image():
    pixels, targets = np.zeros((3, 1, 4, 4), np.uint8), np.array([[0, 1], [1, 255], [0, 0]], np.uint8)
    alone = collection(pixels, ["a", "b", "c"])
    several = replace(alone, kind="multilabel", targets=targets, classes=2, names=("mass", "nodule"))
    assert digest(several) != digest(replace(several, targets=1 - targets % 2))


def test_digest_depends_on_pixels_targets_and_owners():
    pixels = rng().integers(0, 255, (3, 1, 4, 4), np.uint8)
    one = digest(collection(pixels, ["a", "b", "c"]))
    assert one == digest(collection(pixels.copy(), ["a", "b", "c"]))
    assert one != digest(collection(pixels, ["a", "b", "d"]))
    assert one != digest(collection(pixels.reshape(3, 1, 2, 8), ["a", "b", "c"]))
    assert one != digest(collection(pixels[::-1], ["a", "b", "c"]))


def test_a_collection_holds_together():
    with pytest.raises(ValueError, match="agree"):
        Collection(np.zeros((2, 1, 4, 4)), np.zeros(3, np.int64), pd.DataFrame(), 1, synthetic_patients=True)
    table = pd.DataFrame({"image": ["i", "i"], "patient": ["a", "b"]})
    with pytest.raises(ValueError, match="unique"):
        Collection(np.zeros((2, 1, 4, 4)), np.zeros(2, np.int64), table, 1, synthetic_patients=True)
    table["image"] = ["i", "j"]
    with pytest.raises(ValueError, match="shaped like"):
        Collection(np.zeros((2, 1, 4, 4)), np.zeros((2, 4, 5)), table, 1, synthetic_patients=True)


# -------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((5, 8, 9), (5, 1, 8, 9)),
        ((5, 8, 9, 3), (5, 3, 8, 9)),
        ((5, 8, 9, 1), (5, 1, 8, 9)),
        ((5, 6, 8, 9), (5, 1, 6, 8, 9)),
        ((5, 6, 8, 9, 1), (5, 1, 6, 8, 9)),
    ],
)
def test_channels_come_first(given, expected):
    assert channels_first(np.zeros(given)).shape == expected


def test_shrinking_averages_areas():
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 200).astype(
        np.uint8
    )  # 0 and 200 alternate: subsampling would alias
    assert (resized(board[None, None], 4) == 100).all()
    assert resized(board[None, None], 8) is not None
    assert resized(np.zeros((300, 1, 8, 6), np.uint8), 12).shape == (300, 1, 12, 12)
    assert resized(np.ones((2, 1, 8, 6, 6), np.float32), 4).shape == (2, 1, 4, 4, 4)


# ------------------------------------------------------------------------------------------------ medmnist


@pytest.fixture
def breast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file that stands for breastmnist, and a table of sets that tells its MD5; no network."""
    labels = np.array([0] * 40 + [1] * 100, np.uint8)[:, None]
    parts = {"train": slice(0, None, 2), "val": slice(1, None, 4), "test": slice(3, None, 4)}
    pixels = rng().integers(0, 255, (140, 28, 28), np.uint8)
    arrays = {f"{p}_images": pixels[s] for p, s in parts.items()} | {
        f"{p}_labels": labels[s] for p, s in parts.items()
    }
    np.savez(tmp_path / "breastmnist.npz", **arrays)  # type: ignore[arg-type]
    sets = medmnist._sets()
    sets["breastmnist"]["MD5"] = hashlib.md5((tmp_path / "breastmnist.npz").read_bytes()).hexdigest()
    sets["breastmnist"]["n_samples"] = {"train": 70, "val": 35, "test": 35}
    monkeypatch.setattr(medmnist, "_sets", lambda: sets)
    monkeypatch.setattr(medmnist, "_download", _unreachable)
    return tmp_path


def _unreachable(url: str, file: Path) -> None:
    raise urllib.error.URLError("no network")


def test_medmnist_pools_the_splits_and_makes_patients_up(breast: Path):
    found = MedMNIST(set="breastmnist").load(breast)
    assert found.pixels.shape == (140, 1, 28, 28)
    assert np.bincount(found.targets).tolist() == [40, 100]
    assert found.synthetic_patients
    assert "made up" in found.note
    sizes = found.table["patient"].value_counts()
    assert sizes.between(6, 10).all()
    owners = pd.DataFrame({"patient": found.table["patient"], "target": found.targets}).drop_duplicates()
    assert owners["patient"].is_unique  # a patient has one class
    assert digest(found) == digest(MedMNIST(set="breastmnist").load(breast))


def test_medmnist_reads_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A small file that stands for organmnist3d."""
    counts, rows = {"train": 22, "val": 11, "test": 11}, np.arange(44)
    volumes = rng().integers(0, 255, (44, 28, 28, 28), np.uint8)
    parts = {"train": rows[:22], "val": rows[22:33], "test": rows[33:]}
    arrays = {f"{p}_images": volumes[r] for p, r in parts.items()}
    arrays |= {f"{p}_labels": (r % 11).astype(np.uint8)[:, None] for p, r in parts.items()}
    np.savez(tmp_path / "organmnist3d.npz", **arrays)  # type: ignore[arg-type]
    sets = medmnist._sets()
    md5 = hashlib.md5((tmp_path / "organmnist3d.npz").read_bytes()).hexdigest()
    sets["organmnist3d"] |= {"MD5": md5, "n_samples": counts}
    monkeypatch.setattr(medmnist, "_sets", lambda: sets)
    found = MedMNIST(set="organmnist3d", images_per_patient=2, images=33).load(tmp_path)
    assert (found.kind, found.classes) == ("classification", 11)
    assert found.pixels.shape == (33, 1, 28, 28, 28)
    assert np.bincount(found.targets).tolist() == [3] * 11
    first = [f"{p}-{i:06d}" for p, r in parts.items() for i in range(len(r))].index(
        found.table["image"].iloc[-1]
    )
    assert np.array_equal(found.pixels[-1, 0], volumes[first])


def test_medmnist_takes_a_stratified_subset(breast: Path):
    found = MedMNIST(set="breastmnist", images=35).load(breast)
    assert np.bincount(found.targets).tolist() == [10, 25]  # 35/140 of 40 and of 100
    assert len(MedMNIST(set="breastmnist", images=36).load(breast).targets) == 36


def test_medmnist_label_noise_is_counted_marked_and_spread(breast: Path):
    clean, noisy = (MedMNIST(set="breastmnist", label_noise=share).load(breast) for share in (0.0, 0.25))
    wrong = clean.targets != noisy.targets
    assert wrong.sum() == 35
    assert (np.asarray(noisy.table["difficulty"] == "hard") == wrong).all()
    per_patient = pd.Series(wrong).groupby(noisy.table["patient"]).sum()
    assert per_patient.between(1, 3).all()  # a quarter of 7 or 8 images, give or take one
    assert "35 labels" in noisy.note


@pytest.fixture
def chest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file that stands for chestmnist: 14 findings, most images with none."""
    counts = {"train": 60, "val": 30, "test": 30}
    arrays = {f"{p}_images": rng().integers(0, 255, (n, 28, 28), np.uint8) for p, n in counts.items()}
    arrays |= {
        f"{p}_labels": (np.random.default_rng(n).random((n, 14)) < np.linspace(0.05, 0.3, 14)).astype(
            np.uint8
        )
        for p, n in counts.items()
    }
    np.savez(tmp_path / "chestmnist.npz", **arrays)  # type: ignore[arg-type]
    sets = medmnist._sets()
    md5 = hashlib.md5((tmp_path / "chestmnist.npz").read_bytes()).hexdigest()
    sets["chestmnist"] |= {"MD5": md5, "n_samples": counts}
    monkeypatch.setattr(medmnist, "_sets", lambda: sets)
    return tmp_path


def test_medmnist_reads_several_findings(chest: Path):
    found = MedMNIST(set="chestmnist").load(chest)
    assert (found.kind, found.classes) == ("multilabel", 2)
    assert found.targets.dtype == np.uint8
    assert (found.names[0], len(found.names)) == ("atelectasis", 14)
    with np.load(chest / "chestmnist.npz") as file:
        assert np.array_equal(
            found.targets, np.concatenate([file[f"{p}_labels"] for p in ("train", "val", "test")])
        )
    owners = pd.DataFrame(
        {"patient": found.table["patient"], "rarest": rarest(found.targets)}
    ).drop_duplicates()
    assert owners["patient"].is_unique  # a patient's images have one rarest finding


def test_medmnist_takes_some_images_of_each_finding_and_noise_turns_one(chest: Path):
    clean, noisy = (
        MedMNIST(set="chestmnist", images=80, label_noise=share).load(chest) for share in (0.0, 0.25)
    )
    assert len(clean.targets) == 80 and clean.table["image"].equals(noisy.table["image"])
    turned = (clean.targets != noisy.targets).sum(axis=1)
    assert sorted(set(turned.tolist())) == [0, 1] and turned.sum() == 20
    assert (np.asarray(noisy.table["difficulty"] == "hard") == (turned == 1)).all()
    with pytest.raises(InputError, match=r"expected 14 \(its classes\) to 120"):
        MedMNIST(set="chestmnist", images=13).load(chest)


def test_medmnist_reports_a_damaged_file(breast: Path):
    file = breast / "breastmnist.npz"
    file.write_bytes(file.read_bytes()[:-1])
    message = the_problem(MedMNIST(set="breastmnist"), breast)
    assert "damaged" in message
    assert "expected " + medmnist._sets()["breastmnist"]["MD5"] in message


def test_medmnist_says_which_file_to_put_where_when_nothing_can_be_downloaded(breast: Path):
    message = the_problem(MedMNIST(set="bloodmnist", size=64), breast / "elsewhere")
    for part in (
        "bloodmnist_64.npz",
        str(breast / "elsewhere"),
        medmnist._sets()["bloodmnist"]["MD5_64"],
        "no network",
    ):
        assert part in message
    assert not (breast / "elsewhere").exists()


def test_medmnist_downloads_what_is_missing_and_leaves_nothing_half_done(breast: Path, monkeypatch):
    monkeypatch.undo()
    source, target = breast / "breastmnist.npz", breast / "new" / "copy.npz"
    medmnist._download(source.as_uri(), target)
    assert target.read_bytes() == source.read_bytes()
    assert [file.name for file in target.parent.iterdir()] == ["copy.npz"]
    with pytest.raises(urllib.error.URLError):
        medmnist._download((breast / "absent.npz").as_uri(), breast / "nowhere" / "x.npz")
    assert not (breast / "nowhere").exists()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            MedMNIST(set="brestmnist"),
            "no set 'brestmnist', did you mean 'breastmnist'?; expected one of adrenalmnist3d, bloodmnist",
        ),
        (MedMNIST(set="organmnist3d", size=128), "no size 128"),
        (MedMNIST(set="breastmnist", images=141), "expected 2 (its classes) to 140"),
    ],
    ids=repr,
)
def test_medmnist_refuses_what_does_not_exist(breast: Path, source: MedMNIST, expected: str):
    assert expected in the_problem(source, breast)
