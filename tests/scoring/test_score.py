"""From a made-up run folder to scores and verdicts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedunlearn.core import InputError, RunError
from fedunlearn.results import report, tables
from fedunlearn.results.runfolder import RunFolder
from fedunlearn.scoring import MEASURES, measures_of, score
from fedunlearn.scoring.evidence import Estimate, Estimates, Evidence
from fedunlearn.scoring.evidence.classification import Outputs
from fedunlearn.scoring.judgement.tables import PATIENTS, REQUESTS as ABOUT_REQUESTS, VERDICTS
from fedunlearn.scoring.measures.catalogue import PROBES
from fedunlearn.scoring.measuring import intervals
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
    counts = {"sites": 3, "down_bytes": 10, "up_bytes": 20, "images": 100, "epochs": 3, "stored_bytes": 0}
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
    table.to_parquet(folder / "sites.parquet", index=False)
    pd.DataFrame(ledger).to_parquet(folder / "ledger.parquet", index=False)
    RunFolder(folder).write_manifest({**manifest, "requests": requests, "scored": scored})
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
    """Seal a folder again, as if a run had written what is there now."""
    run = RunFolder(folder)
    run.write_manifest(run.read_manifest() | entries)


def pick(scores: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    for column, value in columns.items():
        scores = scores[scores[column] == value]
    return scores


def test_scores_have_the_columns_and_rows_of_the_contract(scored):
    _, scores, verdicts = scored
    assert tuple(scores.columns) == COLUMNS
    assert tuple(verdicts.columns) == VERDICTS
    assert set(scores["strategy"]) == {*MODELS, "retrained_other", "damaged"}
    assert set(scores["seed"]) == set(SEEDS)
    assert set(measures_of("classification")) - set(scores["measure"]) == {
        *PROBES,
        *(name for name in MEASURES if name.startswith(("klom", "forgetting_quality"))),  # 64 seeds and more
        *(name for name in MEASURES if "_tpr_" in name),  # 199 held-out images and more
    }
    groups = {"all", *(f"site={site}" for site in SITES), *(f"class={c}" for c in range(4))}
    assert set(scores["group"]) == groups
    assert not scores.duplicated(["request", "strategy", "seed", "measure", "group"]).any()
    assert (scores["n"] > 0).all()
    assert scores["value"].notna().all()


def test_both_tables_are_written_whole_and_alike(scored):
    folder, scores, verdicts = scored
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), scores, check_dtype=False)
    written = pd.read_parquet(folder / "verdicts.parquet")
    lists = ["reasons", "about"]
    for name in lists:
        assert [list(reasons) for reasons in written[name]] == verdicts[name].tolist()
    pd.testing.assert_frame_equal(
        written.drop(columns=lists), verdicts.drop(columns=lists), check_dtype=False
    )
    assert (
        all(map(len, verdicts["reasons"]))
        and (verdicts["reasons"].map(len) == verdicts["about"].map(len)).all()
    )
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
    for name, value in (expected | {"storage_bytes": 5, "images": 200, "epochs": 6}).items():
        assert good[name] == value
    original = pick(scores, request="some", strategy="original", seed=7).set_index("measure")["value"]
    assert (original["rounds"], original["site_seconds"], original["tuning_site_seconds"]) == (4, 8.0, 0.0)


def test_what_tuning_cost_stands_beside_every_request_and_seed(scored):
    _, scores, _ = scored
    tuning = pick(scores, strategy="good", measure="tuning_site_seconds")
    assert len(tuning) == 6 and (tuning["value"] == 30).all()


@pytest.mark.parametrize("request_id", REQUESTS)
def test_made_up_models_get_the_answers_they_were_made_for(scored, request_id: str):
    """With six test patients at each hospital nobody can tell whether a model that lost nothing did."""
    _, _, verdicts = scored
    rows = pick(verdicts, request=request_id).set_index("strategy")
    found = {str(name): tuple(row) for name, row in rows[["forgotten", "useful", "verdict"]].iterrows()}
    assert found == {
        "original": ("no", "cannot tell", "UNDER"),
        "retrained_other": ("yes", "cannot tell", "INCONCLUSIVE"),
        "damaged": ("partly", "worse", "DAMAGED"),
        "good": ("yes", "cannot tell", "INCONCLUSIVE"),
        "lazy": ("no", "cannot tell", "UNDER"),
        "overdone": ("too much", "cannot tell", "OVER"),
        "destroyed": ("yes", "worse", "DAMAGED"),
    }


def test_every_patient_to_forget_has_a_row_for_every_strategy(scored):
    folder, _, _ = scored
    table = pd.read_parquet(folder / "patients.parquet")
    assert tuple(table.columns) == PATIENTS
    rows = pick(table, request="some", on="images")
    asked = images().loc[lambda t: [("some" in names) for names in t["forgotten_by"]], "patient"].unique()
    for _, of_strategy in rows.groupby("strategy"):
        assert set(of_strategy["patient"]) == set(asked)
    lazy, good = (pick(rows, strategy=name) for name in ("lazy", "good"))
    assert (lazy["flagged"] == "remembered").all() and (good["flagged"] == "").all()
    assert lazy["memory_left"].mean() == pytest.approx(1.0, abs=0.1)
    assert ((rows["low"] <= rows["memory_left"]) & (rows["memory_left"] <= rows["high"])).all()
    assert set(pick(rows, strategy="overdone")["flagged"]) == {"overdone"}


def test_a_request_says_what_its_models_let_anybody_see(scored):
    folder, _, _ = scored
    table = pd.read_parquet(folder / "requests.parquet")
    assert tuple(table.columns) == ABOUT_REQUESTS
    (some,) = pick(table, request="some").to_dict("records")
    assert (some["seeds"], some["references"], some["patients"], some["images"]) == (3, 3, 6, 42)
    assert some["visible"] and not some["copies_visible"] and some["one_patient"] > 0.9
    assert 0 < some["smallest"] < 0.2


def test_memory_left_stands_among_the_statistics(scored):
    """Of these patients, and, less certain, of others like them."""
    folder, _, _ = scored
    table = pick(pd.read_parquet(folder / "statistics.parquet"), request="some", strategy="lazy")
    (own,), (others,) = (
        pick(table, measure=name).to_dict("records") for name in ("memory_left", "memory_left_others")
    )
    assert own["difference"] == others["difference"] == pytest.approx(1.0, abs=0.1)
    assert others["low"] < own["low"] < own["high"] < others["high"]
    assert own["p_holm"] >= own["p_difference"]
    quality = pick(table, measure="test_accuracy").set_index("group")["margin"]
    assert quality.to_dict() == {
        "all": 0.03,
        **{f"site={site}": 0.05 for site in SITES},
        **{f"class={c}": 0.10 for c in range(4)},
    }


def test_controls_are_other_rows_of_the_references(scored):
    """The next seed's retrained model, of the last the first's; the damaged one is at chance, ¼."""
    _, scores, _ = scored
    loss = pick(scores, request="some", measure="forget_loss", group="all").set_index(["strategy", "seed"])[
        "value"
    ]
    for seed, following in ((7, 8), (8, 9), (9, 7)):
        assert loss["retrained_other", seed] == loss["retrained", following]
    rows = pick(scores, request="some", strategy="damaged", group="all").set_index(["measure", "seed"])[
        "value"
    ]
    assert rows["retain_accuracy"].mean() == pytest.approx(0.25, abs=0.06)
    assert "site_seconds" not in rows.index
    other = pick(scores, request="some", strategy="retrained_other", measure="site_seconds", seed=7)["value"]
    assert other.tolist() == [8.0]


def test_statistics_stand_beside_the_scores(scored):
    """The difference is the mean of value - retrained over seeds; controls are no part of Holm's family."""
    folder, scores, _ = scored
    table = pd.read_parquet(folder / "statistics.parquet")
    records = table[table["measure"] == "mia_loss_auc"].to_dict("records")
    found = {(row["request"], row["strategy"]): row for row in records}
    assert {strategy for _, strategy in found} == {*MODELS, "retrained_other", "damaged"} - {"retrained"}
    for (request, strategy), row in found.items():
        rows = pick(scores, request=request, strategy=strategy, group="all", measure="mia_loss_auc")
        assert row["difference"] == pytest.approx((rows["value"] - rows["retrained"]).mean(), abs=1e-9)
        assert row["low"] <= row["difference"] <= row["high"]
        assert np.isnan(row["p_holm"]) == (strategy in ("original", "retrained_other", "damaged"))
    assert (found["some", "lazy"]["seeds"], found["some", "lazy"]["references"]) == (3, 3)
    assert found["some", "lazy"]["p_holm"] >= found["some", "lazy"]["p_difference"]
    assert found["some", "lazy"]["patients"] == 6
    assert not set(table["measure"]) & {"avg_gap", "tow", "bytes"}


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


