"""Which volumes and slices are shown, what models make of them, and the pictures of a whole run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics.meandice import compute_dice
from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.campaign.cohort import Cohort
from fedunlearn.campaign.gathering import gather
from fedunlearn.campaign.slices import chosen, middle, plane, sections
from fedunlearn.campaign.timeline import Moment, chains
from fedunlearn.core import Form, Select
from fedunlearn.kinds.segmentation.evidence import volume_dice
from fedunlearn.learning.kinds import learnt
from fedunlearn.learning.local import scaled
from fedunlearn.learning.models import Network
from fedunlearn.learning.tasks import Plane, Sections
from fedunlearn.results import drawing
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.results.signals import signal_table
from fedunlearn.story import simulate
from tests import runs, toy_volumes as toy
from tests.test_simulate_volumes import store

pytestmark = pytest.mark.usefixtures("few_resamples")

# ------------------------------------------------------------------------------------------- what is shown


def test_the_slice_has_most_labelled_voxels() -> None:
    """Against counting each slice by itself."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels = (rng.random((4, 6, 5)) < 0.2) * rng.integers(1, 4, (4, 6, 5))
        found = plane(9, labels)
        counts = [[int((part > 0).sum()) for part in np.moveaxis(labels, axis, 0)] for axis in range(3)]
        assert counts[found.axis][found.index] == max(map(max, counts))
        assert found.row == 9


def test_of_slices_with_as_many_voxels_the_most_central_is_shown() -> None:
    labels = np.zeros((5, 5, 7), np.uint8)
    assert plane(0, labels) == Plane(0, 0, 2)
    labels[1:5, 1, 1:6] = 1  # 4 x 5 voxels in one slice of axis 1
    assert plane(0, labels) == Plane(0, 1, 1)
    labels[1:5, 3, 1:6] = 2  # and in another, as near to the middle
    assert plane(0, labels) == Plane(0, 1, 1)
    labels[1:5, 2, 1:6] = 2
    assert plane(0, labels) == Plane(0, 1, 2)


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([0.5], 10),
        ([0.5, 0.1], 11),  # the lower one of two
        ([0.5, 0.1, 0.3], 12),
        ([0.5, 0.1, 0.3, 0.2], 13),
        ([0.2, 0.2, 0.2], 11),
        ([np.nan, 0.1, np.nan], 11),
        ([np.nan, np.nan], 10),
    ],
)
def test_the_volume_in_the_middle(values: Sequence[float], row: int) -> None:
    changes = np.full(20, 9.0)
    changes[10 : 10 + len(values)] = values
    assert middle(np.arange(10, 10 + len(values)), changes) == row


