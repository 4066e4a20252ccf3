"""How models do round by round: of which images, of which models, and that it is the same however it came about."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from fedunlearn import scenario as scenarios
from fedunlearn.campaign import curves
from fedunlearn.campaign.curves import COLUMNS, MOST, Part, budget, glances, kept, spread, together
from fedunlearn.campaign.gathering import gather
from fedunlearn.core import Reply, Select
from fedunlearn.learning.glancing import Glance
from fedunlearn.learning.kinds import learnt
from fedunlearn.learning.local import signals
from fedunlearn.results.runfolder import CURVES, RunFolder
from fedunlearn.scoring.evidence.reading import read
from fedunlearn.scoring.kinds import scored
from fedunlearn.story import simulate
from tests import runs, toy
from tests.toy import by_hand

MIDWAY = """\
name: midway
seeds: [1, 2]
engine: {name: inline, workers: 2}
data: {name: phantom_cells, images: 240}
sites: {names: [north, east, west], partition: {name: iid}}
model: {name: small_cnn}
training: {rounds: 3, local_epochs: 1, batch_size: 32, lr: 0.002}
evaluation: {copies: false}
requests:
  - {id: some, site: north, patients: {count: 2}, after_round: 2}
  - {id: leave, site: east, whole_site: true}
strategies:
  - {name: fine_tune, rounds: 2}
  - {name: negation, recovery: {rounds: 1}}
  - {name: negation, recovery: {rounds: 0}, as: bare}
  - {name: random_label, lr: 1.0e+30, epochs: 2, as: wild, requests: [leave]}
"""
SHORT = ["phase", "request", "strategy", "seed", "round", "step"]


@pytest.fixture(scope="module")
def midway(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with runs.without_scores():
        return runs.run(tmp_path_factory.mktemp("midway"), text=MIDWAY)


def rows(run: RunFolder, **which: object) -> pd.DataFrame:
    table = run.read_table(CURVES)
    return table[(table[list(which)] == pd.Series(which)).all(axis=1)]


# ------------------------------------------------------------------------------------------ of which images


def cohort(**counts: int) -> Any:
    return SimpleNamespace(sites=tuple(counts), counts=lambda select: counts)


@pytest.mark.parametrize("most", [1, 2, 5, 9, 10, 50])
def test_images_are_spread_evenly_over_hospitals(most: int) -> None:
    found = spread(cohort(a=6, b=0, c=3), Select(), most)
    whole = [*found.get("a", torch.zeros(0)).tolist(), *(6 + found.get("c", torch.zeros(0))).tolist()]
    assert len(whole) == min(most, 9) == len(set(whole)) and whole[0] == 0 and max(whole) < 9
    assert max(np.diff(whole), default=0) - min(np.diff(whole), default=0) <= 1
    assert "b" not in found


def test_no_images_are_none() -> None:
    assert spread(cohort(a=0), Select(), 5) == {}


def test_few_enough_images_are_shown_to_cost_little(tmp_path: Path) -> None:
    """Three in a hundred of a round's passes, for both parts, within bounds."""
    scenario = scenarios.read(runs.write(tmp_path), ["training.local_epochs=20"])
    train = int((gather(scenario, tmp_path).split == "train").sum())
    assert budget(scenario, gather(scenario, tmp_path)) == int(0.03 * 20 * train / 2)
    few = scenarios.read(runs.write(tmp_path))
    assert budget(few, gather(few, tmp_path)) == 16
    many = scenarios.read(runs.write(tmp_path), ["training.local_epochs=1000"])
    assert budget(many, gather(many, tmp_path)) == MOST


def test_few_large_models_are_kept() -> None:
    assert [kept(size) for size in (1, 2**24, 2**26, 2**40)] == [64, 64, 16, 8]


def test_models_travel_together_while_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [{"w": torch.full((10,), float(i))} for i in range(5)]
    monkeypatch.setattr(curves, "_AT_ONCE", 80)
    assert [len(some) for some in together(models)] == [2, 2, 1]
    monkeypatch.setattr(curves, "_AT_ONCE", 1)
    assert [len(some) for some in together(models)] == [1, 1, 1, 1, 1]
    assert list(together([])) == []


# ------------------------------------------------------------------------------------------ what is measured


def test_the_mean_is_over_all_hospitals_images() -> None:
    """Two models, one part of three images at two hospitals and one of one; against counting by hand."""
    parts = [
        Part("some", Select(only="some"), {"a": torch.tensor([0, 2]), "b": torch.tensor([1])}),
        Part("", Select(split="val"), {"b": torch.tensor([0])}),
    ]
    losses = {"a": [[1.0, 2.0], [0.0, -1.0]], "b": [[6.0, 5.0], [0.5, 7.0]]}
    right = {"a": [[1.0, 0.0], [1.0, 1.0]], "b": [[0.0, 1.0], [1.0, 0.0]]}

    def reply(asks: Any) -> Any:
        assert {site: [len(own) for own in task.places] for site, task in asks.items()} == {
            "a": [2, 0],
            "b": [1, 1],
        }
        return {
            site: Reply(None, 2, {"loss": torch.tensor(losses[site]), "right": torch.tensor(right[site])})
            for site in asks
        }

    found = by_hand(
        glances(scored("classification"), [{"w": torch.zeros(1)}] * 2, parts, ("a", "b", "c")), reply
    )
    np.testing.assert_allclose(
        found,
        [[3.0, 1 / 3, 5.0, 1.0], [np.nan, np.nan, 7.0, 0.0]],  # one loss of the second model is not finite
    )