def test_where_the_original_does_not_remember_nothing_is_concluded(tmp_path: Path):
    models = {**MODELS, "original": Made()}
    _, verdicts = score(make_run(tmp_path / "run", models, seeds=(7, 8)))
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
    shown = dict(zip(tables.COLUMNS["classification"], line.cells, strict=True))
    assert {name for name, cell in shown.items() if cell != "n/a"} == {"site_seconds", "bytes"}


def test_a_strategy_known_to_have_diverged_needs_no_signals(small: Path):
    (small / "signals" / "good-some-8.parquet").unlink()
    change_manifest(small, diverged=[{"model": "good-some-8", "where": "at hospital east in round 3"}])
    _, verdicts = score(small)
    (found,) = pick(verdicts, request="some", strategy="good").to_dict("records")
    assert found["verdict"] == "DAMAGED"
    assert any("diverged for seed 8 at hospital east in round 3: " in one for one in found["reasons"])


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


# --------------------------------------------------------------------------------------- other seeds


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Evidence[Outputs]]:
    """What measures get to see of a request of three seeds, one strategy of which diverged with seed 8."""
    found: list[Evidence[Outputs]] = []

    def record(evidence: Evidence[Outputs]) -> Estimates:
        found.append(evidence)
        return {}

    monkeypatch.setattr("fedunlearn.scoring.evidence.RESAMPLES", 50)
    models = {name: MODELS[name] for name in ("original", "retrained", "good", "lazy")}
    folder = make_run(tmp_path / "run", models, table=images(patients=10))
    entries = RunFolder(folder).read_manifest()["scored"]
    change_manifest(folder, scored=[e for e in entries if e["request"] == "some"])
    file = folder / "signals" / "lazy-some-8.parquet"
    pd.read_parquet(file).assign(logits_0=np.float32("nan")).to_parquet(file, index=False)
    change_manifest(folder)
    spy = replace(MEASURES["rounds"], name="seen", function=record)
    module = sys.modules["fedunlearn.scoring.score"]  # the package has a function of that name
    monkeypatch.setattr(module, "measures_of", lambda kind: {**measures_of(kind), "seen": spy})
    score(folder)
    return found