def test_dice_of_volumes_is_monais() -> None:
    """Class 3 is nowhere in volume 0, and nothing but background in volume 1."""
    generator = torch.Generator().manual_seed(2)
    targets = torch.randint(0, 3, (3, 4, 4, 4), generator=generator)
    targets[1] = 0
    outputs = torch.randn(3, 4, 4, 4, 4, generator=generator)
    outputs[0, 3] = outputs[1, 1:] = -99.0
    found = volume_dice(signal_table(learnt("segmentation").signal(outputs, targets)), 4)
    p, g = (torch.nn.functional.one_hot(x, 4).movedim(-1, 1) for x in (outputs.argmax(1), targets))
    scores = compute_dice(p, g, include_background=False, ignore_empty=False)
    neither = (p + g).flatten(2).sum(2)[:, 1:] == 0  # MONAI's is 1 there
    expected = torch.where(neither, torch.nan, scores).nanmean(dim=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.isnan(found).tolist() == [False, True, False]


def moments_of(cohort_text: str, folder: Path, *overrides: str) -> tuple[Cohort, dict[str, Moment]]:
    path = store(folder)
    path.write_text(cohort_text or path.read_text(encoding="utf-8"), encoding="utf-8")
    scenario = scenarios.read(path, overrides)
    found = {m.name: m for chain in chains(scenario) for m in chain.moments}
    return gather(scenario, folder), found


def test_a_volume_of_each_part_of_the_requests_hospital_is_shown(tmp_path: Path) -> None:
    cohort, found = moments_of("", tmp_path)
    rows = chosen(cohort, found["some"], np.arange(24.0))
    assert list(rows) == ["forget", "retain", "test"]
    assert all(cohort.site[row] == "north" for row in rows.values())
    assert [cohort.split[row] for row in rows.values()] == ["train", "train", "test"]
    assert [bool(cohort.forgotten["some"][row]) for row in rows.values()] == [True, False, False]


def test_of_a_hospital_that_leaves_the_retained_volume_is_the_next_ones(tmp_path: Path) -> None:
    """East is the last one, so the next is the first; its test volumes stay its own."""
    cohort, found = moments_of("", tmp_path)
    rows = chosen(cohort, found["leave"], np.arange(24.0))
    assert [cohort.site[rows[part]] for part in ("forget", "retain", "test")] == ["east", "north", "east"]
    east = np.flatnonzero((cohort.site == "east") & (cohort.split == "train"))
    assert rows["forget"] == east[(len(east) - 1) // 2]  # changes rise with the row number


def test_what_earlier_requests_named_is_neither_to_forget_nor_retained(tmp_path: Path) -> None:
    overrides = ["timeline=sequential", "strategies=[{name: fine_tune, rounds: 1}]"]
    cohort, found = moments_of("", tmp_path, "requests.1.site=north", *overrides)
    first = cohort.forgotten["some"] & (cohort.split == "train")
    changes = np.where(first, 0.0, np.arange(24.0))
    for values in (changes, -changes):
        rows = chosen(cohort, found["leave"], values)
        assert cohort.site[rows["forget"]] == "north" and not first[rows["forget"]]
        assert cohort.site[rows["retain"]] == "east"


def test_a_part_without_volumes_is_left_out(tmp_path: Path) -> None:
    cohort, found = moments_of("", tmp_path)
    nobody = dataclasses.replace(cohort, split=np.where(cohort.split == "test", "val", cohort.split))
    assert list(chosen(nobody, found["some"], np.zeros(24))) == ["forget", "retain"]


# ----------------------------------------------------------------------------------------- what models make of it


@pytest.mark.gate
def test_no_pixel_is_kept_where_nobody_wants_pictures(tmp_path: Path) -> None:
    scenario = scenarios.read(store(tmp_path), ["seeds=[1]", "strategies=[]", "evaluation.slices=false"])
    run = simulate(scenario, tmp_path / "run", tmp_path, Console(), quiet=True)
    assert not (run.path / "slices").exists()
    assert run.read_manifest()["slices"]["pictures"] == []
    assert "slices" not in set(run.read_table("ledger.parquet")["phase"])


def test_a_hospital_tells_the_classes_of_the_asked_planes_and_nothing_else() -> None:
    """Against cutting whole predictions, in the order asked."""
    weights, rows = toy.trained()[1], toy.volumes("east").rows.tolist()
    planes = (Plane(rows[2], 1, 5), Plane(rows[0], 2, 0))
    # `toy.select` knows the training volumes only; "all" are the same there.
    reply = Sections(weights, planes)(toy.Ward(toy.VOLUMES, "east", toy.network()))
    every = toy.select("east", Select())
    network = toy.network()
    network.load(weights)
    with torch.inference_mode():
        whole = network.module.eval()(scaled(every.pixels)).argmax(1)
    assert reply.weights is None and reply.count == 2
    assert list(reply.arrays) == [str(rows[2]), str(rows[0])]
    assert torch.equal(reply.arrays[str(rows[2])], whole[2][:, 5])
    assert torch.equal(reply.arrays[str(rows[0])], whole[0][:, :, 0])
    assert len(whole.unique()) > 1


def test_each_hospital_is_asked_for_its_own_volumes_only() -> None:
    north, west = (toy.volumes(site).rows.tolist()[1] for site in ("north", "west"))
    planes = {"north": [Plane(north, 0, 3)], "west": [Plane(west, 0, 4)]}
    found = toy.run(sections(toy.trained()[1], planes))
    assert set(found) == {str(north), str(west)}
    with pytest.raises(ValueError, match="not in list"):
        toy.run(sections(toy.trained()[1], {"north": [Plane(west, 0, 4)]}))


# -------------------------------------------------------------------------------------------------- a whole run

CHANGES = (
    "requests.0.after_round=1",
    "strategies=[{name: noisy_label, rounds: 1, recovery: {rounds: 1}}, "
    "{name: fine_tune, rounds: 1, as: wild, lr: 1e30}]",
    "seeds=[2, 1]",
)
MOMENTS = ("some@1", "some", "leave")


def simulated(folder: Path, name: str, *overrides: str) -> RunFolder:
    scenario = scenarios.read(store(folder), [*CHANGES, *overrides])
    return simulate(scenario, folder / name, folder, Console(), quiet=True)


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return simulated(tmp_path_factory.mktemp("pictured"), "run")


def kept(run: RunFolder, moment: str) -> drawing.Picture:
    return drawing.unpacked(dict(np.load(run.path / "slices" / f"{moment}.npz")))


def told(run: RunFolder, moment: str) -> list[dict[str, Any]]:
    (entry,) = (e for e in run.read_manifest()["slices"]["pictures"] if e["request"] == moment)
    volumes: list[dict[str, Any]] = entry["volumes"]
    return volumes


@pytest.mark.gate
def test_every_moment_has_a_picture_and_what_it_was_drawn_from(pictured: RunFolder) -> None:
    folder = pictured.path / "slices"
    assert {file.name for file in folder.iterdir()} == {f"{m}.{k}" for m in MOMENTS for k in ("png", "npz")}
    for moment in MOMENTS:
        assert drawing.png(kept(pictured, moment)) == (folder / f"{moment}.png").read_bytes()
    manifest = pictured.read_manifest()
    assert all(f"slices/{moment}.png" in manifest["sha256"] for moment in MOMENTS)
    assert [(e["request"], e["seed"]) for e in manifest["slices"]["pictures"]] == [(m, 2) for m in MOMENTS]


@pytest.mark.gate
def test_the_middle_volume_is_shown(pictured: RunFolder) -> None:
    """Ordered again by the signals alone, of the whole hospital that leaves."""
    table = pictured.read_table("sites.parquet")
    signals = [
        pictured.read_table(f"signals/{model}.parquet") for model in ("original-2", "retrained-leave-2")
    ]
    original, retrained = (volume_dice(own, 3) for own in signals)
    table = table.assign(change=original - retrained)
    own = table[(table["site"] == "east") & (table["split"] == "train")].sort_values("change", kind="stable")
    forgotten = told(pictured, "leave")[0]
    assert (forgotten["part"], forgotten["site"]) == ("forget", "east")
    assert forgotten["image"] == own["image"].iloc[(len(own) - 1) // 2]


@pytest.mark.gate
@pytest.mark.parametrize("moment", MOMENTS)
def test_slices_are_the_datas_and_predictions_the_models(pictured: RunFolder, moment: str) -> None:
    """Every kept weights file predicts the same slice again."""
    picture, table = kept(pictured, moment), pictured.read_table("sites.parquet")
    data = np.load(pictured.path.parent / "volumes.npz")
    network = Network(scenarios.read(pictured.path / "scenario.yaml").model, Form((1, 8, 8, 8), 3))
    (entry,) = (e for e in pictured.read_manifest()["scored"] if (e["request"], e["seed"]) == (moment, 2))
    models = {"original": entry["original"], "retrained": entry["retrained"], **entry["strategies"]}
    assert (
        (*picture.references, *picture.others)
        == tuple(models)
        == ("original", "retrained", "noisy_label", "wild")
    )
    assert len(picture.rows) == 3
    for row, about in zip(picture.rows, told(pictured, moment), strict=True):
        number, place = table["image"].tolist().index(about["image"]), (about["index"], about["axis"])
        assert np.array_equal(row.image, np.take(data["train_images"][number], *place))
        assert np.array_equal(row.labels, np.take(data["train_labels"][number], *place))
        assert set(row.predicted) == set(row.dice) == set(models) - {"wild"}
        for name, predicted in row.predicted.items():
            network.load(pictured.read_weights(models[name]))
            volume = torch.from_numpy(data["train_images"][number])[None, None]
            with torch.inference_mode():
                whole = network.module.eval()(scaled(volume)).argmax(1)[0]
            assert np.array_equal(predicted, np.take(whole.numpy(), *place))
            signals = pictured.read_table(f"signals/{models[name]}.parquet")
            assert row.dice[name] == volume_dice(signals, 3)[number]


@pytest.mark.gate
def test_pictures_cost_no_strategy_anything(pictured: RunFolder) -> None:
    """One round each of two hospitals at most; of three moments, two references and one strategy that lives."""
    ledger, scores = pictured.read_table("ledger.parquet"), pictured.read_table("scores.parquet")
    asked = ledger[(ledger["phase"] == "slices") & (ledger["sites"] > 0)]
    assert len(asked) == 3 * 3 and set(asked["seed"]) == {2} and "wild" not in set(asked["strategy"])
    spent = scores[(scores["measure"] == "rounds") & (scores["strategy"] == "noisy_label")]
    assert (
        spent["value"].nunique() == 1 and spent["value"].iloc[0] == 2
    )  # one round of noise, one of recovery


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_the_same_run_gives_the_same_bytes(pictured: RunFolder, tmp_path: Path) -> None:
    again = simulated(tmp_path, "again", "engine.workers=1")
    for file in (pictured.path / "slices").iterdir():
        assert (again.path / "slices" / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.gate
@pytest.mark.usefixtures("unscored")
def test_images_with_a_class_each_have_no_pictures(tmp_path: Path) -> None:
    done = runs.run(tmp_path, "seeds=[1]", "strategies=[{name: fine_tune, rounds: 1}]")
    assert not (done.path / "slices").exists()
    assert done.read_manifest()["slices"]["pictures"] == []
    assert "slices" not in set(pd.read_parquet(done.path / "ledger.parquet")["phase"])
