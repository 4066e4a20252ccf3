"""Real files under $FEDUNLEARN_DATA: what their README says of them is what we read."""

from __future__ import annotations

import itertools
import os
import tarfile
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.kinds.segmentation.evidence import volume_dice
from fedunlearn.story import simulate
from sites.dealing.partitions import Iid
from sites.dealing.split import split
from sites.folder import Folder
from sites.medmnist import MedMNIST
from sites.npz import Npz
from sites.twins import twins

pytestmark = pytest.mark.data


def root_with(file: str) -> Path:
    """The data root, if it holds ``file``; else the test is skipped."""
    if "FEDUNLEARN_DATA" not in os.environ:
        pytest.skip("FEDUNLEARN_DATA names no folder with real data")
    root = Path(os.environ["FEDUNLEARN_DATA"])
    if not (root / file).is_file():
        pytest.skip(f"no {file} in FEDUNLEARN_DATA ({root})")
    return root


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("breastmnist", [147 + 21 + 42, 399 + 57 + 114]),
        ("pneumoniamnist", [1214 + 135 + 234, 3494 + 389 + 390]),
    ],
)
def test_official_medmnist_files_are_read(name: str, counts: list[int]):
    found = MedMNIST(set=name).load(root_with(f"{name}.npz"))
    assert np.bincount(found.targets).tolist() == counts
    assert found.pixels.shape == (sum(counts), 1, 28, 28)
    assert found.table["patient"].value_counts().between(6, 10).all()


def test_chest_x_rays_keep_their_real_patients():
    found = Npz(path="nih_cxr1000_128.npz", size=32).load(root_with("nih_cxr1000_128.npz"))
    assert found.pixels.shape == (1000, 1, 32, 32)
    assert np.bincount(found.targets).tolist() == [500, 500]
    assert found.table["patient"].nunique() == 682
    assert found.table["sex"].value_counts().to_dict() == {"M": 523, "F": 477}
    assert (found.table["age"].min(), found.table["age"].max()) == (4, 85)
    assert not found.synthetic_patients
    assert twins(found) == ()  # the one exact duplicate is of one patient

    names = ("north", "east", "west")
    site = Iid().assign(found.table, found.targets, names, np.random.default_rng(1))
    part = split(found.table, found.targets, site, (0.6, 0.1, 0.3), np.random.default_rng(1))
    shares = pd.crosstab(site, part, normalize="index")
    assert np.abs(shares[["train", "val", "test"]].to_numpy() - [0.6, 0.1, 0.3]).max() < 0.02


def test_hippocampus_volumes_are_a_segmentation():
    found = Npz(path="hippocampus260_48x64x48.npz").load(root_with("hippocampus260_48x64x48.npz"))
    assert (found.kind, found.classes) == ("segmentation", 3)
    assert found.pixels.shape == (260, 1, 48, 64, 48)
    assert found.targets.shape == (260, 48, 64, 48)
    assert found.targets.dtype == np.uint8
    assert found.table["image"].is_unique
    assert (
        found.table["patient"] == found.table["image"]
    ).all()  # each side of a brain is a subject of its own


def hippocampi(folder: Path, every: int) -> list[tuple[str, Path]]:
    """Put one in ``every`` of the NIfTI pairs and a manifest ``m.csv`` there; each one's id and label map."""
    place = Path("Task04_Hippocampus_260")
    with tarfile.open(root_with("hippocampus260_nifti.tar") / "hippocampus260_nifti.tar") as archive:
        names = sorted(
            Path(n).name for n in archive.getnames() if "/imagesTr/" in n and n.endswith(".nii.gz")
        )
        chosen = names[::every]
        parts = [m for m in archive.getmembers() if Path(m.name).name in chosen]
        archive.extractall(folder, parts, filter="data")
    found = [(n.removesuffix(".nii.gz"), place / "labelsTr" / n) for n in chosen]
    sites = itertools.cycle(("north", "east"))
    rows = [f"{place / 'imagesTr' / m.name},{m},{p},{next(sites)}" for p, m in found]
    (folder / "m.csv").write_text("\n".join(["file,label_map,patient,site", *rows]))
    return [(patient, folder / label_map) for patient, label_map in found]


def test_hippocampus_nifti_files_become_what_the_npz_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Their README tells how the npz was made: the same scaling and padding as `sites.formats.nifti`'s."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hippocampi(tmp_path, every=52)
    found = Folder(manifest="m.csv", shape=(48, 64, 48)).load(tmp_path)
    whole = Npz(path="hippocampus260_48x64x48.npz").load(root_with("hippocampus260_48x64x48.npz"))
    same = [
        whole.table["image"].str.removesuffix(".nii.gz").tolist().index(p) for p in found.table["patient"]
    ]
    assert len(same) == 5 and found.classes == 3
    assert np.array_equal(found.targets, whole.targets[same])
    off = np.abs(found.pixels.astype(int) - whole.pixels[same])
    assert off.max() <= 1 and (off > 0).mean() < 0.01  # rounding


