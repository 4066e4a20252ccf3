"""From a made-up run folder to scores, where something is special, missing or damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedunlearn.core import InputError, RunError
from fedunlearn.results import report, tables
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring.evidence import RESAMPLES, Estimate
from fedunlearn.scoring.measuring import Later, intervals
from fedunlearn.scoring.score import score
from tests.scoring.made import MODELS, Made, change_manifest, images, make_run, pick


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with one strategy and two seeds, to be spoiled; intervals do not matter here."""
    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    models = {name: MODELS[name] for name in ("original", "retrained", "good")}
    return make_run(tmp_path / "run", models, seeds=(7, 8), table=images(patients=10))


def test_the_report_says_what_can_be_told_and_sends_an_older_run_to_be_scored(small: Path):
    score(small)
    change_manifest(small, moments=[{"id": "some", "forgets": "some", "summary": "-"}])
    said = report.markdown(RunFolder(small))
    assert "The original model knows these patients" in said
    (small / "requests.parquet").unlink()
    change_manifest(small)
    with pytest.raises(InputError, match="fedunlearn score"):
        report.markdown(RunFolder(small))


@pytest.mark.parametrize("file", ["statistics.parquet", "bias.parquet"])
def test_the_report_notices_that_a_table_is_gone(small: Path, file: str):
    """Which the manifest speaks of: that is no older run, which had none."""
    score(small)
    change_manifest(small, moments=[{"id": "some", "forgets": "some", "summary": "-"}])
    (small / file).unlink()
    with pytest.raises(RunError, match=file):
        report.markdown(RunFolder(small))


def test_a_strategy_with_the_name_of_a_control_is_an_error(small: Path):
    entries = RunFolder(small).read_manifest()["scored"]
    change_manifest(small, scored=[e | {"strategies": {"damaged": e["strategies"]["good"]}} for e in entries])
    with pytest.raises(RunError, match="'damaged', which is the name of a control"):
        score(small)


@pytest.mark.gate
def test_the_order_of_rows_in_the_files_changes_nothing(small: Path):
    scores, _ = score(small)
    order = np.random.default_rng(0).permutation(210)
    for file in [small / "sites.parquet", *(small / "signals").iterdir()]:
        pd.read_parquet(file).iloc[order].to_parquet(file, index=False)
    change_manifest(small)
    pd.testing.assert_frame_equal(score(small)[0], scores, check_exact=True)


def test_one_seed_has_no_band_and_no_verdict(tmp_path: Path):
    scores, verdicts = score(make_run(tmp_path / "run", seeds=(7,), table=images(patients=10)))
    assert scores["null_low"].isna().all()
    assert scores["null_high"].isna().all()
    assert set(verdicts["verdict"]) == {"INCONCLUSIVE"}
    assert set(verdicts["forgotten"]) == {"cannot tell"} == set(verdicts["useful"])
    assert all(reasons[0].startswith("1 seed") for reasons in verdicts["reasons"])


@pytest.mark.gate
def test_where_the_original_does_not_remember_nothing_is_concluded(tmp_path: Path):
    models = {**MODELS, "original": Made()}
    _, verdicts = score(make_run(tmp_path / "run", models))
    found = verdicts.groupby("strategy")["verdict"].unique().map(list).to_dict()
    damaged = {"damaged", "destroyed"}
    assert found == {name: ["DAMAGED" if name in damaged else "INCONCLUSIVE"] for name in found}
    assert all("no memory" in reasons[0] for reasons in pick(verdicts, strategy="good")["reasons"])


def test_a_diverged_strategy_is_damaged_and_has_no_numbers_but_costs(small: Path):
    file = small / "signals" / "good-some-8.parquet"
    pd.read_parquet(file).assign(logits_0=np.float32("nan")).to_parquet(file, index=False)
    change_manifest(small)
    scores, verdicts = score(small)
    change_manifest(small)
    found = verdicts.set_index(["request", "strategy"])
    assert found.loc[("some", "good"), "verdict"] == "DAMAGED"
    reasons: Any = found.loc[("some", "good"), "reasons"]
    assert any(one.startswith("diverged for seed 8 in its answers: lower its learning") for one in reasons)
    assert found.loc[("east-leaves", "good"), "verdict"] != "DAMAGED"
    rows = pick(scores, request="some", strategy="good", seed=8).set_index(["measure", "group"])["value"]
    assert np.isnan(rows["test_accuracy", "all"])
    assert rows["rounds", "all"] == 1
    (line,) = [line for line in tables.lines(RunFolder(small), "some") if line.strategy == "good"]
    shown = dict(zip(tables.columns_of("classification"), line.cells, strict=True))
    assert {name for name, cell in shown.items() if cell != "n/a"} == {"site_seconds", "bytes"}


def test_a_strategy_known_to_have_diverged_needs_no_signals(small: Path):
    (small / "signals" / "good-some-8.parquet").unlink()
    change_manifest(small, diverged=[{"model": "good-some-8", "where": "at hospital east in round 3"}])
    _, verdicts = score(small)
    (found,) = pick(verdicts, request="some", strategy="good").to_dict("records")
    assert found["verdict"] == "DAMAGED"
    assert any("diverged for seed 8 at hospital east in round 3: " in one for one in found["reasons"])


