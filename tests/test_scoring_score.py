"""From a made-up run folder to scores and verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedunlearn import report
from fedunlearn.core import RunError
from fedunlearn.runfolder import RunFolder
from fedunlearn.scoring import MEASURES, score
from fedunlearn.scoring.score import COLUMNS

SEEDS = (7, 8, 9)
SITES = ("north", "east", "west")
REQUESTS = {"some": "north", "east-leaves": "east"}


@dataclass(frozen=True)
class Made:
    """How a made-up model behaves: how well it knows each part of the images, as a mean margin in nats."""

    retain: float = 4.0
    forget: float = 1.0
    test: float = 1.0


MODELS: Mapping[str, Made] = {
    "original": Made(forget=4.0),
    "retrained": Made(),
    "good": Made(),
    "lazy": Made(forget=4.0),
    "overdone": Made(forget=-1.0),
    "destroyed": Made(retain=-2.0, forget=-2.0, test=-2.0),
}


def images(patients: int = 20, per_patient: int = 7, classes: int = 4) -> pd.DataFrame:
    """``patients`` at each of three hospitals, split 60/10/30 by patient; requests as in `REQUESTS`."""
    rows = []
    for s, site in enumerate(SITES):
        for p in range(patients):
            split = "train" if p < 0.6 * patients else "val" if p < 0.7 * patients else "test"
            asked = ["some"] if site == "north" and p < 0.3 * patients else []
            asked += ["east-leaves"] if site == "east" else []
            for i in range(per_patient):
                image, label = f"{site}-{p:03}-{i}", (s + p + i) % classes
                rows.append((image, f"{site}-{p:03}", site, split, label, asked))
    return pd.DataFrame(rows, columns=["image", "patient", "site", "split", "label", "forgotten_by"])


def logits(table: pd.DataFrame, request: str, made: Made, seed: int, classes: int = 4) -> pd.DataFrame:
    """Scores whose true class leads by a normal margin with the mean that ``made`` gives the image's part.

    An image is as hard for one model as for another, up to a little luck of the model's own.
    """
    rng, own = np.random.default_rng(0), np.random.default_rng(seed)
    asked = np.array([request in names for names in table["forgotten_by"]])
    train = (table["split"] == "train").to_numpy()
    mean = np.select([train & asked, train], [made.forget, made.retain], made.test)
    noise = rng.normal(size=(len(table), classes)) + 0.2 * own.normal(size=(len(table), classes))
    noise[np.arange(len(table)), table["label"]] += mean
    columns = [f"logits_{c}" for c in range(classes)]
    return pd.DataFrame(noise.astype(np.float32), columns=columns)


def ledger_row(
    phase: str, request: str, strategy: str, seed: int, round: int, **more: float
) -> dict[str, Any]:
    counts = {"sites": 3, "down_bytes": 10, "up_bytes": 20, "images": 100, "stored_bytes": 0}
    times = {"site_seconds": 2.0, "server_seconds": 0.5}
    key = {"phase": phase, "request": request, "strategy": strategy, "seed": seed, "round": round}
    return {**key, **counts, **times, **more}


def make_run(
    folder: Path,
    models: Mapping[str, Made] = MODELS,
    seeds: tuple[int, ...] = SEEDS,
    table: pd.DataFrame | None = None,
    classes: int = 4,
) -> Path:
    """A run folder with everything that scoring reads."""
    table = images(classes=classes) if table is None else table
    (folder / "signals").mkdir(parents=True)
    scored, ledger = [], [ledger_row("original", "", "original", s, r) for s in seeds for r in range(4)]
    for request in REQUESTS:
        for seed in seeds:
            names = {m: f"{m}-{request}-{seed}" for m in models}
            for i, (model, name) in enumerate(names.items()):
                signal = logits(table, request, models[model], 100 * seed + i, classes)
                signal.to_parquet(folder / "signals" / f"{name}.parquet", index=False)
            original, retrained = names.pop("original"), names.pop("retrained")
            entry = {"request": request, "seed": seed, "original": original, "retrained": retrained}
            scored.append({**entry, "strategies": names})
            ledger += [ledger_row("retrained", request, "retrained", seed, r) for r in range(4)]
            for strategy in names:
                ledger.append(
                    ledger_row("unlearn", request, strategy, seed, 0, stored_bytes=5, site_seconds=1)
                )
                ledger.append(ledger_row("unlearn", request, strategy, seed, 1, sites=0, site_seconds=0))
    ledger.append(ledger_row("tune", "", "good", seeds[0], 20, sites=0, site_seconds=30))
    requests = [{"id": r, "site": s, "whole_site": r == "east-leaves"} for r, s in REQUESTS.items()]
    manifest = {"kind": "classification", "classes": classes, "seeds": list(seeds)}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "requests": requests, "scored": scored}))
    table.to_parquet(folder / "sites.parquet", index=False)
    pd.DataFrame(ledger).to_parquet(folder / "ledger.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    folder = make_run(tmp_path_factory.mktemp("run") / "run")
    return folder, *score(folder)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with one strategy and two seeds, to be spoiled; intervals do not matter here."""
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    models = {name: MODELS[name] for name in ("original", "retrained", "good")}
    return make_run(tmp_path / "run", models, seeds=(7, 8), table=images(patients=10))