@pytest.mark.gate
def test_hippocampus_nifti_files_are_trained_on_unlearned_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Voxels are counted in the files themselves, as nibabel reads them: turning and padding loses none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    maps = {
        patient: np.asarray(nibabel.Nifti1Image.from_filename(file).dataobj)
        for patient, file in hippocampi(tmp_path, every=16)
    }
    text = """\
name: nifti
seeds: [1]
engine: {name: inline, workers: 1}
data: {name: folder, manifest: m.csv, shape: [48, 64, 48]}
sites: {names: [north, east], partition: {name: by_column, column: site}, split: {train: 0.5, val: 0.2, test: 0.3}}
model: {name: unet3d}
training: {rounds: 2, local_epochs: 4, batch_size: 2, lr: 0.01}
requests: [{id: some, site: north, patients: {count: 1}}, {id: leave, site: east, whole_site: true}]
strategies: [{name: fine_tune, rounds: 1}]
"""
    (tmp_path / "scenario.yaml").write_text(text, encoding="utf-8")
    scenario = scenarios.read(tmp_path / "scenario.yaml")
    run = simulate(scenario, tmp_path / "run", tmp_path, Console(), quiet=True)
    images, signals = run.read_table("sites.parquet"), run.read_table("signals/original-1.parquet")
    assert len(images) == len(maps) == 17
    for patient, own in zip(images["patient"], signals.to_dict("records"), strict=True):
        assert [own["true_1"], own["true_2"]] == [(maps[patient] == c).sum() for c in (1, 2)]
    assert volume_dice(signals, 3).mean() > 0.1, "it learnt something"
    for picture in run.read_manifest()["slices"]["pictures"]:
        kept = dict(np.load(run.path / f"slices/{picture['request']}.npz"))
        for number, about in enumerate(picture["volumes"]):
            labelled = maps[about["patient"]] > 0
            most = max(int(labelled.sum(axis=axes).max()) for axes in ((1, 2), (0, 2), (0, 1)))
            assert (kept[f"{number}/labels"] > 0).sum() == most


@pytest.mark.gate
def test_chest_x_rays_are_scored_by_real_sex_and_age_and_picked_by_them(tmp_path: Path):
    """Groups with five patients or more of a part have rows there; a request can name the women."""
    root = root_with("nih_cxr1000_128.npz")
    text = """\
name: cxr
seeds: [1, 2]
engine: {name: inline, workers: 2}
data: {name: npz, path: nih_cxr1000_128.npz, size: 32}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 1, local_epochs: 1}
requests: [{id: women, site: north, patients: {fraction: 0.3, by: {sex: F}}}]
strategies: [{name: fine_tune, rounds: 1}]
"""
    (tmp_path / "scenario.yaml").write_text(text, encoding="utf-8")
    run = simulate(scenarios.read(tmp_path / "scenario.yaml"), tmp_path / "run", root, Console(), quiet=True)
    scores, images = run.read_table("scores.parquet"), run.read_table("sites.parquet")
    asked = images[[("women" in ids) for ids in images["forgotten_by"]]]
    assert set(asked["sex"]) == {"F"}
    tuned = scores[(scores["seed"] == 1) & (scores["strategy"] == "fine_tune")]
    test, forget = (
        tuned[tuned["measure"] == f"{part}_accuracy"].set_index("group") for part in ("test", "forget")
    )
    held_out = images[images["split"] == "test"]
    for sex in ("F", "M"):
        assert test.loc[f"sex={sex}", "n"] == (held_out["sex"] == sex).sum()
    assert test.loc["age=40-59", "n"] == held_out["age"].between(40, 59).sum()
    assert "sex=F" in forget.index and "sex=M" not in forget.index
    assert {"sex", "age", "class", "site"} <= set(run.read_table("bias.parquet")["attribute"])


def test_chest_x_rays_have_several_findings_from_the_table_beside_them():
    """Of each finding as many as the table's cells name, counted there by the words between bars."""
    root = root_with("nih_cxr1000_metadata.csv")
    source = Npz(
        path="nih_cxr1000_128.npz",
        size=32,
        table="nih_cxr1000_metadata.csv",
        label="finding_labels",
        findings="all",
    )
    found = source.load(root)
    cells = pd.read_csv(root / "nih_cxr1000_metadata.csv")["finding_labels"]
    counts = cells.str.split("|").explode().value_counts().drop("No Finding")
    assert (found.kind, found.classes, len(found.names)) == ("multilabel", 2, len(counts))
    assert dict(zip(found.names, found.targets.sum(axis=0).tolist(), strict=True)) == counts.to_dict()
    assert (found.targets.sum(axis=1) == 0).sum() == 500
    assert found.table["patient"].nunique() == 682
    assert found.table["sex"].value_counts().to_dict() == {"M": 523, "F": 477}
    assert found.table["view"].value_counts().to_dict() == {"AP": 567, "PA": 433}
