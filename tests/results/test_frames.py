"""Frames against the tables that they are made of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from fedunlearn.core import InputError
from fedunlearn.results import frames
from fedunlearn.results.columns import COLUMNS, ROLES
from fedunlearn.results.held import Held, summary
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.score import score
from tests.scoring.made import MODELS, change_manifest, images, make_run

FRAMES = list(COLUMNS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
        folder = make_run(tmp_path_factory.mktemp("run") / "run", MODELS, table=images(patients=10))
        score(folder)
    moments = [{"id": r, "forgets": r, "summary": "-"} for r in ("some", "east-leaves")]
    change_manifest(folder, moments=moments, floors=["lazy"], name="made", data={"note": "-"})
    return RunFolder(folder)


def table(run: RunFolder, name: str, **where: str) -> Any:
    found = run.read_table(f"{name}.parquet")
    for column, value in where.items():
        found = found[found[column] == value]
    return found


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_has_the_columns_that_are_described(run: RunFolder, name: str):
    found = getattr(frames, name)(run, "some")
    assert list(found.columns) == list(COLUMNS[name])
    assert found.index.equals(pd.RangeIndex(len(found)))
    assert set(found["role"]) <= set(ROLES)
    with pytest.raises(InputError, match="no request 'other', expected one of some, east-leaves"):
        summary(run, "other")


def test_who_is_in_a_frame_and_in_which_order(run: RunFolder):
    found = frames.answers(run, "some")
    assert found["strategy"].iloc[0] == "good"
    assert found["name"].iloc[-2:].tolist() == ["retraining again", "do nothing"]
    roles = dict(zip(found["strategy"], found["role"], strict=True))
    assert roles == {
        "good": "strategy",
        "lazy": "floor",
        "overdone": "strategy",
        "destroyed": "strategy",
        "retrained_other": "again",
        "original": "original",
    }
    assert frames.costs(run, "some")["name"].iloc[-2:].tolist() == ["retraining", "do nothing"]


@pytest.mark.parametrize("request_id", ["some", "east-leaves"])
def test_numbers_are_those_of_the_tables(run: RunFolder, request_id: str):
    statistics = table(run, "statistics", request=request_id).set_index(["strategy", "measure", "group"])
    verdicts = table(run, "verdicts", request=request_id).set_index("strategy")
    patients = table(run, "patients", request=request_id, on="images").set_index(["strategy", "patient"])
    scores = table(run, "scores", request=request_id, group="all")
    for row in frames.answers(run, request_id).to_dict("records"):
        memory = statistics.loc[(row["strategy"], "memory_left", "all")]
        assert [row[c] for c in ("memory_left", "memory_low", "memory_high", "memory_margin")] == [
            memory[c] for c in ("difference", "low", "high", "margin")
        ]
        good = statistics.loc[(row["strategy"], "test_accuracy", "all")]
        assert [row[c] for c in ("difference", "low", "high")] == [
            good[c] for c in ("difference", "low", "high")
        ]
        assert (row["forgotten"], row["useful"]) == tuple(
            verdicts.loc[row["strategy"], ["forgotten", "useful"]]
        )
        own = patients.loc[row["strategy"]]
        assert (row["known"], row["overdone"]) == tuple(
            int((own["flagged"] == f).sum()) for f in ("remembered", "overdone")
        )
        assert row["patients"] == len(own)
    for row in frames.memory(run, request_id).to_dict("records"):
        same = patients.loc[(row["strategy"], row["patient"])]
        assert all(row[c] == same[c] for c in ("memory_left", "low", "high", "p", "flagged"))
        assert np.isnan(row["copies_left"]) and row["copies_flagged"] == ""
    assert len(frames.memory(run, request_id)) == 6 * len(own)
    groups = frames.groups(run, request_id)
    for row in groups.to_dict("records"):
        group = "all" if row["attribute"] == "all" else f"{row['attribute']}={row['group']}"
        same = statistics.loc[(row["strategy"], "test_accuracy", group)]
        assert all(row[c] == same[c] for c in ("difference", "low", "high", "margin", "patients"))
    assert {"all", "site", "class"} <= set(groups["attribute"])
    costs = frames.costs(run, request_id).set_index("strategy")
    means = scores.groupby(["strategy", "measure"])["value"].mean()
    for strategy, measure in costs.drop(columns=["name", "role"]).stack().index:
        assert costs.loc[strategy, measure] == means[strategy, measure]
    assert costs.loc["good", "tuning_site_seconds"] == 30


def test_a_table_that_holds_is_read_once_and_says_the_same(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    held, read = Held(run), list[str]()
    original = RunFolder.read_table

    def counted(self: RunFolder, name: str) -> pd.DataFrame:
        read.append(name)
        return original(self, name)

    plain = {name: getattr(frames, name)(run, "some") for name in FRAMES}
    monkeypatch.setattr(RunFolder, "read_table", counted)
    for name in FRAMES:
        pd.testing.assert_frame_equal(getattr(frames, name)(held, "some"), plain[name])
    assert len(read) == len(set(read))
    made = [held.frame(getattr(frames, name), "some") for name in FRAMES]
    for name, frame in zip(FRAMES, made, strict=True):
        pd.testing.assert_frame_equal(frame, plain[name])
        assert held.frame(getattr(frames, name), "some") is frame
        assert held.frame(getattr(frames, name), "east-leaves") is not frame


def test_the_grey_zone_is_where_honest_retrainings_are():
    """Of one patient its own 95 % interval (normal); of two in between, by the mean of both tails."""
    whose = {"strategy": "retrained_other", "memory_left": 0.1, "low": -0.3}
    one = pd.DataFrame([{**whose, "high": 0.5}])
    assert frames._zone(one) == pytest.approx(0.4, rel=1e-4)
    two = pd.DataFrame([{**whose, "high": 0.5}, {**whose, "high": 0.9}])
    wide = frames._zone(two)
    tails = [2 * t(1e9).sf(1.96 * wide / half) for half in (0.4, 0.8)]
    assert 0.4 < wide < 0.8 and np.mean(tails) == pytest.approx(0.05, abs=1e-3)
    assert np.isnan(frames._zone(one.assign(strategy="good")))


def curve(strategy: str, seed: int, round: int, value: float) -> dict[str, Any]:
    whose = {"phase": "unlearn", "request": "some", "strategy": strategy, "seed": seed}
    return {
        **whose,
        "after": 4,
        "round": round,
        "step": round,
        "part": "forget",
        "measure": "loss",
        "value": value,
        "images": 21,
    }


def test_tables_that_older_runs_lack_are_read_where_they_are(run: RunFolder, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    new = RunFolder(folder)
    rows = [curve("good", s, r, s + r) for s in (7, 8, 9) for r in (0, 1)]
    new.write_table("curves.parquet", pd.DataFrame([*rows, {**rows[0], "request": "east-leaves"}]))
    roc = [("some", s, f, f + 0.1, f, f + 0.2, 21, 30) for s in ("good", "retrained") for f in (0.1, 0.01)]
    columns = ["request", "strategy", "fpr", "tpr", "low", "high", "n_members", "n_nonmembers"]
    older = frames.roc(run, "some")
    assert set(older["models"]) == {3}
    new.write_table("roc.parquet", pd.DataFrame(roc, columns=columns))
    (folder / "probes").mkdir()
    losses = {7: [3.0, 2.0, 1.0], 8: [3.0, 1.0]}
    relearn = [("some", "good", s, e, x, 1.05) for s, own in losses.items() for e, x in enumerate(own)]
    columns = ["request", "strategy", "seed", "epoch", "loss", "goal"]
    new.write_table("probes/relearn.parquet", pd.DataFrame(relearn, columns=columns))
    change_manifest(folder)
    found = frames.curves(new, "some")
    assert found[["at", "value", "low", "high", "seeds", "images"]].to_numpy().tolist() == [
        [4, 8, 7, 9, 3, 21],
        [5, 9, 8, 10, 3, 21],
    ]
    assert frames.roc(new, "some")[["name", "fpr"]].to_numpy().tolist() == [
        ["good", 0.01],
        ["good", 0.1],
        ["retraining", 0.01],
        ["retraining", 0.1],
    ]
    again = frames.relearning(new, "some")
    assert again[["epoch", "loss", "low", "high"]].to_numpy().tolist() == [
        [0, 3, 3, 3],
        [1, 1.5, 1, 2],
        [2, 1, 1, 1],
    ]
    assert frames.relearning(new, "east-leaves").empty and frames.roc(new, "east-leaves").empty


def test_a_mean_over_seeds_is_of_the_same_round(run: RunFolder, tmp_path: Path):
    """Of seed 8 only start and end are known; seed 9 took a round less; overflow ended with a number missing."""
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    new = RunFolder(folder)
    good = [curve("good", 7, r, r) for r in (0, 1, 2, 3)] + [curve("good", 9, r, 20 + r) for r in (0, 1, 2)]
    good += [curve("good", 8, 0, 10), {**curve("good", 8, 3, 13), "step": 1}]
    lazy = [curve("lazy", s, r, s + r) for s in (7, 8, 9) for r in (0, 1, 2) if (s, r) != (8, 2)]
    # the server begins with something else than it was given: two models in hand before any round
    overdone = [{**curve("overdone", s, 0, s + n), "step": n} for s in (7, 8, 9) for n in (0, 1)]
    overdone += [{**curve("overdone", s, 1, s), "step": 2} for s in (7, 9)]
    further = [{**curve("retrained", s, 0, s), "phase": "retrained"} for s in (7, 8, 9, 1001)]
    short = [{**curve("retrained", s, 1, s), "phase": "retrained"} for s in (7, 8, 9)]
    new.write_table("curves.parquet", pd.DataFrame([*good, *lazy, *overdone, *further, *short]))
    ended = {"phase": "unlearn", "request": "some", "strategy": "good", "seed": 8}
    change_manifest(folder, ends_only=[ended, {**ended, "request": "east-leaves", "strategy": "lazy"}])
    found = frames.curves(new, "some").groupby("strategy")
    seen = {name: of[["step", "at", "value", "seeds"]].to_numpy().tolist() for name, of in found}
    assert seen == {
        "good": [[0, 4, 10, 3]],
        "lazy": [[0, 4, 8, 3], [1, 5, 9, 3]],
        "overdone": [[0, 4, 8, 3], [1, 4, 9, 3]],
        "retrained": [[0, 4, 256.25, 4]],
    }
    assert found["whole"].all().to_dict() == {
        "good": False,
        "lazy": True,
        "overdone": True,
        "retrained": True,
    }


def test_what_probes_found_stands_beside_what_was_before(run: RunFolder, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    new = RunFolder(folder)
    scores: Any = new.read_table("scores.parquet")
    blank = scores.iloc[0].to_dict() | {"request": "some", "group": "all"}
    after = [
        {
            **blank,
            "strategy": s,
            "seed": seed,
            "measure": "probe_forget_accuracy",
            "value": value + seed / 100,
        }
        for s, value in (("good", 0.5), ("retrained", 0.4))
        for seed in (7, 8, 9)
    ]
    new.write_table("scores.parquet", pd.concat([scores, pd.DataFrame(after)], ignore_index=True))
    change_manifest(folder)
    (good, reference) = frames.probes(new, "some").to_dict("records")
    before = scores[(scores["strategy"] == "good") & (scores["measure"] == "forget_accuracy")]
    before = before[(before["request"] == "some") & (before["group"] == "all")]["value"].mean()
    assert (good["probe"], good["measure"], good["seeds"]) == ("linear_probe", "probe_forget_accuracy", 3)
    assert [good[c] for c in ("value", "low", "high", "retrained", "before")] == pytest.approx(
        [0.58, 0.57, 0.59, 0.48, before]
    )
    assert reference["name"] == "retraining" and reference["value"] == pytest.approx(0.48)