def change_manifest(folder: Path, **entries: Any) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def pick(scores: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    for column, value in columns.items():
        scores = scores[scores[column] == value]
    return scores


def test_scores_have_the_columns_and_rows_of_the_contract(scored):
    _, scores, verdicts = scored
    assert tuple(scores.columns) == COLUMNS
    assert tuple(verdicts.columns) == ("request", "strategy", "verdict", "reasons")
    assert set(scores["strategy"]) == set(MODELS)
    assert set(scores["seed"]) == set(SEEDS)
    assert set(scores["measure"]) == set(MEASURES)
    groups = {"all", *(f"site={site}" for site in SITES), *(f"class={c}" for c in range(4))}
    assert set(scores["group"]) == groups
    assert not scores.duplicated(["request", "strategy", "seed", "measure", "group"]).any()
    assert (scores["n"] > 0).all()
    assert scores["value"].notna().all()


def test_both_tables_are_written_whole_and_alike(scored):
    folder, scores, verdicts = scored
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), scores, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "verdicts.parquet"), verdicts, check_dtype=False)
    assert not list(folder.glob("*.part"))


def test_intervals_hold_the_value_and_values_are_in_range(scored):
    _, scores, _ = scored
    performance = scores[~scores["measure"].isin(["avg_gap", "tow", "worst_site"]) & scores["low"].notna()]
    assert (performance["low"] <= performance["value"] + 1e-9).all()
    assert (performance["value"] <= performance["high"] + 1e-9).all()
    for name, of_measure in scores.groupby("measure"):
        one = MEASURES[str(name)]
        assert one.low is None or (of_measure["value"] >= one.low).all()
        assert one.high is None or (of_measure["value"] <= one.high).all()


def test_every_row_carries_the_retrained_value_of_its_seed_and_the_band(scored):
    _, scores, _ = scored
    rows = pick(scores, request="some", measure="mia_loss_auc", group="all")
    retrained = pick(rows, strategy="retrained").set_index("seed")["value"]
    assert (rows["retrained"].to_numpy() == retrained[rows["seed"]].to_numpy()).all()
    assert rows[["null_low", "null_high"]].drop_duplicates().shape == (1, 2)
    assert (rows["null_low"] < retrained.mean()).all()
    assert (retrained.mean() < rows["null_high"]).all()


def test_a_leaving_hospital_keeps_its_test_images_in_test_and_has_none_retained(scored):
    """Of 20 patients with 7 images each, 12 train and 6 test; all of east's are asked for."""
    _, scores, _ = scored
    rows = pick(scores, request="east-leaves", strategy="good", seed=7)
    n = rows.set_index(["measure", "group"])["n"]
    assert n["test_accuracy", "all"] == 3 * 6 * 7
    assert n["test_accuracy", "site=east"] == 6 * 7
    assert n["forget_accuracy", "all"] == 12 * 7
    assert n["retain_accuracy", "all"] == 2 * 12 * 7
    assert ("retain_accuracy", "site=east") not in n.index


def test_costs_are_read_from_the_ledger(scored):
    """Retraining asks in 4 rounds of 2 s; a strategy in one of 1 s, and it ends with a row that asks nobody."""
    _, scores, _ = scored
    good = pick(scores, request="some", strategy="good", seed=7).set_index("measure")["value"]
    expected = {"seconds": 2.0, "site_seconds": 1.0, "share_of_retraining": 1 / 8, "bytes": 60, "rounds": 1}
    for name, value in (expected | {"storage_bytes": 5, "images": 200}).items():
        assert good[name] == value
    original = pick(scores, request="some", strategy="original", seed=7).set_index("measure")["value"]
    assert (original["rounds"], original["site_seconds"], original["tuning_site_seconds"]) == (4, 8.0, 0.0)


