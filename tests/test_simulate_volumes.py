"""A whole run on volumes, small: hospitals, label maps, requests, scores, verdicts, report; and the same on Ray."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.core import IGNORED
from fedunlearn.results import report, tables
from fedunlearn.results.runfolder import RunFolder, parquet
from fedunlearn.scoring.evidence.reading import read
from fedunlearn.scoring.measures.catalogue import measures_of
from fedunlearn.scoring.score import score
from fedunlearn.story import simulate
from tests.runs import run

pytestmark = pytest.mark.usefixtures("few_resamples")

TINY_VOLUMES = """\
name: tiny-volumes
seeds: [1, 2]
engine: {name: inline, workers: 2, timeout: 60}
data: {name: npz, path: volumes.npz}
sites: {names: [north, east], partition: {name: iid}, split: {train: 0.5, val: 0.25, test: 0.25}}
model: {name: unet3d}
training: {rounds: 2, local_epochs: 2, batch_size: 2, optimizer: adam, lr: 0.01}
requests:
  - {id: some, site: north, patients: {count: 1, pick: random}}
  - {id: leave, site: east, whole_site: true}
strategies:
  - {name: fine_tune, rounds: 1}
  - {name: noisy_label, rounds: 1, recovery: {rounds: 1}}
  - {name: random_encoder, rounds: 1, requests: [some]}