@pytest.mark.gate
def test_a_request_scored_in_the_middle_of_training_is_the_same_request(small: Path):
    """`some@2` forgets what `some` forgets and costs what its unlearning cost; the manifest may also say so."""
    manifest = RunFolder(small).read_manifest()
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


def test_an_interval_that_is_not_the_replicates_alone_is_kept():
    replicates = np.linspace(0.0, 1.0, 41)
    wider = Estimate(0.5, 9, replicates, (-1.0, 2.0))
    (low, high), exact = intervals([Estimate(0.5, 9, replicates), wider])
    assert (low, high) == pytest.approx((0.025, 0.975)) and exact == (-1.0, 2.0)


def test_what_is_kept_of_a_model_keeps_nothing_else_alive():
    """One group of three is read again: its replicates were a row of theirs all, and are now its own."""
    drawn = np.arange(3 * RESAMPLES, dtype=np.float64).reshape(3, -1)
    groups = {g: Estimate(float(i), 9, own) for i, (g, own) in enumerate(zip("abc", drawn, strict=True))}
    kept = Later(frozenset(), frozenset(), frozenset({("m", "b")}), "quality").settled({"m": groups})["m"]
    assert [one.replicates.size for one in kept.values()] == [0, RESAMPLES, 0]
    assert kept["b"].replicates.base is None
    np.testing.assert_array_equal(kept["b"].replicates, drawn[1])
    assert [one.interval() for one in kept.values()] == [one.interval() for one in groups.values()]


def test_a_single_seed_has_no_others(small: Path):
    entries = RunFolder(small).read_manifest()["scored"]
    change_manifest(small, scored=[e for e in entries if e["seed"] == 7])
    scores, _ = score(small)
    assert "mia_rmia_auc" not in set(scores["measure"])
    assert "mia_lr_auc" in set(scores["measure"])


@pytest.mark.parametrize(
    "file", ["manifest.json", "sites.parquet", "ledger.parquet", "signals/retrained-some-8.parquet"]
)
@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_missing_or_damaged_file_is_an_error_that_names_it(small: Path, file: str, how: str, sealed: bool):
    """Also if the manifest knows no better: then the file cannot be read."""
    if how == "missing":
        (small / file).unlink()
    else:
        (small / file).write_bytes(b"PAR1 no")
    if sealed and file != "manifest.json":
        change_manifest(small)
    with pytest.raises(RunError, match=Path(file).name):
        score(small)
    assert not (small / "scores.parquet").exists()


@pytest.mark.parametrize("file", ["sites.parquet", "ledger.parquet", "signals/retrained-some-8.parquet"])
def test_a_file_that_can_be_read_but_was_changed_is_an_error_that_names_it(small: Path, file: str):
    """The table is the same, its bytes are not."""
    table = pd.read_parquet(small / file)
    table.to_parquet(small / file, index=False, compression="gzip")
    with pytest.raises(RunError, match=rf"{Path(file).name} is damaged: found sha256 .* recorded was"):
        score(small)
    assert not (small / "scores.parquet").exists()
    change_manifest(small)
    score(small)


def test_a_missing_retrained_reference_is_an_error(small: Path):
    entries = RunFolder(small).read_manifest()["scored"]
    change_manifest(small, scored=[{k: v for k, v in e.items() if k != "retrained"} for e in entries])
    with pytest.raises(RunError, match="retrained"):
        score(small)
    change_manifest(small, scored=[e | {"retrained": None} for e in entries])
    with pytest.raises(RunError, match="has no retrained model"):
        score(small)


def test_a_diverged_reference_is_an_error(small: Path):
    file = small / "signals" / "retrained-some-7.parquet"
    pd.read_parquet(file).assign(logits_0=np.float32("inf")).to_parquet(file, index=False)
    change_manifest(small)
    with pytest.raises(RunError, match=r"retrained-some-7 diverged"):
        score(small)


def test_signals_that_do_not_fit_the_images_are_an_error(small: Path):
    file = small / "signals" / "good-some-7.parquet"
    table = pd.read_parquet(file)
    table.iloc[:-1].to_parquet(file, index=False)
    change_manifest(small)
    with pytest.raises(RunError, match=r"good-some-7.parquet has 209 rows; expected one per image, 210"):
        score(small)
    table.drop(columns="logits_3").to_parquet(file, index=False)
    change_manifest(small)
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
    change_manifest(small)
    with pytest.raises(RunError, match=message):
        score(small)


def test_a_procedure_the_ledger_does_not_know_is_an_error(small: Path):
    file = small / "ledger.parquet"
    ledger = pd.read_parquet(file)
    ledger[ledger["strategy"] != "good"].to_parquet(file, index=False)
    change_manifest(small)
    with pytest.raises(RunError, match=r"ledger.parquet has no row of phase 'unlearn', request 'some'"):
        score(small)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "dance"}, "cannot read a run of kind 'dance'"),
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
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    ).stdout.split()
    assert not {"strategies", "sites", "torch", "monai", "flwr", "ray", "sklearn"} & set(loaded)