def test_what_tuning_cost_stands_beside_every_request_and_seed(scored):
    _, scores, _ = scored
    tuning = pick(scores, strategy="good", measure="tuning_site_seconds")
    assert len(tuning) == 6 and (tuning["value"] == 30).all()


@pytest.mark.parametrize("request_id", REQUESTS)
def test_made_up_models_get_the_verdict_they_were_made_for(scored, request_id: str):
    _, _, verdicts = scored
    found = pick(verdicts, request=request_id).set_index("strategy")["verdict"].to_dict()
    assert found == {
        "original": "UNDER",
        "good": "PASS",
        "lazy": "UNDER",
        "overdone": "OVER",
        "destroyed": "DAMAGED",
    }


def test_the_order_of_rows_in_the_files_changes_nothing(small: Path):
    scores, _ = score(small)
    order = np.random.default_rng(0).permutation(210)
    for file in [small / "sites.parquet", *(small / "signals").iterdir()]:
        pd.read_parquet(file).iloc[order].to_parquet(file, index=False)
    pd.testing.assert_frame_equal(score(small)[0], scores, check_exact=True)


def test_one_seed_has_no_band_and_no_verdict(tmp_path: Path):
    scores, verdicts = score(make_run(tmp_path / "run", seeds=(7,), table=images(patients=10)))
    assert scores["null_low"].isna().all()
    assert scores["null_high"].isna().all()
    assert set(verdicts["verdict"]) == {"INCONCLUSIVE"}
    assert all("1 seed" in reasons for reasons in verdicts["reasons"])


def test_where_the_original_does_not_remember_nothing_is_concluded(tmp_path: Path):
    models = {**MODELS, "original": Made()}
    _, verdicts = score(make_run(tmp_path / "run", models, seeds=(7, 8)))
    assert set(verdicts["verdict"]) == {"INCONCLUSIVE"}
    damaged = pick(verdicts, strategy="destroyed")["reasons"]
    assert all("no memory" in reasons and "damaged: test_accuracy" in reasons for reasons in damaged)


def test_a_diverged_strategy_is_damaged_and_has_no_numbers_but_costs(small: Path):
    file = small / "signals" / "good-some-8.parquet"
    pd.read_parquet(file).assign(logits_0=np.float32("nan")).to_parquet(file, index=False)
    scores, verdicts = score(small)
    found = verdicts.set_index(["request", "strategy"])
    assert found.loc[("some", "good"), "verdict"] == "DAMAGED"
    reasons = str(found.loc[("some", "good"), "reasons"])
    assert reasons.startswith("damaged: diverged for seed 8 in its answers: lower its learning rate")
    assert found.loc[("east-leaves", "good"), "verdict"] != "DAMAGED"
    rows = pick(scores, request="some", strategy="good", seed=8).set_index(["measure", "group"])["value"]
    assert np.isnan(rows["test_accuracy", "all"])
    assert rows["rounds", "all"] == 1
    (line,) = [line for line in report.lines(RunFolder(small), "some") if line.strategy == "good"]
    shown = dict(zip(report.COLUMNS, line.cells, strict=True))
    assert {name for name, cell in shown.items() if cell != "n/a"} == {"site_seconds", "bytes"}


def test_a_strategy_known_to_have_diverged_needs_no_signals(small: Path):
    (small / "signals" / "good-some-8.parquet").unlink()
    change_manifest(small, diverged=[{"model": "good-some-8", "where": "at hospital east in round 3"}])
    _, verdicts = score(small)
    (found,) = pick(verdicts, request="some", strategy="good").to_dict("records")
    assert found["verdict"] == "DAMAGED"
    assert "diverged for seed 8 at hospital east in round 3: " in found["reasons"]


def test_a_request_scored_in_the_middle_of_training_is_the_same_request(small: Path):
    """`some@2` forgets what `some` forgets and costs what its unlearning cost; the manifest may also say so."""
    manifest = json.loads((small / "manifest.json").read_text())
    plain = score(small)[0]
    entries = [{**e, "request": e["request"].replace("some", "some@2")} for e in manifest["scored"]]
    change_manifest(small, scored=entries)
    middle = score(small)[0]
    change_manifest(small, moments=[{"id": "some@2", "forgets": "some", "earlier": []}])
    pd.testing.assert_frame_equal(score(small)[0], middle)
    named = ["forget_accuracy", "bytes"]
    for one, other in zip(*(t[t["measure"].isin(named)]["value"] for t in (plain, middle)), strict=True):
        assert one == other


