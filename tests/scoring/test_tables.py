"""What scoring writes about a made-up run: scores, verdicts, patients, statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedunlearn.scoring.judgement.tables import PATIENTS, REQUESTS as ABOUT_REQUESTS, VERDICTS
from fedunlearn.scoring.judging import COLUMNS
from fedunlearn.scoring.kinds import scored as kind
from fedunlearn.scoring.measures.catalogue import MEASURES, measures_of
from fedunlearn.scoring.score import score
from tests.scoring.made import MODELS, REQUESTS, SEEDS, SITES, images, make_run, pick


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    folder = make_run(tmp_path_factory.mktemp("run") / "run")
    return folder, *score(folder)


def test_scores_have_the_columns_and_rows_of_the_contract(scored):
    _, scores, verdicts = scored
    assert tuple(scores.columns) == COLUMNS
    assert tuple(verdicts.columns) == VERDICTS
    assert set(scores["strategy"]) == {*MODELS, "retrained_other", "damaged"}
    assert set(scores["seed"]) == set(SEEDS)
    assert set(measures_of("classification")) - set(scores["measure"]) == {
        *(one.name for one in kind("classification").probed),
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
    """Retraining asks in 4 rounds of 2 s; a strategy in one of 1 s, and it ends with a row that asks nobody.

    By hand: every row has 100 images, so it is two rows' to four rows'.
    """
    _, scores, _ = scored
    good = pick(scores, request="some", strategy="good", seed=7).set_index("measure")["value"]
    expected = {"seconds": 2.0, "site_seconds": 1.0, "share_of_retraining": 1 / 2, "bytes": 60, "rounds": 1}
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


def test_only_another_retraining_has_no_ulira(scored):
    _, scores, _ = scored
    rows = pick(scores, measure="mia_ulira_auc", group="all")
    assert set(rows["strategy"]) == {*MODELS}
    assert (pick(rows, strategy="retrained")["value"] == 0.5).all()