"""


def store(folder: Path, edge: int = 8, patients: int = 24) -> Path:
    """A file of volumes, each a bright box in noise, and the scenario; the path of the latter."""
    rng = np.random.default_rng(3)
    labels = np.zeros((patients, edge, edge, edge), dtype=np.uint8)
    for volume in labels:
        z, y, x = rng.integers(0, edge // 2, size=3)
        volume[z : z + edge // 2, y : y + edge // 2, x : x + edge // 2] = 1
        volume[z : z + 2, y : y + 2, x : x + 2] = 2
    images = np.clip(60 * labels + rng.normal(60, 30, labels.shape), 0, 255).astype(np.uint8)
    labels[:, -1, -1] = IGNORED
    np.savez(folder / "volumes.npz", train_images=images, train_labels=labels)
    path = folder / "scenario.yaml"
    path.write_text(TINY_VOLUMES, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("volumes")
    return simulate(scenarios.read(store(folder), []), folder / "run", folder, Console(), quiet=True)


def test_signals_hold_numbers_of_volumes_and_no_voxels(tiny: RunFolder) -> None:
    rows = len(tiny.read_table("sites.parquet"))
    for path in (tiny.path / "signals").iterdir():
        table = tiny.read_table(f"signals/{path.name}")
        assert table.shape == (rows, 4 * 3 + 3)
        assert (table[["true_0", "true_1", "true_2"]].sum(axis=1) == 8**3 - 8).all()


def test_of_copies_there_is_the_loss_of_each_volume(tiny: RunFolder) -> None:
    """What is read back is p = exp(-loss) logit-scaled, in the mean over copies."""
    copies = tiny.read_table("copies/original-1.parquet")
    assert list(copies.columns) == ["image", "copy", "loss_0"]
    run = read(tiny.path)
    found = run.on_copies("original-1", run.frame("leave"))
    assert found is not None
    p = np.exp(-copies["loss_0"])
    expected = np.log(p / (1 - p)).groupby(copies["image"]).mean()
    known = pd.Series(found, run.images["image"]).dropna()
    pd.testing.assert_series_equal(known, expected, check_names=False)


def test_every_measure_of_the_kind_is_there(tiny: RunFolder) -> None:
    """But for those that need probes, 64 seeds, three seeds, or 199 held-out volumes."""
    scores = tiny.read_table("scores.parquet")
    more = ("probe_", "resurgence_", "relearn_", "klom_", "forgetting_", "mia_lira_", "mia_ulira_")
    many = {name for name in measures_of("segmentation") if name.startswith(more) or "_tpr_" in name}
    assert set(scores["measure"]) == set(measures_of("segmentation")) - many
    whole = scores[(scores["group"] == "all") & scores["measure"].str.endswith("_dice")]
    assert whole["value"].between(0, 1).all()
    assert whole["value"].nunique() > 5
    band = scores[(scores["measure"] == "forget_dice") & (scores["group"] == "all")]
    assert (band["null_high"] - band["null_low"] >= 0.05).all()


def test_models_have_surfaces_and_predictions_dealt_at_random_have_none(tiny: RunFolder) -> None:
    """Between 0 and the diagonal of 8 x 8 x 8 voxels."""
    scores = tiny.read_table("scores.parquet")
    surfaces = scores[scores["measure"].str.endswith("surface_distance")]
    assert set(surfaces["strategy"]) == set(scores["strategy"]) - {"damaged"}
    assert surfaces["value"].between(0, 8 * 3**0.5).all() and surfaces["value"].gt(0).any()


def test_the_retrained_model_is_no_distance_from_itself(tiny: RunFolder) -> None:
    scores = tiny.read_table("scores.parquet")
    own = scores[(scores["strategy"] == "retrained") & (scores["measure"] == "avg_dice_gap")]
    assert (own["value"] == 0).all() and (own["n"] > 0).all()


def test_verdicts_rest_on_dice(tiny: RunFolder) -> None:
    verdicts = tiny.read_table("verdicts.parquet")
    pairs = set(zip(verdicts["request"], verdicts["strategy"], strict=True))
    assert {("some", "random_encoder"), ("leave", "noisy_label"), ("some", "original")} <= pairs
    assert set(tiny.read_table("statistics.parquet")["measure"]) >= {"test_dice", "memory_left"}
    assert not {"test_accuracy", "forget_accuracy"} & set(tiny.read_table("statistics.parquet")["measure"])


def test_the_report_names_the_hospital_hit_hardest(tiny: RunFolder, tmp_path: Path) -> None:
    """Of those that stay: north, once its Dice is far below its band; not east, which leaves, and is as bad."""
    shutil.copytree(tiny.path, tmp_path / "run")

    def store_again(scores: pd.DataFrame) -> None:
        RunFolder(tmp_path / "run").renew({"scores.parquet": parquet(scores)})

    scores = tiny.read_table("scores.parquet")
    scores["null_low"] = -1.0  # what happened in so small a run is no matter here
    store_again(scores)
    assert not [s for s in report.fairness(RunFolder(tmp_path / "run"), "leave") if "hit hardest" in s]
    lost = (scores["request"] == "leave") & (scores["strategy"] == "noisy_label")
    dice = (
        lost
        & scores["group"].isin(["site=north", "site=east"])
        & scores["measure"].isin(["retain_dice", "test_dice"])
    )
    scores.loc[dice, "value"] = scores["retrained"] - 2.0
    scores.loc[dice & (scores["measure"] == "test_dice"), "value"] += 0.5
    store_again(scores)
    told = report.fairness(RunFolder(tmp_path / "run"), "leave")[-1]
    assert told.startswith("hospital hit hardest, below its own band of retraining: ")
    assert "noisy_label: north -2.00 (Dice of retained volumes)" in told and "east" not in told


def test_the_worst_hospital_is_measured_by_dice(tiny: RunFolder) -> None:
    """East leaves, so north it is."""
    scores = tiny.read_table("scores.parquet")
    of_request = scores[(scores["request"] == "leave") & (scores["seed"] == 1)]
    for _, rows in of_request[of_request["strategy"].isin(["original", "noisy_label"])].groupby("strategy"):
        dice = rows["measure"].isin(["retain_dice", "test_dice"])
        staying = rows[dice & (rows["group"] == "site=north")]
        (worst,) = rows.loc[rows["measure"] == "worst_site", "value"]
        assert len(staying) == 2 and worst == pytest.approx((staying["value"] - staying["retrained"]).min())


def test_it_can_be_scored_again_from_the_folder_alone(tiny: RunFolder) -> None:
    before = tiny.read_table("scores.parquet")
    after, _ = score(tiny.path)
    assert before.equals(after)


@pytest.mark.gate
def test_shadows_tell_how_much_is_remembered_of_each_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    few = ["evaluation.shadows=2", "seeds=[1]", "strategies=[]"]
    run = simulate(scenarios.read(store(tmp_path), few), tmp_path / "run", tmp_path, Console(), quiet=True)
    found, images = run.read_table("memorisation.parquet"), run.read_table("sites.parquet")
    assert set(found["image"]) == set(images.loc[images["split"] == "train", "image"])
    assert found["value"].between(-1, 1).all() and found["value"].nunique() > 1


def test_the_report_shows_dice(tiny: RunFolder) -> None:
    console = Console(record=True, width=120)
    report.show(tiny, console)
    report.show(tiny, console, details=True)
    text = console.export_text()
    assert "Dice" in text and "ret-fgt" in text and "accuracy" not in text
    assert "| forget | retain | test | MIA AUC | gap | ret-fgt |" in report.markdown(tiny)
    assert "| fgt MAE | ret MAE | MAE gap | fgt SD | ret SD | test SD |" in report.markdown(tiny)
    (line,) = [line for line in tables.lines(tiny, "some") if line.strategy == "do nothing"]
    assert "n/a" not in line.cells[:6]


# --------------------------------------------------------------------------------------------------- on Ray

PHANTOMS = """\
name: phantoms
seeds: [1]
engine: {name: inline, workers: 1, timeout: 300}
data: {name: phantom_brain, volumes: 24, size: 16}
sites: {names: [north, east], partition: {name: iid}, split: {train: 0.5, val: 0.25, test: 0.25}}
model: {name: unet3d}
training: {rounds: 2, local_epochs: 1, batch_size: 2, optimizer: adam, lr: 0.01}
requests:
  - {id: some, site: north, patients: {count: 1, pick: random}}
  - {id: leave, site: east, whole_site: true}
strategies:
  - {name: noisy_label, rounds: 1, recovery: {rounds: 1}}
"""


@pytest.mark.ray
def test_a_whole_run_of_volumes_on_ray_has_the_same_bits(tmp_path: Path) -> None:
    """One original, two retrained and two unlearned models: weights, signals, copies' and pictures, byte for byte."""
    inline = run(tmp_path, text=PHANTOMS, name="inline")
    on_ray = run(tmp_path, "engine.name=flower", "engine.workers=2", text=PHANTOMS, name="ray")
    kept = {folder: files(inline.path / folder) for folder in ("weights", "signals", "copies", "slices")}
    assert [len(found) for found in kept.values()] == [5, 5, 5, 4]
    assert {folder: files(on_ray.path / folder) for folder in kept} == kept
    assert len(set(kept["weights"].values())) == 5, "all models differ"
    curves, same = (one.read_table("curves.parquet") for one in (inline, on_ray))
    pd.testing.assert_frame_equal(same, curves, check_exact=True)
    assert set(curves["phase"]) == {"original", "retrained", "unlearn"}
    assert set(curves["measure"]) == {"loss", "dice"} and curves["value"].nunique() > 10


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