def test_others_and_siblings_are_of_other_seeds(seen: list[Evidence[Outputs]]):
    """References and controls by seed, then strategies; of lazy, seed 8 diverged and is no sibling either."""
    assert len(seen) == 4 * 3 + 3 + 2
    retrained, originals, controls, damaged = (seen[i:12:4] for i in range(4))
    good, lazy = seen[12:15], seen[15:]
    references = [e.retrained for e in retrained]
    for several in (retrained, originals, damaged, good):
        for k, evidence in enumerate(several):
            assert evidence.retrained is references[k]
            assert evidence.others == tuple(r for i, r in enumerate(references) if i != k)
            assert evidence.originals == tuple(e.original for i, e in enumerate(retrained) if i != k)
    for k, evidence in enumerate(controls):  # a model is never its own reference
        assert evidence.unlearned is references[(k + 1) % 3]
        assert evidence.others == (references[(k + 2) % 3],)
        assert evidence.siblings == ()
    assert [e.unlearned for e in retrained] == references
    assert [e.siblings for e in retrained] == [e.others for e in retrained]
    assert [e.siblings for e in originals] == [e.originals for e in originals]
    for k, evidence in enumerate(good):
        assert evidence.siblings == tuple(e.unlearned for i, e in enumerate(good) if i != k)
    assert [e.siblings for e in lazy] == [(lazy[1].unlearned,), (lazy[0].unlearned,)]


def test_no_model_is_compared_with_one_that_is_among_its_references(seen: list[Evidence[Outputs]]):
    """Neither the model in question nor the retrained one of its seed, which it is compared with, is any other's."""
    for evidence in seen:
        compared = {id(evidence.unlearned), id(evidence.retrained)}
        assert not compared & {id(one) for one in (*evidence.others, *evidence.siblings)}


def test_only_another_retraining_has_no_ulira(scored):
    _, scores, _ = scored
    rows = pick(scores, measure="mia_ulira_auc", group="all")
    assert set(rows["strategy"]) == {*MODELS}
    assert (pick(rows, strategy="retrained")["value"] == 0.5).all()


def test_an_interval_that_is_not_the_replicates_alone_is_kept():
    replicates = np.linspace(0.0, 1.0, 41)
    wider = Estimate(0.5, 9, replicates, (-1.0, 2.0))
    (low, high), exact = intervals([Estimate(0.5, 9, replicates), wider])
    assert (low, high) == pytest.approx((0.025, 0.975)) and exact == (-1.0, 2.0)


def test_a_single_seed_has_no_others(small: Path):
    entries = RunFolder(small).read_manifest()["scored"]
    change_manifest(small, scored=[e for e in entries if e["seed"] == 7])
    scores, _ = score(small)
    assert "mia_rmia_auc" not in set(scores["measure"])
    assert "mia_lr_auc" in set(scores["measure"])


# --------------------------------------------------------------------------------------- what is missing


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
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"strategies", "sites", "torch", "monai", "flwr", "ray", "sklearn"} & set(loaded)