def test_what_an_earlier_request_forgot_is_neither_retained_nor_to_forget(small: Path):
    """`some` names 3 of north's 6 training patients; with it honoured first, east's leaving retains 3 + 6 patients."""
    change_manifest(small, moments=[{"id": "east-leaves", "forgets": "east-leaves", "earlier": ["some"]}])
    n = pick(score(small)[0], request="east-leaves", strategy="good", seed=7, group="all").set_index(
        "measure"
    )["n"]
    assert (n["retain_loss"], n["forget_loss"]) == (9 * 7, 6 * 7)


# --------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    "file", ["manifest.json", "sites.parquet", "ledger.parquet", "signals/retrained-some-8.parquet"]
)
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_missing_or_damaged_file_is_an_error_that_names_it(small: Path, file: str, how: str):
    if how == "missing":
        (small / file).unlink()
    else:
        (small / file).write_bytes(b"PAR1 no")
    with pytest.raises(RunError, match=Path(file).name):
        score(small)
    assert not (small / "scores.parquet").exists()


def test_a_missing_retrained_reference_is_an_error(small: Path):
    entries = json.loads((small / "manifest.json").read_text())["scored"]
    change_manifest(small, scored=[{k: v for k, v in e.items() if k != "retrained"} for e in entries])
    with pytest.raises(RunError, match="retrained"):
        score(small)
    change_manifest(small, scored=[e | {"retrained": None} for e in entries])
    with pytest.raises(RunError, match="has no retrained model"):
        score(small)


def test_a_diverged_reference_is_an_error(small: Path):
    file = small / "signals" / "retrained-some-7.parquet"
    pd.read_parquet(file).assign(logits_0=np.float32("inf")).to_parquet(file, index=False)
    with pytest.raises(RunError, match=r"retrained-some-7 diverged"):
        score(small)


def test_signals_that_do_not_fit_the_images_are_an_error(small: Path):
    file = small / "signals" / "good-some-7.parquet"
    table = pd.read_parquet(file)
    table.iloc[:-1].to_parquet(file, index=False)
    with pytest.raises(RunError, match=r"good-some-7.parquet has 209 rows; expected one per image, 210"):
        score(small)
    table.drop(columns="logits_3").to_parquet(file, index=False)
    with pytest.raises(RunError, match=r"good-some-7.parquet has columns"):
        score(small)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.assign(label=9), "no label in 0 … 3"),
        (lambda t: t.drop(columns="label"), "no label in 0 … 3"),
        (lambda t: t.drop(columns="split"), "has no column split"),
        (lambda t: t.assign(forgotten_by=[[]] * len(t)), "request 'some' names no training image"),
        (lambda t: t.assign(forgotten_by=None), "request 'some' names no training image"),
    ],
)
def test_a_table_of_images_that_cannot_be_scored_is_an_error(small: Path, spoil, message: str):
    file = small / "sites.parquet"
    spoil(pd.read_parquet(file)).to_parquet(file, index=False)
    with pytest.raises(RunError, match=message):
        score(small)


def test_a_procedure_the_ledger_does_not_know_is_an_error(small: Path):
    file = small / "ledger.parquet"
    ledger = pd.read_parquet(file)
    ledger[ledger["strategy"] != "good"].to_parquet(file, index=False)
    with pytest.raises(RunError, match=r"ledger.parquet has no row of phase 'unlearn', request 'some'"):
        score(small)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "dance"}, "cannot score a run of kind 'dance'"),
        ({"classes": "four"}, "not the manifest of a run"),
        ({"scored": []}, "nothing to score"),
        ({"scored": [7]}, "not the manifest of a run"),
    ],
)
def test_a_manifest_that_is_none_is_an_error(small: Path, entries: dict[str, Any], message: str):
    change_manifest(small, **entries)
    with pytest.raises(RunError, match=message):
        score(small)


def test_scoring_needs_no_strategy_hospital_or_network():
    """In a fresh process: importing it loads none of these, nor scikit-learn, which takes a second."""
    code = "import sys, fedunlearn.scoring; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"strategies", "sites", "torch", "monai", "flwr", "ray", "sklearn"} & set(loaded)
