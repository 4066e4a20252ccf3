"""A whole run on volumes with one class each, as MedMNIST's 3D sets have them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import InputError
from fedunlearn.results import report
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.story import simulate
from sites import medmnist

TINY = """\
name: tiny-organs
seeds: [1, 2]
engine: {name: inline, workers: 2, timeout: 60}
data: {name: medmnist, set: adrenalmnist3d, images_per_patient: 2}
sites: {names: [north, east], partition: {name: iid}, split: {train: 0.5, val: 0.25, test: 0.25}}
model: {name: small_cnn, hidden: 16}
training: {rounds: 2, local_epochs: 3, batch_size: 8, optimizer: adam, lr: 0.003}
requests:
  - {id: some, site: north, patients: {count: 2, pick: random}}
strategies:
  - {name: fine_tune, rounds: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a file that stands for adrenalmnist3d is: noise, in class 1 with a bright box in a corner."""
    folder, rng, counts = tmp_path_factory.mktemp("organs"), np.random.default_rng(4), (40, 12, 12)
    labels = np.arange(sum(counts)) % 2
    volumes = rng.integers(0, 128, (len(labels), 28, 28, 28), np.uint8)
    volumes[labels == 1, :10, :10, :10] += 120
    arrays, start = {}, 0
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        arrays[f"{part}_images"] = volumes[start : start + count]
        arrays[f"{part}_labels"] = labels[start : start + count, None].astype(np.uint8)
        start += count
    np.savez(folder / "adrenalmnist3d.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub: also its own settings
    return folder


@pytest.fixture(autouse=True)
def known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of sets knows the made-up file's sum."""
    sets = medmnist._sets()
    sets["adrenalmnist3d"]["MD5"] = hashlib.md5((folder / "adrenalmnist3d.npz").read_bytes()).hexdigest()
    monkeypatch.setattr(medmnist, "_sets", lambda: sets)


def scenario(folder: Path, text: str = TINY) -> scenarios.Scenario:
    path = folder / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return scenarios.read(path)


def test_volumes_are_classified_from_end_to_end(folder: Path, tmp_path: Path) -> None:
    run: RunFolder = simulate(scenario(folder), tmp_path / "run", folder, Console(), quiet=True)
    rows, scores = run.read_table("sites.parquet"), run.read_table("scores.parquet")
    assert len(rows) == 64 and set(rows["label"]) == {0, 1}
    assert {"forget_accuracy", "retain_accuracy", "test_accuracy"} <= set(scores["measure"])
    tested = scores[(scores["measure"] == "test_accuracy") & (scores["group"] == "all")]
    for strategy in ("original", "retrained", "fine_tune"):
        values = tested[tested["strategy"] == strategy]["value"]
        assert len(values) and (values > 0.9).all(), "a bright corner is easily learnt"
    verdicts = run.read_table("verdicts.parquet")
    assert {("some", "fine_tune"), ("some", "original")} <= set(
        zip(verdicts["request"], verdicts["strategy"], strict=True)
    )
    assert "fine_tune" in report.markdown(run)


def test_volumes_are_not_augmented(folder: Path) -> None:
    """Only the data tells, since the network takes images as well."""
    written = "lr: 0.003, augmentation: "
    with pytest.raises(InputError) as caught:
        gather(scenario(folder, TINY.replace("lr: 0.003", f"{written}flips_crops")), folder)
    (problem,) = caught.value.problems
    assert problem.message == (
        "flips_crops is for 2D images, but the data's have 3 dimensions: write none, or leave it out"
    )
    line = TINY.splitlines()[6]
    assert (problem.line, problem.column) == (7, line.index("lr: 0.003") + len(written) + 1)