def test_dice_is_the_mean_over_volumes_that_have_one() -> None:
    counts = {
        "loss": torch.ones(1, 3),
        "intersection": torch.tensor([[[9.0, 2.0], [9.0, 0.0], [9.0, 0.0]]]),
        "predicted": torch.tensor([[[9.0, 4.0], [9.0, 3.0], [9.0, 0.0]]]),
        "true": torch.tensor([[[9.0, 4.0], [9.0, 1.0], [9.0, 0.0]]]),
    }
    parts = [Part("some", Select(only="some"), {"a": torch.arange(3)})]
    found = by_hand(
        glances(scored("segmentation"), [{"w": torch.zeros(1)}], parts, ("a",)),
        lambda asks: {"a": Reply(None, 3, counts)},
    )
    np.testing.assert_allclose(found, [[1.0, (0.5 + 0.0) / 2]])


@pytest.mark.parametrize("volumes", [False, True])
def test_a_glance_is_a_part_of_the_signal(volumes: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (5, 3, 4, 4, 4) if volumes else (5, 3)
    outputs = torch.randn(shape, generator=generator)
    targets = torch.randint(0, 3, shape[:1] + shape[2:], generator=generator)
    kind = learnt("segmentation" if volumes else "classification")
    if volumes:
        targets[0, 0] = 255
    found, signal = kind.glance(outputs, targets), kind.signal(outputs, targets)
    if volumes:
        for name in ("loss", "intersection", "predicted", "true"):
            assert torch.equal(found[name], signal[name])
    else:
        expected = -torch.log_softmax(signal["logits"].double(), 1)[range(5), targets]
        torch.testing.assert_close(found["loss"], expected)
        assert found["right"].tolist() == (outputs.argmax(1) == targets).tolist()
    broken = kind.glance(outputs * torch.inf, targets)
    assert (broken["loss"] == -1).all()


def test_a_hospital_glances_at_the_images_it_is_asked_about() -> None:
    local = toy.ToyLocal("north", toy.network(), toy.Log())
    every, model = local.images(Select()), local.network.read()
    task = Glance(
        (model, model), (Select(), Select(split="test")), (torch.tensor([3, 0]), torch.zeros(0).long())
    )
    reply = task(local)
    kind = learnt(local.network.kind)
    assert reply.count == 2 and reply.arrays["loss"].shape == (2, 2)
    expected = signals(local, model, every, kind.glance)["loss"][[3, 0]]
    torch.testing.assert_close(reply.arrays["loss"][1], expected)


# --------------------------------------------------------------------------------------------- a whole run


def test_there_is_a_row_for_every_model_in_hand(midway: RunFolder) -> None:
    table = midway.read_table(CURVES)
    assert tuple(table.columns) == COLUMNS and not table["value"].isna().any()
    one = table[(table["measure"] == "loss") & (table["part"] == "validation") & (table["seed"] == 1)]
    found = {
        key: list(zip(own["after"], own["round"], strict=True))
        for key, own in one.groupby(["phase", "request", "strategy"])
    }
    trained = [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert found == {
        ("original", "some", "original"): trained,
        ("original", "leave", "original"): trained,
        ("retrained", "some", "retrained"): trained[:3],
        ("retrained", "leave", "retrained"): trained,
        ("continue", "some", "retrained"): [(2, 0), (2, 1)],
        ("unlearn", "some", "fine_tune"): [(2, 0), (2, 1), (2, 2)],
        ("continue", "some", "fine_tune"): [(2, 0), (2, 1)],
        ("unlearn", "leave", "fine_tune"): [(3, 0), (3, 1), (3, 2)],
        # the server negates, and then asks for a round
        ("unlearn", "some", "negation"): [(2, 0), (2, 0), (2, 1)],
        ("continue", "some", "negation"): [(2, 0), (2, 1)],
        ("unlearn", "leave", "negation"): [(3, 0), (3, 0), (3, 1)],
        # it asks nobody
        ("unlearn", "some", "bare"): [(2, 0), (2, 0)],
        ("continue", "some", "bare"): [(2, 0), (2, 1)],
        ("unlearn", "leave", "bare"): [(3, 0), (3, 0)],
        ("unlearn", "leave", "wild"): [(3, 0)],  # it diverged in its first round
    }
    steps = table.groupby(["phase", "request", "strategy", "seed", "part", "measure"])["step"]
    assert all(own.tolist() == list(range(len(own))) for _, own in steps)


def test_the_last_model_is_measured_as_its_signals_say(midway: RunFolder) -> None:
    """All images to forget are shown here, so the mean is that of what the run folder keeps."""
    run = read(midway.path)
    for request, model, which in (
        ("leave", "leave-fine_tune-2", {"phase": "unlearn", "strategy": "fine_tune"}),
        ("leave", "original-2", {"phase": "original"}),
        ("some", "some-negation-2", {"phase": "continue", "strategy": "negation"}),
        ("some@2", "some@2-negation-2", {"phase": "unlearn", "strategy": "negation"}),
        ("some", "retrained-some-2", {"phase": "continue", "strategy": "retrained"}),
    ):
        frame = run.frame(request)
        shown = np.flatnonzero(frame.rows("forget"))
        answers: Any = run.answers(model, frame)
        own = rows(midway, request=request.partition("@")[0], seed=2, part="forget", **which)
        last = own[own["step"] == own["step"].max()].set_index("measure")
        images = int(last["images"].iloc[0])
        # `frame` is in the order of ids, which is that of sites.parquet for these
        chosen = shown[np.arange(images) * len(shown) // images]
        assert last.loc["loss", "value"] == pytest.approx(answers.losses[chosen].mean(), abs=1e-6)
        assert last.loc["accuracy", "value"] == pytest.approx(answers.correct[chosen].mean())


def test_one_goes_on_where_the_other_ends(midway: RunFolder) -> None:
    def value(which: str, **keys: object) -> list[float]:
        own = rows(midway, part="forget", measure="loss", **keys).groupby("seed")["value"]
        return (own.first() if which == "first" else own.last()).tolist()

    for strategy in ("fine_tune", "negation", "bare"):
        before = value("last", phase="original", request="leave")
        assert value("first", phase="unlearn", request="leave", strategy=strategy) == before
        ended = value("last", phase="unlearn", request="some", strategy=strategy)
        assert value("first", phase="continue", request="some", strategy=strategy) == ended


@pytest.mark.gate
def test_it_changes_nothing_else(midway: RunFolder, tmp_path: Path) -> None:
    with runs.without_scores():
        off = runs.run(tmp_path, "evaluation.curves=false", text=MIDWAY)
    assert not (off.path / CURVES).exists() and not (off.path / "curves").exists()
    known, found = runs.contents(midway.path), runs.contents(off.path)
    kept = {name for name in known if name.startswith(("weights/", "signals/"))}
    assert kept == {name for name in found if name.startswith(("weights/", "signals/"))}
    assert all(known[name] == found[name] for name in kept)
    phases = ["original", "retrained", "unlearn", "continue"]
    columns = ["phase", "request", "strategy", "seed", "round", "down_bytes", "up_bytes", "images", "epochs"]
    one, other = (run.read_table("ledger.parquet") for run in (midway, off))
    own, others = (t[t["phase"].isin(phases)][columns].reset_index(drop=True) for t in (one, other))
    pd.testing.assert_frame_equal(own, others)
    assert one["stored_bytes"].max() == other["stored_bytes"].max()


@pytest.mark.gate
def test_from_an_earlier_run_it_is_the_same(midway: RunFolder, tmp_path: Path) -> None:
    """One that has curves; of one that has none, a start and an end are left."""
    scenario = scenarios.read(runs.write(tmp_path, MIDWAY), [])
    with runs.without_scores():
        again = simulate(scenario, tmp_path / "again", tmp_path, Console(), True, reuse=[midway.path])
        off = runs.run(tmp_path, "evaluation.curves=false", text=MIDWAY, name="off")
        without = simulate(scenario, tmp_path / "without", tmp_path, Console(), True, reuse=[off.path])
        third = simulate(
            scenario, tmp_path / "third", tmp_path, Console(), True, reuse=[without.path, midway.path]
        )
    whole = midway.read_table(CURVES)
    pd.testing.assert_frame_equal(again.read_table(CURVES), whole)
    pd.testing.assert_frame_equal(third.read_table(CURVES), whole)
    ends = without.read_table(CURVES)
    assert set(ends["step"]) == {0, 1}
    told = without.read_manifest()["ends_only"]
    several = ends[ends["round"] > 1][["phase", "request", "strategy", "seed"]].drop_duplicates()
    several.loc[several["phase"] == "original", "request"] = ""  # it is of no request
    assert {tuple(one.values()) for one in told} == set(several.itertuples(index=False, name=None)) != set()
    assert not any(run.read_manifest()["ends_only"] for run in (midway, again, third))
    keys = [*COLUMNS[:6], "part", "measure"]
    both = ends.merge(whole, on=keys, suffixes=("", "_whole"))
    assert len(ends.drop_duplicates(keys)) == len(both.drop_duplicates(keys))  # rounds are told as they were
